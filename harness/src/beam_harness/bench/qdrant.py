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
"""What Beam's own Qdrant sink costs an item, on the same vectors.

Not a race: another store and another client. It shows what measuring a batch
by the size of its Python objects comes to. The sink's own DoFn runs here, with
a client that takes everything and does nothing, so that no line of Qdrant's
client is counted.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from beam_connector_base.batching import Batcher
from beam_connector_base.batching import Ready
from beam_connector_base.operation import Block
from beam_harness.bench import toy
from beam_harness.bench import writing
from beam_harness.bench.measure import Side
from beam_harness.bench.measure import interleave
from beam_harness.bench.measure import median
from beam_harness.bench.measure import ratio
from beam_harness.bench.place import Place
from beam_harness.bench.results import Result
from beam_harness.bench.results import not_measured
from beam_harness.bench.sizes import Sizes
from beam_harness.bench.vectors import Vectors

__all__ = ['per_item']

NAME = "encoding and batching, against Beam's own Qdrant sink"
UNIT = 'ms CPU/1,000 vectors'
DIMENSION = 1536


@dataclasses.dataclass
class _Point:
  """What the sink's converter makes of a chunk: Qdrant's PointStruct."""
  id: str
  vector: dict[str, list[float]]
  payload: dict[str, Any]


class _Nowhere:
  """A client that takes all points."""
  def __init__(self):
    self.points = 0

  def upsert(self, *, points: Sequence[_Point], **_: Any) -> None:
    self.points += len(points)


def per_item(place: Place, sizes: Sizes) -> Result:
  """The processor time of the sink's DoFn, and of what we do instead."""
  root = logging.getLogger()
  level = root.level
  try:
    root.setLevel(logging.ERROR)  # It warns of a missing client.
    from apache_beam.ml.rag.ingestion import qdrant
    write_fn = qdrant._QdrantWriteFn
  except (AttributeError, ImportError) as e:
    return not_measured(NAME, UNIT, None, 'pinecone', f'{e}')
  finally:
    root.setLevel(level)
  config = qdrant.QdrantWriteConfig(
      qdrant.QdrantConnectionParameters.in_memory(), 'bench')
  vectors = Vectors(sizes.qdrant_vectors, DIMENSION)
  points = [
      _Point(name, {'dense': values}, {})
      for name, values in zip(vectors.ids, vectors.lists, strict=True)
  ]

  def theirs() -> None:
    client = _Nowhere()
    fn = write_fn(config)
    fn._client = client
    fn.start_bundle()
    for point in points:
      fn.process(point)
    fn.finish_bundle()
    if client.points != len(points):
      raise AssertionError(f'{client.points} of {len(points)} points')

  with toy.opened(writing.dispatcher(place.host, 1000, 1)) as dispatcher:
    session = dispatcher.session

    def ours() -> None:
      batcher = Batcher(session.limits, 1 << 30)
      ready: Ready = []
      for record in vectors.records:
        for block in session.encode(record):
          assert isinstance(block, Block)
          batcher.add(None, block, ready)
      batcher.flush(ready)
      if sum(batch.n for batch, _ in ready) != vectors.n:
        raise AssertionError('a vector is in no batch')

    samples = interleave({
        'ours': Side(ours, vectors.n, 4),
        'Qdrant sink': Side(theirs, vectors.n)
    },
                         sizes.rounds)
  costs = {name: [s.cpu_us for s in taken] for name, taken in samples.items()}
  return Result(
      NAME,
      UNIT,
      median(costs['ours']),
      median(costs['Qdrant sink']),
      ratio=ratio(costs['ours'], costs['Qdrant sink']),
      group='pinecone',
      note='lists of 1536 floats; its DoFn, which measures Python objects, with '
      'a client that does nothing; ours encodes and cuts batches by the bytes '
      'on the wire; neither sends anything; no target',
      samples=costs)
