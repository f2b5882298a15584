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
"""The official client's ways, each as good as its documentation makes it.

It keeps retry budgets and bulk limits by host name for the whole process; no
request fails here, so that they stay at their best.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
from pinecone import Pinecone
from pinecone.grpc import GrpcIndex

from beam_harness.bench.place import Place
from beam_harness.bench.vectors import Vectors

__all__ = ['grpc_index', 'rest_index', 'upsert_bulk', 'upsert_each']


@contextlib.contextmanager
def grpc_index(place: Place) -> Iterator[GrpcIndex]:
  """A handle that speaks gRPC."""
  with _quiet():
    index = GrpcIndex(
        host=place.host, api_key=place.api_key, grpc_scheme='http')
  try:
    yield index
  finally:
    index.close()


@contextlib.contextmanager
def rest_index(place: Place) -> Iterator[Any]:
  """A handle that speaks REST."""
  with _quiet():
    index = Pinecone(api_key=place.api_key).index(host=place.host)
  try:
    yield index
  finally:
    index.close()


def upsert_each(
    index: Any,
    ids: Sequence[str],
    values: Any,
    batch: int,
    *,
    convert: bool = False) -> None:
  """One call per batch, one after the other.

  Args:
    index: a handle.
    ids: of the vectors.
    values: as many rows: lists, or an array.
    batch: vectors per call.
    convert: whether to make lists of an array, a batch at a time; else the
      client is given its rows and does so itself.
  """
  for i in range(0, len(ids), batch):
    rows = values[i:i + batch]
    if convert:
      rows = rows.tolist()
    done = index.upsert(vectors=list(zip(ids[i:i + batch], rows, strict=True)))
    if done.upserted_count != len(rows):
      raise AssertionError(f'{done.upserted_count} of {len(rows)} were written')


def upsert_bulk(
    index: Any,
    vectors: Vectors,
    batch: int,
    in_flight: int,
    namespaces: Sequence[str] = ('',),
    *,
    convert: bool = False) -> None:
  """One call for all vectors (per namespace): `batch_size=`.

  Args:
    index: a handle.
    vectors: what to write.
    batch: vectors per request.
    in_flight: requests in flight.
    namespaces: each gets all vectors.
    convert: as in `upsert_each`, all at once.
  """
  for namespace in namespaces:
    values: list[Any] | np.ndarray = vectors.array
    if convert:
      values = vectors.array.tolist()
    done = index.upsert(
        vectors=list(zip(vectors.ids, values, strict=True)),
        namespace=namespace,
        batch_size=batch,
        max_concurrency=in_flight,
        show_progress=False)
    # Failed batches do not raise.
    if done.has_errors or done.upserted_count != vectors.n:
      raise AssertionError(f'{done.upserted_count} of {vectors.n} were written')


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without the client's warning that the emulator speaks plain http."""
  logger = logging.getLogger('pinecone')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)
