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
"""What happened to requests and batches, as facts for metrics and settlement."""

from __future__ import annotations

import dataclasses
from typing import Optional

from beam_connector_base.operation import Batch
from beam_connector_base.operation import Replies

__all__ = ['Attempt', 'Report', 'Settled']


@dataclasses.dataclass
class Attempt:
  """One request: how it ended, and how long it took.

  Args:
    outcome: 'ok', 'partial', 'throttled', 'transient', 'timeout', 'refused',
      'too_large' or 'fatal'.
    status: the HTTP status or its equivalent, where there was an answer.
    seconds: from sending to the answer.
    records: rows in the request.
    nbytes: bytes of the request as the wire counts them.
  """
  __slots__ = ('outcome', 'status', 'seconds', 'records', 'nbytes')
  outcome: str
  status: Optional[int]
  seconds: float
  records: int
  nbytes: int


@dataclasses.dataclass
class Report:
  """What happened to one batch, for metrics."""
  destination: str
  records: int
  nbytes: int
  flush: str
  attempts: list[Attempt] = dataclasses.field(default_factory=list)
  written: int = 0
  refused: int = 0
  superseded: int = 0
  retried: int = 0
  throttled_seconds: float = 0.0
  in_flight: int = 0
  connections: int = 0
  cache_hits: int = 0
  cache_misses: int = 0
  joined: int = 0


@dataclasses.dataclass
class Settled:
  """Rows whose fate is decided: `ALL_OK` or one final reply per row."""
  __slots__ = ('batch', 'replies', 'attempts', 'stage')
  batch: Batch
  replies: Replies
  attempts: int
  stage: str
