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

import collections
import dataclasses

import engine_toys as toys
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from beam_connector_base.batching import Batcher
from beam_connector_base.batching import halves
from beam_connector_base.batching import select
from beam_connector_base.operation import Block
from beam_connector_base.operation import Limits

LARGE = 1 << 40


def frame(destination):
  return 10 if destination == 'a' else 3


def make(pending=LARGE, **limits):
  return Batcher(Limits(**{'max_records': 4, **limits}), pending)


def add(batcher, rows, ready, as_list=False):
  """Adds rows of one destination as one block; the ids of those refused."""
  refused = batcher.add(None, toys.block(rows, as_list=as_list), ready)
  return [rows[i].id for i in refused]


def ids(batch):
  return [toys.id_of(row) for row in batch.rows()]


def rows(*ids_, **common):
  return [toys.Row(i, **common) for i in ids_]


@pytest.mark.parametrize('one_by_one', [True, False])
def test_a_batch_is_sent_when_it_holds_the_records_of_a_request(one_by_one):
  batcher, ready = make(), []
  for some in ([rows(i) for i in range(10)] if one_by_one else [rows(
      *range(10))]):
    add(batcher, some, ready)
  batcher.flush(ready)
  assert [(ids(batch), why) for batch, why in ready] == [
      ([0, 1, 2, 3], 'full_records'),
      ([4, 5, 6, 7], 'full_records'),
      ([8, 9], 'finish'),
  ]


@pytest.mark.parametrize('one_by_one', [True, False])
def test_bytes_count_with_frame_and_separators(one_by_one):
  # 10 + 3 * 20 + 2 * 1 = 72: three rows fit to the byte.
  batcher, ready = make(max_bytes=72, frame_bytes=frame, separator_bytes=1), []
  all_ = rows(*range(7), size=20)
  for some in ([[row] for row in all_] if one_by_one else [all_]):
    assert add(batcher, some, ready) == []
  batcher.flush(ready)
  assert [(len(b), b.nbytes, why) for b, why in ready
         ] == [(3, 72, 'full_bytes'), (3, 72, 'full_bytes'), (1, 30, 'finish')]


@pytest.mark.parametrize('one_by_one', [True, False])
def test_a_record_too_large_for_any_request_is_in_no_batch(one_by_one):
  batcher, ready = make(max_bytes=50, frame_bytes=frame), []
  all_ = rows(0, 1) + [toys.Row(2, size=41)] + [toys.Row(3, size=40)]
  refused = []
  for some in ([[row] for row in all_] if one_by_one else [all_]):
    refused += add(batcher, some, ready)
  batcher.flush(ready)
  assert refused == [2]
  assert [ids(batch) for batch, _ in ready] == [[0, 1], [3]]


def test_the_size_of_a_frame_is_the_destinations():
  batcher, ready = make(max_bytes=50, frame_bytes=frame), []
  assert add(batcher, rows(1, size=41), ready) == [1]
  assert add(batcher, rows(2, size=47, to='b'), ready) == []
  batcher.flush(ready)
  assert [batch.nbytes for batch, _ in ready] == [50]


def test_destinations_do_not_share_a_request():
  batcher, ready = make(), []
  for i in range(6):
    add(batcher, rows(i, to='ab'[i % 2]), ready)
  batcher.flush(ready)
  assert sorted((batch.destination, ids(batch)) for batch, _ in ready) == [
      ('a', [0, 2, 4]), ('b', [1, 3, 5])
  ]


@pytest.mark.parametrize('one_by_one', [True, False])
def test_a_key_comes_once_per_request(one_by_one):
  batcher, ready = make(keys='unique'), []
  all_ = [toys.Row(i, key=key) for i, key in enumerate('xyxzzx')]
  for some in ([[row] for row in all_] if one_by_one else [all_]):
    add(batcher, some, ready)
  batcher.flush(ready)
  assert [(ids(batch), why) for batch, why in ready] == [([0, 1], 'key'),
                                                         ([2, 3], 'key'),
                                                         ([4, 5], 'finish')]


def test_the_fullest_batches_go_first_when_the_budget_is_spent():
  batcher, ready = make(pending=6000, max_records=1000), []
  add(batcher, rows(1, size=100, to='small'), ready)
  add(batcher, rows(2, size=3000, to='large'), ready)
  assert not ready
  add(batcher, rows(3, size=1500, to='medium'), ready)
  assert [(batch.destination, why) for batch, why in ready
         ] == [('large', 'budget')]


def test_very_many_destinations_are_not_free():
  batcher, ready = make(pending=50_000, max_records=1000), []
  for i in range(1000):
    add(batcher, rows(i, to=f'd{i}'), ready)
  assert 0 < 1000 - len(ready) < 100


