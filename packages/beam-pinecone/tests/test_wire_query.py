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
"""Queries, fetches and their answers on the wire, compared with protobuf's."""

import numpy as np
import pytest
import query_messages as messages
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from beam_pinecone.encode.filters import filter_bytes
from beam_pinecone.wire.answers import Match
from beam_pinecone.wire.answers import fetch_answer
from beam_pinecone.wire.answers import metadata_of
from beam_pinecone.wire.answers import query_answer
from beam_pinecone.wire.query import fetch_row
from beam_pinecone.wire.query import query_head
from beam_pinecone.wire.query import query_request
from beam_pinecone.wire.vectors import namespace_frame
from beam_pinecone.wire.vectors import sparse_message

text = st.text(st.characters(codec='utf-8'), max_size=200)
names = st.text(
    st.characters(codec='utf-8'),
    max_size=40).filter(lambda k: not k.startswith('$'))
ids = st.text(
    st.characters(min_codepoint=1, max_codepoint=127), min_size=1, max_size=300)
floats32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
numbers = st.one_of(
    st.integers(-2**53, 2**53),
    st.floats(allow_nan=False, allow_infinity=False))
metadata = st.dictionaries(
    text,
    st.one_of(st.booleans(), text, numbers, st.lists(text, max_size=4)),
    max_size=6)
sparse = st.dictionaries(
    st.integers(0, 2**32 - 1), floats32, min_size=1, max_size=20).map(
        lambda d: {
            'indices': list(d), 'values': list(d.values())
        })
vectors = st.lists(floats32, max_size=70)
conditions = st.one_of(
    text,
    numbers,
    st.booleans(),
    st.fixed_dictionaries({'$eq': st.one_of(text, numbers, st.booleans())}),
    st.fixed_dictionaries({
        '$gte': numbers, '$lt': numbers
    }),
    st.fixed_dictionaries(
        {'$in': st.lists(st.one_of(text, numbers), max_size=5)}),
    st.fixed_dictionaries({'$exists': st.booleans()}))
filters = st.recursive(
    st.dictionaries(names, conditions, min_size=1, max_size=3),
    lambda inner: st.one_of(
        st.fixed_dictionaries({'$and': st.lists(
            inner, min_size=1, max_size=3)}), st.fixed_dictionaries(
                {'$or': st.lists(inner, min_size=1, max_size=3)})),
    max_leaves=6)


@given(
    st.integers(1, 10_000),
    st.sampled_from(['', 'ns', 'n' * 200]),
    st.none() | filters,
    vectors,
    st.none() | sparse,
    st.booleans(),
    st.booleans())
def test_a_query_is_byte_for_byte_what_protobuf_writes(
    top_k, namespace, chosen, values, weights, with_values, with_metadata):
  head = query_head(
      namespace,
      top_k,
      None if chosen is None else filter_bytes(chosen),
      with_values,
      with_metadata)
  dense = np.array(values, '<f4')
  message = b''
  if weights is not None:
    message = sparse_message(
        np.array(weights['indices'], np.uint32),
        np.array(weights['values'], np.float32))
  ours = query_request(head, dense.data, dense.nbytes, b'', message)
  assert ours == messages.query_bytes(
      top_k,
      namespace,
      chosen,
      values,
      sparse=weights,
      include_values=with_values,
      include_metadata=with_metadata)
  read = messages.QueryRequest.FromString(ours)
  assert read.top_k == top_k
  assert list(read.vector) == dense.tolist()


@given(ids)
def test_a_query_by_id_is_byte_for_byte_what_protobuf_writes(name):
  ours = query_request(query_head('', 3, None, False, True), id=name.encode())
  assert ours == messages.query_bytes(3, id=name, include_metadata=True)


@given(st.lists(ids, max_size=5), st.sampled_from(['', 'ns', 'n' * 200]))
def test_a_fetch_is_byte_for_byte_what_protobuf_writes(names, namespace):
  ours = b''.join(map(fetch_row, map(str.encode, names)))
  ours += namespace_frame(namespace)
  assert ours == messages.FetchRequest(
      ids=names, namespace=namespace).SerializeToString()


# ------------------------------------------------------------------- answers


def plain(values):
  return None if values is None else values.tolist()


def plain_sparse(values):
  return None if values is None else {
      'indices': values.indices.tolist(), 'values': values.values.tolist()
  }


matches = st.lists(
    st.fixed_dictionaries({
        'id': ids,
        'score': floats32,
        'values': vectors,
        'metadata': st.none() | metadata,
        'sparse': st.none() | sparse,
    }),
    max_size=4)


def response(found):
  message = messages.QueryResponse(namespace='ns')
  message.usage.read_units = 300
  for match in found:
    messages.fill_vector(
        message.matches.add(id=match['id'], score=match['score']),
        match['values'],
        match['metadata'],
        match['sparse'])
  return message.SerializeToString()


