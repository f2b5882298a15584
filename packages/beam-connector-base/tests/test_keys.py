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

import engine_toys as toys
import pytest

from beam_connector_base import keys
from beam_connector_base.errors import OutageError
from beam_connector_base.keys import KeyOrder
from beam_connector_base.operation import Limits

PATIENCE = 600.0


def batch(*keys_, to='a', versions=None):
  versions = versions or [0] * len(keys_)
  rows = [
      toys.Row(i, to=to, key=key, version=version)
      for i, (key, version) in enumerate(zip(keys_, versions, strict=True))
  ]
  return toys.batch_of(rows, Limits())


class Queue:
  """Batches that wait for their turn; `came` lists whose turn has come."""
  def __init__(self):
    self.order = KeyOrder(versioned=False)
    self.came = []
    self.turns = {}
    self.tasks = {}

  def enter(self, name, entered):
    self.turns[name] = self.order.enter(entered)

    async def wait():
      await self.order.comes(self.turns[name], PATIENCE)
      self.came.append(name)

    self.tasks[name] = asyncio.ensure_future(wait())

  async def leave(self, name):
    self.order.leave(self.turns[name])
    await self.rest()

  async def rest(self):
    for _ in range(5):
      await asyncio.sleep(0)


def test_batches_that_share_a_key_take_turns_in_the_order_of_arrival():
  async def main():
    queue = Queue()
    queue.enter('first', batch('k', 'l'))
    queue.enter('second', batch('l', 'm'))
    queue.enter('third', batch('m', 'k'))
    queue.enter('other', batch('x'))
    await queue.rest()
    assert queue.came == ['first', 'other']
    await queue.leave('first')
    assert queue.came == ['first', 'other', 'second']
    await queue.leave('second')
    assert queue.came[-1] == 'third'

  toys.virtual(main)


def test_the_same_key_at_another_destination_is_another_key():
  async def main():
    queue = Queue()
    queue.enter('here', batch('k', to='a'))
    queue.enter('there', batch('k', to='b'))
    await queue.rest()
    assert queue.came == ['here', 'there']

  toys.virtual(main)


def test_a_turn_that_is_left_before_it_came_lets_nobody_overtake():
  # A bundle that is cancelled while it queues behind another bundle's batch
  # must not let a third start while the first is still in flight.
  async def main():
    queue = Queue()
    queue.enter('in flight', batch('k'))
    queue.enter('cancelled', batch('k'))
    queue.enter('next', batch('k'))
    await queue.rest()
    queue.tasks['cancelled'].cancel()
    await queue.leave('cancelled')
    assert queue.came == ['in flight']
    await queue.leave('in flight')
    assert queue.came == ['in flight', 'next']

  toys.virtual(main)


def test_leaving_twice_is_harmless_and_nothing_is_kept():
  async def main():
    queue = Queue()
    queue.enter('first', batch('k'))
    await queue.leave('first')
    await queue.leave('first')
    queue.enter('second', batch('k'))
    await queue.rest()
    assert queue.came == ['first', 'second']
    await queue.leave('second')
    assert not queue.order._last

  toys.virtual(main)


def test_a_turn_waits_for_a_call_that_outlives_its_batch():
  async def main():
    queue = Queue()
    queue.enter('blocking', batch('k'))
    queue.enter('next', batch('k'))
    call = asyncio.get_running_loop().create_future()
    await queue.rest()
    queue.turns['blocking'].call = call
    await queue.leave('blocking')
    assert queue.came == ['blocking']
    call.set_result(None)
    await queue.rest()
    assert queue.came == ['blocking', 'next']

  toys.virtual(main)


def test_waiting_for_a_call_that_never_returns_ends():
  async def main():
    queue = Queue()
    queue.enter('hangs', batch('k'))
    queue.turns['hangs'].call = asyncio.get_running_loop().create_future()
    queue.enter('next', batch('k'))
    await queue.rest()
    await queue.leave('hangs')
    with pytest.raises(OutageError, match='can not be cancelled'):
      await queue.tasks['next']
    # Nor does it let go of the key by giving up.
    await queue.leave('next')
    queue.enter('one more', batch('k'))
    with pytest.raises(OutageError):
      await queue.tasks['one more']
    assert PATIENCE <= asyncio.get_running_loop().time() <= 3 * PATIENCE

  toys.virtual(main)


def test_waiting_for_batches_that_take_long_has_no_end():
  async def main():
    queue = Queue()
    queue.enter('long', batch('k'))
    queue.enter('next', batch('k'))
    await asyncio.sleep(10 * PATIENCE)
    assert not queue.tasks['next'].done()
    await queue.leave('long')
    assert queue.came == ['long', 'next']

  toys.virtual(main)


def test_only_rows_older_than_what_was_acknowledged_are_outdated():
  order = KeyOrder(versioned=True)
  assert order.outdated(batch('k', versions=[1])) is None
  order.acknowledged(batch('k', 'l', versions=[5, 1]))
  late = batch('k', 'l', 'm', 'k', versions=[4, 1, 0, 5])
  assert order.outdated(late) == [0]
  order.acknowledged(batch('k', versions=[3]))
  assert order.outdated(batch('k', versions=[4])) == [0]
  assert order.outdated(batch('k', to='b', versions=[4])) == []


def test_without_versions_nothing_is_outdated():
  order = KeyOrder(versioned=False)
  order.acknowledged(batch('k', versions=[5]))
  assert order.outdated(batch('k', versions=[1])) is None


def test_remembered_versions_are_bounded(monkeypatch):
  monkeypatch.setattr(keys, 'REMEMBERED_VERSIONS', 3)
  order = KeyOrder(versioned=True)
  for key in 'abcd':
    order.acknowledged(batch(key, versions=[9]))
  assert order.outdated(batch('a', versions=[1])) == []
  assert order.outdated(batch('d', versions=[1])) == [0]


def test_an_older_version_that_is_acknowledged_does_not_lower_the_mark():
  order = KeyOrder(versioned=True)
  order.acknowledged(batch('k', versions=[9]))
  order.acknowledged(batch('k', versions=[2]))
  assert order.outdated(batch('k', versions=[8])) == [0]
