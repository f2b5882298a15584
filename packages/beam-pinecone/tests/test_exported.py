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

import json

import numpy as np
import pyarrow as pa
import pytest
from apache_beam.typehints.schemas import named_fields_from_element_type

from beam_connector_base.columnar import from_ipc
from beam_connector_base.columnar import take_rows
from beam_connector_base.columnar import to_ipc
from beam_pinecone.decode.exported import PineconeVector
from beam_pinecone.decode.exported import block_schema
from beam_pinecone.decode.exported import holds_json
from beam_pinecone.decode.exported import json_mapping
from beam_pinecone.decode.exported import metadata_column
from beam_pinecone.decode.exported import to_block
from beam_pinecone.decode.exported import to_row
from beam_pinecone.errors import Refused
from beam_pinecone.wire.answers import Record
from beam_pinecone.wire.answers import SparseValues

FULL = Record(
    'a',
    np.array([1, 2], np.float32),
    SparseValues(np.array([7, 2**32 - 1], np.uint32), np.array([1, 2], 'f4')), {
        'x': 'ü', 'n': 1.5, 'b': True, 'l': ['p', 'q']
    })
DENSE = Record('b', np.array([3, 4], np.float32))


def test_a_block_has_what_the_records_have():
  block = to_block([FULL, DENSE], 'ns', block_schema(2, True, True))
  assert block.schema.equals(block_schema(2, True, True), check_metadata=True)
  first, second = block.to_pylist()
  assert json.loads(first.pop('metadata')) == FULL.metadata
  assert first == {
      'id': 'a',
      'namespace': 'ns',
      'values': [1.0, 2.0],
      'sparse_values': {
          'indices': [7, 2**32 - 1], 'values': [1.0, 2.0]
      }
  }
  assert second == {
      'id': 'b',
      'namespace': 'ns',
      'values': [3.0, 4.0],
      'sparse_values': None,
      'metadata': None
  }
  assert block.validate(full=True) is None


def test_a_record_without_dense_values_is_null_in_its_block():
  block = to_block([FULL, FULL._replace(id='c', values=None)],
                   '',
                   block_schema(2, True, False))
  assert block['values'].to_pylist() == [[1.0, 2.0], None]
  block.validate(full=True)


def test_a_sparse_index_has_no_width():
  block = to_block([FULL._replace(values=None)],
                   '',
                   block_schema(None, True, False))
  assert block.schema.field('values').type == pa.list_(pa.float32())
  assert block['values'].to_pylist() == [None]


@pytest.mark.parametrize(
    'values, metadata, names',
    [(True, False, ['id', 'namespace', 'values', 'sparse_values']),
     (False, True, ['id', 'namespace', 'metadata']),
     (False, False, ['id', 'namespace'])])
def test_a_block_has_the_columns_that_are_wanted(values, metadata, names):
  schema = block_schema(2, values, metadata)
  assert schema.names == names
  assert to_block([FULL], '', schema).schema == schema


def test_a_vector_of_another_length_is_no_answer():
  with pytest.raises(ValueError, match='another length'):
    to_block([DENSE, DENSE._replace(values=np.ones(3, 'f4'))],
             '',
             block_schema(2, True, True))


def test_equal_metadata_are_equal_texts():
  one, other, none = metadata_column([{
      'a': 1.0, 'b': 'x'
  }, {
      'b': 'x', 'a': 1.0
  }, None]).to_pylist()
  assert one == other == '{"a":1.0,"b":"x"}'
  assert none is None


def test_the_mark_of_json_survives_coding_and_taking():
  block = to_block([FULL, DENSE], 'ns', block_schema(2, True, True))
  for copy in (from_ipc(to_ipc(block)), take_rows(block, [1]), block.slice(1)):
    assert holds_json(copy.schema.field('metadata'))
  assert not holds_json(pa.field('metadata', pa.string()))


@pytest.mark.parametrize('text', ['', '[]', 'null', '{', '"x"'])
def test_a_text_that_is_no_metadata_is_refused(text):
  with pytest.raises(Refused, match="'metadata' is marked"):
    json_mapping(text, 'metadata')


def test_a_row_keeps_numpy_arrays():
  row = to_row(FULL, 'ns')
  assert row == PineconeVector(
      'a', 'ns', FULL.values, FULL.sparse_values, FULL.metadata)
  assert row.values is FULL.values


def test_rows_have_a_schema():
  names = [name for name, _ in named_fields_from_element_type(PineconeVector)]
  assert names == ['id', 'namespace', 'values', 'sparse_values', 'metadata']
