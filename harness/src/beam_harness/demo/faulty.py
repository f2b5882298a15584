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
"""What goes wrong in the demo's second half, on purpose and reproducibly."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from beam_harness.demo.corpus import FAQ
from beam_harness.demo.corpus import STDLIB
from beam_harness.demo.embedding import DIMENSION
from beam_harness.faults import FaultPlan
from beam_harness.faults import FaultRule

__all__ = ['MAX_RECORDS', 'SERVICE_OPTIONS', 'bad_records', 'fault_plan']

#: Records per request, few so that there are many requests.
MAX_RECORDS = 20

#: Options of the emulated service: it takes less metadata than Pinecone's
#: documentation says, which the connector cannot know. What is refused by the
#: service itself stays out of the index also when the answer to it is lost.
SERVICE_OPTIONS = {'max_metadata_bytes': 20_000}


def fault_plan() -> FaultPlan:
  """Of ten upserts one fails and one is throttled; of twenty one is carried
  out and then its answer is lost.
  """
  return FaultPlan([
      FaultRule('error', operation='upsert', every=10, skip=1, status=503),
      FaultRule(
          'throttle', operation='upsert', every=10, skip=2, retry_after=0.1),
      FaultRule(
          'reset', operation='upsert', every=20, skip=3, after_effect=True),
  ])


def bad_records() -> list[dict[str, Any]]:
  """Five records that cannot be written, each for a reason of its own."""
  uniform = random.Random(0).uniform

  def record(doc_id: str, namespace: str, **changes: Any) -> dict[str, Any]:
    values = np.array([uniform(-1, 1) for _ in range(DIMENSION)], np.float32)
    return {
        'id': doc_id,
        'namespace': namespace,
        'title': 'planted by the demo',
        'text': 'a record that must be refused',
        'values': values,
        **changes,
    }

  with_nan = record('planted-nan', STDLIB)
  with_nan['values'][7] = np.nan
  return [
      with_nan,
      record(
          'planted-short-vector',
          FAQ,
          values=np.ones(DIMENSION - 1, np.float32)),
      record('planted-long-id-' + 'x' * 512, STDLIB),
      record('planted-large-metadata', FAQ, text='x' * 50_000),
      # The poisoned one: only the service finds out, and refuses every request
      # that holds it.
      record('planted-poison', FAQ, text='x' * 30_000),
  ]
