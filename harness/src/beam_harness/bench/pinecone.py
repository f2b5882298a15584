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
"""Writing to Pinecone against the official client, and against the floor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from beam_harness.bench import floor
from beam_harness.bench import memory
from beam_harness.bench import official
from beam_harness.bench import place as places
from beam_harness.bench import qdrant
from beam_harness.bench import writing
from beam_harness.bench.exporting import export
from beam_harness.bench.measure import Sample
from beam_harness.bench.measure import Side
from beam_harness.bench.measure import best_of
from beam_harness.bench.measure import interleave
from beam_harness.bench.place import Place
from beam_harness.bench.results import Result
from beam_harness.bench.results import Target
from beam_harness.bench.results import compare
from beam_harness.bench.searching import search
from beam_harness.bench.sizes import Sizes
from beam_harness.bench.vectors import Vectors

__all__ = ['SECTIONS']

GROUP = 'pinecone'
DIMENSION = 1536
BATCH = 100
IN_FLIGHT = 8
DELAY_SECONDS = 0.010
# 100 vectors of 1536 floats are 3 MB of JSON; the vendor's own benchmark sends
# that, beyond the documented 2 MB.
MAX_UPSERT_BYTES = 8_000_000

ARROW = 'ours, Arrow'
NUMPY = 'ours, numpy rows'
LISTS = 'ours, lists'
GRPC_LISTS = 'gRPC, lists'
# All the ways of a peer to get rid of the same data; its best counts.
GRPC_WAYS = ('gRPC, numpy rows', 'gRPC, batch.tolist()')
REST_WAYS = ('REST bulk, numpy rows', 'REST bulk, array.tolist()')
GRPC_BULK_WAYS = ('gRPC bulk, numpy rows', 'gRPC bulk, array.tolist()')
FLOORS = ('bytes, blocking', 'bytes, asyncio')

Samples = Mapping[str, Sequence[Sample]]


def upserts(sizes: Sizes) -> Iterator[Result]:
  """The processor time of the client, for all the ways of writing."""
  vectors = Vectors(sizes.upsert_vectors, DIMENSION)
  with contextlib.ExitStack() as stack:
    place = stack.enter_context(_place())
    sides = _sides(place, vectors, stack)
    samples = interleave(sides, sizes.rounds)
    written = place.records('upsert')
  expected = sum(s.work * s.repeat for s in sides.values()) * (sizes.rounds + 1)
  if written != expected:
    raise AssertionError(
        f'{written} vectors arrived, {expected} were to be written')
  fastest = best_of(samples, GRPC_WAYS, _cpu)
  yield _cpu_result(
      'upsert from numpy/Arrow against the official gRPC client',
      samples,
      ARROW,
      fastest,
      Target.at_most(1 / 6),
      f'1536-d float32, batch {BATCH}; the peer makes one call per batch; its '
      f'best of {len(GRPC_WAYS)} ways: {fastest}')
  fastest = best_of(samples, REST_WAYS, _cpu)
  yield _cpu_result(
      'upsert from numpy/Arrow against the official REST bulk path',
      samples,
      ARROW,
      fastest,
      Target.at_most(1 / 12),
      f'the peer with batch_size={BATCH} and {IN_FLIGHT} threads; its best of '
      f'{len(REST_WAYS)} ways: {fastest}')
  fastest = best_of(samples, FLOORS, _cpu)
  yield _cpu_result(
      'upsert from numpy/Arrow against sending pre-built bytes',
      samples,
      ARROW,
      fastest,
      Target.at_most(2.5),
      'the floor sends the same requests, made before, through grpcio; the '
      f'cheaper of {len(FLOORS)} ways: {fastest}',
      floor=True)
  yield _cpu_result(
      'upsert from Python lists against the official gRPC client',
      samples,
      LISTS,
      GRPC_LISTS,
      Target.at_most(1),
      f'list[float], batch {BATCH}; the peer makes one call per batch')
  fastest = best_of(samples, GRPC_WAYS, _cpu)
  yield _cpu_result(
      'upsert of single records with numpy rows, against the same',
      samples,
      NUMPY,
      fastest,
      None,
      'dicts instead of RecordBatches; no target')


def throughput(sizes: Sizes) -> Iterator[Result]:
  """Vectors per second through a pipeline when answers take 10 ms."""
  vectors = Vectors(sizes.bulk_vectors, DIMENSION)
  namespaces = [f'tenant-{i}' for i in range(sizes.bulk_namespaces)]
  blocks = writing.tenant_blocks(vectors, namespaces)
  work = vectors.n * len(namespaces)
  with _place() as place, official.grpc_index(place) as index:
    place.delay(DELAY_SECONDS, 'upsert')

    def bulk(convert: bool) -> Side:
      return Side(
          lambda: official.upsert_bulk(
              index, vectors, BATCH, IN_FLIGHT, namespaces, convert=convert),
          work)

    samples = interleave({
        'ours':
            Side(
                lambda: writing.write_blocks(
                    place.host, blocks, BATCH, IN_FLIGHT),
                work),
        GRPC_BULK_WAYS[0]:
            bulk(False),
        GRPC_BULK_WAYS[1]:
            bulk(True),
    },
                         sizes.slow_rounds)
  fastest = best_of(samples, GRPC_BULK_WAYS, lambda sample: sample.wall)
  yield compare(
      'blocks of Arrow through a pipeline against the official gRPC bulk path',
      samples,
      'ours',
      fastest,
      group=GROUP,
      unit='vectors/s',
      by=lambda sample: sample.rate,
      better='higher',
      target=Target.at_least(1),
      note=f'10 ms delay, {work:,} vectors of {DIMENSION} dimensions in '
      f'{len(namespaces)} namespace(s), batch {BATCH}, {IN_FLIGHT} in flight; '
      'the start of the pipeline counts too; the best of '
      f'{len(GRPC_BULK_WAYS)} ways of the peer: {fastest}')


def peak_memory(sizes: Sizes) -> Iterator[Result]:
  """The memory of a pipeline that writes, while its input grows tenfold."""
  dimension = sizes.memory_dimension
  with places.opened(dimension, discard_records=True) as place:
    yield memory.tenfold(
        'peak memory of writing vectors',
        'pinecone',
        sizes.memory_vectors,
        group=GROUP,
        note=f'{dimension} dimensions, made as they are needed, through a '
        'pipeline; the emulator checks and counts the vectors and does not '
        'keep them',
        pairs=sizes.memory_pairs,
        arguments=['--host', place.host, '--dimension', str(dimension)])


def beam_peer(sizes: Sizes) -> Iterator[Result]:
  """Beam's own sink for another store, on the same vectors."""
  with _place() as place:
    yield qdrant.per_item(place, sizes)


