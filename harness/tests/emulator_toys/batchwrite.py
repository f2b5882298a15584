#
# Licensed to the Apache Software Foundation (ASF) under one or more
# contributor license agreements.  See the NOTICE file distributed with
# this work for additional information regarding copyright ownership.
# The ASF licenses this file to You under the Apache License, Version 2.0
# (the "License"); you may not use this file except in compliance with
# the License.  You may obtain a copy of the License at
#
#    http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
#
"""A feature store that takes records in batches, and answers for each.

In the style of SageMaker's BatchWriteRecord: 1 to 25 entries a request. The
answer is a 200 also when records failed: those are in `Errors`, with a code,
or in `UnprocessedEntries`, as they came; nothing says at which position they
were. Throttling is a 400 that its type tells from others.
"""

from __future__ import annotations

import json

from beam_harness.emulators.core import Answer

KEY = 'feature-store-key-91b2'
MAX_ENTRIES = 25

#: What `event_time` may say so that an entry fails, and how often.
_FAILURES = {
    'never': ('ValidationException', None),
    'busy': ('ThrottlingException', 1),
    'broken': ('InternalFailure', 1),
}


class BatchWriteService:
  name = 'batchwrite'
  partial_operations = ('BatchWriteRecord',)

  def __init__(self):
    self.reset()

  def operation(self, call):
    return call.path.strip('/') or 'unknown'

  def count(self, call, operation):
    return len(_entries(call))

  def record_ids(self, call, operation):
    return [_features(entry).get('id', '') for entry in _entries(call)]

  def handle(self, call, refuse=None):
    if call.headers.get('authorization') != KEY:
      return self.error('rest', 403, 'the security token is invalid')
    if self.operation(call) == 'DescribeFeatureGroup':
      return Answer.json(200, {'FeatureGroupName': 'books'})
    entries = _entries(call)
    if not 1 <= len(entries) <= MAX_ENTRIES:
      return self.error(
          'rest', 400, f'{len(entries)} entries: there may be 1 to 25')
    errors, unprocessed = [], []
    for i, entry in enumerate(entries):
      features = _features(entry)
      code, times = _FAILURES.get(features.get('event_time'), ('', 0))
      seen = self._seen.get(features['id'], 0)
      self._seen[features['id']] = seen + 1
      if code and (times is None or seen < times):
        errors.append({
            'Entry': entry,
            'ErrorCode': code,
            'ErrorMessage': f'{code} of this record'
        })
      elif refuse is not None and refuse(i, features['id']):
        unprocessed.append(entry)
      else:
        group = self._groups.setdefault(entry['FeatureGroupName'], {})
        group[features['id']] = features
    # Not in the order of the request.
    return Answer.json(
        200, {
            'Errors': errors[::-1], 'UnprocessedEntries': unprocessed[::-1]
        })

  def error(self, transport, status, message, retry_after=None):
    kinds = {
        403: 'AccessDeniedException',
        429: 'ThrottlingException',
        400: 'ValidationException'
    }
    return Answer.json(
        400 if status == 429 else status, {'message': message},
        {'x-amzn-errortype': kinds.get(status, 'InternalFailure')})

  def environment(self, host):
    return {'FEATURE_STORE_URL': f'http://{host}', 'FEATURE_STORE_KEY': KEY}

  def reset(self):
    self._groups = {}
    self._seen = {}

  def seed(self, state):
    for group, records in state.items():
      self._groups.setdefault(group, {}).update(records)

  def snapshot(self):
    return self._groups


def _entries(call):
  try:
    return json.loads(call.body)['Entries']
  except (ValueError, KeyError, TypeError):
    return []


def _features(entry):
  return {
      feature['FeatureName']: feature['ValueAsString']
      for feature in entry['Record']
  }


def create_service():
  return BatchWriteService()