@given(matches)
def test_matches_are_read_as_they_were_written(found):
  # Twice: the second time from entries that are known.
  for _ in range(2):
    for match, expected in zip(
        query_answer(response(found)), found, strict=True):
      assert match.id == expected['id']
      assert match.score == expected['score']
      assert (plain(match.values) or []) == expected['values']
      assert match.metadata == expected['metadata']
      assert plain_sparse(match.sparse_values) == expected['sparse']


@given(st.lists(ids, max_size=4, unique=True), vectors, metadata, sparse)
def test_records_are_read_as_they_were_written(names, values, fields, weights):
  message = messages.FetchResponse(namespace='ns')
  for name in names:
    message.vectors[name].id = name
    messages.fill_vector(message.vectors[name], values, fields, weights)
  records = fetch_answer(message.SerializeToString())
  assert sorted(records) == sorted(names)
  for name, record in records.items():
    assert record.id == name
    assert (plain(record.values) or []) == values
    assert record.metadata == fields
    assert plain_sparse(record.sparse_values) == weights
  bare = fetch_answer(message.SerializeToString(), False, False)
  for record in bare.values():
    assert (record.values, record.metadata,
            record.sparse_values) == (None, None, None)


def test_numbers_and_lists_of_metadata_are_plain():
  data = response([{
      'id': 'a',
      'score': 0.5,
      'values': [],
      'metadata': {
          'year': 1994, 'tags': ['x', 'y'], 'ok': True, 'none': ''
      },
      'sparse': None
  }])
  assert query_answer(data) == [
      Match(
          'a',
          0.5, {
              'year': 1994.0, 'tags': ['x', 'y'], 'ok': True, 'none': ''
          })
  ]
  assert type(query_answer(data)[0].metadata['year']) is float


def test_lists_of_metadata_are_not_shared_between_answers():
  data = messages.Struct()
  data.update({'tags': ['x']})
  first = metadata_of(data.SerializeToString())
  first['tags'].append('y')
  assert metadata_of(data.SerializeToString()) == {'tags': ['x']}


def test_vectors_are_read_only_and_keep_no_answer_alive():
  data = response([{
      'id': 'a',
      'score': 0.5,
      'values': [1.0, 2.0],
      'metadata': None,
      'sparse': {
          'indices': [1], 'values': [2.0]
      }
  }])
  match = query_answer(data)[0]
  for values in (match.values, match.sparse_values.values):
    assert values.dtype == np.float32
    assert len(values.base) == values.nbytes
    with pytest.raises(ValueError, match='read-only'):
      values[0] = 3.0


def test_floats_that_are_not_packed_are_read_too():
  data = messages.UnpackedScored(
      id='a', score=1.0, values=[1.0, 2.5]).SerializeToString()
  answer = b'\x12' + bytes((len(data),)) + data
  assert query_answer(answer)[0].values.tolist() == [1.0, 2.5]
  data = messages.UnpackedVector(id='a', values=[1.0, 2.5]).SerializeToString()
  entry = b'\x0a\x01a\x12' + bytes((len(data),)) + data
  answer = b'\x0a' + bytes((len(entry),)) + entry
  assert fetch_answer(answer)['a'].values.tolist() == [1.0, 2.5]


def test_fields_that_are_not_known_are_skipped():
  unknown = b'\xb8\x0c\x96\x01' + b'\xc2\x0c\x03abc' + b'\xcd\x0c\x00\x00\x80?'
  inner = b'\x0a\x01a' + unknown + b'\x15\x00\x00\x80?'
  answer = unknown + b'\x12' + bytes((len(inner),)) + inner + unknown
  assert query_answer(answer) == [Match('a', 1.0)]


@given(matches.filter(bool), st.data())
@settings(max_examples=200)
def test_an_answer_that_is_cut_off_is_an_error_or_a_shorter_one(found, data):
  whole = response(found)
  cut = whole[:data.draw(st.integers(0, len(whole) - 1))]
  try:
    read = query_answer(cut)
  except ValueError:
    return
  assert [m.id for m in read] == [m['id'] for m in found[:len(read)]]


@given(st.binary(max_size=80))
@settings(max_examples=500)
def test_no_answer_breaks_the_readers(data):
  for read in (query_answer, fetch_answer, metadata_of):
    try:
      read(data)
    except ValueError:
      pass


@given(matches.filter(bool), st.data())
@settings(max_examples=300)
def test_a_changed_byte_breaks_no_reader(found, data):
  whole = bytearray(response(found))
  whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(
      st.integers(0, 255))
  try:
    query_answer(bytes(whole))
  except ValueError:
    pass


def test_metadata_nested_without_end_is_an_error():
  value = b''
  for _ in range(5_000):
    inner = b'\x0a' + _varint(len(value)) + value
    value = b'\x32' + _varint(len(inner)) + inner
  entry = b'\x0a\x01k\x12' + _varint(len(value)) + value
  with pytest.raises(ValueError, match='deeply'):
    metadata_of(b'\x0a' + _varint(len(entry)) + entry)


def _varint(n):
  out = bytearray()
  while n > 127:
    out.append(n & 127 | 128)
    n >>= 7
  out.append(n)
  return bytes(out)
