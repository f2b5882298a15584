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
import logging
import random
import re
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from typing import Any
from typing import Optional

from beam_connector_base import batching
from beam_connector_base.credentials import redact
from beam_connector_base.errors import AttemptTimeoutError
from beam_connector_base.errors import FatalError
from beam_connector_base.errors import OutageError
from beam_connector_base.errors import SystematicRefusalError
from beam_connector_base.flow import Flow
from beam_connector_base.keys import KeyOrder
from beam_connector_base.keys import Turn
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import SUPERSEDED
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Replies
from beam_connector_base.operation import Reply
from beam_connector_base.operation import Session
from beam_connector_base.operation import Superseded
from beam_connector_base.operation import Unanswered
from beam_connector_base.operation import Verdict
from beam_connector_base.retry import RetryPolicy
from beam_connector_base.retry import transport_verdict

__all__ = ['Attempt', 'Link', 'Refusals', 'Report', 'Settled', 'deliver']

_LOGGER = logging.getLogger(__name__)

_RETRIED = (Kind.TRANSIENT, Kind.THROTTLED)


@dataclasses.dataclass
class Attempt:
  """One request: how it ended, and how long it took.

  Args:
    outcome: 'ok', 'partial', 'throttled', 'transient', 'timeout', 'refused',
      'too_large' or 'fatal'.
    status: the HTTP status or its equivalent, where there was an answer.
    seconds: from sending to the answer.
    records: rows in the request.
    nbytes: bytes of the request as the wire counts them.
  """
  __slots__ = ('outcome', 'status', 'seconds', 'records', 'nbytes')
  outcome: str
  status: Optional[int]
  seconds: float
  records: int
  nbytes: int


@dataclasses.dataclass
class Report:
  """What happened to one batch, for metrics."""
  destination: str
  records: int
  nbytes: int
  flush: str
  attempts: list[Attempt] = dataclasses.field(default_factory=list)
  written: int = 0
  refused: int = 0
  superseded: int = 0
  retried: int = 0
  throttled_seconds: float = 0.0
  in_flight: int = 0
  connections: int = 0
  cache_hits: int = 0
  cache_misses: int = 0
  joined: int = 0


@dataclasses.dataclass
class Settled:
  """Rows whose fate is decided: `ALL_OK` or one final reply per row."""
  __slots__ = ('batch', 'replies', 'attempts', 'stage')
  batch: Batch
  replies: Replies
  attempts: int
  stage: str


class Refusals:
  """Counts records refused on their own for one reason, none written between.

  When nearly everything fails the same way the records are not the problem.

  Args:
    most: how many in a row are too many; 0 for never.
  """
  _VARIABLE = re.compile(r'"[^"]*"|\'[^\']*\'|[0-9]+')

  def __init__(self, most: int):
    self._most = most
    self._signature: Optional[tuple[Optional[int], str]] = None
    self._count = 0

  def written(self) -> None:
    self._count = 0

  def refused(self, status: Optional[int], reason: str) -> bool:
    """Counts one; True when it is one too many."""
    signature = (status, self._VARIABLE.sub('#', reason)[:200])
    if signature != self._signature:
      self._signature = signature
      self._count = 0
    self._count += 1
    return 0 < self._most <= self._count


