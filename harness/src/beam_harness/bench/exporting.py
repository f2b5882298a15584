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
"""Reading an index, against `list` and `fetch` of the official client."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from beam_connector_base import Tuning
from beam_harness.bench import official
from beam_harness.bench import place as places
from beam_harness.bench import writing
from beam_harness.bench.measure import Side
from beam_harness.bench.measure import interleave
from beam_harness.bench.place import INDEX
from beam_harness.bench.place import Place
from beam_harness.bench.results import Result
from beam_harness.bench.results import Target
from beam_harness.bench.results import compare
from beam_harness.bench.sizes import Sizes
from beam_harness.bench.vectors import Vectors
from beam_pinecone.read import ReadFromPinecone

__all__ = ['export']

DIMENSION = 1536
IN_FLIGHT = 8
NAMESPACES = [f'tenant-{i}' for i in range(8)]
# Of the namespaces, for the side that takes longest for each.
FEW = 2
DELAY_SECONDS = 0.010

# What the pipeline of this process has read.
_rows: list[int] = []


def export(sizes: Sizes) -> Iterator[Result]:
  """Vectors per second when answers take 10 ms."""
  each = sizes.export_vectors // len(NAMESPACES)
  every = each * len(NAMESPACES)
  with contextlib.ExitStack() as stack:
    place = stack.enter_context(places.opened(DIMENSION))
    writing.write_blocks(
        place.host,
        writing.tenant_blocks(Vectors(each, DIMENSION), NAMESPACES),
        100,
        IN_FLIGHT)
    place.delay(DELAY_SECONDS)
    pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(IN_FLIGHT))
    index = stack.enter_context(official.grpc_index(place))
    samples = interleave({
        'ours, blocks':
            Side(lambda: _read(place, every, as_blocks=True), every),
        'list + fetch':
            Side(
                lambda: _loop(index, NAMESPACES[:FEW], each * FEW), each * FEW),
        'ours, rows':
            Side(lambda: _read(place, every, as_blocks=False), every),
        'list + fetch, 8 threads':
            Side(lambda: _pooled(index, pool, every), every),
    },
                         sizes.slow_rounds)
  what = f'{every:,} vectors of {DIMENSION} dimensions in {len(NAMESPACES)} '
  for ours, peer, name, target, note in (
      ('ours, blocks', 'list + fetch', 'export against list + fetch of the '
       'official client', Target.at_least(4), 'the peer is its gRPC handle: a '
       'page of ids, a fetch of them, and so on'),
      ('ours, rows', 'list + fetch, 8 threads', 'export as rows against list + '
       'fetch in a thread per namespace', None, 'no target')):
    yield compare(
        name,
        samples,
        ours,
        peer,
        group='pinecone',
        unit='vectors/s',
        by=lambda sample: sample.rate,
        better='higher',
        target=target,
        note=f'10 ms delay, {what}namespaces, {IN_FLIGHT} in flight, the start '
        f'of the pipeline counts too; {note}')


def _read(place: Place, expected: int, *, as_blocks: bool) -> None:
  """Reads the index through a pipeline."""
  _rows.clear()
  with beam.Pipeline(options=writing.options()) as pipeline:
    _ = (
        pipeline
        | ReadFromPinecone(
            INDEX,
            as_blocks=as_blocks,
            connection=place.connection,
            tuning=Tuning(in_flight=IN_FLIGHT))
        | beam.Map(_count_block if as_blocks else _count_row))
  if sum(_rows) != expected:
    raise AssertionError(f'{sum(_rows)} of {expected} vectors were read')


def _count_block(block: Any) -> None:
  _rows.append(block.num_rows)


def _count_row(row: Any) -> None:
  _rows.append(1)


def _loop(index: Any, namespaces: Sequence[str], expected: int) -> None:
  """Reads namespaces with the official client, one after the other."""
  read = sum(_official(index, namespace) for namespace in namespaces)
  if read != expected:
    raise AssertionError(f'{read} of {expected} vectors were read')


def _pooled(
    index: Any, pool: concurrent.futures.ThreadPoolExecutor,
    expected: int) -> None:
  """Reads all namespaces with the official client, side by side."""
  read = sum(pool.map(lambda name: _official(index, name), NAMESPACES))
  if read != expected:
    raise AssertionError(f'{read} of {expected} vectors were read')


def _official(index: Any, namespace: str) -> int:
  read = 0
  for page in index.list(namespace=namespace):
    ids = [item.id for item in page.vectors]
    read += len(index.fetch(ids=ids, namespace=namespace).vectors)
  return read
