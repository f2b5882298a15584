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
"""The order of rows that share a key, within one process.

Batches take their turn per key in the order in which they arrive. A batch waits
for the batches before it that hold one of its keys, never for a later one, so
there is no circle. All of this runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Hashable
from typing import Any
from typing import Optional

from beam_connector_base.errors import OutageError
from beam_connector_base.operation import Batch

__all__ = ['KeyOrder', 'Turn']

# Acknowledged versions remembered per process: enough for the late events of a
# stream, bounded so that memory does not grow with the number of keys.
REMEMBERED_VERSIONS = 200_000


class Turn:
  """A batch's place in the queues of its keys."""
  __slots__ = ('destination', 'keys', 'before', 'done', 'call')

  def __init__(
      self,
      destination: Hashable,
      keys: list[Hashable],
      before: set[asyncio.Future[None]],
      done: asyncio.Future[None]):
    self.destination = destination
    self.keys = keys
    self.before = before
    self.done = done
    #: A request of the batch that can not be cancelled.
    self.call: Optional[asyncio.Future[Any]] = None


class KeyOrder:
  """Who is next, and what was acknowledged last, for each key.

  Args:
    versioned: remember acknowledged versions, for `keys='newest'`.
    target: what is written to, for messages.
  """
  def __init__(self, versioned: bool, target: str = ''):
    self._target = target
    self._last: dict[Hashable, dict[Hashable, Turn]] = {}
    self._versioned = versioned
    # Turns left while their call still runs, and since when.
    self._lingering: dict[Turn, float] = {}
    self._acknowledged: collections.OrderedDict[tuple[Hashable, Hashable],
                                                Any] = (
                                                    collections.OrderedDict())

  def enter(self, batch: Batch) -> Turn:
    """Queues a batch; called in the order of arrival."""
    last = self._last.setdefault(batch.destination, {})
    keys = list(batch.keys())
    turn = Turn(
        batch.destination,
        keys,
        set(),
        asyncio.get_running_loop().create_future())
    for key in keys:
      previous = last.get(key)
      if previous is not None:
        turn.before.add(previous.done)
      last[key] = turn
    return turn

  async def comes(self, turn: Turn, patience: float) -> None:
    """Waits until every batch before this one has settled or given up.

    Raises:
      OutageError: a call that outlived its batch and can not be cancelled has
        held others up for `patience` seconds.
    """
    loop = asyncio.get_running_loop()
    while turn.before:
      began = loop.time()
      # `wait` leaves the futures alone when this task is cancelled.
      _, pending = await asyncio.wait(turn.before, timeout=patience)
      if not pending:
        turn.before = set()
      elif any(since <= began for since in self._lingering.values()):
        raise OutageError(
            f'{self._target}: an earlier request, which was given up and can '
            f'not be cancelled, has not returned for {patience:g} s; a record '
            'with the same key has to wait for it')

  def leave(self, turn: Turn) -> None:
    """Lets the next ones go; safe to call twice.

    A batch that gives up while it waits, or while a call of it still runs, may
    not let them overtake what is in flight: they go when that is over.
    """
    if turn.done.done():
      return
    for other in turn.before:
      if not other.done():
        other.add_done_callback(lambda _: self.leave(turn))
        return
    if turn.call is not None and not turn.call.done():
      self._lingering.setdefault(turn, turn.done.get_loop().time())
      turn.call.add_done_callback(lambda _: self.leave(turn))
      return
    self._lingering.pop(turn, None)
    turn.done.set_result(None)
    last = self._last.get(turn.destination)
    if last is not None:
      for key in turn.keys:
        if last.get(key) is turn:
          del last[key]
      if not last:
        del self._last[turn.destination]

  def outdated(self, batch: Batch) -> Optional[list[int]]:
    """The batch's rows older than what was acknowledged, in order."""
    if not self._versioned or not self._acknowledged:
      return None
    rows = []
    n = 0
    for _, block, start, stop in batch.pieces:
      for i in range(start, stop):
        if block.versions is not None:
          assert block.keys is not None
          known = self._acknowledged.get((batch.destination, block.keys[i]))
          if known is not None and block.versions[i] < known:
            rows.append(n)
        n += 1
    return rows

  def acknowledged(self, batch: Batch) -> None:
    """Remembers the versions of rows that the service acknowledged."""
    if not self._versioned:
      return
    known = self._acknowledged
    for _, block, start, stop in batch.pieces:
      if block.versions is None:
        continue
      assert block.keys is not None
      for i in range(start, stop):
        key = (batch.destination, block.keys[i])
        version = block.versions[i]
        if key not in known or known[key] < version:
          known[key] = version
        known.move_to_end(key)
    while len(known) > REMEMBERED_VERSIONS:
      known.popitem(last=False)