class Link:
  """What all deliveries to one session share in this process."""
  def __init__(
      self,
      operation: Operation,
      session: Session,
      limits: Limits,
      flow: Flow,
      policy: RetryPolicy,
      refusals: Refusals,
      *,
      collect_outages: bool = False,
      pool: Any = None,
      rng: Optional[random.Random] = None):
    self.operation = operation
    self.session = session
    self.limits = limits
    self.flow = flow
    self.policy = policy
    self.refusals = refusals
    self.collect_outages = collect_outages
    self.pool = pool
    self.rng = rng or random.Random()
    #: Set when the runtime ends: a cancelled request is not tried again.
    self.closing = False
    self.order: Optional[KeyOrder] = None
    if limits.keys in ('serial', 'newest'):
      self.order = KeyOrder(limits.keys == 'newest', operation.target)

  def frame(self, destination: Hashable) -> int:
    return self.limits.frame_bytes(destination)

  def classify(self, error: BaseException) -> Verdict:
    """The operation's verdict, with a reason that is safe to show."""
    if isinstance(error, AttemptTimeoutError):
      return Verdict(Kind.TRANSIENT, reason=str(error))
    if isinstance(error, asyncio.CancelledError):
      # A transport that cancels its own call; ours is told apart before.
      return Verdict(Kind.TRANSIENT, reason='the request was cancelled')
    try:
      verdict = self.operation.classify(error)
    except Exception as bug:  # pylint: disable=broad-except
      verdict = transport_verdict(error) or Verdict(
          Kind.FATAL, reason=f'classify() raised {type(bug).__name__}: {bug}')
    reason = verdict.reason
    if reason is None:
      reason = f'{type(error).__name__}: {error}'.rstrip(': ')
    return dataclasses.replace(verdict, reason=redact(reason))


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
    replies, verdict = await _attempt(
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
    if failures == 3:
      _LOGGER.warning(
          '%s: a batch of %d failed %d times, trying on: %s',
          link.operation.target,
          part.n,
          failures,
          verdict.reason)
    todo.append((part, failures))
    if verdict.kind is Kind.THROTTLED:
      link.flow.close_gate(part.destination, verdict.retry_after or 0.0)
      await link.flow.pause(delay)
    else:
      await asyncio.sleep(delay)


async def _attempt(
    part: Batch,
    link: Link,
    report: Report,
    started: float,
    cancelled: Callable[[], bool],
    turn: Optional[Turn]) -> tuple[Replies, Optional[Verdict]]:
  """One request; holds a permit on entry, gives it back when it is over."""
  loop = asyncio.get_running_loop()
  requests = link.flow.requests
  report.in_flight = max(report.in_flight, requests.in_flight)
  verdict: Optional[Verdict] = None
  replies: Replies = ALL_OK
  timed_out = False
  try:
    if link.session.send_blocking is None:
      replies = await _within(
          link.policy.attempt_timeout,
          link.session.send(part), lambda: cancelled() or link.closing)
      requests.give_back()
    else:
      replies = await _send_blocking(part, link, turn)
  except asyncio.CancelledError as error:
    if link.session.send_blocking is None:
      requests.give_back()
    if cancelled() or link.closing:
      raise
    verdict = link.classify(error)
  except Exception as error:  # pylint: disable=broad-except
    if link.session.send_blocking is None:
      requests.give_back()
    if isinstance(error, OutageError):
      raise
    verdict = link.classify(error)
    timed_out = isinstance(error, AttemptTimeoutError)
  now = loop.time()
  outcome = 'ok'
  pressed = False
  if verdict is not None:
    outcome = _OUTCOMES[verdict.kind]
    if outcome == 'transient' and timed_out:
      outcome = 'timeout'
    pressed = outcome in ('throttled', 'timeout')
  elif replies is not ALL_OK:
    outcome, pressed = _outcome(part, replies)
  if pressed:
    requests.pressed(started, now)
  elif outcome == 'ok' or outcome == 'partial':
    requests.succeeded()
  status = None if verdict is None else verdict.status
  if link.limits.side_by_side and part.n > 1:
    report.attempts += _each(part, replies, outcome, status, now - started)
  else:
    report.attempts.append(
        Attempt(outcome, status, now - started, part.n, part.nbytes))
  return replies, verdict


def _each(
    part: Batch,
    replies: Replies,
    outcome: str,
    status: Optional[int],
    seconds: float) -> list[Attempt]:
  """The requests of a batch whose records were sent side by side."""
  attempts = [
      Attempt(
          outcome,
          status,
          seconds,
          1,
          int(block.offsets[i + 1] - block.offsets[i]))
      for _, block, start, stop in part.pieces
      for i in range(start, stop)
  ]
  if outcome == 'partial':
    assert isinstance(replies, (list, tuple))
    for attempt, reply in zip(attempts, replies, strict=True):
      attempt.outcome = 'ok'
      if isinstance(reply, Failed):
        attempt.outcome = _OUTCOMES[reply.verdict.kind]
        attempt.status = reply.verdict.status
      elif isinstance(reply, Unanswered):
        attempt.outcome = 'transient'
  return attempts


_OUTCOMES = {
    Kind.TRANSIENT: 'transient',
    Kind.THROTTLED: 'throttled',
    Kind.PERMANENT: 'refused',
    Kind.TOO_LARGE: 'too_large',
    Kind.FATAL: 'fatal',
}


def _outcome(part: Batch, replies: Any) -> tuple[str, bool]:
  """How a request with one reply per row ended, and whether it was throttled."""
  if not isinstance(replies, (list, tuple)) or len(replies) != part.n:
    size = len(replies) if hasattr(replies, '__len__') else replies
    raise FatalError(
        f'a session answered {size!r} for {part.n} rows; it must answer ALL_OK '
        'or one reply per row: a bug of the connector')
  whole = True
  pressed = False
  for reply in replies:
    if isinstance(reply, Failed):
      whole = False
      pressed |= reply.verdict.kind is Kind.THROTTLED
    elif isinstance(reply, Unanswered):
      whole = False
    elif not isinstance(reply, (Done, Superseded)):
      raise FatalError(
          f'a session answered {type(reply).__name__} for a row: a bug of the '
          'connector')
  return 'ok' if whole else 'partial', pressed


async def _within(
    seconds: float, sending: Any, cancelled: Callable[[], bool]) -> Replies:
  """Awaits the answer for so long, then cancels the request.

  `asyncio.wait_for` would cost a task and a copy of the context a request.
  """
  loop = asyncio.get_running_loop()
  task = asyncio.current_task()
  assert task is not None
  fired = False

  def fire() -> None:
    nonlocal fired
    fired = True
    task.cancel()

  timer = loop.call_later(seconds, fire)
  try:
    replies: Replies = await sending
    return replies
  except asyncio.CancelledError:
    if fired and not cancelled():
      if hasattr(task, 'uncancel'):  # from Python 3.11
        task.uncancel()
      raise AttemptTimeoutError(f'no answer within {seconds:g} s') from None
    raise
  finally:
    timer.cancel()


async def _send_blocking(
    part: Batch, link: Link, turn: Optional[Turn]) -> Replies:
  """Runs a call that can not be cancelled; its permit stays until it returns.

  Where keys must keep an order, a call that timed out may still land, so that
  nothing is sent again before it has returned or the deadline has passed. Nor
  is anything of other batches with its keys, even if this batch gives up.
  """
  loop = asyncio.get_running_loop()
  requests = link.flow.requests
  assert link.session.send_blocking is not None
  try:
    call = loop.run_in_executor(link.pool, link.session.send_blocking, part)
  except BaseException:
    requests.give_back()
    raise

  def returned(future: asyncio.Future[Any]) -> None:
    requests.give_back()
    if not future.cancelled():
      future.exception()  # seen: a late error concerns nobody any more

  call.add_done_callback(returned)
  if turn is not None:
    turn.call = call
  seconds = link.policy.attempt_timeout
  if link.order is not None:
    seconds = max(seconds, link.policy.deadline)
  done, _ = await asyncio.wait([call], timeout=seconds)
  if not done:
    if link.order is not None:
      raise OutageError(
          f'{link.operation.target}: a call did not return within '
          f'{seconds:g} s and can not be cancelled')
    raise AttemptTimeoutError(f'the call did not return within {seconds:g} s')
  replies: Replies = call.result()
  return replies


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
