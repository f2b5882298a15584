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

import datetime

import numpy as np
import pinecone_messages as messages
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from beam_connector_base.operation import Block
from beam_pinecone.encode.blocks import BlockEncoder
from beam_pinecone.encode.layout import Layout
from beam_pinecone.encode.records import Checks
from beam_pinecone.encode.records import RecordEncoder
from beam_pinecone.schema import IndexSchema

DENSE = IndexSchema('docs', 2, 'cosine', 'dense')
HYBRID = IndexSchema('docs', 2, 'dotproduct', 'dense')
SPARSE = IndexSchema('docs', None, 'dotproduct', 'sparse')

F32 = pa.list_(pa.float32(), 2)
SPARSE_TYPE = pa.struct([('indices', pa.list_(pa.int64())),
                         ('values', pa.list_(pa.float64()))])


def encode(batch, schema=DENSE, **arguments):
  layout = Layout.of(**arguments)
  blocks, invalid = [], {}
  for item in BlockEncoder(layout, schema, Checks(layout)).encode(batch):
    if isinstance(item, Block):
      blocks.append(item)
    else:
      assert item.row not in invalid
      invalid[item.row] = item
  return blocks, invalid


def vectors(blocks):
  out = {}
  for block in blocks:
    for i in range(block.n):
      row = b''.join(block.rows[i])
      assert len(row) == block.offsets[i + 1] - block.offsets[i]
      _, one = messages.read_request(row)
      assert list(one) == [block.keys[i]]
      out[block.row_id(i)] = (block.destination, row, one[block.keys[i]])
  return out


def one_by_one(batch, schema, **arguments):
  """What the encoder of single records makes of the rows."""
  layout = Layout.of(**arguments)
  encoder = RecordEncoder(layout, schema, Checks(layout))
  return [encoder.encode(row) for row in batch.to_pylist()]


def check_like_single_records(batch, schema=DENSE, **arguments):
  blocks, invalid = encode(batch, schema, **arguments)
  found = vectors(blocks)
  assert sorted([*found, *invalid]) == list(range(batch.num_rows))
  for i, single in enumerate(one_by_one(batch, schema, **arguments)):
    if isinstance(single, Block):
      assert i in found, invalid[i]
      assert found[i][:2] == (single.destination, single.rows)
    else:
      assert i in invalid, single
      assert invalid[i].error_type == single.error_type
      assert invalid[i].reason == single.reason
      assert invalid[i].key == single.key
      assert invalid[i].destination == single.destination


def batch_of(n=3, **columns):
  return pa.RecordBatch.from_pydict({
      'id': [f'id-{i}' for i in range(n)],
      'values': pa.array([[i + 1, 0.5] for i in range(n)], F32),
  } | columns)


