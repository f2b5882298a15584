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
"""The service's messages of queries and fetches, as protobuf-python has them.

Built from descriptors, as in `pinecone_messages`, in a pool of their own.
"""

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf import struct_pb2

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    'string': _Field.TYPE_STRING,
    'float': _Field.TYPE_FLOAT,
    'double': _Field.TYPE_DOUBLE,
    'uint32': _Field.TYPE_UINT32,
    'uint64': _Field.TYPE_UINT64,
    'bool': _Field.TYPE_BOOL,
}
_SCORED = ((1, 'string', 'id'), (2, 'float', 'score'), (3, 'float*', 'values'),
           (4, 'google.protobuf.Struct',
            'metadata'), (5, 'SparseValues', 'sparse_values'))
# Maps spelled out, so that the order of their entries is ours to choose.
_MESSAGES = {
    'SparseValues': ((1, 'uint32*', 'indices'), (2, 'float*', 'values')),
    'Usage': ((1, 'uint32?', 'read_units'),),
    'OrderedStruct': ((1, 'OrderedEntry*', 'fields'),),
    'OrderedEntry': ((1, 'string?', 'key'), (2, 'OrderedValue', 'value')),
    'OrderedList': ((1, 'OrderedValue*', 'values'),),
    'OrderedValue':
        ((2, 'double?', 'number_value'), (3, 'string?', 'string_value'),
         (4, 'bool?', 'bool_value'), (5, 'OrderedStruct', 'struct_value'),
         (6, 'OrderedList', 'list_value')),
    'QueryRequest':
        ((1, 'string', 'namespace'), (2, 'uint32', 'top_k'),
         (3, 'google.protobuf.Struct', 'filter'), (4, 'bool', 'include_values'),
         (5, 'bool', 'include_metadata'), (7, 'float*', 'vector'),
         (8, 'string', 'id'), (9, 'SparseValues', 'sparse_vector')),
    'OrderedQueryRequest':
        ((1, 'string', 'namespace'), (2, 'uint32', 'top_k'),
         (3, 'OrderedStruct', 'filter'), (4, 'bool', 'include_values'),
         (5, 'bool', 'include_metadata'), (7, 'float*', 'vector'),
         (8, 'string', 'id'), (9, 'SparseValues', 'sparse_vector')),
    'ScoredVector':
        _SCORED,
    'QueryResponse': ((2, 'ScoredVector*', 'matches'),
                      (3, 'string', 'namespace'), (4, 'Usage', 'usage')),
    'Vector': ((1, 'string', 'id'), (2, 'float*', 'values'),
               (3, 'google.protobuf.Struct',
                'metadata'), (4, 'SparseValues', 'sparse_values')),
    'FetchRequest': ((1, 'string*', 'ids'), (2, 'string', 'namespace')),
    'FetchResponse': ((1, 'map Vector', 'vectors'), (2, 'string', 'namespace'),
                      (3, 'Usage', 'usage')),
    'ListItem': ((1, 'string', 'id'),),
    'Pagination': ((1, 'string', 'next'),),
    'ListRequest': (
        (1, 'string?', 'prefix'), (2, 'uint32?', 'limit'),
        (3, 'string?', 'pagination_token'), (4, 'string', 'namespace')),
    'ListResponse': (
        (1, 'ListItem*', 'vectors'), (2, 'Pagination', 'pagination'),
        (3, 'string', 'namespace'), (4, 'Usage', 'usage')),
    'NamespaceDescription': (
        (1, 'string', 'name'), (2, 'uint64', 'record_count')),
    'ListNamespacesRequest': (
        (1, 'string?', 'pagination_token'), (2, 'uint32?', 'limit'),
        (3, 'string?', 'prefix')),
    'ListNamespacesResponse': (
        (1, 'NamespaceDescription*', 'namespaces'),
        (2, 'Pagination', 'pagination'), (3, 'uint32?', 'total_count')),
    'DescribeNamespaceRequest': ((1, 'string', 'namespace'),),
    'DeleteNamespaceRequest': ((1, 'string', 'namespace'),),
    'FetchByMetadataRequest': (
        (1, 'string', 'namespace'), (2, 'google.protobuf.Struct', 'filter'),
        (3, 'uint32?', 'limit'), (4, 'string?', 'pagination_token')),
    'FetchByMetadataResponse': (
        (1, 'map Vector', 'vectors'), (2, 'string', 'namespace'),
        (3, 'Usage', 'usage'), (4, 'Pagination', 'pagination')),
    'DeleteRequest': (
        (1, 'string*', 'ids'), (2, 'bool', 'delete_all'),
        (3, 'string', 'namespace'), (4, 'google.protobuf.Struct', 'filter')),
    'UpdateRequest':
        ((1, 'string', 'id'), (2, 'float*', 'values'),
         (3, 'google.protobuf.Struct', 'set_metadata'),
         (4, 'string', 'namespace'), (5, 'SparseValues', 'sparse_values'),
         (6, 'google.protobuf.Struct', 'filter'), (7, 'bool?', 'dry_run')),
    'UpdateResponse': ((1, 'uint32?', 'matched_records'),),
    # A writer that packs no floats: a reader has to take both.
    'UnpackedVector': ((1, 'string', 'id'), (2, 'float*!', 'values')),
    'UnpackedScored': (
        (1, 'string', 'id'), (2, 'float', 'score'), (3, 'float*!', 'values')),
}


