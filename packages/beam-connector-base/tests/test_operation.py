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

import asyncio
import pickle

import numpy as np
import pytest

from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import MISSING
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Session
from beam_connector_base.operation import throttled


@pytest.mark.parametrize('one', [ALL_OK, MISSING])
def test_what_is_told_by_identity_keeps_it_when_pickled(one):
  assert pickle.loads(pickle.dumps(one)) is one


def test_one_record_is_a_block_of_one():
  block = Block('a', b'12345', keys=('k',))
  assert block.n == 1
  assert list(block.offsets) == [0, 5]
  assert block.row_id(0) == 0
  assert block.key(0) == 'k'


def test_a_block_without_rows_is_empty():
  assert Block('a', b'', (0,)).n == 0


def test_rows_of_a_block_keep_their_number_within_the_element():
  block = Block('a', b'xxyy', np.array([0, 2, 4]), row_ids=[3, 7])
  assert [block.row_id(i) for i in range(block.n)] == [3, 7]
  assert block.key(0) is None


@pytest.mark.parametrize('as_list', [False, True])
def test_rows_and_buffers_of_a_batch_hold_the_same_bytes(as_list):
  rows = [b'a', b'bb', b'', b'cccc']
  several = Block(
      'x',
      rows if as_list else b''.join(rows), [0, 1, 3, 3, 7],
      keys=[1, 2, 3, 4])
  one = Block('x', [b'zz'] if as_list else b'zz', (0, 2), keys=[9])
  batch = Batch('x', [(None, several, 1, 4), (None, one, 0, 1)], 4, 8)
  assert [bytes(row) for row in batch.rows()] == [b'bb', b'', b'cccc', b'zz']
  assert b''.join(batch.buffers()) == b'bbcccczz'
  assert list(batch.keys()) == [2, 3, 4, 9]
  assert len(batch) == 4


def test_a_whole_block_is_one_buffer_and_is_not_copied():
  data = bytearray(b'abcdef')
  block = Block('x', data, [0, 2, 4, 6])
  whole = Batch('x', [(None, block, 0, 3)], 3, 6).buffers()
  assert len(whole) == 1 and whole[0] is data
  (slice_,) = Batch('x', [(None, block, 1, 2)], 1, 2).buffers()
  assert slice_.obj is data


def test_keys_of_rows_without_keys_are_none():
  block = Block('x', b'ab', [0, 1, 2])
  assert list(Batch('x', [(None, block, 0, 2)], 2, 2).keys()) == [None, None]


def test_objects_of_an_sdk_are_handed_over_as_they_are():
  objects = [{'a': 1}, {'a': 2}, {'a': 3}]
  block = Block('x', objects, [0, 10, 20, 30])
  batch = Batch('x', [(None, block, 1, 3)], 2, 20)
  assert list(batch.rows()) == objects[1:] == batch.buffers()


def test_reprs_show_no_payload():
  block = Block('a', b'secret')
  batch = Batch('a', [(None, block, 0, 1)], 1, 6)
  assert 'secret' not in repr(block) + repr(batch)
  assert repr(ALL_OK) == 'ALL_OK'


def test_throttled_carries_the_wait_and_a_status():
  verdict = throttled(7.5, reason='slow down')
  assert verdict.kind is Kind.THROTTLED
  assert (verdict.retry_after, verdict.status) == (7.5, 429)


def test_what_is_passed_around_is_equal_by_value():
  assert Done(1) == Done(1)
  assert Invalid(0, 'no') == Invalid(0, 'no')
  assert Limits() == Limits()


def test_a_session_without_send_says_so():
  class Half(Session):
    def encode(self, element):
      return ()

  with pytest.raises(TypeError, match='Half implements neither send nor'):
    asyncio.run(Half().send(Batch('a', [], 0, 0)))
