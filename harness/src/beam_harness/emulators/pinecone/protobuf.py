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
"""Protobuf bytes to requests, and answers to protobuf bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.pinecone import requests
from beam_harness.emulators.pinecone.errors import ServiceError
from beam_harness.emulators.pinecone.messages import blob
from beam_harness.emulators.pinecone.messages import plain

__all__ = ['OPERATIONS', 'decode', 'encode']

_NOTHING = np.zeros(0, dtype=np.float32)

#: Operation and request message of each method of the service.
OPERATIONS = {
    'Upsert': ('upsert', 'UpsertRequest'),
    'Query': ('query', 'QueryRequest'),
    'Fetch': ('fetch', 'FetchRequest'),
    'FetchByMetadata': ('fetch_by_metadata', 'FetchByMetadataRequest'),
    'Delete': ('delete', 'DeleteRequest'),
    'Update': ('update', 'UpdateRequest'),
    'List': ('list', 'ListRequest'),
    'DescribeIndexStats': ('describe_index_stats', 'DescribeIndexStatsRequest'),
    'ListNamespaces': ('list_namespaces', 'ListNamespacesRequest'),
    'DescribeNamespace': ('describe_namespace', 'DescribeNamespaceRequest'),
    'DeleteNamespace': ('delete_namespace', 'DeleteNamespaceRequest'),
    'CreateNamespace': ('create_namespace', 'CreateNamespaceRequest'),
}


def decode(method: str, body: bytes, dimension: int | None) -> Any:
  """The request in a gRPC message.

  Args:
    method: a key of `OPERATIONS`.
    body: the message.
    dimension: of the index, or None. A vector of another length is read once
      more by the letter of the format, in which packed floats may come in
      pieces or unpacked.

  Raises:
    ServiceError: it is not a message of the method.
  """
  name = OPERATIONS[method][1]
  try:
    message = blob(name).FromString(body)
    if name == 'UpsertRequest':
      return _upsert(message, body, dimension)
    return _DECODERS[name](message, body, dimension)
  except DecodeError as e:
    raise ServiceError(
        GRPC_CODES['INTERNAL'],
        f'failed to decode Protobuf message: {e}') from e


def _floats(data: bytes) -> np.ndarray:
  if not data:
    return _NOTHING
  if len(data) % 4:
    raise DecodeError('packed floats are cut short')
  return np.frombuffer(data, dtype='<f4')


def _slow(values: Any) -> np.ndarray:
  return np.array(values, dtype=np.float32)


def _upsert(message, body: bytes, dimension: int | None) -> requests.Upsert:
  expected = 4 * (dimension or 0)
  sent = message.vectors
  vectors = [
      requests.Vector(
          v.id,
          _floats(v.values),
          _sparse(v.sparse_values) if v.HasField('sparse_values') else None,
          _struct(v.metadata) if v.HasField('metadata') else None) for v in sent
  ]
  if any(len(v.values) != expected for v in sent):
    by_letter = plain('UpsertRequest').FromString(body)
    for vector, exact in zip(vectors, by_letter.vectors, strict=True):
      vector.values = _slow(exact.values)
  return requests.Upsert(message.namespace, vectors)


def _query(message, body: bytes, dimension: int | None) -> requests.Query:
  vector = _floats(message.vector)
  if len(vector) != (dimension or 0):
    vector = _slow(plain('QueryRequest').FromString(body).vector)
  return requests.Query(
      message.namespace,
      message.top_k,
      vector,
      message.id,
      _sparse(message.sparse_vector)
      if message.HasField('sparse_vector') else None,
      _filter(message),
      message.include_values,
      message.include_metadata,
      message.scan_factor if message.HasField('scan_factor') else None,
      message.max_candidates if message.HasField('max_candidates') else None)


def _update(message, body: bytes, dimension: int | None) -> requests.Update:
  values = _floats(message.values)
  if len(values) != (dimension or 0):
    values = _slow(plain('UpdateRequest').FromString(body).values)
  return requests.Update(
      message.namespace,
      message.id,
      values,
      _sparse(message.sparse_values)
      if message.HasField('sparse_values') else None,
      _struct(message.set_metadata)
      if message.HasField('set_metadata') else None,
      _filter(message),
      message.dry_run)


def _create_namespace(message, *_) -> requests.CreateNamespace:
  if not message.HasField('schema'):
    return requests.CreateNamespace(message.name)
  fields = message.schema.fields
  return requests.CreateNamespace(
      message.name, [name for name in fields if fields[name].filterable])


def _optional(message, field: str) -> Any:
  return getattr(message, field) if message.HasField(field) else None


_DECODERS: dict[str, Callable[..., Any]] = {
    'QueryRequest':
        _query,
    'UpdateRequest':
        _update,
    'CreateNamespaceRequest':
        _create_namespace,
    'FetchRequest':
        lambda m, *_: requests.Fetch(m.namespace, list(m.ids)),
    'FetchByMetadataRequest':
        lambda m, *_: requests.FetchByMetadata(
            m.namespace, _filter(m), _optional(m, 'limit'), _optional(
                m, 'pagination_token')),
    'DeleteRequest':
        lambda m, *_: requests.Delete(
            m.namespace, list(m.ids), m.delete_all, _filter(m)),
    'ListRequest':
        lambda m, *_: requests.List(
            m.namespace, m.prefix, _optional(m, 'limit'), _optional(
                m, 'pagination_token')),
    'DescribeIndexStatsRequest':
        lambda m, *_: requests.Stats(_filter(m)),
    'ListNamespacesRequest':
        lambda m, *_: requests.ListNamespaces(
            m.prefix, _optional(m, 'limit'), _optional(m, 'pagination_token')),
    'DescribeNamespaceRequest':
        lambda m, *_: requests.DescribeNamespace(m.namespace),
    'DeleteNamespaceRequest':
        lambda m, *_: requests.DeleteNamespace(m.namespace),
}


def _filter(message) -> dict[str, Any] | None:
  return _struct(message.filter) if message.HasField('filter') else None


def _sparse(message) -> requests.Sparse:
  return requests.Sparse(
      np.array(message.indices, dtype=np.uint32),
      np.array(message.values, dtype=np.float32))


def _struct(message) -> dict[str, Any]:
  return {key: _value(value) for key, value in message.fields.items()}


def _value(value) -> Any:
  kind = value.WhichOneof('kind')
  if kind == 'string_value':
    return value.string_value
  if kind == 'number_value':
    return value.number_value
  if kind == 'bool_value':
    return value.bool_value
  if kind == 'list_value':
    return [_value(item) for item in value.list_value.values]
  if kind == 'struct_value':
    return _struct(value.struct_value)
  return None


def encode(answer: Any) -> bytes:
  """The message of an answer of the data plane."""
  return _ENCODERS[type(answer)](answer).SerializeToString()


def _struct_bytes(metadata: requests.Metadata) -> bytes:
  struct = blob('Struct')()
  fields = struct.fields
  for key, value in metadata.items():
    if isinstance(value, bool):
      fields[key].bool_value = value
    elif isinstance(value, str):
      fields[key].string_value = value
    elif isinstance(value, float):
      fields[key].number_value = value
    else:
      values = fields[key].list_value.values
      for item in value:
        values.add().string_value = item
      if not value:
        fields[key].list_value.SetInParent()
  return struct.SerializeToString()


def _fill(message, values, sparse, metadata) -> None:
  """Fills the parts that vectors and scored vectors share."""
  if values is not None and len(values):
    message.values = values.astype('<f4', copy=False).tobytes()
  if sparse is not None:
    message.sparse_values.indices.extend(sparse.indices.tolist())
    message.sparse_values.values.extend(sparse.values.tolist())
  if metadata is not None:
    message.metadata = _struct_bytes(metadata)


def _matches(answer: requests.Matches):
  message = blob('QueryResponse')(namespace=answer.namespace)
  message.usage.read_units = answer.read_units
  for match in answer.matches:
    scored = message.matches.add(id=match.id, score=match.score)
    _fill(scored, match.values, match.sparse, match.metadata)
  return message


def _found(answer: requests.Found):
  name = 'FetchByMetadataResponse' if answer.paged else 'FetchResponse'
  message = blob(name)(namespace=answer.namespace)
  message.usage.read_units = answer.read_units
  for record in answer.records:
    vector = message.vectors[record.id]
    vector.id = record.id
    _fill(vector, record.values, record.sparse, record.metadata)
  if answer.next:
    message.pagination.next = answer.next
  return message


def _listed(answer: requests.Listed):
  message = blob('ListResponse')(namespace=answer.namespace)
  message.usage.read_units = answer.read_units
  for record_id in answer.ids:
    message.vectors.add(id=record_id)
  if answer.next:
    message.pagination.next = answer.next
  return message


def _stats(answer: requests.IndexStats):
  message = blob('DescribeIndexStatsResponse')(
      dimension=answer.dimension,
      total_vector_count=sum(answer.namespaces.values()),
      metric=answer.metric,
      vector_type=answer.vector_type)
  for name, count in answer.namespaces.items():
    message.namespaces[name].vector_count = count
  return message


def _fill_namespace(message, info: requests.NamespaceInfo):
  message.name = info.name
  message.record_count = info.record_count
  message.size_bytes = info.size_bytes
  if info.fields is not None:
    for field in info.fields:
      message.schema.fields[field].filterable = True
    message.indexed_fields.fields.extend(info.fields)
  return message


def _namespaces(answer: requests.Namespaces):
  message = blob('ListNamespacesResponse')(total_count=answer.total_count)
  for info in answer.namespaces:
    _fill_namespace(message.namespaces.add(), info)
  if answer.next:
    message.pagination.next = answer.next
  return message


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    requests.Upserted:
        lambda a: blob('UpsertResponse')(upserted_count=a.count),
    requests.Deleted:
        lambda a: blob('DeleteResponse')(),
    requests.Updated:
        lambda a: blob('UpdateResponse')(matched_records=a.matched),
    requests.Matches:
        _matches,
    requests.Found:
        _found,
    requests.Listed:
        _listed,
    requests.IndexStats:
        _stats,
    requests.NamespaceInfo:
        lambda a: _fill_namespace(blob('NamespaceDescription')(), a),
    requests.Namespaces:
        _namespaces,
}
