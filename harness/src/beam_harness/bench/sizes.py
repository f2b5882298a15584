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
"""How much a run measures: enough for figures, or enough for a look."""

from __future__ import annotations

import dataclasses

__all__ = ['FULL', 'QUICK', 'Sizes']


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Amounts of work.

  Args:
    rounds: measurements per side.
    engine_requests: of 10 ms each, with 1 in flight.
    engine_records: single records through the engine.
    engine_memory: rows of the small run that is compared with one of ten times
      as many.
    drills, outage_seconds: outages survived, and how long each is.
    slow_rounds: measurements per side of what takes seconds.
    upsert_vectors: written per measurement of processor time.
    bulk_vectors, bulk_namespaces: written per measurement of throughput: so
      many vectors to each of so many namespaces.
    queries: asked per measurement of searching.
    export_vectors: read per measurement of reading.
    memory_vectors, memory_dimension: written in the small run that is compared
      with one of ten times as many; more than the budgets of bytes hold, or
      the small run would not come to its peak.
    memory_pairs: runs of each of the two sizes.
    qdrant_vectors: handed to Beam's Qdrant sink.
  """
  rounds: int
  engine_requests: int
  engine_records: int
  engine_memory: int
  drills: int
  outage_seconds: float
  slow_rounds: int
  upsert_vectors: int
  bulk_vectors: int
  bulk_namespaces: int
  queries: int
  export_vectors: int
  memory_vectors: int
  memory_dimension: int
  memory_pairs: int
  qdrant_vectors: int


FULL = Sizes(
    rounds=9,
    engine_requests=100,
    engine_records=200_000,
    engine_memory=300_000,
    drills=3,
    outage_seconds=30.0,
    slow_rounds=5,
    upsert_vectors=2_000,
    bulk_vectors=8_000,
    bulk_namespaces=4,
    queries=2_000,
    export_vectors=20_000,
    memory_vectors=100_000,
    memory_dimension=768,
    memory_pairs=3,
    qdrant_vectors=200)
QUICK = Sizes(
    rounds=3,
    engine_requests=20,
    engine_records=30_000,
    engine_memory=50_000,
    drills=1,
    outage_seconds=30.0,
    slow_rounds=2,
    upsert_vectors=500,
    bulk_vectors=4_000,
    bulk_namespaces=1,
    queries=300,
    export_vectors=8_000,
    memory_vectors=20_000,
    memory_dimension=1536,
    memory_pairs=1,
    qdrant_vectors=30)
