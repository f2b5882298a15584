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
"""One request: under a timeout, with its permit, and what its end means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from typing import Optional

from beam_connector_base.errors import AttemptTimeoutError
from beam_connector_base.errors import FatalError
from beam_connector_base.errors import OutageError
from beam_connector_base.keys import Turn
from beam_connector_base.link import Link
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Replies
from beam_connector_base.operation import Superseded
from beam_connector_base.operation import Unanswered
from beam_connector_base.operation import Verdict
from beam_connector_base.reports import Attempt
from beam_connector_base.reports import Report

__all__ = ['attempt']


async def attempt(
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
