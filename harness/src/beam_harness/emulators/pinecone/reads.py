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
"""The data plane's reads: query, fetch, list, stats."""

from __future__ import annotations

import random

import numpy as np

from beam_harness.emulators.pinecone import limits
from beam_harness.emulators.pinecone import requests
from beam_harness.emulators.pinecone import scoring
from beam_harness.emulators.pinecone.errors import invalid
from beam_harness.emulators.pinecone.plane import Plane
from beam_harness.emulators.pinecone.plane import fetch_units
from beam_harness.emulators.pinecone.plane import page_after
from beam_harness.emulators.pinecone.plane import page_token
from beam_harness.emulators.pinecone.plane import wire_bytes
from beam_harness.emulators.pinecone.store import Rows

__all__ = ['Reads']


class Reads(Plane):
  """Reads; a namespace that is not there is an empty one."""
  def _query(self, request: requests.Query) -> requests.Matches:
    name = self._name(request.namespace)
    limits.check_top_k(self._rules, request.top_k)
    predicate = self._predicate(request.filter)
    if request.id:
      if len(request.vector) or request.sparse is not None:
        raise invalid('A query takes either an id or a vector, not both')
      limits.check_id(request.id)
    elif not self._index.documents:
      limits.check_sparse(request.sparse, self._index.queries_sparse)
      if self._index.dimension is not None or len(request.vector):
        limits.check_dense(request.vector, self._index.dimension, None)
      elif request.sparse is None:
        raise invalid('Sparse vector must contain at least one value')
    rows = self._points(name)
    vector, sparse = request.vector, request.sparse
    if request.id:
      record = rows.get(request.id)
      if record is None:
        return requests.Matches([], name, 1)
      vector = record.values
      sparse = record.sparse if self._index.queries_sparse else None
    found = self._best(rows, vector, sparse, predicate, request.top_k)
    matches = []
    for slot, score in found:
      record = rows.at(slot)
      match = requests.Match(record.id, score)
      if request.include_values:
        match.values, match.sparse = record.values, record.sparse
      if request.include_metadata:
        match.metadata = record.metadata
      matches.append(match)
    limits.check_result_size(self._rules, sum(map(wire_bytes, matches)))
    if self._rules.match_order == 'loose' and len(matches) >= 3:
      random.Random(len(matches)).shuffle(matches)
    return requests.Matches(matches, name, 1)

  def _best(
      self,
      rows: Rows,
      vector: np.ndarray,
      sparse: requests.Sparse | None,
      predicate,
      top_k: int) -> list[tuple[int, float]]:
    if not len(rows):
      return []
    chosen = None
    if predicate is not None:
      chosen = np.flatnonzero(
          np.fromiter(map(predicate, rows.metadata), bool, len(rows)))
    products = None
    if sparse is not None:
      products, overlap = rows.sparse_rows.dot(sparse)
      if (self._index.dimension is None
          and self._rules.sparse_without_overlap == 'omit'):
        shared = np.flatnonzero(overlap)
        chosen = shared if chosen is None else np.intersect1d(chosen, shared)
    if self._index.dimension is None:
      vector = np.zeros(0, dtype=np.float32)
    return scoring.best(
        self._index.metric,
        vector,
        rows.dense,
        rows.squares,
        rows.ids,
        top_k,
        extra=products,
        chosen=chosen)

  def _fetch(self, request: requests.Fetch) -> requests.Found:
    name = self._name(request.namespace)
    limits.check_ids(request.ids, self._rules.max_fetch_ids)
    rows = self._points(name)
    records = [rows.get(record_id) for record_id in dict.fromkeys(request.ids)]
    present = [record for record in records if record is not None]
    limits.check_result_size(self._rules, sum(map(wire_bytes, present)))
    return requests.Found(present, name, fetch_units(len(present)))

  def _fetch_by_metadata(
      self, request: requests.FetchByMetadata) -> requests.Found:
    name = self._name(request.namespace)
    if request.filter is None:
      raise invalid('filter must be given')
    limits.check_filter_given(request.filter)
    limit = limits.check_limit(request.limit, self._rules.max_fetch_by_metadata)
    past = page_after(request.pagination_token)
    predicate = self._predicate(request.filter)
    rows = self._scans(name)
    page: list[requests.Record] = []
    size, following = 0, None
    for record_id in rows.page('', past, len(rows))[0]:
      record = rows.get(record_id)
      assert record is not None
      if not predicate(record.metadata):
        continue
      size += wire_bytes(record)
      if page and (len(page) == limit or size > self._rules.max_result_bytes):
        following = page_token(page[-1].id)
        break
      page.append(record)
    return requests.Found(
        page, name, fetch_units(len(page)), following, paged=True)

  def _list(self, request: requests.List) -> requests.Listed:
    name = self._name(request.namespace)
    limit = limits.check_limit(request.limit)
    past = page_after(request.pagination_token)
    ids, more = self._scans(name).page(request.prefix, past, limit)
    return requests.Listed(ids, name, 1, page_token(ids[-1]) if more else None)

  def _describe_index_stats(
      self, request: requests.Stats) -> requests.IndexStats:
    if request.filter:
      raise invalid(
          'Serverless and Starter indexes do not support describing index '
          'stats with metadata filtering')
    counts = {}
    for name in sorted(self._index.namespaces):
      shown = name or self._rules.default_namespace
      counts[shown] = self._count(name)
    if self._index.documents:
      return requests.IndexStats({}, None, None, 'dense')
    return requests.IndexStats(
        counts,
        self._index.dimension,
        self._index.metric,
        self._index.vector_type)
