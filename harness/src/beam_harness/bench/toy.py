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
"""A service that only takes time: what the engine costs beside it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Replies
from beam_connector_base.operation import Session
from beam_connector_base.operation import Verdict
from beam_connector_base.retry import transport_verdict

__all__ = [
    'ToyOperation',
    'ToySession',
    'blocks',
    'cut',
    'feed',
    'opened',
    'records',
    'send_all'
]

ROW_BYTES = 100
DESTINATION = 'toy'


@dataclasses.dataclass(frozen=True)
class ToyOperation(Operation):
  """Elements are blocks already; sending one takes `seconds`.

  Args:
    seconds: service time of a request; 0 answers without giving up control.
    batch: rows per request.
    in_flight: requests in flight, from the beginning and at most.
    outage: seconds from the first request on in which all of them fail; None
      for a service that is not asked when it began.
  """
  seconds: float = 0.0
  batch: int = 100
  in_flight: int = 8
  outage: float | None = None

  async def open(self) -> ToySession:
    return ToySession(self)

  def classify(self, error: BaseException) -> Verdict:
    verdict = transport_verdict(error)
    if verdict is None:
      raise error
    return verdict

  @property
  def target(self) -> str:
    return 'a toy service'


class ToySession(Session):
  """Answers after a while, once its outage is over.

  Attributes:
    began, ended: of the first request, and of the last one that succeeded, on
      the clock of the loop.
  """
  def __init__(self, operation: ToyOperation):
    self._seconds = operation.seconds
    self._outage = operation.outage
    self.began: float | None = None
    self.ended = 0.0
    self._gate = threading.Event()
    self._gate.set()
    self.limits = Limits(
        max_records=operation.batch,
        in_flight=operation.in_flight,
        max_in_flight=operation.in_flight)

  def encode(self, element: Block) -> Iterable[Block]:
    return (element,)

  async def send(self, batch: Batch) -> Replies:
    if not self._seconds:
      return ALL_OK
    if self._outage is not None:
      await self._sometimes()
    else:
      await asyncio.sleep(self._seconds)
    return ALL_OK

  def hold(self) -> None:
    """Stops the loop at the next request of an outage, until `release`.

    On a virtual clock no time passes meanwhile.
    """
    self._gate.clear()

  def release(self) -> None:
    """Lets requests go on."""
    self._gate.set()

  async def _sometimes(self) -> None:
    assert self._outage is not None
    self._gate.wait()
    now = asyncio.get_running_loop().time
    if self.began is None:
      self.began = now()
    if now() - self.began < self._outage:
      await asyncio.sleep(self._seconds)
      raise ConnectionRefusedError('the service is down')
    await asyncio.sleep(self._seconds)
    self.ended = now()


def records(n: int) -> list[Block]:
  """Single records."""
  return [Block(DESTINATION, b'x' * ROW_BYTES) for _ in range(n)]


def blocks(n: int, rows: int = 1000) -> list[Block]:
  """Blocks of `rows` rows, `n` rows in all."""
  if n % rows:
    raise ValueError(f'{n} rows are no blocks of {rows}')
  data = b'x' * (rows * ROW_BYTES)
  offsets = list(range(0, len(data) + 1, ROW_BYTES))
  return [Block(DESTINATION, data, offsets) for _ in range(n // rows)]


def cut(elements: Sequence[Block], batch: int) -> Iterator[Batch]:
  """The batches of full blocks, as anybody would cut them by hand."""
  for block in elements:
    for start in range(0, block.n, batch):
      stop = min(start + batch, block.n)
      yield Batch(
          block.destination, [(None, block, start, stop)],
          stop - start, (stop - start) * ROW_BYTES)


def send_all(session: Session, batches: Iterable[Batch], in_flight: int) -> int:
  """A hand-written loop: so many coroutines, each sending what comes next.

  Returns:
    The number of rows sent.
  """
  todo = iter(batches)
  sent = 0

  async def work() -> None:
    nonlocal sent
    for batch in todo:
      if await session.send(batch) is not ALL_OK:
        raise AssertionError('the toy service refuses nothing')
      sent += batch.n

  async def run() -> None:
    await asyncio.gather(*(work() for _ in range(in_flight)))

  asyncio.run(run())
  return sent


@contextlib.contextmanager
def opened(dispatcher: Dispatcher) -> Iterator[Dispatcher]:
  """A dispatcher with its session open while the block runs."""
  dispatcher.open()
  try:
    yield dispatcher
  finally:
    dispatcher.close()


def feed(dispatcher: Dispatcher, elements: Iterable[Any]) -> int:
  """Delivers elements as the DoFn does, and checks that all have settled.

  Returns:
    The number of elements.
  """
  bundle = dispatcher.bundle()
  submitted = settled = 0
  for element in elements:
    bundle.submit(element)
    submitted += 1
    done = bundle.settled()
    if done:
      settled += len(done)
      bundle.reports()
  settled += len(bundle.drain())
  bundle.reports()
  if settled != submitted:
    raise AssertionError(f'{settled} of {submitted} elements settled')
  return settled
