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

__all__ = ['MAX_RECORDS', 'bad_records', 'fault_plan']

#: Records per request, few so that there are many requests.
MAX_RECORDS = 20

_POISON = 'planted-poison'


def fault_plan() -> FaultPlan:
  """Of ten upserts one fails and one is throttled; one in twenty is applied
  and then its answer is lost; one record makes every request it is in fail.
  """
  return FaultPlan([
      FaultRule('error', operation='upsert', every=10, skip=2, status=503),
      FaultRule(
          'throttle', operation='upsert', every=10, skip=5, retry_after=0.2),
      FaultRule(
          'reset', operation='upsert', every=20, skip=3, after_effect=True),
      FaultRule(
          'poison',
          operation='upsert',
          records=f'^{_POISON}$',
          message=f'record {_POISON!r} cannot be stored (injected fault)'),
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
      record(_POISON, FAQ),
  ]
