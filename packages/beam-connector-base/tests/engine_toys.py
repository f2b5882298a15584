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
"""Toy services for tests of the engine, and a clock that jumps.

`Store` is the plain service that the others differ from. It works on the bytes
of a request alone, so that what it logs does not come from the engine's books.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import faulthandler
import random
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import Optional

from beam_connector_base.deliver import deliver
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.flow import Flow
from beam_connector_base.link import Link
from beam_connector_base.link import Refusals
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import FATAL
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Session
from beam_connector_base.operation import Verdict
from beam_connector_base.reports import Report
from beam_connector_base.reports import Settled
from beam_connector_base.retry import RetryPolicy
from beam_connector_base.retry import transport_verdict
from beam_connector_base.runtime import Runtime
from beam_connector_base.submission import Submission
from beam_connector_base.testing import VirtualTimeLoop
from beam_connector_base.tuning import Tuning

PATIENCE_SECONDS = 30.0


class ToyError(Exception):
  """An answer of a toy service that is not a success."""
  def __init__(self, verdict: Verdict, text: str = ''):
    super().__init__(text or verdict.kind.value)
    self.verdict = dataclasses.replace(verdict, reason=str(self))


@dataclasses.dataclass(frozen=True)
class Toy(Operation):
  """Equal when service and name are; the service opens sessions."""
  service: Any
  name: str = 'toy'

  async def open(self) -> Session:
    return await self.service.open()

  def classify(self, error: BaseException) -> Verdict:
    if isinstance(error, ToyError):
      return error.verdict
    return transport_verdict(error) or FATAL

  @property
  def target(self) -> str:
    return self.name


# ----------------------------------------------------------------- records


@dataclasses.dataclass(frozen=True)
class Row:
  """One record; on the wire its id, padded to its size.

  Args:
    id: unique within a test.
    to: destination.
    key: the same for versions of one record; its id by default.
    nature: 'good', 'bad' (the service refuses it) or 'invalid' (never sent).
  """
  id: int
  to: str = 'a'
  key: Optional[Hashable] = None
  version: int = 0
  size: int = 8
  nature: str = 'good'

  @property
  def wire(self) -> bytes:
    return f'{self.id}:'.encode().ljust(self.size, b'.')


class Rows(list):
  """An element of several rows; in one buffer, or a list of `bytes`."""
  def __init__(self, rows: Iterable[Row], as_list: bool = False):
    super().__init__(rows)
    self.as_list = as_list


def rows_of(element: Any) -> Sequence[Row]:
  return element if isinstance(element, Rows) else [element]


def id_of(wire: Any) -> int:
  return int(bytes(wire).split(b':')[0])


def block(rows: Sequence[Row], row_ids: Any = None, as_list=False) -> Block:
  wires = [row.wire for row in rows]
  offsets = [0]
  for wire in wires:
    offsets.append(offsets[-1] + len(wire))
  return Block(
      rows[0].to,
      wires if as_list else b''.join(wires),
      offsets, [row.id if row.key is None else row.key for row in rows],
      [row.version for row in rows],
      row_ids)


def batch_of(rows: Sequence[Row], limits: Limits) -> Batch:
  """A batch as the batcher would make it, of rows of one destination."""
  made = block(rows)
  nbytes = (
      limits.frame_bytes(made.destination) + len(made.rows) +
      limits.separator_bytes * (made.n - 1))
  return Batch(made.destination, [(None, made, 0, made.n)], made.n, nbytes)


# ------------------------------------------------------------ plain service


class Store(Session):
  """Logs and keeps what it is sent, and checks each request.

  Subclasses answer; this class receives. `violations` says what the engine did
  that it must not do.
  """
  def __init__(self, limits: Optional[Limits] = None, frame: bytes = b''):
    self.limits = limits or Limits()
    self._frame = frame
    self.requests: list[list[int]] = []
    self.written: collections.Counter[int] = collections.Counter()
    self.violations: list[str] = []
    self.in_flight = 0
    self.most_in_flight = 0
    self.opened = 0
    self.closed = 0
    self.sending = threading.Event()

  async def open(self) -> Session:
    self.opened += 1
    return self

  async def close(self) -> None:
    self.closed += 1

  def encode(self, element: Any) -> Iterable[Any]:
    if isinstance(element, Row) and element.nature != 'invalid':
      key = element.id if element.key is None else element.key
      yield Block(
          element.to, element.wire, keys=(key,), versions=(element.version,))
      return
    by_destination: dict[str, list[int]] = {}
    for i, row in enumerate(rows_of(element)):
      if row.nature == 'invalid':
        yield Invalid(i, f'row {row.id} is invalid', str(row.id), 'Bad', row.to)
      else:
        by_destination.setdefault(row.to, []).append(i)
    for ids in by_destination.values():
      yield block([element[i] for i in ids], ids, element.as_list)

  def wire(self, batch: Batch) -> bytes:
    """The request as bytes."""
    separator = b',' * self.limits.separator_bytes
    if separator:
      body = separator.join(batch.rows())
    else:
      body = b''.join(batch.buffers())
    frame = self.limits.frame_bytes(batch.destination)
    return b'#' * frame + body

  def receive(self, batch: Batch) -> list[int]:
    """Checks a request and logs it; the ids of its rows."""
    wire = self.wire(batch)
    ids = [id_of(row) for row in batch.rows()]
    limits = self.limits
    if len(wire) != batch.nbytes:
      self.violations.append(f'{len(wire)} bytes, announced {batch.nbytes}')
    if limits.max_bytes is not None and len(wire) > limits.max_bytes:
      self.violations.append(f'{len(wire)} bytes in a request')
    if not 0 < len(ids) <= limits.max_records or len(ids) != len(batch):
      self.violations.append(f'{len(ids)} rows in a request')
    keys = list(batch.keys())
    if limits.keys != 'free' and len(set(keys)) < len(keys):
      self.violations.append(f'a key twice in one request: {keys}')
    self.requests.append(ids)
    return ids

  async def send(self, batch: Batch) -> Any:
    ids = self.receive(batch)
    self.in_flight += 1
    self.most_in_flight = max(self.most_in_flight, self.in_flight)
    if self.in_flight > self.limits.max_in_flight:
      self.violations.append(f'{self.in_flight} requests in flight')
    self.sending.set()
    try:
      return await self.answer(batch, ids)
    finally:
      self.in_flight -= 1

  async def answer(self, batch: Batch, ids: list[int]) -> Any:
    """Writes everything."""
    self.written.update(ids)
    return ALL_OK


class Scripted(Store):
  """Answers the n-th request with the n-th item, and then writes everything.

  An item is an exception to raise, replies to return, or a function of the ids
  that returns one of these; `HANG` never answers. `times` has the loop's time
  at which each request came.
  """
  HANG = object()

  def __init__(self, script: Iterable[Any] = (), *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.script = list(script)
    self.times: list[float] = []
    self.seconds = 0.0

  async def answer(self, batch: Batch, ids: list[int]) -> Any:
    self.times.append(asyncio.get_running_loop().time())
    item = self.script.pop(0) if self.script else ALL_OK
    if self.seconds:
      await asyncio.sleep(self.seconds)
    if callable(item) and not isinstance(item, type(ALL_OK)):
      item = item(ids)
    if item is self.HANG:
      await asyncio.Event().wait()
    if isinstance(item, BaseException):
      raise item
    if item is ALL_OK:
      self.written.update(ids)
    else:
      self.written.update(
          i for i, reply in zip(ids, item, strict=False)
          if isinstance(reply, Done))
    return item


# ------------------------------------------------------------------ clocks


def virtual(main: Callable[[], Any]) -> Any:
  """Runs a coroutine function on a loop of its own whose clock jumps."""
  loop = VirtualTimeLoop()
  asyncio.set_event_loop(loop)
  try:
    return loop.run_until_complete(main())
  finally:
    asyncio.set_event_loop(None)
    loop.close()


def link_to(
    session: Session,
    *,
    tuning: Optional[Tuning] = None,
    most_refusals: int = 32,
    rng: Optional[random.Random] = None,
    pool: Any = None,
    base: float = 0.2) -> Link:
  """What deliveries to this session share."""
  tuning = tuning or Tuning()
  limits = tuning.apply(session.limits)
  flow = Flow(limits, rate_limiter=tuning.rate_limiter, pool=pool)
  return Link(
      Toy(session),
      session,
      limits,
      flow,
      RetryPolicy(
          base=base,
          attempt_timeout=limits.attempt_timeout,
          deadline=limits.deadline),
      Refusals(most_refusals),
      collect_outages=tuning.on_outage == 'collect',
      pool=pool,
      rng=rng or random.Random(0))


@dataclasses.dataclass
class Delivery:
  """How a delivery went."""
  report: Report
  settled: list[Settled]
  error: Optional[BaseException]
  ended: float

  @property
  def fates(self) -> dict[int, Any]:
    """Of each row: 'written', or its final reply; a row settles once."""
    out: dict[int, Any] = {}
    for settled in self.settled:
      replies = settled.replies
      if replies is ALL_OK:
        replies = [Done(None)] * settled.batch.n
      for wire, reply in zip(settled.batch.rows(), replies, strict=True):
        assert id_of(wire) not in out, f'row {id_of(wire)} settled twice'
        out[id_of(wire)] = 'written' if isinstance(reply, Done) else reply
    return out

  def failed(self) -> list[int]:
    return [i for i, fate in self.fates.items() if isinstance(fate, Failed)]


async def delivery(link: Link, rows: Sequence[Row]) -> Delivery:
  """Delivers the rows as one batch."""
  batch = batch_of(rows, link.limits)
  report = Report(str(batch.destination), batch.n, batch.nbytes, 'finish')
  settled: list[Settled] = []
  error = None
  try:
    await deliver(batch, link, report, settled.append)
  except Exception as raised:  # pylint: disable=broad-except
    error = raised
  now = asyncio.get_running_loop().time()
  return Delivery(report, settled, error, now)


class HeldClockLoop(VirtualTimeLoop):
  """A loop whose clock stands still until it is moved, or let go to jump.

  For tests with other threads: the clock of a `VirtualTimeLoop` jumps while
  they work.
  """
  def __init__(self) -> None:
    super().__init__()
    self.held = True
    selector = self._selector
    select, jump = type(selector).select, selector.select

    def wait(timeout: Optional[float] = None) -> Any:
      if self.held and timeout is not None and timeout > 0:
        return select(selector, None)
      return jump(timeout)

    selector.select = wait

  async def let_pass(self, seconds: float, step: float = 0.25) -> None:
    """Moves the clock; what is due on the way happens on the way."""
    until = self._now + seconds
    while self._now < until:
      self._now = min(until, self._now + step)
      for _ in range(8):
        await asyncio.sleep(0)


def held_runtime() -> Runtime:
  """A runtime whose clock moves by `let_pass`, or from `let_go` on."""
  return Runtime(loop_factory=HeldClockLoop, rng=random.Random(0))


def let_pass(runtime: Runtime, seconds: float) -> None:
  runtime.run(runtime.loop().let_pass(seconds))


def let_go(runtime: Runtime) -> None:
  """From now on the clock jumps."""
  loop = runtime.loop()
  loop.call_soon_threadsafe(setattr, loop, 'held', False)


def jumping_runtime(grace: float = 0.0) -> Runtime:
  """A runtime whose clock jumps; back-offs are the same in each run."""
  return Runtime(
      loop_factory=lambda: VirtualTimeLoop(grace), rng=random.Random(0))


def eventually(condition: Callable[[], bool], what: str) -> None:
  """Polls until the condition holds; fails the test if it never does."""
  until = time.monotonic() + PATIENCE_SECONDS
  pause = threading.Event()
  while not condition():
    assert time.monotonic() < until, f'{what}: did not happen'
    pause.wait(0.002)


# ----------------------------------------------------------------- bundles


@dataclasses.dataclass
class Outcome:
  """How one bundle went."""
  submissions: list[Submission] = dataclasses.field(default_factory=list)
  reports: list[Report] = dataclasses.field(default_factory=list)
  error: Optional[BaseException] = None


def run_bundle(
    dispatcher: Dispatcher,
    elements: Iterable[Any],
    before_drain: Callable[[], None] = lambda: None) -> Outcome:
  """One bundle from its first element to its end, as a DoFn would."""
  outcome = Outcome()
  bundle = dispatcher.bundle()
  try:
    for i, element in enumerate(elements):
      bundle.submit(element, i)
      outcome.submissions += bundle.settled()
    before_drain()
    outcome.submissions += bundle.drain()
  except Exception as error:  # pylint: disable=broad-except
    outcome.error = error
    bundle.cancel()
  outcome.reports = bundle.reports()
  return outcome


def in_threads(work: Sequence[Callable[[], Any]]) -> list[Any]:
  """Runs each in a thread; fails, with all stacks, if one does not end."""
  results: list[Any] = [None] * len(work)

  def run(i: int) -> None:
    try:
      results[i] = work[i]()
    except BaseException as error:  # pylint: disable=broad-except
      results[i] = error

  threads = [
      threading.Thread(target=run, args=(i,), daemon=True)
      for i in range(len(work))
  ]
  for thread in threads:
    thread.start()
  until = time.monotonic() + PATIENCE_SECONDS
  for thread in threads:
    thread.join(max(0.0, until - time.monotonic()))
    if thread.is_alive():
      faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
      raise AssertionError('a bundle hangs')
  return results