def _add(message, number, kind, name):
  field = message.field.add(name=name, number=number)
  field.label = _Field.LABEL_OPTIONAL
  if kind.startswith('map '):
    entry = message.nested_type.add(name=f'{name.title()}Entry')
    entry.options.map_entry = True
    _add(entry, 1, 'string', 'key')
    _add(entry, 2, kind[4:], 'value')
    field.label = _Field.LABEL_REPEATED
    kind = f'{message.name}.{entry.name}'
  if '*' in kind:
    field.label = _Field.LABEL_REPEATED
  if kind.endswith('!'):
    field.options.packed = False
  if kind.endswith('?'):
    field.proto3_optional = True
    field.oneof_index = len(message.oneof_decl)
    message.oneof_decl.add(name='_' + name)
  kind = kind.rstrip('*!?')
  if kind in _TYPES:
    field.type = _TYPES[kind]
  else:
    field.type = _Field.TYPE_MESSAGE
    field.type_name = '.' + kind


def _classes():
  file = descriptor_pb2.FileDescriptorProto(
      name='beam_pinecone_query_messages.proto',
      syntax='proto3',
      dependency=['google/protobuf/struct.proto'])
  for name, fields in _MESSAGES.items():
    message = file.message_type.add(name=name)
    for number, kind, field in fields:
      _add(message, number, kind, field)
  pool = descriptor_pool.DescriptorPool()
  pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
  pool.Add(file)
  return {
      name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
      for name in (*_MESSAGES, 'google.protobuf.Struct')
  }


_CLASSES = _classes()

QueryRequest = _CLASSES['QueryRequest']
QueryResponse = _CLASSES['QueryResponse']
ScoredVector = _CLASSES['ScoredVector']
FetchRequest = _CLASSES['FetchRequest']
FetchResponse = _CLASSES['FetchResponse']
Vector = _CLASSES['Vector']
Struct = _CLASSES['google.protobuf.Struct']
UnpackedVector = _CLASSES['UnpackedVector']
UnpackedScored = _CLASSES['UnpackedScored']


def message(name):
  """The class of a message, by its name in the service's definition."""
  return _CLASSES[name]


def ordered_struct(values):
  """A Struct whose entries are in the order of their keys' bytes."""
  message = _CLASSES['OrderedStruct']()
  _fill_struct(message, values)
  return message


def _fill_struct(message, values):
  for key in sorted(values):
    entry = message.fields.add(key=key)
    _fill(entry.value, values[key])


def _fill(message, value):
  if isinstance(value, bool):
    message.bool_value = value
  elif isinstance(value, (int, float)):
    message.number_value = value
  elif isinstance(value, str):
    message.string_value = value
  elif isinstance(value, dict):
    message.struct_value.SetInParent()
    _fill_struct(message.struct_value, value)
  else:
    message.list_value.SetInParent()
    for item in value:
      _fill(message.list_value.values.add(), item)


def query_bytes(
    top_k,
    namespace='',
    filter=None,
    vector=(),
    id='',
    sparse=None,
    include_values=False,
    include_metadata=False):
  """A QueryRequest's bytes, the filter in the order of its keys' bytes."""
  request = _CLASSES['OrderedQueryRequest'](
      namespace=namespace,
      top_k=top_k,
      id=id,
      vector=vector,
      include_values=include_values,
      include_metadata=include_metadata)
  if filter is not None:
    request.filter.SetInParent()
    _fill_struct(request.filter, filter)
  if sparse is not None:
    request.sparse_vector.indices.extend(sparse['indices'])
    request.sparse_vector.values.extend(sparse['values'])
  return request.SerializeToString()


def fill_vector(message, values=(), metadata=None, sparse=None):
  """Fills what Vector and ScoredVector have in common."""
  message.values.extend(values)
  if metadata is not None:
    message.metadata.SetInParent()
    message.metadata.update(metadata)
  if sparse is not None:
    message.sparse_values.indices.extend(sparse['indices'])
    message.sparse_values.values.extend(sparse['values'])
  return message
