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
"""A service small enough to test the emulator framework with.

Records are 'id=value' lines. REST: POST /put, GET /get?id=, POST /echo. gRPC:
the same bodies at /Toy/Put, /Toy/Get, /Toy/Echo.
"""

from __future__ import annotations

import os

from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.core import Answer

KEY = 'toy-secret-key'

_BROKEN = b'=broken='


class KeyValueService:
  name = 'keyvalue'
  partial_operations = ('put',)

  def __init__(self):
    self._rows = {}

  def operation(self, call):
    return call.path.rpartition('/')[2].lower() or 'unknown'

  def count(self, call, operation):
    return len(self._records(call)) if operation == 'put' else 0

  def record_ids(self, call, operation):
    return [each.partition(b'=')[0].decode() for each in self._records(call)]

  def _records(self, call):
    if call.decoded is None:
      call.decoded = call.body.split(b'\n') if call.body else []
    return call.decoded

  def handle(self, call, refuse=None):
    assert type(call.body) is bytes
    if call.headers.get('api-key') != KEY:
      return self.error(
          call.transport,
          401 if call.transport == 'rest' else GRPC_CODES['UNAUTHENTICATED'],
          'Unauthorized')
    operation = self.operation(call)
    if operation == 'put':
      if call.body == _BROKEN:
        raise RuntimeError('the toy is broken')
      refused = []
      for i, record in enumerate(self._records(call)):
        key, _, value = record.decode().partition('=')
        if refuse is not None and refuse(i, key):
          refused.append(key)
        else:
          self._rows[key] = value
      return self._ok(call, ','.join(refused).encode())
    if operation == 'get':
      key = dict(call.query).get('id') or call.body.decode()
      return self._ok(call, self._rows.get(key, '').encode())
    if operation == 'echo':
      return self._ok(call, call.body)
    return self.error(
        call.transport,
        404 if call.transport == 'rest' else GRPC_CODES['UNIMPLEMENTED'],
        f'no such operation: {operation}')

  def _ok(self, call, body):
    if call.transport == 'grpc':
      return Answer(0, body, trailers={'toy-rows': str(len(self._rows))})
    return Answer(
        200,
        body, {
            'content-type': 'text/plain', 'toy-rows': str(len(self._rows))
        })

  def error(self, transport, status, message, retry_after=None):
    if transport == 'grpc':
      return Answer(status, message=message)
    return Answer.json(status, {'toy_error': message})

  def environment(self, host):
    return {'TOY_HOST': f'http://{host}'}

  def reset(self):
    self._rows.clear()

  def seed(self, state):
    if set(state) != {'rows'}:
      raise ValueError('the toy\'s state is {"rows": {...}}')
    self._rows.update(state['rows'])

  def snapshot(self):
    return {'rows': dict(self._rows)}


def create_service(only_in=None):
  """
  Args:
    only_in: a process id; in any other process this fails.
  """
  if only_in not in (None, os.getpid()):
    raise RuntimeError('the toy cannot live here')
  return KeyValueService()