#: What is measured, in this order.
SECTIONS = (upserts, throughput, search, export, peak_memory, beam_peer)


def _place() -> contextlib.AbstractContextManager[Place]:
  """An index that counts vectors and does not keep them."""
  return places.opened(
      DIMENSION, discard_records=True, max_upsert_bytes=MAX_UPSERT_BYTES)


def _sides(place: Place, vectors: Vectors,
           stack: contextlib.ExitStack) -> dict[str, Side]:
  """All ways of writing the vectors once."""
  ours = stack.enter_context(writing.Writers(place.host, BATCH, IN_FLIGHT))
  grpc = stack.enter_context(official.grpc_index(place))
  rest = stack.enter_context(official.rest_index(place))
  method = stack.enter_context(floor.blocking(place))
  on_loop = floor.AsyncFloor(place, IN_FLIGHT)
  stack.callback(on_loop.close)
  ids, array, lists = vectors.ids, vectors.array, vectors.lists
  blocks = vectors.blocks(writing.BLOCK_ROWS)
  requests = vectors.requests(BATCH)
  rows = [{
      'id': name, 'values': values
  } for name, values in zip(ids, array, strict=True)]

  def side(run: Callable[[], object], repeat: int = 1) -> Side:
    return Side(run, vectors.n, repeat)

  def each(values: Any, convert: bool = False) -> Side:
    return side(
        lambda: official.upsert_each(grpc, ids, values, BATCH, convert=convert))

  def bulk(convert: bool) -> Side:
    return side(
        lambda: official.upsert_bulk(
            rest, vectors, BATCH, IN_FLIGHT, convert=convert))

  # What is soon over is done several times.
  return {
      ARROW: side(lambda: ours.feed(blocks), 4),
      GRPC_WAYS[0]: each(array),
      GRPC_WAYS[1]: each(array, convert=True),
      REST_WAYS[0]: bulk(False),
      REST_WAYS[1]: bulk(True),
      FLOORS[0]: side(lambda: floor.send_each(method, place, requests), 4),
      FLOORS[1]: side(lambda: on_loop.send(requests), 4),
      LISTS: side(lambda: ours.feed(vectors.records), 2),
      GRPC_LISTS: each(lists),
      NUMPY: side(lambda: ours.feed(rows), 2),
  }


def _cpu(sample: Sample) -> float:
  return sample.cpu_us


def _cpu_result(
    name: str,
    samples: Samples,
    ours: str,
    other: str,
    target: Target | None,
    note: str,
    *,
    floor: bool = False) -> Result:
  # Microseconds per vector are milliseconds per 1,000.
  return compare(
      name,
      samples,
      ours,
      other,
      group=GROUP,
      unit='ms CPU/1,000 vectors',
      by=_cpu,
      target=target,
      note=note,
      floor=floor)
