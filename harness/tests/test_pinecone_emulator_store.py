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
"""What the emulated Pinecone keeps: rows, late visibility, digests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from beam_harness.emulators.pinecone.requests import Sparse
from beam_harness.emulators.pinecone.rules import Rules
from beam_harness.emulators.pinecone.state import digest_of
from beam_harness.emulators.pinecone.store import Namespace
from beam_harness.emulators.pinecone.store import Rows

IDS = st.sampled_from([f'{a}{b}' for a in 'ab' for b in range(6)])
WRITES = st.lists(
    st.one_of(
        st.tuples(st.just('put'), st.lists(IDS, min_size=1, max_size=5)),
        st.tuples(st.just('remove'), st.lists(IDS, min_size=1, max_size=3)),
        st.tuples(st.just('patch'), st.lists(IDS, min_size=1, max_size=3)),
        st.tuples(st.just('clear'), st.just([]))),
    max_size=30)


@settings(max_examples=60, deadline=None)
@given(WRITES)
def test_rows_agree_with_a_dict(writes):
  rows, model = Rows(2), {}
  for number, (kind, ids) in enumerate(writes):
    if kind == 'put':
      dense = np.array([[number, i + 1] for i in range(len(ids))], dtype='f4')
      sparse = [
          Sparse(np.array([number], dtype='u4'), np.array([1], dtype='f4'))
      ] * len(ids)
      rows.put(ids, dense, sparse, [{'n': float(number)}] * len(ids))
      for i, record_id in enumerate(ids):
        model[record_id] = ([number, i + 1], number, {'n': float(number)})
    elif kind == 'remove':
      rows.remove(ids)
      for record_id in ids:
        model.pop(record_id, None)
    elif kind == 'patch':
      values = np.array([-1, number], dtype='f4')
      rows.patch(ids, values, None, {'p': True})
      for record_id in ids:
        if record_id in model:
          _, index, metadata = model[record_id]
          model[record_id] = ([-1, number], index, {**metadata, 'p': True})
    else:
      rows.clear()
      model.clear()
    assert {
        r.id: (r.values.tolist(), r.sparse.indices[0], r.metadata) for r in rows
    } == model
    assert rows.sorted_ids() == sorted(model)
    np.testing.assert_array_equal(
        rows.squares, [np.dot(r.values, r.values) for r in rows])
    assert all(rows.get(record_id).id == record_id for record_id in model)


def test_pages_of_ids_are_in_byte_order_and_complete():
  rows = Rows(1)
  ids = ['b', 'a/1', 'A', 'a', 'a-', 'a/2', '_', 'a/10']
  rows.put(ids, np.ones((8, 1), dtype='f4'), [None] * 8, [None] * 8)
  assert rows.page('', '', 8) == (sorted(ids), False)
  assert rows.page('a/', '', 2) == (['a/1', 'a/10'], True)
  assert rows.page('a/', 'a/10', 2) == (['a/2'], False)
  assert rows.page('', 'a/zz', 2) == (['b'], False)
  assert rows.page('zz', '', 2) == ([], False)
  # A token outlives its id.
  rows.remove(['a/10'])
  assert rows.page('a/', 'a/10', 2) == (['a/2'], False)


def write(namespace, record_id):
  return namespace.write(
      lambda rows: rows.put([record_id], np.ones((1, 1), 'f4'), [None], [None]))


def seen(view):
  rows, lsn = view
  return sorted(rows.ids), lsn


def test_write_is_visible_at_once_by_default():
  namespace = Namespace(1, Rules(), lambda: 0.0)
  assert write(namespace, 'a') == 1
  assert write(namespace, 'b') == 2
  assert seen(namespace.points()) == seen(namespace.scans()) == (['a', 'b'], 2)


def test_write_becomes_visible_when_its_time_has_come():
  now = [0.0]
  namespace = Namespace(1, Rules(visibility_seconds=5.0), lambda: now[0])
  write(namespace, 'a')
  now[0] = 3.0
  write(namespace, 'b')
  assert seen(namespace.points()) == ([], 0)
  now[0] = 5.0
  assert seen(namespace.points()) == (['a'], 1)
  now[0] = 8.0
  assert seen(namespace.points()) == (['a', 'b'], 2)
  assert namespace.committed.ids == ['a', 'b']


def test_write_becomes_visible_after_so_many_reads():
  namespace = Namespace(1, Rules(visibility_reads=2), lambda: 0.0)
  write(namespace, 'a')
  assert [seen(namespace.points()) for _ in range(3)] == [([], 0), ([], 0),
                                                          (['a'], 1)]


def test_lists_may_lag_behind_queries():
  namespace = Namespace(1, Rules(scan_reads=1), lambda: 0.0)
  write(namespace, 'a')
  assert seen(namespace.points()) == (['a'], 1)
  assert seen(namespace.scans()) == ([], 0)
  assert seen(namespace.scans()) == (['a'], 1)


def test_writes_become_visible_in_their_order():
  now = [0.0]
  namespace = Namespace(1, Rules(visibility_seconds=1.0), lambda: now[0])
  write(namespace, 'a')
  namespace.write(lambda rows: rows.remove(['a']))
  write(namespace, 'b')
  now[0] = 1.0
  assert seen(namespace.points()) == (['b'], 3)


def test_digest_does_not_depend_on_order_or_on_how_numbers_are_given():
  a = {
      'x': {
          'values': [0.1, 2], 'metadata': {
              'n': 1, 'a': 'b'
          }
      },
      'y': {
          'values': np.array([1, 2], dtype=np.float64),
          'sparse': {
              'indices': [7, 3], 'values': [1, 2]
          }
      },
  }
  b = {
      'y': {
          'values': [1.0, 2.0],
          'sparse': {
              'indices': [3, 7], 'values': [2.0, 1.0]
          },
          'metadata': {}
      },
      'x': {
          'values': np.array([0.1, 2], dtype=np.float32).tolist(),
          'metadata': {
              'a': 'b', 'n': 1.0
          }
      },
  }
  assert digest_of(a) == digest_of(b)


@pytest.mark.parametrize(
    'change',
    [
        {
            'values': [1, 3]
        },
        {
            'metadata': {
                'n': 2
            }
        },
        {
            'metadata': None
        },
        {
            'sparse': {
                'indices': [1], 'values': [1]
            }
        },
    ])
def test_digest_tells_different_records_apart(change):
  record = {'values': [1, 2], 'metadata': {'n': 1}}
  assert digest_of({'x': record}) != digest_of({'x': {**record, **change}})
  assert digest_of({'x': record}) != digest_of({'y': record})
