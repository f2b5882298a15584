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
"""The data plane's protobuf messages, from a table of field numbers.

Each message comes in two forms with the same bytes. The plain one has the
service's own field types. The blob one declares packed floats, and the
metadata of answers, as bytes, so that a vector never becomes a list of Python
floats and metadata is encoded once; it is what the emulator reads and writes.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf import struct_pb2

__all__ = ['SERVICE', 'blob', 'plain']

#: Full name of the gRPC service; the package is empty.
SERVICE = 'VectorService'

# Field types: a scalar's or message's name; '*' repeated, '?' with presence,
# 'map:X' a map from strings to X, 'floats' packed floats, 'answer' a Struct
# that only answers carry.
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    'SparseValues': (('indices', 1, 'uint32*'), ('values', 2, 'float*')),
    'Vector': (('id', 1, 'string'), ('values', 2, 'floats'),
               ('metadata', 3, 'Struct'), ('sparse_values', 4, 'SparseValues')),
    'ScoredVector': (
        ('id', 1, 'string'), ('score', 2, 'float'), ('values', 3, 'floats'),
        ('metadata', 4, 'answer'), ('sparse_values', 5, 'SparseValues')),
    'UpsertRequest': (('vectors', 1, 'Vector*'), ('namespace', 2, 'string')),
    'UpsertResponse': (('upserted_count', 1, 'uint32'),),
    'DeleteRequest': (('ids', 1, 'string*'), ('delete_all', 2, 'bool'),
                      ('namespace', 3, 'string'), ('filter', 4, 'Struct')),
    'DeleteResponse': (),
    'FetchRequest': (('ids', 1, 'string*'), ('namespace', 2, 'string')),
    'FetchResponse': (('vectors', 1, 'map:Vector'), ('namespace', 2, 'string'),
                      ('usage', 3, 'Usage')),
    'FetchByMetadataRequest': (
        ('namespace', 1, 'string'), ('filter', 2, 'Struct'),
        ('limit', 3, 'uint32?'), ('pagination_token', 4, 'string?')),
    'FetchByMetadataResponse': (
        ('vectors', 1, 'map:Vector'), ('namespace', 2, 'string'),
        ('usage', 3, 'Usage'), ('pagination', 4, 'Pagination')),
    'ListRequest': (
        ('prefix', 1, 'string?'), ('limit', 2, 'uint32?'),
        ('pagination_token', 3, 'string?'), ('namespace', 4, 'string')),
    'ListItem': (('id', 1, 'string'),),
    'Pagination': (('next', 1, 'string'),),
    'ListResponse': (
        ('vectors', 1, 'ListItem*'), ('pagination', 2, 'Pagination'),
        ('namespace', 3, 'string'), ('usage', 4, 'Usage')),
    'Usage': (('read_units', 1, 'uint32?'),),
    'QueryRequest':
        (('namespace', 1, 'string'), ('top_k', 2, 'uint32'),
         ('filter', 3, 'Struct'), ('include_values', 4, 'bool'),
         ('include_metadata', 5, 'bool'), ('vector', 7, 'floats'),
         ('id', 8, 'string'), ('sparse_vector', 9, 'SparseValues'),
         ('scan_factor', 10, 'float?'), ('max_candidates', 11, 'uint32?')),
    'QueryResponse': (('matches', 2, 'ScoredVector*'),
                      ('namespace', 3, 'string'), ('usage', 4, 'Usage')),
    'UpdateRequest': (('id', 1, 'string'), ('values', 2, 'floats'),
                      ('set_metadata', 3, 'Struct'), ('namespace', 4, 'string'),
                      ('sparse_values', 5, 'SparseValues'),
                      ('filter', 6, 'Struct'), ('dry_run', 7, 'bool?')),
    'UpdateResponse': (('matched_records', 1, 'int32?'),),
    'DescribeIndexStatsRequest': (('filter', 1, 'Struct'),),
    'NamespaceSummary': (('vector_count', 1, 'uint32'),),
    'DescribeIndexStatsResponse':
        (('namespaces', 1, 'map:NamespaceSummary'), ('dimension', 2, 'uint32?'),
         ('index_fullness', 3, 'float'), ('total_vector_count', 4, 'uint32'),
         ('metric', 5, 'string?'), ('vector_type', 6, 'string?'),
         ('memory_fullness', 7, 'float?'), ('storage_fullness', 8, 'float?')),
    'ListNamespacesRequest': (
        ('pagination_token', 1,
         'string?'), ('limit', 2, 'uint32?'), ('prefix', 3, 'string?')),
    'ListNamespacesResponse': (
        ('namespaces', 1, 'NamespaceDescription*'),
        ('pagination', 2, 'Pagination'), ('total_count', 3, 'int32?')),
    'MetadataFieldProperties': (('filterable', 1, 'bool'),),
    'MetadataSchema': (('fields', 1, 'map:MetadataFieldProperties'),),
    'IndexedFields': (('fields', 1, 'string*'),),
    'NamespaceDescription': (
        ('name', 1, 'string'), ('record_count', 2,
                                'uint64'), ('schema', 3, 'MetadataSchema'),
        ('indexed_fields', 4, 'IndexedFields'), ('size_bytes', 5, 'uint64')),
    'DescribeNamespaceRequest': (('namespace', 1, 'string'),),
    'DeleteNamespaceRequest': (('namespace', 1, 'string'),),
    'CreateNamespaceRequest': (
        ('name', 1, 'string'), ('schema', 2, 'MetadataSchema')),
}

# A fetched vector: a Vector whose metadata, in the blob form, is bytes.
_MESSAGES['FetchedVector'] = tuple(
    (name, number, 'answer' if name == 'metadata' else kind)
    for name, number, kind in _MESSAGES['Vector'])

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    'string': _Field.TYPE_STRING,
    'bytes': _Field.TYPE_BYTES,
    'bool': _Field.TYPE_BOOL,
    'float': _Field.TYPE_FLOAT,
    'int32': _Field.TYPE_INT32,
    'uint32': _Field.TYPE_UINT32,
    'uint64': _Field.TYPE_UINT64,
}


def _add_field(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    kind: str,
    blobs: bool) -> None:
  if kind == 'floats':
    kind = 'bytes' if blobs else 'float*'
  elif kind == 'answer':
    kind = 'bytes?' if blobs else 'Struct'
  elif kind == 'map:Vector' and blobs:
    kind = 'map:FetchedVector'
  field = message.field.add(
      name=name, number=number, label=_Field.LABEL_OPTIONAL)
  if kind.startswith('map:'):
    entry = message.nested_type.add(name=f'{name.title()}Entry')
    entry.options.map_entry = True
    _add_field(entry, 'key', 1, 'string', blobs)
    _add_field(entry, 'value', 2, kind[4:], blobs)
    field.label = _Field.LABEL_REPEATED
    field.type = _Field.TYPE_MESSAGE
    field.type_name = f'.{message.name}.{entry.name}'
    return
  base = kind.rstrip('*?')
  if base in _SCALARS:
    field.type = _SCALARS[base]
  else:
    field.type = _Field.TYPE_MESSAGE
    field.type_name = (
        '.google.protobuf.Struct' if base == 'Struct' else f'.{base}')
  if kind.endswith('*'):
    field.label = _Field.LABEL_REPEATED
  elif kind.endswith('?') and base in _SCALARS:
    field.proto3_optional = True
    field.oneof_index = len(message.oneof_decl)
    message.oneof_decl.add(name=f'_{name}')


def _build(blobs: bool) -> dict[str, Any]:
  pool = descriptor_pool.DescriptorPool()
  pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
  file = descriptor_pb2.FileDescriptorProto(
      name='emulated_data_plane.proto',
      syntax='proto3',
      dependency=[struct_pb2.DESCRIPTOR.name])
  for name, fields in _MESSAGES.items():
    message = file.message_type.add(name=name)
    for field in fields:
      _add_field(message, *field, blobs)
  pool.Add(file)
  names = (*_MESSAGES, 'google.protobuf.Struct')
  return {
      name.rpartition('.')[2]:
          message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
      for name in names
  }


_PLAIN = _build(blobs=False)
_BLOB = _build(blobs=True)


def plain(name: str) -> Any:
  """The class of a message with the service's field types."""
  return _PLAIN[name]


def blob(name: str) -> Any:
  """The class of a message with vectors, and answers' metadata, as bytes."""
  return _BLOB[name]
