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
"""The service's messages as protobuf-python makes them, to compare with.

Built from descriptors here: field numbers and types are those of the service's
own proto file, version 2026-07, which has no package.
"""

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf import struct_pb2  # noqa: F401, registers Struct

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    'string': _Field.TYPE_STRING,
    'float': _Field.TYPE_FLOAT,
    'uint32': _Field.TYPE_UINT32,
}


def _file():
  file = descriptor_pb2.FileDescriptorProto(
      name='beam_pinecone_test_messages.proto',
      syntax='proto3',
      dependency=['google/protobuf/struct.proto'])

  def message(name, *fields):
    entry = file.message_type.add(name=name)
    for number, label, kind, field_name in fields:
      field = entry.field.add(name=field_name, number=number)
      field.label = (
          _Field.LABEL_REPEATED if label == '*' else _Field.LABEL_OPTIONAL)
      if kind in _TYPES:
        field.type = _TYPES[kind]
      else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = '.' + kind
      if label == '?':
        field.proto3_optional = True
        field.oneof_index = len(entry.oneof_decl)
        entry.oneof_decl.add(name='_' + field_name)

  message(
      'SparseValues', (1, '*', 'uint32', 'indices'),
      (2, '*', 'float', 'values'))
  # A map is a repeated entry on the wire. Spelled out, its order is ours to
  # choose: protobuf-python has no order by key (6.33 puts 'aa' before 'a').
  message(
      'Entry', (1, '?', 'string', 'key'),
      (2, '?', 'google.protobuf.Value', 'value'))
  message('Metadata', (1, '*', 'Entry', 'fields'))
  message(
      'OrderedVector', (1, '', 'string', 'id'), (2, '*', 'float', 'values'),
      (3, '', 'Metadata', 'metadata'), (4, '', 'SparseValues', 'sparse_values'))
  message(
      'OrderedUpsertRequest', (1, '*', 'OrderedVector', 'vectors'),
      (2, '', 'string', 'namespace'))
  message(
      'Vector', (1, '', 'string', 'id'), (2, '*', 'float', 'values'),
      (3, '', 'google.protobuf.Struct', 'metadata'),
      (4, '', 'SparseValues', 'sparse_values'))
  message(
      'UpsertRequest', (1, '*', 'Vector', 'vectors'),
      (2, '', 'string', 'namespace'))
  message('UpsertResponse', (1, '', 'uint32', 'upserted_count'))
  message('NamespaceSummary', (1, '', 'uint32', 'vector_count'))
  message(
      'DescribeIndexStatsResponse', (2, '?', 'uint32', 'dimension'),
      (3, '', 'float', 'index_fullness'),
      (4, '', 'uint32', 'total_vector_count'), (5, '?', 'string', 'metric'),
      (6, '?', 'string', 'vector_type'),
      (1, '*', 'DescribeIndexStatsResponse.NamespacesEntry', 'namespaces'))
  entry = file.message_type[-1].nested_type.add(name='NamespacesEntry')
  entry.options.map_entry = True
  entry.field.add(
      name='key',
      number=1,
      type=_Field.TYPE_STRING,
      label=_Field.LABEL_OPTIONAL)
  entry.field.add(
      name='value',
      number=2,
      type=_Field.TYPE_MESSAGE,
      type_name='.NamespaceSummary',
      label=_Field.LABEL_OPTIONAL)
  return file


_pool = descriptor_pool.Default()
_pool.Add(_file())


def _class(name):
  return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


UpsertRequest = _class('UpsertRequest')
OrderedUpsertRequest = _class('OrderedUpsertRequest')
UpsertResponse = _class('UpsertResponse')
DescribeIndexStatsResponse = _class('DescribeIndexStatsResponse')


def upsert_request(vectors, namespace=''):
  """A request from dicts with id, values, metadata, sparse_values."""
  request = UpsertRequest(namespace=namespace)
  for vector in vectors:
    message = request.vectors.add(id=vector['id'])
    message.values.extend(vector.get('values') or ())
    sparse = vector.get('sparse_values')
    if sparse:
      message.sparse_values.indices.extend(sparse['indices'])
      message.sparse_values.values.extend(sparse['values'])
    metadata = {
        k: v for k, v in (vector.get('metadata') or {}).items() if v is not None
    }
    if metadata:
      message.metadata.update(metadata)
  return request


def upsert_bytes(vectors, namespace=''):
  """The request's bytes, metadata in the order of the keys' bytes."""
  request = OrderedUpsertRequest(namespace=namespace)
  for message in upsert_request(vectors, namespace).vectors:
    ordered = request.vectors.add(id=message.id, values=message.values)
    if message.HasField('sparse_values'):
      ordered.sparse_values.CopyFrom(message.sparse_values)
    for key in sorted(message.metadata.fields):
      value = message.metadata.fields[key]
      ordered.metadata.fields.add(key=key, value=value)
  return request.SerializeToString()


def read_request(data):
  """Namespace and vectors of a request, as plain data."""
  request = UpsertRequest.FromString(data)
  out = {}
  for vector in request.vectors:
    sparse = vector.sparse_values
    metadata = {}
    for key, value in vector.metadata.fields.items():
      kind = value.WhichOneof('kind')
      metadata[key] = ([v.string_value for v in value.list_value.values]
                       if kind == 'list_value' else getattr(value, kind))
    out[vector.id] = {
        'values': list(vector.values),
        'sparse': dict(zip(sparse.indices, sparse.values, strict=True)),
        'metadata': metadata,
    }
  return request.namespace, out
