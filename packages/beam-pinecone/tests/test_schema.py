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

import array

import numpy as np
import pyarrow as pa
import pytest

from beam_pinecone.encode.vectors import dense_values
from beam_pinecone.encode.vectors import sparse_values
from beam_pinecone.errors import Refused
from beam_pinecone.schema import IndexSchema
from beam_pinecone.schema import check_id
from beam_pinecone.schema import check_namespace
from beam_pinecone.wire.responses import IndexStats

NUMBERS = [0.5, -1.25, 3.0]
EXPECTED = np.array(NUMBERS, '<f4').tobytes()


def refusal(call, *args):
  with pytest.raises(Refused) as refused:
    call(*args)
  return refused.value


@pytest.mark.parametrize(
    'value',
    [
        NUMBERS,
        tuple(NUMBERS),
        [np.float32(x) for x in NUMBERS],
        array.array('f', NUMBERS),
        array.array('d', NUMBERS),
        np.array(NUMBERS, np.float64),
        np.array(NUMBERS, np.float32),
        np.array(NUMBERS, np.float16),
        np.array(NUMBERS, '>f4'),
        np.array(NUMBERS * 2, np.float32).reshape(2, 3).T[:, 0],
        memoryview(array.array('f', NUMBERS)),
        np.ma.array(NUMBERS, mask=False),
        pa.array(NUMBERS, pa.float32()),
        pa.array([NUMBERS], pa.list_(pa.float64()))[0],
        pa.array([NUMBERS], pa.list_(pa.float32(), 3))[0],
    ],
    ids=lambda v: type(v).__name__)
def test_every_kind_of_vector_becomes_float32(value):
  data, n = dense_values(value, 'values')
  assert n == 3
  assert bytes(data) == EXPECTED


def test_a_contiguous_float32_array_is_not_copied():
  vector = np.array(NUMBERS, np.float32)
  data, _ = dense_values(vector, 'values')
  assert np.shares_memory(np.asarray(data), vector)


def test_an_integer_beyond_every_float_is_an_overflow():
  refused = refusal(dense_values, [1.0, 10**400], 'v')
  assert refused.error_type == 'VectorOverflow'
  assert "'v'[1]" in refused.reason


def test_integers_are_numbers():
  assert bytes(dense_values([1, 0], 'v')[0]) == bytes(
      dense_values(np.array([1, 0]), 'v')[0])


@pytest.mark.parametrize('make', [list, np.array])
@pytest.mark.parametrize(
    'numbers, error_type, says',
    [
        ([1.0, float('nan')], 'VectorNotFinite', "'v'[1] is nan"),
        ([float('-inf'), 1.0], 'VectorNotFinite', "'v'[0] is -inf"),
        ([1.0, 1e39], 'VectorOverflow', "'v'[1]"),
        ([1.0, -1e300], 'VectorOverflow', "'v'[1]"),
        ([0.0, 0.0], 'ZeroVector', 'all zero'),
        ([0.0, 9e-9], 'ZeroVector', 'all zero'),
        ([0.0, 1e-300], 'ZeroVector', 'all zero'),
    ])
def test_a_vector_the_service_rejects_is_refused(
    make, numbers, error_type, says):
  refused = refusal(dense_values, make(numbers), 'v')
  assert refused.error_type == error_type
  assert says in refused.reason


@pytest.mark.parametrize(
    'numbers', [[0.0, 1.0000001e-8], [3e38, -3e38], [3e38] * 1000, [1e-7] * 3])
@pytest.mark.parametrize('make', [list, np.array, lambda x: np.array(x, 'f4')])
@pytest.mark.filterwarnings('error')
def test_a_vector_at_the_edge_is_accepted(make, numbers):
  data, n = dense_values(make(numbers), 'v')
  assert n == len(numbers)
  assert bytes(data) == np.array(numbers, '<f4').tobytes()


@pytest.mark.parametrize(
    'value',
    [
        'text',
        b'bytes',
        5,
        {1.0},
        [1.0, None],
        [1.0, 'x'],
        [[1.0], [2.0]],
        np.zeros((2, 2), np.float32),
        np.array(['a']),
        np.array([None, 1.0], object),
        np.array([True]),
        np.array([1j]),
        np.ma.array([1.0, 2.0], mask=[True, False]),
        pa.array([1.0, None]),
    ],
    ids=repr)
def test_what_is_no_vector_is_refused(value):
  assert refusal(dense_values, value, 'v').error_type == 'VectorType'


@pytest.mark.parametrize(
    'value, error_type',
    [
        (None, 'MissingId'),
        (7, 'IdType'),
        (b'a', 'IdType'),
        ('', 'IdEmpty'),
        ('größe', 'IdNotAscii'),
        ('a\0b', 'IdHasNul'),
        ('x' * 513, 'IdTooLong'),
    ])
