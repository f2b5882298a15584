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
"""The data plane's writes: upsert, update, delete."""

from __future__ import annotations

from beam_harness.emulators.pinecone import limits
from beam_harness.emulators.pinecone import requests
from beam_harness.emulators.pinecone.errors import invalid
from beam_harness.emulators.pinecone.plane import Plane

__all__ = ['Writes']


class Writes(Plane):
  """Writes; each is applied whole or not at all."""
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
