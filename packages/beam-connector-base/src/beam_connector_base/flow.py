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
"""How much may be under way in one process: permits, bytes, rates, gates.

One `Flow` per session is shared by all bundle threads of the process. Bytes are
taken by the bundle's thread before a batch is handed over and kept until the
batch settles; everything else lives on the event loop's thread and needs no
lock. A permit is taken last, once per attempt, and is never held while
sleeping, so nobody who holds something waits for somebody who waits for it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterator
from typing import Any
from typing import Optional

from beam_connector_base.errors import OutageError
from beam_connector_base.operation import Limits

__all__ = [
    'AdaptiveLimit', 'ByteBudget', 'Flow', 'ThrottleClock', 'TokenBucket'
]

# How often a thread that waits for bytes looks whether it still should.
_LOOK_SECONDS = 1.0
# The event loop may call a timer early, by the resolution of its clock; to
# sleep for the rest would only spin, and not even get on with a clock of tests.
_EARLY_SECONDS = 1e-6


class ByteBudget:
  """Bytes of sent, unsettled batches in this process; first come first served.

  A batch larger than the whole budget is admitted when nothing else is under
  way, so that it can not wait for ever.

  Args:
    capacity: bytes.
  """
  def __init__(self, capacity: int):
    self.capacity = capacity
    self.used = 0
    self.most = 0
    self._changed = threading.Condition()
    self._queue: collections.deque[object] = collections.deque()

  def take(self, nbytes: int, stop: Callable[[], bool]) -> bool:
    """Blocks until the bytes are there; False if `stop()` became true."""
    with self._changed:
      if not self._queue and self._fits(nbytes):
        self._grant(nbytes)
        return True
      me = object()
      self._queue.append(me)
      try:
        while not (self._queue[0] is me and self._fits(nbytes)):
          if stop():
            return False
          self._changed.wait(_LOOK_SECONDS)
        self._grant(nbytes)
        return True
      finally:
        self._queue.remove(me)
        self._changed.notify_all()

  def give_back(self, nbytes: int) -> None:
    with self._changed:
      self.used -= nbytes
      if self._queue:
        self._changed.notify_all()

  def wake(self) -> None:
    """Lets those who wait look at their `stop` again."""
    with self._changed:
      self._changed.notify_all()

  def _fits(self, nbytes: int) -> bool:
    return self.used == 0 or self.used + nbytes <= self.capacity

  def _grant(self, nbytes: int) -> None:
    self.used += nbytes
    self.most = max(self.most, self.used)


class AdaptiveLimit:
  """Requests in flight: grows by one a round while used up, shrinks by 30 %.

  Additive increase, multiplicative decrease, as TCP does it: at most one
  decrease per round trip (a request that started before the last decrease says
  nothing new), and no growth while the limit was not what held requests back.

  Args:
    start: requests in flight at the beginning.
    most: upper bound; the lower is 1.
    patience: seconds to wait while not a single request returns, which only
      calls that can not be cancelled are able to do; None for ever.
  """
  DECREASE = 0.7

  def __init__(self, start: int, most: int, patience: Optional[float] = None):
    self.limit = float(max(1, min(start, most)))
    self.most = most
    self.in_flight = 0
    self._patience = patience
    self._returned = 0
    self._watch: Optional[asyncio.TimerHandle] = None
    self._successes = 0
    self._was_full = False
    self._last_decrease = float('-inf')
    self._waiters: collections.deque[asyncio.Future[None]] = (
        collections.deque())

  async def take(self) -> None:
    """Waits for a permit.

    Raises:
      OutageError: no request returned for `patience` seconds.
    """
    if not self._waiters and self.in_flight < int(self.limit):
      self.in_flight += 1
      self._was_full |= self.in_flight >= int(self.limit)
      return
    self._was_full = True
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    self._waiters.append(waiter)
    if self._watch is None and self._patience is not None:
      self._look_after(self._returned)
    try:
      await waiter
    except asyncio.CancelledError:
      if waiter.done() and not waiter.cancelled():
        self.give_back()  # granted and cancelled in the same instant
      elif waiter in self._waiters:
        # Not there if a permit came back in between: `_wake` passed over it.
        self._waiters.remove(waiter)
      raise

  def give_back(self) -> None:
    self.in_flight -= 1
    self._returned += 1
    self._wake()

  def succeeded(self) -> None:
    self._successes += 1
    if self._successes >= self.limit:
      if self._was_full and self.limit < self.most:
        self.limit = min(float(self.most), self.limit + 1.0)
        self._wake()
      self._successes = 0
      self._was_full = bool(self._waiters)

  def pressed(self, started: float, now: float) -> None:
    """The service throttled, or timed out, a request begun at `started`."""
    self._successes = 0
    if started > self._last_decrease:
      self.limit = max(1.0, self.limit * self.DECREASE)
      self._last_decrease = now

  def _wake(self) -> None:
    while self._waiters and self.in_flight < int(self.limit):
      waiter = self._waiters.popleft()
      if not waiter.done():
        self.in_flight += 1
        waiter.set_result(None)
    if self._watch is not None and not self._waiters:
      self._watch.cancel()
      self._watch = None

  def _look_after(self, returned: int) -> None:
    """Looks, after a while, whether a request has returned since."""
    assert self._patience is not None
    self._watch = asyncio.get_running_loop().call_later(
        self._patience, self._look, returned)

  def _look(self, returned: int) -> None:
    self._watch = None
    if self._returned != returned:
      if self._waiters:
        self._look_after(self._returned)
      return
    while self._waiters:
      waiter = self._waiters.popleft()
      if not waiter.done():
        waiter.set_exception(
            OutageError(
                f'not one of {self.in_flight} requests in flight has returned '
                f'for {self._patience:g} s, and they can not be cancelled: '
                'give the client a timeout of its own'))


class TokenBucket:
  """A rate per second, spent in the order of arrival.

  Args:
    rate: tokens per second.
    burst: tokens that may be spent at once; one second's worth by default.
  """
  def __init__(self, rate: float, burst: Optional[float] = None):
    self.rate = rate
    self.burst = rate if burst is None else burst
    self._tokens = self.burst
    self._at: Optional[float] = None

  def reserve(self, tokens: float, now: float) -> float:
    """Takes the tokens, on credit if need be.

    Returns:
      Seconds to wait until they are really there.
    """
    if self._at is not None:
      self._tokens = min(
          self.burst, self._tokens + (now - self._at) * self.rate)
    self._at = now
    self._tokens -= tokens
    return 0.0 if self._tokens >= 0 else -self._tokens / self.rate


class ThrottleClock:
  """Seconds in which something waited because of throttling, counted once.

  Eight batches that wait for the same second were throttled for one second.
  """
  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._waiting = 0
    self._since = 0.0
    self._seconds = 0.0

  @contextlib.contextmanager
  def waiting(self, now: Callable[[], float]) -> Iterator[None]:
    """Somebody waits for as long as the block lasts."""
    with self._lock:
      if not self._waiting:
        self._since = now()
      self._waiting += 1
    try:
      yield
    finally:
      with self._lock:
        self._waiting -= 1
        if not self._waiting:
          self._seconds += now() - self._since

  def take(self, now: Callable[[], float]) -> float:
    """Seconds since the last call; may be called from any thread."""
    with self._lock:
      seconds, self._seconds = self._seconds, 0.0
      if self._waiting:
        until = now()
        seconds += until - self._since
        self._since = until
    return seconds


class Flow:
  """Admits attempts to the service, for all bundles of the process.

  Args:
    limits: of the session, with the user's tuning applied.
    quota_share: share of the documented rates that is this process's.
    rate_limiter: asked before each attempt, on a thread of `pool`.
    pool: where blocking calls run.
  """
  def __init__(
      self,
      limits: Limits,
      *,
      quota_share: float = 1.0,
      rate_limiter: Optional[Callable[..., bool]] = None,
      pool: Any = None):
    self.requests = AdaptiveLimit(
        limits.in_flight,
        limits.max_in_flight,
        limits.deadline + limits.attempt_timeout)
    self.throttled = ThrottleClock()
    self._rates = limits.rates
    self._share = quota_share
    self._buckets: dict[tuple[int, str, Hashable], TokenBucket] = {}
    self._per_destination = any(r.scope == 'destination' for r in self._rates)
    self._turnstiles: dict[Hashable, asyncio.Lock] = {}
    self._closed_until: dict[Hashable, float] = {}
    self._rate_limiter = rate_limiter
    self._pool = pool

  async def admit(
      self, destination: Hashable, records: int, nbytes: int) -> None:
    """Waits until one attempt may be made, and takes its permit."""
    loop = asyncio.get_running_loop()
    if self._rate_limiter is not None:
      while not await loop.run_in_executor(self._pool, self._ask, records):
        await self.pause(0.1)
    while True:
      if self._rates or self._closed_until:
        await self._pass(destination, records, nbytes)
      await self.requests.take()
      if self._gate(destination, loop.time()) <= 0:
        return
      self.requests.give_back()  # closed while we queued for the permit

  async def _pass(
      self, destination: Hashable, records: int, nbytes: int) -> None:
    """Waits for the gate and the rate.

    Where there is a rate, one after the other: nobody but the first in line
    takes tokens. If all did so in advance, a gate would open on a crowd that
    has paid already, and the service would get all of it at once.
    """
    if not self._rates:
      await self._gate_opens(destination)
      return
    loop = asyncio.get_running_loop()
    key = destination if self._per_destination else None
    turnstile = self._turnstiles.get(key)
    if turnstile is None:
      turnstile = self._turnstiles[key] = asyncio.Lock()
    async with turnstile:
      await self._gate_opens(destination)
      delay = self._reserve(destination, records, nbytes, loop.time())
      if delay > 0:
        await self.pause(delay)
        await self._gate_opens(destination)

  async def _gate_opens(self, destination: Hashable) -> None:
    loop = asyncio.get_running_loop()
    while True:
      delay = self._gate(destination, loop.time())
      if delay <= 0:
        return
      await self.pause(delay)

  async def pause(self, seconds: float) -> None:
    """Waits because of throttling, which is counted."""
    with self.throttled.waiting(asyncio.get_running_loop().time):
      await asyncio.sleep(seconds)

  def close_gate(self, destination: Hashable, seconds: float) -> None:
    """No attempt to that destination starts for so many seconds."""
    key = destination if self._per_destination else None
    until = asyncio.get_running_loop().time() + seconds
    if until > self._closed_until.get(key, 0.0):
      self._closed_until[key] = until

  def _ask(self, records: int) -> bool:
    assert self._rate_limiter is not None
    return bool(self._rate_limiter(hits_added=records))

  def _gate(self, destination: Hashable, now: float) -> float:
    if not self._closed_until:
      return 0.0
    key = destination if self._per_destination else None
    until = self._closed_until.get(key)
    if until is None:
      return 0.0
    if until <= now + _EARLY_SECONDS:
      del self._closed_until[key]
      return 0.0
    return until - now

  def _reserve(
      self, destination: Hashable, records: int, nbytes: int,
      now: float) -> float:
    delay = 0.0
    for i, rate in enumerate(self._rates):
      where = destination if rate.scope == 'destination' else None
      for name, tokens in (
          ('requests', 1), ('records', records), ('nbytes', nbytes)):
        per_second = getattr(rate, name)
        if per_second is not None:
          bucket = self._buckets.get((i, name, where))
          if bucket is None:
            bucket = TokenBucket(per_second * self._share)
            self._buckets[i, name, where] = bucket
          delay = max(delay, bucket.reserve(tokens, now))
    return delay