def test_an_id_the_service_rejects_is_refused(value, error_type):
  refused = refusal(check_id, value, 'doc_id')
  assert refused.error_type == error_type
  assert "'doc_id'" in refused.reason


@pytest.mark.parametrize('value', ['a', 'x' * 512, 'a b/c:@[.]', '\x01~'])
def test_an_id_the_service_takes_is_accepted(value):
  assert check_id(value, 'id') == value.encode()


@pytest.mark.parametrize(
    'value, error_type',
    [
        (None, 'NamespaceType'),
        (3, 'NamespaceType'),
        ('ä', 'NamespaceNotAscii'),
        ('a\0', 'NamespaceHasNul'),
        ('n' * 513, 'NamespaceTooLong'),
    ])
def test_a_namespace_the_service_rejects_is_refused(value, error_type):
  assert refusal(check_namespace, value).error_type == error_type


def test_the_default_namespace_has_one_spelling():
  assert check_namespace('__default__') == check_namespace('') == ''
  assert check_namespace('n' * 512) == 'n' * 512


@pytest.mark.parametrize(
    'value',
    [
        {
            'indices': [7, 2**32 - 1], 'values': [0.5, 2]
        },
        ([7, 2**32 - 1], [0.5, 2.0]),
        (np.array([7, 2**32 - 1], np.int64), np.array([0.5, 2.0], np.float64)),
        [(7, 2**32 - 1), array.array('f', [0.5, 2.0])],
        {
            'indices': pa.array([7, 2**32 - 1]), 'values': pa.array([0.5, 2.0])
        },
    ],
    ids=lambda v: type(v).__name__)
def test_every_kind_of_sparse_vector_is_read(value):
  indices, values = sparse_values(value, 's')
  assert indices.dtype == np.uint32
  assert values.dtype == np.float32
  assert indices.tolist() == [7, 2**32 - 1]
  assert values.tolist() == [0.5, 2.0]


def test_the_order_of_sparse_indices_is_kept():
  indices, _ = sparse_values(([3, 1, 2], [1.0, 2.0, 3.0]), 's')
  assert indices.tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    'value, error_type',
    [
        (([1, 1], [1.0, 2.0]), 'SparseDuplicate'),
        (([-1], [1.0]), 'SparseIndex'),
        (([2**32], [1.0]), 'SparseIndex'),
        (([2**70], [1.0]), 'SparseType'),
        (([1.5], [1.0]), 'SparseIndex'),
        (([1], [1.0, 2.0]), 'SparseLengthMismatch'),
        (([], []), 'SparseEmpty'),
        ((list(range(2049)), [1.0] * 2049), 'SparseTooMany'),
        (([1], [float('nan')]), 'VectorNotFinite'),
        (([1], [1e39]), 'VectorOverflow'),
        (([1], ['x']), 'SparseType'),
        (([[1]], [1.0]), 'SparseType'),
        (('ab', 'cd'), 'SparseType'),
        ({
            'indices': [1]
        }, 'SparseType'),
        ({
            'indices': [1], 'values': None
        }, 'SparseType'),
        ('text', 'SparseType'),
        ([1, 2, 3], 'SparseType'),
    ],
    ids=str)
def test_a_sparse_vector_the_service_rejects_is_refused(value, error_type):
  refused = refusal(sparse_values, value, 's')
  assert refused.error_type == error_type
  assert 's' in refused.reason


def test_2048_sparse_values_are_accepted():
  indices, _ = sparse_values((list(range(2048)), [1.0] * 2048), 's')
  assert len(indices) == 2048


@pytest.mark.parametrize(
    'kind, metric, dense, sparse, error_type',
    [
        ('dense', 'cosine', False, False, 'MissingVector'),
        ('dense', 'dotproduct', False, True, 'MissingValues'),
        ('dense', 'cosine', True, True, 'SparseNotSupported'),
        ('dense', 'euclidean', True, True, 'SparseNotSupported'),
        ('sparse', 'dotproduct', True, False, 'DenseOnSparseIndex'),
        ('sparse', 'dotproduct', True, True, 'DenseOnSparseIndex'),
        ('dense', 'cosine', True, False, None),
        ('dense', 'dotproduct', True, True, None),
        ('sparse', 'dotproduct', False, True, None),
        (None, None, True, True, None),
        (None, None, False, True, None),
    ])
def test_a_vector_has_what_the_index_takes(
    kind, metric, dense, sparse, error_type):
  schema = IndexSchema.from_stats('docs', IndexStats(None, metric, kind, 0, {}))
  check = (schema.check_parts, dense, sparse, 'values', 'sparse_values')
  if error_type is None:
    check[0](*check[1:])
  else:
    assert refusal(*check).error_type == error_type
