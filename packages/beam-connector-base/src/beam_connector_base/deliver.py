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
"""The life of a batch, in one coroutine.

`deliver` is the delivery guarantee: whatever happens to a request, each row of
the batch is settled exactly once (acknowledged, superseded, or failed with a
reason), or the coroutine raises and the bundle fails. Nothing goes back to a
buffer; what is left of a batch is a smaller batch in the same loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Optional

from beam_connector_base import batching
from beam_connector_base.attempt import attempt
from beam_connector_base.credentials import redact
from beam_connector_base.errors import FatalError
from beam_connector_base.errors import OutageError
from beam_connector_base.errors import SystematicRefusalError
from beam_connector_base.keys import Turn
from beam_connector_base.link import Link
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import SUPERSEDED
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Replies
from beam_connector_base.operation import Reply
from beam_connector_base.operation import Superseded
from beam_connector_base.operation import Unanswered
from beam_connector_base.operation import Verdict
from beam_connector_base.reports import Report
from beam_connector_base.reports import Settled

__all__ = ['deliver']

_RETRIED = (Kind.TRANSIENT, Kind.THROTTLED)


async def deliver(
    batch: Batch,
    link: Link,
    report: Report,
    settle: Callable[[Settled], None],
    cancelled: Callable[[], bool] = lambda: False,
    turn: Optional[Turn] = None) -> None:
  """Delivers a batch: this function is the guarantee.

  permit -> send under a timeout -> permit back -> settle what is final -> what
  is left, or each half of it, is a smaller batch in the same loop.

  * A request refused as a whole is halved until the bad records stand alone; a
    record that was never tried alone is never reported as failed.
  * Too large halves without counting as a failure of the records.
  * Transient and throttled failures are tried again with full jitter, alone,
    until the deadline; past it the bundle fails, and no record is blamed.

  Args:
    batch: the rows; its bytes of the process's budget are the caller's.
    link: the session and what all its deliveries share.
    report: filled in as things happen.
    settle: called with final replies only, each row exactly once.
    cancelled: true once the bundle was cancelled from outside.
    turn: the batch's place among those with the same keys, where that matters.

  Raises:
    FatalError: nothing can be delivered until somebody acts.
    OutageError: the deadline passed without progress.
    SystematicRefusalError: one record after the other is refused alike.
  """
  todo: list[tuple[Batch, int]] = [(batch, 0)]  # rows, failures in a row
  since: Optional[float] = None  # of the last progress, once begun
  tries = 0
  loop = asyncio.get_running_loop()
  while todo:
    part, failures = todo.pop()
    if link.order is not None:
      outdated = link.order.outdated(part)
      if outdated:
        settle(
            Settled(
                _rows_of(part, outdated, link), [SUPERSEDED] * len(outdated),
                tries,
                'send'))
        report.superseded += len(outdated)
        if len(outdated) == part.n:
          continue
        part = _rows_of(part, _others(part.n, outdated), link)
    part.attempt = failures + 1
    try:
      await link.flow.admit(part.destination, part.n, part.nbytes)
    except OutageError as error:
      raise OutageError(f'{link.operation.target}: {error}') from None
    if cancelled():
      link.flow.requests.give_back()
      raise asyncio.CancelledError
    started = loop.time()
    since = started if since is None else since
    replies, verdict = await attempt(
        part, link, report, started, cancelled, turn)
    tries += 1
    if verdict is None:
      rest, again = _settle_final(part, replies, link, report, settle, tries)
      if rest is None or rest.n < part.n:
        since = loop.time()
        failures = 0
      if rest is None:
        continue
      assert again is not None
      part, verdict = rest, again
    elif verdict.kind is Kind.FATAL:
      raise FatalError(
          f'{link.operation.target}: {verdict.reason}. Nothing can be '
          'delivered until this is mended; no record was given up.')
    elif verdict.kind not in _RETRIED:
      if part.n > 1:
        left, right = batching.halves(
            part, link.frame(part.destination), link.limits.separator_bytes)
        todo += [(right, 0), (left, 0)]
      else:
        _refuse_alone(part, verdict, link, report, settle, tries)
      since = loop.time()
      continue
    # What is left is tried again, alone, after a while.
    failures += 1
    report.retried += part.n
    delay = link.policy.delay(failures, verdict.retry_after, link.rng)
    now = loop.time()
    if now + delay - since > link.policy.deadline:
      if not link.collect_outages:
        raise OutageError(
            f'{link.operation.target}: gave up on {part.n} record(s) after '
            f'{now - since:.1f} s without progress and {tries} attempt(s); '
            f'the last answer was: {verdict.reason}. The bundle fails so that '
            'the runner tries it again; no record was given up.')
      _refuse(part, verdict, report, settle, tries, 'outage')
      continue
    if failures >= 3:
      link.warn(
          now,
          f'a batch of {part.n} failed {failures} times, trying on: '
          f'{verdict.reason}')
    todo.append((part, failures))
    if verdict.kind is Kind.THROTTLED:
      link.flow.close_gate(part.destination, verdict.retry_after or 0.0)
      await link.flow.pause(delay)
    else:
      await asyncio.sleep(delay)


def _settle_final(
    part: Batch,
    replies: Replies,
    link: Link,
    report: Report,
    settle: Callable[[Settled], None],
    tries: int) -> tuple[Optional[Batch], Optional[Verdict]]:
  """Settles what is final.

  Returns:
    What is left to be tried again, and the verdict on it; None, None if nothing
    is.
  """
  if replies is ALL_OK:
    _acknowledge(part, link, report, settle, ALL_OK, tries)
    return None, None
  assert isinstance(replies, (list, tuple))
  final: list[int] = []
  answers: list[Reply] = []
  again: list[int] = []
  worst: Optional[Verdict] = None
  for i, reply in enumerate(replies):
    if isinstance(reply, Failed):
      verdict = reply.verdict
      if verdict.kind is Kind.FATAL:
        reason = redact(reply.reason or verdict.reason or 'refused')
        raise FatalError(
            f'{link.operation.target}: {reason}. Nothing can be delivered '
            'until this is mended; no record was given up.')
      if verdict.kind in _RETRIED:
        again.append(i)
        worst = _worse(worst, verdict, reply.reason)
        continue
    elif isinstance(reply, Unanswered):
      again.append(i)
      worst = _worse(worst, Verdict(Kind.TRANSIENT), reply.reason)
      continue
    final.append(i)
    answers.append(reply)
  if final:
    done = part if not again else _rows_of(part, final, link)
    _acknowledge(done, link, report, settle, answers, tries)
  if not again:
    return None, None
  return (part if not final else _rows_of(part, again, link)), worst


def _acknowledge(
    part: Batch,
    link: Link,
    report: Report,
    settle: Callable[[Settled], None],
    replies: Replies,
    tries: int) -> None:
  """Settles rows with final replies, and remembers what was acknowledged."""
  if replies is ALL_OK:
    report.written += part.n
    written = part
  else:
    assert isinstance(replies, (list, tuple))
    ok = []
    for i, reply in enumerate(replies):
      if isinstance(reply, Done):
        ok.append(i)
      elif isinstance(reply, Superseded):
        report.superseded += 1
      else:
        report.refused += 1
    report.written += len(ok)
    if not ok:
      settle(Settled(part, replies, tries, 'send'))
      return
    written = part if len(ok) == part.n else _rows_of(part, ok, link)
  link.refusals.written()
  if link.order is not None:
    link.order.acknowledged(written)
  settle(Settled(part, replies, tries, 'send'))


def _refuse_alone(
    part: Batch,
    verdict: Verdict,
    link: Link,
    report: Report,
    settle: Callable[[Settled], None],
    tries: int) -> None:
  """A record was refused with no other in its request: it is to blame."""
  if link.refusals.refused(verdict.status, verdict.reason or ''):
    raise SystematicRefusalError(
        f'{link.operation.target}: one record after the other is refused for '
        f'the same reason, and none is accepted: {verdict.reason}. The records '
        'are hardly to blame. If they are, raise Tuning(refusals_in_a_row=...)'
        ' or set it to 0.')
  _refuse(part, verdict, report, settle, tries, 'send')


def _refuse(
    part: Batch,
    verdict: Verdict,
    report: Report,
    settle: Callable[[Settled], None],
    tries: int,
    stage: str) -> None:
  report.refused += part.n
  failed = Failed(verdict, verdict.reason or '', verdict.kind.value)
  settle(Settled(part, [failed] * part.n, tries, stage))


def _worse(known: Optional[Verdict], verdict: Verdict, reason: str) -> Verdict:
  """The verdict a retry must respect: throttling before others, longest wait."""
  verdict = dataclasses.replace(
      verdict, reason=redact(verdict.reason or reason))
  if known is None:
    return verdict
  wait = max(known.retry_after or 0.0, verdict.retry_after or 0.0) or None
  first = verdict if known.kind is not Kind.THROTTLED else known
  return dataclasses.replace(first, retry_after=wait)


def _rows_of(part: Batch, rows: Sequence[int], link: Link) -> Batch:
  return batching.select(
      part, rows, link.frame(part.destination), link.limits.separator_bytes)


def _others(n: int, rows: Sequence[int]) -> list[int]:
  out = set(rows)
  return [i for i in range(n) if i not in out]
