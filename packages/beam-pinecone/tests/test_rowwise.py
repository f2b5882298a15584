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
import pyarrow as pa

from beam_connector_base.operation import Block
from beam_connector_base.operation import Invalid
from beam_pinecone.decode.exported import block_schema
from beam_pinecone.decode.exported import to_block
from beam_pinecone.encode.rowwise import encode_rows
from beam_pinecone.wire.answers import Record


def rows_of(batch):
  seen = []

  def encode(row):
    seen.append(row)
    return Block('', b'x', None, ('k',))

  blocks = list(encode_rows(batch, encode))
  assert [block.row_id(0) for block in blocks] == [*range(len(seen))]
  return seen


def test_vectors_stay_with_arrow_and_the_rest_is_plain():
  batch = pa.RecordBatch.from_pydict({
      'id': ['a', 'b'],
      'values': pa.array([[1, 2], None], pa.list_(pa.float32(), 2)),
      'tags': [['x'], []],
      'n': [None, 5],
      'sparse_values': [{
          'indices': [1], 'values': [0.5]
      }, None],
  })
  first, second = rows_of(batch)
  values = first.pop('values')
  assert isinstance(values, pa.Scalar)
  assert values.as_py() == [1.0, 2.0]
  assert first == {
      'id': 'a',
      'tags': ['x'],
      'n': None,
      'sparse_values': {
          'indices': [1], 'values': [0.5]
      }
  }
  assert second == {
      'id': 'b', 'values': None, 'tags': [], 'n': 5, 'sparse_values': None
  }


def test_metadata_of_a_read_are_a_mapping():
  records = [
      Record('a', np.ones(2, np.float32), None, {'x': 1.0}),
      Record('b', np.ones(2, np.float32))
  ]
  first, second = rows_of(to_block(records, 'n', block_schema(2, True, True)))
  assert first['metadata'] == {'x': 1.0}
  assert second['metadata'] is None


def test_rows_that_are_refused_keep_their_numbers():
  batch = pa.RecordBatch.from_pydict({'id': ['a', 'b', 'c']})

  def encode(row):
    if row['id'] == 'b':
      return Invalid(0, 'no', 'b')
    return Block('', b'x')

  items = list(encode_rows(batch, encode))
  assert [type(item) for item in items] == [Block, Invalid, Block]
  assert items[1].row == 1
  assert items[2].row_id(0) == 2


def test_texts_that_are_no_metadata_are_refused_row_by_row():
  schema = block_schema(None, False, True)
  batch = pa.RecordBatch.from_arrays([['a', 'b'], ['', ''], ['{', '{}']],
                                     schema=schema)
  bad, good = encode_rows(batch, lambda row: Block('', b'x'))
  assert (bad.row, bad.error_type) == (0, 'MetadataJson')
  assert good.row_id(0) == 1


def test_two_columns_of_one_name_refuse_all_rows():
  column = pa.array(['a', 'b'])
  batch = pa.RecordBatch.from_arrays([column, column], ['id', 'id'])
  items = list(encode_rows(batch, lambda row: Block('', b'x')))
  assert [(item.row, item.error_type) for item in items
         ] == [(0, 'DuplicateColumn'), (1, 'DuplicateColumn')]


def test_a_row_that_is_no_valid_arrow_is_refused_alone():
  text = pa.StringArray.from_buffers(
      3,
      pa.py_buffer(np.array([0, 1, 2, 3], np.int32)),
      pa.py_buffer(b'a\xffc'))
  batch = pa.RecordBatch.from_arrays([text], ['id'])
  items = list(encode_rows(batch, lambda row: Block('', row['id'].encode())))
  assert [type(item) for item in items] == [Block, Invalid, Block]
  assert items[1].error_type == 'InvalidArrow'
