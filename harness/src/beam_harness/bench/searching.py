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
"""Searching through the transform, against the official client in threads."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np

from beam_connector_base import Tuning
from beam_harness.bench import official
from beam_harness.bench import place as places
from beam_harness.bench import toy
from beam_harness.bench import writing
from beam_harness.bench.measure import Sample
from beam_harness.bench.measure import Side
from beam_harness.bench.measure import best_of
from beam_harness.bench.measure import interleave
from beam_harness.bench.place import INDEX
from beam_harness.bench.place import Place
from beam_harness.bench.results import Result
from beam_harness.bench.results import Target
from beam_harness.bench.results import compare
from beam_harness.bench.sizes import Sizes
from beam_harness.bench.vectors import Vectors
from beam_pinecone import SearchPinecone

__all__ = ['search']

DIMENSION = 1536
STORED = 200
TOP_K = 10
IN_FLIGHT = 16
DELAY_SECONDS = 0.010
# A pipeline of so few queries is the start of a pipeline.
FEW = IN_FLIGHT
WAYS = ('gRPC, 16 threads', 'REST, 16 threads')

# What the pipeline of this process reads and finds: vectors have no business
# in a pickled pipeline.
_queries: list[np.ndarray] = []
_found: list[int] = []


def search(sizes: Sizes) -> Iterator[Result]:
  """Queries per second of processor time when answers take 10 ms."""
  n = sizes.queries
  # All different: nothing is gained by asking once for equal queries.
  queries = list(Vectors(FEW + n, DIMENSION).array)
  with contextlib.ExitStack() as stack:
    place = stack.enter_context(places.opened(DIMENSION))
    with toy.opened(writing.dispatcher(place.host, 100, 1)) as dispatcher:
      toy.feed(dispatcher, _stored())
    place.delay(DELAY_SECONDS, 'query')
    pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(IN_FLIGHT))
    grpc = stack.enter_context(official.grpc_index(place))
    rest = stack.enter_context(official.rest_index(place))
    samples = interleave({
        'whole pipeline': Side(lambda: _search(place, queries), FEW + n),
        'its start': Side(lambda: _search(place, queries[:FEW]), FEW),
        WAYS[0]: Side(lambda: _ask(grpc, pool, queries[:n]), n),
        WAYS[1]: Side(lambda: _ask(rest, pool, queries[:n]), n),
    },
                         sizes.slow_rounds)
  samples['ours'] = [
      Sample(whole.wall - start.wall, whole.cpu - start.cpu, n)
      for whole, start in zip(
          samples['whole pipeline'], samples['its start'], strict=True)
  ]
  fastest = best_of(samples, WAYS, lambda sample: sample.cpu_us)
  for name, peer, target, note in (
      ('search through a pipeline against the official client in threads',
       fastest, Target.at_least(2),
       f'the best of {len(WAYS)} ways of the peer: {fastest}'),
      ('search through a pipeline against the official REST client in threads',
       WAYS[1], None, 'no target')):
    yield compare(
        name,
        samples,
        'ours',
        peer,
        group='pinecone',
        unit='queries/s/core',
        by=lambda sample: sample.rate_per_core,
        better='higher',
        target=target,
        note=f'10 ms delay, {n:,} different queries by numpy vectors of '
        f'{DIMENSION} dimensions, top_k={TOP_K} with metadata, {IN_FLIGHT} in '
        'flight, no rate limit; queries per second of processor time of the '
        'client, without that of a pipeline of a few queries, its start; '
        f'{note}')


def _stored() -> list[dict[str, Any]]:
  vectors = Vectors(STORED, DIMENSION)
  return [{
      'id': name, 'values': values, 'lang': 'en', 'number': i
  } for i, (name,
            values) in enumerate(zip(vectors.ids, vectors.array, strict=True))]


def _search(place: Place, queries: list[np.ndarray]) -> None:
  """Searches through a pipeline."""
  _queries[:] = queries
  _found.clear()
  with beam.Pipeline(options=writing.options()) as pipeline:
    _ = (
        pipeline
        | beam.Create([0])
        | beam.FlatMap(_questions)
        | SearchPinecone(
            INDEX,
            TOP_K,
            queries_per_second=None,
            connection=place.connection,
            tuning=Tuning(in_flight=IN_FLIGHT))
        | beam.Map(_count))
  if len(_found) != len(queries) or set(_found) != {TOP_K}:
    raise AssertionError(f'{len(_found)} of {len(queries)} were answered')


def _questions(_: Any) -> Iterator[dict[str, Any]]:
  for number, vector in enumerate(_queries):
    yield {'number': number, 'vector': vector}


def _count(element: dict[str, Any]) -> None:
  _found.append(len(element['matches']))


def _ask(
    index: Any,
    pool: concurrent.futures.ThreadPoolExecutor,
    queries: list[np.ndarray]) -> None:
  """Asks the official client from the threads of a pool."""
  def ask(vector: np.ndarray) -> int:
    answer = index.query(
        vector=vector.tolist(), top_k=TOP_K, include_metadata=True)
    return len(answer.matches)

  if set(pool.map(ask, queries)) != {TOP_K}:
    raise AssertionError('a query found too few')
