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

import pickle

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam import coders
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to

from beam_connector_base.columnar import PackedBatch
from beam_connector_base.columnar import RecordBatchCoder
from beam_connector_base.columnar import take_rows

N = 5000


def batch(n=N):
  tensor = pa.fixed_shape_tensor(pa.float32(), [2])
  pairs = pa.array([[i, i] for i in range(n)], pa.list_(pa.float32(), 2))
  return pa.RecordBatch.from_arrays(
      [
          pa.array([f'id-{i}' for i in range(n)]),
          pa.array([[float(i)] * 4 for i in range(n)],
                   pa.list_(pa.float32(), 4)),
          pa.array([{
              'a': i, 'b': None
          } for i in range(n)]),
          pa.array([f'word-{i}' for i in range(n)]).dictionary_encode(),
          pa.array([None if i % 2 else [i] * (i % 3) for i in range(n)]),
          pa.ExtensionArray.from_storage(tensor, pairs),
      ],
      schema=pa.schema(
          [('id', pa.string()), ('values', pa.list_(pa.float32(), 4)),
           ('meta', pa.struct([('a', pa.int64()), ('b', pa.null())])),
           ('word', pa.dictionary(pa.int32(), pa.string())),
           ('list', pa.list_(pa.int64())), ('tensor', tensor)],
          metadata={'k': 'v'}))


def test_coder_round_trips_slices_with_their_schema():
  coder = RecordBatchCoder()
  for part in (batch(), batch().slice(7, 3), batch().slice(0, 0)):
    decoded = coder.decode(coder.encode(part))
    assert decoded.equals(part, check_metadata=True)


def test_coder_is_used_for_the_type():
  assert coders.registry.get_coder(pa.RecordBatch) == RecordBatchCoder()
  assert not RecordBatchCoder().is_deterministic()
  assert RecordBatchCoder().to_type_hint() is pa.RecordBatch


def plain(n):
  return batch(n).select(['id', 'values', 'list'])


def test_slice_does_not_drag_its_parent_along():
  part = plain(N).slice(10, 1)
  assert len(RecordBatchCoder().encode(part)) < 2000
  packed = pickle.dumps(PackedBatch(part))
  assert len(packed) < 2000 < len(pickle.dumps(part))
  assert pickle.loads(packed).batch.equals(part)
  assert RecordBatchCoder().estimate_size(part) < 2000


def test_taken_rows_are_the_rows_in_the_order_wanted():
  taken = take_rows(batch(), [5, 2, 2])
  assert taken.schema.equals(batch().schema, check_metadata=True)
  rows = batch().to_pylist()
  assert taken.to_pylist() == [rows[5], rows[2], rows[2]]
  assert take_rows(batch(), np.array([4])).to_pylist() == [rows[4]]
  assert take_rows(batch(), []).num_rows == 0


def test_taken_rows_keep_nothing_of_the_batch():
  taken = take_rows(batch(), [3])
  assert taken.get_total_buffer_size() < 2000
  assert len(pickle.dumps(taken)) < 4000
  assert taken.to_pylist() == batch().slice(3, 1).to_pylist()


def test_null_of_a_dictionary_column_stays_null():
  column = pa.array(['a', None, 'b'] * 3).dictionary_encode()
  taken = take_rows(pa.record_batch({'c': column}), [1, 2])
  assert taken.to_pylist() == [{'c': None}, {'c': 'b'}]
  assert take_rows(pa.record_batch({'c': column}), [1]).to_pylist() == [{
      'c': None
  }]


def test_types_without_a_take_kernel_are_copied_too():
  if not hasattr(pa, 'string_view'):
    pytest.skip('this pyarrow has no string views')
  column = pa.array(['a', 'b' * 100, 'c']).cast(pa.string_view())
  taken = take_rows(pa.record_batch({'c': column}), [1, 2])
  assert taken.to_pylist() == [{'c': 'b' * 100}, {'c': 'c'}]


def test_batches_survive_a_shuffle():
  with beam.Pipeline(runner='FnApiRunner') as p:
    sizes = (
        p
        | beam.Create([batch(10).slice(i, 2) for i in (0, 4)
                      ]).with_output_types(pa.RecordBatch)
        | beam.Reshuffle()
        | beam.Map(lambda b: (b.num_rows, b.column(0)[0].as_py())))
    assert_that(sizes, equal_to([(2, 'id-0'), (2, 'id-4')]))