def test_cutting_a_block_copies_no_row():
  data = bytes(range(200))
  block = Block('a', data, np.arange(0, 201, 10))
  batcher, ready = make(max_records=6), []
  batcher.add(None, block, ready)
  batcher.flush(ready)
  assert b''.join(b''.join(batch.buffers()) for batch, _ in ready) == data
  assert all(
      buffer.obj is data for batch, _ in ready for buffer in batch.buffers())


def test_an_empty_block_makes_no_batch():
  batcher, ready = make(), []
  assert batcher.add(None, Block('a', b'', (0,)), ready) == ()
  batcher.flush(ready)
  assert ready == []


def test_nothing_is_left_after_a_flush():
  batcher, ready = make(), []
  add(batcher, rows(1), ready)
  batcher.flush(ready)
  batcher.flush(ready)
  assert len(ready) == 1


ROW = st.builds(
    toys.Row,
    id=st.just(0),
    to=st.sampled_from('abc'),
    key=st.integers(0, 5),
    size=st.integers(4, 60))
ELEMENTS = st.lists(
    st.tuples(st.lists(ROW, min_size=1, max_size=12), st.booleans()),
    max_size=12)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    ELEMENTS,
    st.integers(1, 7),
    st.one_of(st.none(), st.integers(12, 150)),
    st.integers(0, 2),
    st.sampled_from(['free', 'unique', 'serial', 'newest']),
    st.sampled_from([LARGE, 3000, 1]))
def test_batches_hold_every_row_once_in_order_and_keep_the_limits(
    elements, max_records, max_bytes, separator, keys, pending):
  limits = Limits(
      max_records=max_records,
      max_bytes=max_bytes,
      frame_bytes=frame,
      separator_bytes=separator,
      keys=keys)
  batcher, ready = Batcher(limits, pending), []
  sent = collections.defaultdict(list)
  by_id = {}
  for rows_, as_list in elements:
    # As an encoder does it: one block per destination of the element.
    parts = collections.defaultdict(list)
    for drawn in rows_:
      row = dataclasses.replace(drawn, id=len(by_id))
      by_id[row.id] = row
      parts[row.to].append(row)
    for to, part in parts.items():
      refused = add(batcher, part, ready, as_list)
      limit = LARGE if max_bytes is None else max_bytes
      assert refused == [
          row.id for row in part if frame(to) + len(row.wire) > limit
      ]
      sent[to] += [row.id for row in part if row.id not in refused]
  unflushed = len(ready)
  batcher.flush(ready)
  assert all(
      (why == 'finish') == (i >= unflushed) for i, (_, why) in enumerate(ready))
  got = collections.defaultdict(list)
  for batch, why in ready:
    wires = [bytes(row) for row in batch.rows()]
    to = batch.destination
    assert batch.nbytes == frame(to) + len((b',' * separator).join(wires))
    assert max_bytes is None or batch.nbytes <= max_bytes
    assert len(wires) == batch.n and 1 <= batch.n <= max_records
    assert (why == 'full_records') <= (batch.n == max_records)
    assert {by_id[i].to for i in ids(batch)} == {to}
    if keys != 'free':
      assert len(set(batch.keys())) == batch.n
    got[to] += ids(batch)
    # A batch is not sent before the next row of its destination would break
    # a limit.
    rest = sent[to][len(got[to]):]
    if why == 'full_bytes':
      assert batch.nbytes + separator + len(by_id[rest[0]].wire) > max_bytes
    if why == 'key':
      assert by_id[rest[0]].key in set(batch.keys())
  assert got == {to: ids_ for to, ids_ in sent.items() if ids_}


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.integers(2, 30), min_size=1, max_size=6), min_size=1),
    st.integers(0, 2),
    st.data())
def test_halves_and_selections_hold_the_same_rows_and_exact_sizes(
    sizes, separator, data):
  limits = Limits(
      max_records=1000, frame_bytes=frame, separator_bytes=separator)
  batcher, ready = Batcher(limits, LARGE), []
  number = 0
  for part in sizes:
    rows_ = []
    for size in part:
      rows_.append(toys.Row(number, size=size))
      number += 1
    add(batcher, rows_, ready)
  batcher.flush(ready)
  ((batch, _),) = ready

  def check(part, wanted):
    wires = [bytes(row) for row in part.rows()]
    assert [toys.id_of(wire) for wire in wires] == wanted
    assert b''.join(part.buffers()) == b''.join(wires)
    assert part.n == len(wanted) and part.destination == 'a'
    if wanted:
      assert part.nbytes == 10 + len((b',' * separator).join(wires))

  left, right = halves(batch, 10, separator)
  check(left, list(range(number // 2)))
  check(right, list(range(number // 2, number)))
  chosen = sorted(data.draw(st.sets(st.integers(0, number - 1))))
  check(select(batch, chosen, 10, separator), chosen)
  twice = select(batch, chosen, 10, separator)
  half = [i for i in range(len(chosen)) if i % 2]
  check(select(twice, half, 10, separator), [chosen[i] for i in half])
