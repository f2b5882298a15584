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
"""The data plane's operations on one index, whatever the transport."""

from __future__ import annotations

import base64
import binascii
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.pinecone import limits
from beam_harness.emulators.pinecone import requests
from beam_harness.emulators.pinecone import scoring
from beam_harness.emulators.pinecone.errors import ServiceError
from beam_harness.emulators.pinecone.errors import invalid
from beam_harness.emulators.pinecone.errors import not_found
from beam_harness.emulators.pinecone.filters import compile_filter
from beam_harness.emulators.pinecone.limits import DEFAULT_NAMESPACE
from beam_harness.emulators.pinecone.limits import Rules
from beam_harness.emulators.pinecone.store import Index
from beam_harness.emulators.pinecone.store import Namespace
from beam_harness.emulators.pinecone.store import Rows

__all__ = ['DataPlane', 'READS', 'WRITES']

WRITES = frozenset({
    'upsert',
    'delete',
    'update',
    'create_namespace',
    'delete_namespace',
})
READS = frozenset({
    'query',
    'fetch',
    'fetch_by_metadata',
    'list',
    'describe_index_stats',
    'list_namespaces',
    'describe_namespace',
})

_NO_ROWS = Rows(None)


class DataPlane:
  """Carries out requests on one index.

  Attributes:
    lsn: after a write its log sequence number, after a read that of the last
      write it could see; None where there is none.
  """
  def __init__(
      self,
      index: Index,
      rules: Rules,
      clock: Callable[[], float],
      *,
      old_api: bool = False):
    """
    Args:
      index: the index.
      rules: limits and switches.
      clock: seconds, for writes that become visible late.
      old_api: whether the request names an API version before 2025-04.
    """
    self._index = index
    self._rules = rules
    self._clock = clock
    self._old_api = old_api
    self.lsn: int | None = None

  def run(self, operation: str, request: Any) -> Any:
    """The answer to a request.

    Raises:
      ServiceError: the service refuses it.
    """
    if self._index.documents and operation in ('upsert', 'update', 'delete'):
      raise invalid(
          f'Index {self._index.name} was created with a schema of its own and '
          'does not take vector operations. Use the documents API: POST '
          '/namespaces/{namespace}/documents/upsert')
    return getattr(self, '_' + operation)(request)

  # Writes.

  def _upsert(self, request: requests.Upsert) -> requests.Upserted:
    name = self._name(request.namespace)
    vectors = request.vectors
    dense = limits.check_vectors(
        self._rules, vectors, self._index.dimension, self._writes_sparse())
    namespace = self._made(name)
    if self._rules.discard_records:
      namespace.discarded += len(vectors)
      self.lsn = namespace.write(lambda rows: None)
      return requests.Upserted(len(vectors))
    ids = [vector.id for vector in vectors]
    sparse = [vector.sparse for vector in vectors]
    metadata = [vector.metadata for vector in vectors]
    self.lsn = namespace.write(
        lambda rows: rows.put(ids, dense, sparse, metadata))
    return requests.Upserted(len(vectors))

  def _delete(self, request: requests.Delete) -> requests.Deleted:
    name = self._name(request.namespace)
    given = bool(request.ids) + request.delete_all + (
        request.filter is not None)
    if given != 1:
      raise invalid('Exactly one of ids, delete_all and filter must be given')
    limits.check_filter_given(request.filter)
    if request.ids:
      limits.check_ids(request.ids, self._rules.max_delete_ids)
    predicate = None if request.filter is None else self._predicate(
        request.filter)
    namespace = self._existing(name)
    ids = request.ids
    if predicate is not None:
      ids = [
          record.id
          for record in namespace.committed
          if predicate(record.metadata)
      ]
    if request.delete_all:
      namespace.discarded = 0
      self.lsn = namespace.write(lambda rows: rows.clear())
    else:
      self.lsn = namespace.write(lambda rows: rows.remove(ids))
    if self._rules.empty_namespace == 'drop' and not namespace.committed:
      del self._index.namespaces[name]
    return requests.Deleted()

  def _update(self, request: requests.Update) -> requests.Updated:
    name = self._name(request.namespace)
    if bool(request.id) == (request.filter is not None):
      raise invalid('Exactly one of id and filter must be given')
    if request.filter is None:
      return self._update_by_id(name, request)
    limits.check_filter_given(request.filter)
    if len(request.values) or request.sparse is not None:
      raise invalid('An update by filter can only set metadata')
    if not request.set_metadata:
      raise invalid('An update by filter must set metadata')
    predicate = self._predicate(request.filter)
    metadata = limits.check_metadata(self._rules, request.set_metadata)
    namespace = self._index.namespaces.get(name)
    if namespace is None:
      return requests.Updated(0)
    matched = [
        record for record in namespace.committed if predicate(record.metadata)
    ]
    if not request.dry_run:
      for record in matched:
        self._check_merged(record, metadata)
      ids = [record.id for record in matched]
      self.lsn = namespace.write(
          lambda rows: rows.patch(ids, None, None, metadata))
    return requests.Updated(len(matched))

  def _update_by_id(
      self, name: str, request: requests.Update) -> requests.Updated:
    limits.check_id(request.id)
    if request.dry_run:
      raise invalid('dry_run needs a filter')
    values = request.values if len(request.values) else None
    if values is not None:
      limits.check_dense(values, self._index.dimension, request.id)
    limits.check_sparse(request.sparse, self._writes_sparse())
    metadata = request.set_metadata
    if metadata is not None:
      metadata = limits.check_metadata(self._rules, metadata)
    namespace = self._index.namespaces.get(name)
    if namespace is None:
      return requests.Updated(None)
    record = namespace.committed.get(request.id)
    if record is not None and metadata:
      self._check_merged(record, metadata)
    self.lsn = namespace.write(
        lambda rows: rows.patch([request.id], values, request.sparse, metadata))
    return requests.Updated(None)

  def _check_merged(
      self, record: requests.Record, metadata: requests.Metadata) -> None:
    limits.check_metadata(self._rules, {**(record.metadata or {}), **metadata})

  # Reads.

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
    limits.check_result_size(self._rules, sum(map(_wire_bytes, matches)))
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
    limits.check_result_size(self._rules, sum(map(_wire_bytes, present)))
    return requests.Found(present, name, _fetch_units(len(present)))

  def _fetch_by_metadata(
      self, request: requests.FetchByMetadata) -> requests.Found:
    name = self._name(request.namespace)
    if request.filter is None:
      raise invalid('filter must be given')
    limits.check_filter_given(request.filter)
    limit = limits.check_limit(request.limit, self._rules.max_fetch_by_metadata)
    after = _after(request.pagination_token)
    predicate = self._predicate(request.filter)
    rows = self._scans(name)
    page: list[requests.Record] = []
    size, following = 0, None
    for record_id in rows.page('', after, len(rows))[0]:
      record = rows.get(record_id)
      if not predicate(record.metadata):
        continue
      size += _wire_bytes(record)
      if page and (len(page) == limit or size > self._rules.max_result_bytes):
        following = _token(page[-1].id)
        break
      page.append(record)
    return requests.Found(
        page, name, _fetch_units(len(page)), following, paged=True)

  def _list(self, request: requests.List) -> requests.Listed:
    name = self._name(request.namespace)
    limit = limits.check_limit(request.limit)
    after = _after(request.pagination_token)
    ids, more = self._scans(name).page(request.prefix, after, limit)
    return requests.Listed(ids, name, 1, _token(ids[-1]) if more else None)

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

  # Namespaces.

  def _create_namespace(
      self, request: requests.CreateNamespace) -> requests.NamespaceInfo:
    if not request.name or request.name == DEFAULT_NAMESPACE:
      raise invalid('The default namespace cannot be created explicitly')
    name = self._name(request.name)
    if name in self._index.namespaces:
      raise ServiceError(
          GRPC_CODES['ALREADY_EXISTS'], f'Namespace {name} already exists')
    namespace = self._made(name)
    namespace.fields = request.fields
    return self._info(name)

  def _describe_namespace(
      self, request: requests.DescribeNamespace) -> requests.NamespaceInfo:
    name = self._name(request.namespace)
    self._existing(name)
    return self._info(name)

  def _delete_namespace(
      self, request: requests.DeleteNamespace) -> requests.Deleted:
    name = self._name(request.namespace)
    self._existing(name)
    del self._index.namespaces[name]
    return requests.Deleted()

  def _list_namespaces(
      self, request: requests.ListNamespaces) -> requests.Namespaces:
    limit = limits.check_limit(request.limit)
    after = _after(request.pagination_token)
    shown = {name or DEFAULT_NAMESPACE: name for name in self._index.namespaces}
    names = sorted(name for name in shown if name.startswith(request.prefix))
    rest = [name for name in names if name > after]
    page = rest[:limit]
    return requests.Namespaces([self._info(shown[name]) for name in page],
                               len(names),
                               _token(page[-1]) if len(rest) > limit else None)

  def _info(self, name: str) -> requests.NamespaceInfo:
    namespace = self._index.namespaces[name]
    return requests.NamespaceInfo(
        name or DEFAULT_NAMESPACE,
        self._count(name),
        namespace.committed.nbytes,
        namespace.fields)

  # Helpers.

  def _name(self, sent: str) -> str:
    return limits.check_namespace(sent, old_api=self._old_api)

  def _predicate(self, expression):
    if expression is None:
      return None
    return compile_filter(
        expression, negation_matches_missing=self._rules.ne_missing == 'match')

  def _writes_sparse(self) -> bool:
    return self._index.queries_sparse or self._rules.sparse_on_any_metric

  def _existing(self, name: str) -> Namespace:
    namespace = self._index.namespaces.get(name)
    if namespace is None:
      raise not_found('Namespace not found')
    return namespace

  def _made(self, name: str) -> Namespace:
    namespace = self._index.namespaces.get(name)
    if namespace is None:
      if len(self._index.namespaces) >= self._rules.max_namespaces:
        raise ServiceError(
            GRPC_CODES['FAILED_PRECONDITION'],
            f'An index has at most {self._rules.max_namespaces} namespaces')
      namespace = Namespace(self._index.dimension, self._rules, self._clock)
      self._index.namespaces[name] = namespace
    return namespace

  def _points(self, name: str) -> Rows:
    namespace = self._index.namespaces.get(name)
    if namespace is None or self._index.documents:
      return _NO_ROWS
    rows, self.lsn = namespace.points()
    return rows

  def _scans(self, name: str) -> Rows:
    namespace = self._index.namespaces.get(name)
    if namespace is None or self._index.documents:
      return _NO_ROWS
    rows, self.lsn = namespace.scans()
    return rows

  def _count(self, name: str) -> int:
    namespace = self._index.namespaces[name]
    return len(namespace.scans()[0]) + namespace.discarded


def _wire_bytes(item: requests.Record | requests.Match) -> int:
  """About what a record takes in an answer, on either transport."""
  size = len(item.id) + 16
  if item.values is not None:
    size += 4 * len(item.values)
  if item.sparse is not None:
    size += 9 * len(item.sparse.indices)
  return size + limits.metadata_bytes(item.metadata)


def _fetch_units(records: int) -> int:
  """Read units of a fetch: one for ten records, at least one."""
  return max(1, -(-records // 10))


def _token(last: str) -> str:
  """A page's token: where the next one begins, hidden from clients."""
  return base64.urlsafe_b64encode(json.dumps({
      'skip_past': last
  }).encode()).decode()


def _after(token: str | None) -> str:
  if not token:
    return ''
  try:
    last = json.loads(base64.urlsafe_b64decode(token))['skip_past']
    if not isinstance(last, str):
      raise ValueError
    return last
  except (ValueError, KeyError, TypeError, binascii.Error) as e:
    raise invalid('Invalid pagination token') from e
