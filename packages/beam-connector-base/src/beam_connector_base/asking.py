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
"""A bundle of an operation that answers: equal keys are asked for once."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from typing import Any
from typing import Optional

from beam_connector_base.answers import Waiter
from beam_connector_base.bundle import Bundle
from beam_connector_base.cache import MISS
from beam_connector_base.errors import FatalError
from beam_connector_base.keys import Turn
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Reply
from beam_connector_base.reports import Report
from beam_connector_base.reports import Settled
from beam_connector_base.runtime import Runtime
from beam_connector_base.runtime import SharedSession
from beam_connector_base.submission import Submission
from beam_connector_base.submission import apply_reply
from beam_connector_base.tuning import Tuning

__all__ = ['AskingBundle']


class AskingBundle(Bundle):
  """One bundle's questions: cached, joined with others', or asked.

  A row whose key is cached settles at once; one whose key is being asked for
  waits for that answer; only the others go into batches.
  """
  def __init__(self, runtime: Runtime, shared: SharedSession, tuning: Tuning):
    super().__init__(runtime, shared, tuning)
    self._answers = shared.answers
    # Rows that wait for a row of this bundle with the same key.
    self._mine: dict[Hashable, list[tuple[Submission, Block, int]]] = {}
    # Rows that wait for a request of another bundle: how many, and what came.
    self._joined = 0
    self._landed: collections.deque[tuple[Submission,
                                          Block,
                                          int,
                                          Optional[Reply],
                                          str,
                                          int]] = collections.deque()
    self._counts = Report('', 0, 0, '')

  # ------------------------------------------------------ the bundle's thread

  def settled(self) -> list[Submission]:
    if self._landed:
      self._absorb()
    return super().settled()

  def reports(self) -> list[Report]:
    out = super().reports()
    counts = self._counts
    if counts.cache_hits or counts.cache_misses or counts.joined:
      self._counts = Report('', 0, 0, '')
      out.append(counts)
    return out

  def _take(self, submission: Submission, block: Block) -> Sequence[int]:
    counts = self._counts
    ask = []
    for i in range(block.n):
      at = (block.destination, block.key(i))
      answer = self._answers.cached(at)
      if answer is not MISS:
        counts.cache_hits += 1
        submission.answer(block.row_id(i), answer)
        continue
      if self._answers.cache is not None:
        counts.cache_misses += 1
      waiting = self._mine.get(at)
      if waiting is not None:
        waiting.append((submission, block, i))
      elif self._answers.join(at, self._waiter(submission, block, i)):
        self._joined += 1
      else:
        self._mine[at] = []
        ask.append(i)
        continue
      counts.joined += 1
      self._rows_in += 1
      submission.outstanding += 1
    if ask:
      part = block if len(ask) == block.n else block.select(ask)
      for i in super()._take(submission, part):
        # Rows of this block with the same key are as large.
        waiting = self._mine.pop((block.destination, part.key(i)))
        for _, _, other in waiting:
          self._refuse_oversized(submission, block, [other])
          self._rows_out += 1
          submission.outstanding -= 1
    return ()

  def _waiter(self, submission: Submission, block: Block, i: int) -> Waiter:
    def landed(reply: Optional[Reply], stage: str, attempts: int) -> None:
      self._landed.append((submission, block, i, reply, stage, attempts))
      self._event.set()

    return landed

  def _unfinished(self) -> bool:
    self._absorb()
    if self._ready or self._batcher.pending:
      # Keys of a request that another bundle gave up.
      self._batcher.flush(self._ready)
      self._send_ready()
    return self._joined > 0 or super()._unfinished()

  def _absorb(self) -> None:
    inbox = self._inbox
    for _ in range(len(inbox)):
      settled = inbox[0]
      # The one who asked, then those of this bundle who wait for the same.
      self._absorb_one()
      replies: Any = settled.replies
      for key, answer in zip(settled.batch.keys(), replies, strict=True):
        for row in self._mine.pop((settled.batch.destination, key), ()):
          self._settle_row(*row, answer, settled.stage, settled.attempts)
    while self._landed:
      submission, block, i, reply, stage, attempts = self._landed.popleft()
      self._joined -= 1
      if reply is not None:
        self._settle_row(submission, block, i, reply, stage, attempts)
        continue
      # Whoever asked has given up: ask again.
      self._rows_in -= 1
      submission.outstanding -= 1
      self._counts.joined -= 1
      self._take(submission, block.select([i]))
      if not submission.outstanding:
        self._finished.append(submission)

  def _settle_row(
      self,
      submission: Submission,
      block: Block,
      i: int,
      reply: Reply,
      stage: str,
      attempts: int) -> None:
    apply_reply(submission, block, i, reply, stage, attempts)
    self._rows_out += 1
    submission.outstanding -= 1
    if not submission.outstanding:
      self._finished.append(submission)

  def _departs(self, batch: Batch) -> None:
    # Before anybody else can ask for the same.
    self._answers.depart(batch)

  # ---------------------------------------------------- the event loop's thread

  def _stays(self, batch: Batch) -> None:
    self._answers.give_up(batch)

  def _settler(self, batch: Batch) -> Callable[[Settled], None]:
    def settle(settled: Settled) -> None:
      replies: Any = settled.replies
      if replies is ALL_OK or any(
          isinstance(reply, Done) and reply.value is None for reply in replies):
        raise FatalError(
            f'{self._link.operation.target}: a lookup was answered with ALL_OK '
            'or Done(None), not with Done(answer) or Done(MISSING): a bug of '
            'the connector')
      self._answers.arrive(batch, settled)
      self._inbox.append(settled)

    return settle

  def _done(
      self,
      batch: Batch,
      report: Report,
      cost: int,
      turn: Optional[Turn],
      task: asyncio.Task[None]) -> None:
    self._answers.give_up(batch)
    super()._done(batch, report, cost, turn, task)
