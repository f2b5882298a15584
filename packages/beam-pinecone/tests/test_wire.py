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

import numpy as np
import pinecone_messages as messages
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pinecone.wire import protobuf
from beam_pinecone.wire.metadata import MetadataKey
from beam_pinecone.wire.metadata import encode_metadata
from beam_pinecone.wire.responses import index_stats
from beam_pinecone.wire.responses import upserted_count
from beam_pinecone.wire.vectors import namespace_frame
from beam_pinecone.wire.vectors import sparse_message
from beam_pinecone.wire.vectors import sparse_messages
from beam_pinecone.wire.vectors import upsert_request
from beam_pinecone.wire.vectors import vector_row

text = st.text(st.characters(codec='utf-8'), max_size=200)
floats32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
metadata = st.dictionaries(
    text.filter(lambda k: not k.startswith('$')),
    st.one_of(
        st.none(),
        st.booleans(),
        text,
        st.integers(-2**53, 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        st.lists(text, max_size=4)),
    max_size=6)
sparse = st.dictionaries(
    st.integers(0, 2**32 - 1), floats32, min_size=1, max_size=20).map(
        lambda d: {
            'indices': list(d), 'values': list(d.values())
        })
vectors = st.fixed_dictionaries({
    'id':
        st.text(
            st.characters(min_codepoint=1, max_codepoint=127),
            min_size=1,
            max_size=300),
    'values':
        st.lists(floats32, max_size=70),
    'sparse_values':
        st.none() | sparse,
    'metadata':
        metadata,
})


def row(vector):
  values = np.array(vector['values'], '<f4')
  keys = [MetadataKey(name) for name in sorted(vector['metadata'])]
  sparse_values = vector['sparse_values']
  return vector_row(
      vector['id'].encode(),
      values.data,
      values.nbytes,
      encode_metadata(keys, vector['metadata']),
      sparse_message(
          np.array(sparse_values['indices'], np.uint32),
          np.array(sparse_values['values'], np.float32))
      if sparse_values else b'')


@given(st.lists(vectors, max_size=4), st.sampled_from(['', 'ns', 'n' * 200]))
def test_a_request_is_byte_for_byte_what_protobuf_writes(items, namespace):
  ours = upsert_request([row(item) for item in items], namespace)
  assert ours == messages.upsert_bytes(items, namespace)
  assert messages.UpsertRequest.FromString(ours) == messages.upsert_request(
      items, namespace)


@pytest.mark.parametrize(
    'nbytes', [0, 1, 100, 125, 126, 127, 128, 129, 16383, 16384, 2_000_000])
def test_lengths_of_strings_cross_the_widths_of_varints(nbytes):
  key = MetadataKey('k')
  entry = key.string('x' * nbytes)
  expected = messages.upsert_request([{
      'id': 'a', 'metadata': {
          'k': 'x' * nbytes
      }
  }]).vectors[0].metadata
  assert entry == expected.SerializeToString()


@given(st.integers(0, 2**63))
def test_varints_are_read_back(n):
  message = b'\x08' + protobuf.varint(n)
  assert list(protobuf.fields(message)) == [(1, protobuf.VARINT, n)]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_packed_varints_equal_single_ones(numbers):
  packed, sizes = protobuf.uint32_varints(np.array(numbers, np.uint32))
  singles = [protobuf.varint(n) for n in numbers]
  assert packed == b''.join(singles)
  assert sizes.tolist() == [len(s) for s in singles]


@given(st.lists(st.none() | sparse, max_size=8))
def test_sparse_vectors_of_many_rows_equal_those_of_single_rows(rows):
  bounds = np.cumsum([0, *(len(r['indices']) if r else 0 for r in rows)])
  indices = np.array([i for r in rows if r for i in r['indices']], np.uint32)
  values = np.array([v for r in rows if r for v in r['values']], np.float32)
  assert sparse_messages(indices, values, bounds) == [
      b'' if r is None else sparse_message(
          np.array(r['indices'], np.uint32), np.array(r['values'], np.float32))
      for r in rows
  ]


def test_the_frame_of_a_request_is_its_namespace():
  assert namespace_frame('') == b''
  assert upsert_request([], 'abc') == namespace_frame('abc')


def test_statistics_are_read_with_and_without_what_is_optional():
  full = messages.DescribeIndexStatsResponse(
      dimension=1536,
      metric='dotproduct',
      vector_type='dense',
      index_fullness=0.5,
      total_vector_count=12)
  full.namespaces['a'].vector_count = 12
  full.namespaces['empty'].vector_count = 0
  stats = index_stats(full.SerializeToString())
  assert stats.dimension == 1536
  assert (stats.metric, stats.vector_type) == ('dotproduct', 'dense')
  assert stats.total_vector_count == 12
  assert stats.namespaces == {'a': 12, 'empty': 0}
  nothing = index_stats(b'')
  assert nothing.dimension is None
  assert nothing.metric is None
  assert nothing.vector_type is None


def test_the_count_of_an_answer_is_read():
  answer = messages.UpsertResponse(upserted_count=300).SerializeToString()
  assert upserted_count(answer) == 300
  assert upserted_count(b'') == 0


@pytest.mark.parametrize(
    'broken',
    [b'\x08', b'\x0a\x05ab', b'\x0d\x00', b'\x0b', b'\x08' + b'\xff' * 11])
def test_an_answer_that_is_cut_off_is_an_error(broken):
  with pytest.raises(ValueError):
    upserted_count(broken)


@given(st.binary(max_size=40))
def test_no_answer_breaks_the_readers(data):
  for read in (upserted_count, index_stats):
    try:
      read(data)
    except ValueError:
      pass
