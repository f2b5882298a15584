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
"""Bytes in and out of the emulated Pinecone: protobuf and JSON."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from beam_harness.emulators.pinecone import json_answers
from beam_harness.emulators.pinecone import protobuf
from beam_harness.emulators.pinecone import requests
from beam_harness.emulators.pinecone.messages import blob
from beam_harness.emulators.pinecone.messages import plain

VALUES = st.lists(st.floats(width=32, allow_nan=False), max_size=6)
SPARSE = st.one_of(
    st.none(),
    st.dictionaries(st.integers(0, 2**32 - 1), st.floats(width=32), max_size=4))
METADATA = st.dictionaries(
    st.text(max_size=4),
    st.one_of(
        st.booleans(),
        st.text(max_size=6),
        st.floats(allow_nan=False, allow_infinity=False),
        st.lists(st.text(max_size=3), max_size=3)),
    max_size=4)


def struct_of(metadata):
  message = plain('Struct')()
  for key, value in metadata.items():
    message.fields[key].SetInParent()
    if isinstance(value, list):
      message.fields[key].list_value.SetInParent()
    message[key] = value
  return message


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=5), VALUES, SPARSE, METADATA), max_size=4),
    st.text(max_size=5),
    st.integers(0, 6))
def test_upsert_is_read_as_it_was_written(vectors, namespace, dimension):
  message = plain('UpsertRequest')(namespace=namespace)
  for record_id, values, sparse, metadata in vectors:
    vector = message.vectors.add(id=record_id, values=values)
    if sparse is not None:
      vector.sparse_values.SetInParent()
      vector.sparse_values.indices.extend(sparse)
      vector.sparse_values.values.extend(sparse.values())
    vector.metadata.CopyFrom(struct_of(metadata))
  body = message.SerializeToString()
  request = protobuf.decode('Upsert', body, dimension)
  assert request.namespace == namespace
  assert len(request.vectors) == len(vectors)
  for found, (record_id, values, sparse, metadata) in zip(request.vectors,
                                                          vectors,
                                                          strict=True):
    assert found.id == record_id
    np.testing.assert_array_equal(found.values, np.array(values, dtype='f4'))
    assert (found.sparse is None) == (sparse is None)
    if sparse is not None:
      assert found.sparse.indices.tolist() == list(sparse)
      np.testing.assert_array_equal(
          found.sparse.values, np.array(list(sparse.values()), dtype='f4'))
    assert found.metadata == metadata


def field(number, payload, wire_type=2):
  tag = bytes([number << 3 | wire_type])
  return tag + (bytes([len(payload)]) if wire_type == 2 else b'') + payload


@pytest.mark.parametrize(
    'values',
    [
        field(2, struct.pack('<3f', 1, 2, 3)),
        field(2, struct.pack('<f', 1)) + field(2, struct.pack('<2f', 2, 3)),
        b''.join(field(2, struct.pack('<f', x), 5) for x in (1, 2, 3)),
        field(2, struct.pack('<2f', 1, 2)) + field(2, struct.pack('<f', 3), 5),
    ],
    ids=['packed', 'packed in pieces', 'unpacked', 'both'])
def test_floats_are_read_in_every_form_the_format_allows(values):
  body = field(1, field(1, b'a') + values)
  (vector,) = protobuf.decode('Upsert', body, 3).vectors
  assert vector.values.tolist() == [1, 2, 3]


def test_both_forms_of_a_message_have_the_same_bytes():
  values = [0.25, -1.5, 3.0]
  a = plain('QueryRequest')(top_k=3, vector=values, include_values=True)
  b = blob('QueryRequest')(
      top_k=3, vector=struct.pack('<3f', *values), include_values=True)
  assert a.SerializeToString() == b.SerializeToString()
  assert plain('ScoredVector').FromString(
      blob('ScoredVector')(
          id='a', score=.5, values=struct.pack(
              '<3f', *values)).SerializeToString()) == plain('ScoredVector')(
                  id='a', score=.5, values=values)


def test_bytes_are_those_the_service_speaks():
  # Vector{id 1, values 2 packed, sparse_values 4{indices 1, values 2}}
  # in UpsertRequest{vectors 1, namespace 2}.
  message = plain('UpsertRequest')(namespace='n')
  vector = message.vectors.add(id='a', values=[1.0])
  vector.sparse_values.indices.append(300)
  vector.sparse_values.values.append(2.0)
  assert message.SerializeToString().hex() == (
      '0a15'  # vectors
      '0a0161'  # id
      '12040000803f'  # values
      '220a0a02ac02120400000040'  # sparse_values
      '12016e')  # namespace


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(max_size=5),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            st.lists(
                st.floats(width=32, allow_nan=False, allow_infinity=False),
                max_size=5),
            METADATA),
        max_size=4))
def test_matches_say_the_same_on_both_transports(matches):
  answer = requests.Matches([
      requests.Match(
          record_id, score, np.array(values, dtype='f4'), None, data)
      for record_id, score, values, data in matches
  ],
                            'n',
                            3)
  message = plain('QueryResponse').FromString(protobuf.encode(answer))
  value = json.loads(json_answers.encode(answer))
  assert (message.namespace, message.usage.read_units) == ('n', 3)
  assert (value['namespace'], value['usage']) == ('n', {'readUnits': 3})
  for sent, read, found in zip(
      matches, message.matches, value['matches'], strict=True):
    record_id, score, values, data = sent
    assert record_id == read.id == found['id']
    assert score == read.score == np.float32(found['score'])
    assert values == list(read.values)
    assert values == [np.float32(x) for x in found['values']]
    assert found['metadata'] == data
    assert read.metadata == struct_of(data)


def test_json_floats_are_as_short_as_a_float32_allows():
  answer = requests.Matches(
      [requests.Match('a', np.float32(.1), np.array([.1, 1e-8, 2], 'f4'))],
      '',
      1)
  assert json_answers.encode(answer) == (
      b'{"matches":[{"id":"a","score":0.1,"values":[0.1,1e-8,2]}],'
      b'"namespace":"","usage":{"readUnits":1}}')


def test_sixty_four_bit_counts_are_strings_in_json():
  answer = requests.NamespaceInfo('n', 3, 120, ['genre'])
  assert json.loads(json_answers.encode(answer)) == {
      'name': 'n',
      'record_count': '3',
      'size_bytes': '120',
      'schema': {
          'fields': {
              'genre': {
                  'filterable': True
              }
          }
      },
      'indexed_fields': {
          'fields': ['genre']
      },
  }
  message = plain('NamespaceDescription').FromString(protobuf.encode(answer))
  assert (message.record_count, message.size_bytes) == (3, 120)
  assert message.schema.fields['genre'].filterable
