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
"""One bundle's records on their way to the service.

A `Bundle` is used by one thread. Encoding, batching and all accounting happen
on that thread; deliveries run on the process's event loop and hand their
results over through a queue.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Optional

from beam_connector_base.batching import Batcher
from beam_connector_base.batching import Ready
from beam_connector_base.credentials import redact
from beam_connector_base.deliver import deliver
from beam_connector_base.errors import DeliveryError
from beam_connector_base.errors import FatalError
from beam_connector_base.errors import LostRecordError
from beam_connector_base.keys import Turn
from beam_connector_base.link import Link
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.reports import Report
from beam_connector_base.reports import Settled
from beam_connector_base.runtime import Runtime
from beam_connector_base.runtime import SharedSession
from beam_connector_base.submission import Failure
from beam_connector_base.submission import Submission
from beam_connector_base.submission import apply_reply
from beam_connector_base.submission import failure_of_invalid
from beam_connector_base.tuning import Tuning

__all__ = ['Bundle']

DEFAULT_PENDING_BYTES = 32 << 20
# What a batch and a row of it cost besides their bytes, in bytes of the budget:
# very many tiny batches must not be free either.
_BATCH_OVERHEAD_BYTES = 1024
_ROW_OVERHEAD_BYTES = 256
# How often a waiting bundle looks whether the event loop is still there.
_WATCH_SECONDS = 5.0


class Bundle:
  """One bundle's records on their way; used by one thread."""
  def __init__(self, runtime: Runtime, shared: SharedSession, tuning: Tuning):
    assert shared.link is not None and shared.budget is not None
    self._runtime = runtime
    self._loop = runtime.loop()
    self._shared = shared
    self._link: Link = shared.link
    self._budget = shared.budget
    self._encode = shared.session.encode
    self._batcher = Batcher(
        self._link.limits, int(tuning.pending_bytes or DEFAULT_PENDING_BYTES))
    self._ready: Ready = []
    self._inbox: collections.deque[Settled] = collections.deque()
    self._reports: collections.deque[Report] = collections.deque()
    self._finished: list[Submission] = []
    self._event = threading.Event()
    self._tasks: set[asyncio.Task[None]] = set()
    self._error: Optional[BaseException] = None
    self._cancelled = False
    self._sent_batches = 0
    self._ended_batches = 0
    # The books: rows of blocks submitted, and rows of blocks settled.
    self._rows_in = 0
    self._rows_out = 0

  # ------------------------------------------------------ the bundle's thread

  def submit(self, element: Any, ticket: Any = None) -> None:
    """Encodes an element, batches its rows and sends what is full.

    Blocks while the process's budget of bytes is spent.

    Raises:
      DeliveryError: a batch of this bundle failed.
    """
    if self._error is not None:
      self._raise()
    submission = Submission(element, ticket)
    try:
      for item in self._encode(element):
        if type(item) is Block:
          submission.rows += item.n
          self._take(submission, item)
        else:
          submission.rows += 1
          submission.fail(failure_of_invalid(item))
    except BaseException as error:
      # The bundle is half encoded: it can not go on.
      self._error = self._error or error
      self.cancel()
      raise
    if not submission.outstanding:
      self._finished.append(submission)
    if self._ready:
      self._send_ready()

  def settled(self) -> list[Submission]:
    """The elements whose rows have all settled since the last call."""
    if self._inbox:
      self._absorb()
    finished = self._finished
    if finished:
      self._finished = []
    return finished

  def drain(self) -> list[Submission]:
    """Sends what is left and waits until everything has settled.

    Raises:
      DeliveryError: a batch of this bundle failed.
    """
    if self._error is None:
      self._batcher.flush(self._ready)
      self._send_ready()
    while self._error is None and self._unfinished():
      if not self._event.wait(_WATCH_SECONDS):
        self._look_for_loop()
      self._event.clear()
    if self._error is not None:
      self._raise()
    finished = self.settled()
    if self._rows_in != self._rows_out:
      raise LostRecordError(
          f'{self._link.operation.target}: {self._rows_in} rows were submitted '
          f'and {self._rows_out} settled')
    return finished

  def reports(self) -> list[Report]:
    """What happened to the batches that ended since the last call."""
    out = []
    while self._reports:
      out.append(self._reports.popleft())
    if out:
      # Facts of the process, not of a batch: whoever reports first has them.
      out[0].connections = self._shared.unreported_connections
      self._shared.unreported_connections = 0
      out[0].throttled_seconds = self._link.flow.throttled.take(self._loop.time)
    return out

  def cancel(self) -> None:
    """Gives up: what is in flight is cancelled and will never be reported."""
    if self._cancelled:
      return
    self._error = self._error or DeliveryError(
        f'{self._link.operation.target}: the bundle was cancelled')
    self._cancelled = True
    with contextlib.suppress(RuntimeError):  # the loop is closed
      self._loop.call_soon_threadsafe(self._cancel_tasks)
    self._budget.wake()

  def _take(self, submission: Submission, block: Block) -> Sequence[int]:
    """Puts a block's rows into batches.

    Returns:
      The rows that were refused because they alone are too large.
    """
    oversized = self._batcher.add(submission, block, self._ready)
    n = block.n
    if oversized:
      self._refuse_oversized(submission, block, oversized)
      n -= len(oversized)
    self._rows_in += n
    submission.send(block.destination, n)
    return oversized

  def _unfinished(self) -> bool:
    """Whether something is still on its way."""
    return self._ended_batches < self._sent_batches

  def _send_ready(self) -> None:
    ready, self._ready = self._ready, []
    for batch, reason in ready:
      cost = (
          batch.nbytes + _BATCH_OVERHEAD_BYTES + batch.n * _ROW_OVERHEAD_BYTES)
      if not self._budget.take(cost, self._stopped):
        self._raise()
      self._departs(batch)
      try:
        self._loop.call_soon_threadsafe(self._start, batch, reason, cost)
      except RuntimeError:  # the loop is closed
        self._stays(batch)
        self._budget.give_back(cost)
        self._look_for_loop()
        self._raise()
      self._sent_batches += 1
    # Hands the interpreter to the event loop, which would otherwise wait for
    # the switch interval (5 ms) of a busy bundle before a request leaves.
    time.sleep(0)

  def _departs(self, batch: Batch) -> None:
    """Called, on the bundle's thread, before a batch is handed over."""

  def _stays(self, batch: Batch) -> None:
    """Called for one that will not be sent after all."""

  def _stopped(self) -> bool:
    self._look_for_loop()
    return self._error is not None

  def _look_for_loop(self) -> None:
    """Fails the bundle if the event loop has ended under it."""
    if self._error is None and (self._loop.is_closed()
                                or not self._runtime.alive):
      self._error = DeliveryError(
          f'{self._link.operation.target}: the event loop has ended')

  def _raise(self) -> None:
    assert self._error is not None
    raise self._error

  def _refuse_oversized(
      self, submission: Submission, block: Block, rows: Any) -> None:
    limit = self._link.limits.max_bytes
    for row in rows:
      size = int(block.offsets[row + 1] - block.offsets[row])
      key = block.key(row)
      submission.fail(
          Failure(
              block.row_id(row),
              str(block.destination),
              '' if key is None else str(key),
              'encode',
              'RecordTooLarge',
              f'the record is {size} bytes on the wire, a request may have '
              f'{limit} bytes in all: make the record smaller',
              413,
              0))

  def _absorb(self) -> None:
    while self._inbox:
      self._absorb_one()

  def _absorb_one(self) -> None:
    settled = self._inbox.popleft()
    batch = settled.batch
    self._rows_out += batch.n
    if settled.replies is not ALL_OK:
      self._absorb_replies(settled)
    finished = self._finished
    for submission, _, start, stop in batch.pieces:
      left = submission.outstanding - (stop - start)
      submission.outstanding = left
      if not left:
        finished.append(submission)

  def _absorb_replies(self, settled: Settled) -> None:
    replies = iter(settled.replies)  # type: ignore[arg-type]
    for submission, block, start, stop in settled.batch.pieces:
      for i in range(start, stop):
        apply_reply(
            submission,
            block,
            i,
            next(replies),
            settled.stage,
            settled.attempts)

  # ---------------------------------------------------- the event loop's thread

  def _start(self, batch: Batch, reason: str, cost: int) -> None:
    if self._cancelled:
      self._stays(batch)
      self._end(cost)
      return
    try:
      order = self._link.order
      turn = None if order is None else order.enter(batch)
      report = Report(str(batch.destination), batch.n, batch.nbytes, reason)
    except Exception as error:  # pylint: disable=broad-except
      # Of a callback, nobody but the event loop's log would hear of it.
      self._fail(self._bug(error))
      self._stays(batch)
      self._end(cost)
      return
    task = self._loop.create_task(self._deliver(batch, report, turn))
    self._tasks.add(task)
    task.add_done_callback(
        functools.partial(self._done, batch, report, cost, turn))

  async def _deliver(
      self, batch: Batch, report: Report, turn: Optional[Turn]) -> None:
    link = self._link
    try:
      if turn is not None and turn.before:
        assert link.order is not None
        await link.order.comes(turn, link.policy.deadline)
      await deliver(
          batch, link, report, self._settler(batch), self._is_cancelled, turn)
    except DeliveryError as error:
      self._fail(error)
    except Exception as error:  # pylint: disable=broad-except
      self._fail(self._bug(error))

  def _bug(self, error: Exception) -> FatalError:
    bug = FatalError(
        f'{self._link.operation.target}: a bug in the delivery: '
        f'{type(error).__name__}: {redact(str(error))}')
    bug.__cause__ = error
    return bug

  def _settler(self, batch: Batch) -> Callable[[Settled], None]:
    """Takes what `deliver` has settled of this batch."""
    return self._inbox.append

  def _done(
      self,
      batch: Batch,
      report: Report,
      cost: int,
      turn: Optional[Turn],
      task: asyncio.Task[None]) -> None:
    """Ends a delivery; a callback, since a task may end before it began."""
    self._tasks.discard(task)
    if task.cancelled() and not self._cancelled:
      self._fail(
          DeliveryError(f'{self._link.operation.target}: the runtime ended'))
    if turn is not None:
      assert self._link.order is not None
      self._link.order.leave(turn)
    self._reports.append(report)
    self._end(cost)

  def _is_cancelled(self) -> bool:
    return self._cancelled

  def _fail(self, error: BaseException) -> None:
    """Stops the bundle in the very step in which its delivery failed.

    A step later, deliveries that waited for the permit would have sent.
    """
    if self._error is None:
      self._error = error
    self._cancelled = True
    self._cancel_tasks()

  def _end(self, cost: int) -> None:
    self._ended_batches += 1
    self._budget.give_back(cost)
    if self._error is not None:
      self._budget.wake()
    self._event.set()

  def _cancel_tasks(self) -> None:
    me = asyncio.current_task(self._loop)
    for task in list(self._tasks):
      if task is not me:
        task.cancel()