ids = st.one_of(
    st.none(),
    st.sampled_from(['', 'ä', 'a\0', 'x' * 513]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
number = st.floats(width=32)
dense = st.none() | st.lists(
    st.none() | number, max_size=3) | st.lists(
        st.floats(0.5, 2, width=32), min_size=2, max_size=2)
wide = st.none() | st.lists(st.floats(), min_size=2, max_size=2)
sparse = st.none() | st.fixed_dictionaries({
    'indices': st.lists(st.integers(-1, 2**32), max_size=4),
    'values': st.lists(number, max_size=4),
}) | st.just({
    'indices': [1, 7], 'values': [0.5, 1.0]
})
rows = st.lists(st.tuples(ids, dense, wide, sparse), max_size=8)


@settings(max_examples=150)
@given(rows, st.sampled_from([DENSE, HYBRID, SPARSE, IndexSchema('docs')]))
def test_rows_are_judged_and_written_like_single_records(items, schema):
  batch = pa.RecordBatch.from_pydict({
      'id': pa.array([r[0] for r in items], pa.string()),
      'values': pa.array([r[1] for r in items], pa.list_(pa.float32())),
      'sparse_values': pa.array([r[3] for r in items], SPARSE_TYPE),
  })
  check_like_single_records(batch, schema)


@settings(max_examples=50)
@given(st.lists(wide, max_size=6))
def test_float64_columns_are_judged_like_single_records(items):
  batch = pa.RecordBatch.from_pydict({
      'id': [str(i) for i in range(len(items))],
      'values': pa.array(items, pa.list_(pa.float64(), 2)),
  })
  check_like_single_records(batch)


text = st.none() | st.text(st.characters(codec='utf-8'), max_size=20)
metadata = st.lists(
    st.fixed_dictionaries({
        'text': text,
        'words': st.none() | st.sampled_from(['a', 'b']),
        'whole': st.none() | st.integers(-2**63, 2**63 - 1),
        'small': st.none() | st.integers(-10, 10),
        'x': st.none() | st.floats(),
        'ok': st.none() | st.booleans(),
        'tags': st.none() | st.lists(text, max_size=3),
    }),
    max_size=8)
METADATA = {
    'text': pa.string(),
    'words': pa.dictionary(pa.int8(), pa.string()),
    'whole': pa.int64(),
    'small': pa.int8(),
    'x': pa.float64(),
    'ok': pa.bool_(),
    'tags': pa.list_(pa.string()),
}


@settings(max_examples=150)
@given(metadata, st.integers(0, 3))
def test_metadata_columns_are_written_like_single_records(items, skipped):
  batch = batch_of(
      len(items),
      **{
          name: pa.array([row[name] for row in items], kind)
          for name, kind in METADATA.items()
      })
  check_like_single_records(batch.slice(skipped))


@pytest.mark.parametrize(
    'kind',
    [
        F32,
        pa.list_(pa.float32()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float64()),
        pa.list_(pa.float64(), 2),
        pa.list_(pa.float16(), 2),
        pa.list_(pa.int32()),
    ],
    ids=str)
@pytest.mark.parametrize('window', [(0, 4), (1, 2), (2, 2), (1, 0)])
def test_every_type_of_vector_column_is_written_slices_too(kind, window):
  numbers = [[1, 2], [3, 4], None, [5, 6]]
  whole = batch_of(
      4, values=pa.array([n and np.array(n, 'f2') for n in numbers], kind))
  batch = whole.slice(*window)
  blocks, invalid = encode(batch)
  expected = numbers[window[0]:window[0] + window[1]]
  assert {
      i: v['values'] for i, (_, _, v) in vectors(blocks).items()
  } == {
      i: n for i, n in enumerate(expected) if n
  }
  assert {
      i: v.error_type for i, v in invalid.items()
  } == {
      i: 'MissingVector' for i, n in enumerate(expected) if n is None
  }


def test_float32_columns_are_not_copied_before_the_block():
  from beam_pinecone.encode.columns import dense_column
  column = batch_of().column('values')
  data = dense_column(column, DENSE, 'values', {}).data
  address = np.frombuffer(data, np.uint8).__array_interface__['data'][0]
  assert address == column.values.buffers()[1].address


@pytest.mark.parametrize(
    'kind',
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        *([pa.string_view()] if hasattr(pa, 'string_view') else [])
    ],
    ids=str)
def test_every_type_of_text_column_is_id_and_metadata(kind):
  words = ['a', 'b', None]
  batch = batch_of(id=pa.array(words, kind), t=pa.array(words, kind))
  blocks, invalid = encode(batch)
  found = vectors(blocks)
  assert {
      i: v['metadata'] for i, (_, _, v) in found.items()
  } == {
      0: {
          't': 'a'
      }, 1: {
          't': 'b'
      }
  }
  assert invalid[2].error_type == 'MissingId'


def test_one_bad_row_costs_one_row():
  batch = batch_of(
      4,
      values=pa.array([[1, 2], [0, 0], [float('nan'), 1], [3, 4]], F32),
      x=[1.0, 2.0, 3.0, float('inf')])
  blocks, invalid = encode(batch)
  assert list(vectors(blocks)) == [0]
  assert {
      i: v.error_type for i, v in invalid.items()
  } == {
      1: 'ZeroVector', 2: 'VectorNotFinite', 3: 'MetadataNotFinite'
  }
  assert invalid[1].key == 'id-1'


@pytest.mark.parametrize(
    'column, error_type',
    [
        (pa.array(['x', None, 'y']), 'VectorType'),
        (pa.array([['x'], None, ['y']]), 'VectorType'),
        (pa.array([1.0, None, 2.0]), 'VectorType'),
        (pa.nulls(3), 'MissingVector'),
    ],
    ids=lambda c: str(getattr(c, 'type', c)))
def test_a_column_that_holds_no_vectors_refuses_every_row(column, error_type):
  blocks, invalid = encode(batch_of(values=column))
  assert not blocks
  assert [invalid[i].error_type for i in (0, 1, 2)
         ] == [error_type, 'MissingVector', error_type]


def test_missing_columns_refuse_every_row():
  batch = batch_of()
  for column, error_type in (('id', 'MissingId'), ('values', 'MissingVector')):
    blocks, invalid = encode(batch.drop_columns([column]))
    assert not blocks
    assert {v.error_type for v in invalid.values()} == {error_type}
    assert len(invalid) == 3


def test_ids_that_are_numbers_are_refused():
  _, invalid = encode(batch_of(id=[1, 2, None]))
  assert [invalid[i].error_type for i in (0, 1, 2)
         ] == ['IdType', 'IdType', 'MissingId']


def test_two_columns_of_one_name_are_refused():
  batch = pa.RecordBatch.from_arrays([*batch_of().columns, pa.array([1, 2, 3])],
                                     ['id', 'values', 'id'])
  blocks, invalid = encode(batch)
  assert not blocks
  assert len(invalid) == 3
  assert "'id'" in invalid[0].reason


def test_text_that_is_not_utf8_costs_its_row_only():
  # Whoever fills Arrow's buffers may put anything into them.
  raw = pa.array([b'a', b'\xc3', b'\xa9', None], pa.binary())
  text = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
  blocks, invalid = encode(batch_of(4, title=text))
  assert sorted(vectors(blocks)) == [0, 3]
  assert sorted(invalid) == [1, 2]
  assert invalid[1].key == 'id-1'
  assert invalid[1].error_type == 'InvalidArrow'
  assert 'UTF8' in invalid[1].reason
  blocks, invalid = encode(batch_of(4, id=text).slice(1, 1))
  assert not blocks
  assert (invalid[0].error_type, invalid[0].key) == ('InvalidArrow', '')


def test_a_batch_without_rows_is_nothing():
  assert encode(batch_of(0)) == ([], {})


def test_metadata_of_other_types_is_refused_where_it_is_not_null():
  day = datetime.date(2024, 1, 1)
  for column, ok in ((pa.array([day, None, None]), [1, 2]),
                     (pa.array([b'x', None, b'']), [1]),
                     (pa.array([{'a': 1}, None, None]), [1, 2]),
                     (pa.array([[1], None, []]), [1, 2])):
    blocks, invalid = encode(batch_of(t=column))
    assert list(vectors(blocks)) == ok, column.type
    assert {v.error_type for v in invalid.values()} == {'MetadataType'}


def test_a_struct_or_map_column_is_merged_into_the_metadata():
  struct = pa.array([{'a': 'x', 'b': 1}, None, {'a': None, 'b': 2}])
  mapping = pa.array([[('a', 'x'), ('b', 'y')], None, [('b', 'z')]],
                     pa.map_(pa.string(), pa.string()))
  expected = [{'a': 'x', 'b': 1.0}, {}, {'b': 2.0}]
  found = vectors(encode(batch_of(metadata=struct))[0])
  assert [found[i][2]['metadata'] for i in range(3)] == expected
  found = vectors(encode(batch_of(metadata=mapping))[0])
  assert [found[i][2]['metadata'] for i in range(3)] == [{
      'a': 'x', 'b': 'y'
  }, {}, {
      'b': 'z'
  }]
  check_like_single_records(
      batch_of(metadata=struct, b=[None, 7, 8], c=['u', 'v', 'w']))
  check_like_single_records(
      batch_of(metadata=struct, b=[None, 7, None]), keep=['b'])
  check_like_single_records(batch_of(metadata=['x', None, 'y']))


def test_only_rows_over_the_limit_of_metadata_are_refused():
  batch = batch_of(t=['x' * 50_000, 'x' * 40_000, 'ü' * 20_475])
  blocks, invalid = encode(batch)
  assert list(vectors(blocks)) == [1, 2]
  assert invalid[0].error_type == 'MetadataTooLarge'
  check_like_single_records(batch)


def test_repeated_words_are_written_like_others():
  n = 200
  batch = batch_of(
      n,
      lang=[['en', None, 'de'][i % 3] for i in range(n)],
      title=[f'title {i}' for i in range(n)])
  check_like_single_records(batch)


def test_a_slice_of_a_column_of_many_words_is_written():
  words = pa.array([f'word {i}' for i in range(128)]).dictionary_encode()
  column = pa.DictionaryArray.from_arrays(
      words.indices.cast(pa.int8()), words.dictionary)
  check_like_single_records(batch_of(128, t=column))
  check_like_single_records(batch_of(128, t=column).slice(100, 20))
  few = pa.DictionaryArray.from_arrays(
      pa.array([0, None, 127], pa.int8()), words.dictionary)
  check_like_single_records(batch_of(t=few))
  check_like_single_records(
      batch_of(
          t=pa.array([1.0, None, float('nan')]),
          h=pa.array([np.float16(0.5), None, np.float16('inf')], pa.float16())))


def test_an_illegal_name_of_a_column_refuses_its_rows():
  batch = batch_of(**{'$set': [1, 2, 3]})
  blocks, invalid = encode(batch)
  assert not blocks
  assert {v.error_type for v in invalid.values()} == {'MetadataKey'}
  assert encode(batch, drop=['$set'])[1] == {}


# -------------------------------------------------------------- namespaces


def test_rows_are_grouped_by_namespace():
  batch = batch_of(6, tenant=['a', 'b', 'a', None, 'ä', 'b'])
  blocks, invalid = encode(batch, namespace='{tenant}')
  assert [block.destination for block in blocks] == ['a', 'b']
  assert {
      i: place for i, (place, _, _) in vectors(blocks).items()
  } == {
      0: 'a', 1: 'b', 2: 'a', 5: 'b'
  }
  assert {
      i: v.error_type for i, v in invalid.items()
  } == {
      3: 'MissingNamespaceField', 4: 'NamespaceNotAscii'
  }
  check_like_single_records(batch, namespace='{tenant}')
  check_like_single_records(
      batch, namespace=lambda row: row['tenant'] or 'none')
  check_like_single_records(batch, namespace='{nothing}')


def test_versions_come_with_the_rows():
  batch = batch_of(4, v=[1, None, 3, 2], tenant=['a', 'a', 'b', 'a'])
  blocks, invalid = encode(batch, namespace='{tenant}', version_field='v')
  assert [block.versions for block in blocks] == [[1, 2], [3]]
  assert invalid[1].error_type == 'MissingVersion'
  times = pa.array([datetime.datetime(1970, 1, 1, 0, 0, i) for i in range(3)])
  blocks, _ = encode(batch_of(v=times), version_field='v')
  assert blocks[0].versions == [0, 1_000_000, 2_000_000]


def test_large_batches_are_read_piece_by_piece():
  n = 9000
  batch = batch_of(n)
  blocks, invalid = encode(batch)
  assert not invalid
  assert [i for b in blocks for i in map(b.row_id, range(b.n))
         ] == list(range(n))
  assert [key for b in blocks for key in b.keys
         ] == batch.column('id').to_pylist()
