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
"""Our ways to write: the engine alone, and a pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_connector_base import Tuning
from beam_connector_base.dispatcher import Dispatcher
from beam_harness.bench import toy
from beam_harness.bench.place import INDEX
from beam_harness.bench.place import connection_to
from beam_harness.bench.vectors import Vectors
from beam_harness.bench.vectors import record_batch
from beam_pinecone import WriteToPinecone
from beam_pinecone.encode.layout import Layout
from beam_pinecone.operations.upserts import UpsertVectors

__all__ = [
    'BLOCK_ROWS',
    'Writers',
    'dispatcher',
    'options',
    'tenant_blocks',
    'write_blocks',
    'write_made_up'
]

BLOCK_ROWS = 1000
# With 1536 float32s a vector, 50 MB/s per namespace are 8,100 vectors/s: the
# documented rate, which the connector keeps to and the official client doesn't
# know. Spread over so many namespaces it binds neither.
NAMESPACES = 16

# What the pipeline of this process reads: a pipeline is pickled, and vectors
# have no business in it.
_blocks: list[pa.RecordBatch] = []


def dispatcher(
    host: str, batch: int, in_flight: int, namespace: str = '') -> Dispatcher:
  """What the write transform feeds, without Beam."""
  operation = UpsertVectors(
      INDEX, Layout.of(namespace=namespace), connection_to(host))
  return Dispatcher(operation, Tuning(max_records=batch, in_flight=in_flight))


class Writers:
  """Dispatchers that take turns, each with a namespace of its own.

  One alone would keep to the documented rate of its namespace, so that the
  time would be spent waiting.
  """
  def __init__(self, host: str, batch: int, in_flight: int):
    self._all = [
        dispatcher(host, batch, in_flight, f'namespace-{i}')
        for i in range(NAMESPACES)
    ]
    self._turns = itertools.cycle(self._all)

  def __enter__(self) -> Writers:
    for each in self._all:
      each.open()
    return self

  def __exit__(self, *exc: object) -> None:
    for each in self._all:
      each.close()

  def feed(self, elements: Iterable[Any]) -> None:
    """Delivers elements through the next one."""
    toy.feed(next(self._turns), elements)


def options() -> PipelineOptions:
  """One worker in this process, in memory."""
  return PipelineOptions(['--runner=FnApiRunner'])


def write_blocks(
    host: str, blocks: Sequence[pa.RecordBatch], batch: int,
    in_flight: int) -> None:
  """Writes RecordBatches through a pipeline, each to its column `tenant`."""
  _blocks[:] = blocks
  with beam.Pipeline(options=options()) as pipeline:
    _ = (
        pipeline
        | beam.Create(range(len(blocks)))
        | beam.Map(_block)
        | WriteToPinecone(
            INDEX,
            namespace='{tenant}',
            connection=connection_to(host),
            tuning=Tuning(max_records=batch, in_flight=in_flight)))
  _blocks.clear()


def tenant_blocks(vectors: Vectors,
                  namespaces: Sequence[str]) -> list[pa.RecordBatch]:
  """All vectors for each of the namespaces, as `write_blocks` takes them."""
  return [
      record_batch(
          vectors.ids[i:i + BLOCK_ROWS],
          vectors.array[i:i + BLOCK_ROWS],
          tenant=namespace)
      for namespace in namespaces
      for i in range(0, vectors.n, BLOCK_ROWS)
  ]


def write_made_up(host: str, rows: int, dimension: int) -> None:
  """Writes so many vectors through a pipeline, made as they are needed."""
  with beam.Pipeline(options=options()) as pipeline:
    _ = (
        pipeline
        | beam.Create(range(0, rows, BLOCK_ROWS))
        | beam.FlatMap(_made_up, dimension)
        | WriteToPinecone(
            INDEX, namespace='{tenant}', connection=connection_to(host)))


def _block(number: int) -> pa.RecordBatch:
  return _blocks[number]


def _made_up(first: int, dimension: int) -> Iterator[pa.RecordBatch]:
  values = np.random.default_rng(first).standard_normal((BLOCK_ROWS, dimension),
                                                        dtype=np.float32)
  yield record_batch([f'vector-{first + i}' for i in range(BLOCK_ROWS)],
                     values,
                     tenant=f'tenant-{first // BLOCK_ROWS % NAMESPACES}')
