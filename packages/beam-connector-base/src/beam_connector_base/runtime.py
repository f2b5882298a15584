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
"""The one event loop of a process, and the sessions that are open in it.

Nothing is started before it is needed, so nothing is open before a fork; a
forked child starts its own. Sessions are shared by value: all bundle threads
with an equal operation and tuning use one connection and one set of budgets.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import dataclasses
import logging
import os
import queue
import random
import threading
from collections.abc import Callable
from collections.abc import Coroutine
from typing import Any
from typing import Optional

from beam_connector_base.answers import Answers
from beam_connector_base.cache import AnswerCache
from beam_connector_base.cache import Cache
from beam_connector_base.credentials import redact
from beam_connector_base.errors import DeliveryError
from beam_connector_base.errors import FatalError
from beam_connector_base.errors import OutageError
from beam_connector_base.flow import ByteBudget
from beam_connector_base.flow import Flow
from beam_connector_base.link import Link
from beam_connector_base.link import Refusals
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Session
from beam_connector_base.operation import Verdict
from beam_connector_base.retry import RetryPolicy
from beam_connector_base.tuning import Tuning

__all__ = ['Runtime', 'SharedSession', 'blocking']

_LOGGER = logging.getLogger(__name__)

DEFAULT_OPEN_DEADLINE_SECONDS = 60.0
DEFAULT_IN_FLIGHT_BYTES = 64 << 20
DEFAULT_REFUSALS_IN_A_ROW = 32
# Threads for blocking calls, per process; each holds a request permit.
BLOCKING_THREADS = 64
_CLOSE_SECONDS = 5.0


class DaemonPool(concurrent.futures.Executor):
  """Threads for blocking calls that never hold up the end of the process.

  The threads of `ThreadPoolExecutor` are joined at exit: one call that hangs
  in somebody's SDK would keep a worker alive for ever.
  """
  def __init__(self, threads: int):
    self._most = threads
    self._threads = 0
    self._idle = 0
    self._lock = threading.Lock()
    self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()

  def submit(self, fn: Callable[..., Any], /, *args: Any,
             **kwargs: Any) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    with self._lock:
      if self._idle:
        self._idle -= 1
      elif self._threads < self._most:
        self._threads += 1
        threading.Thread(
            target=self._run, name='beam-connector-call', daemon=True).start()
    self._work.put((future, fn, args, kwargs))
    return future

  def _run(self) -> None:
    while True:
      future, fn, args, kwargs = self._work.get()
      if future.set_running_or_notify_cancel():
        try:
          future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # pylint: disable=broad-except
          future.set_exception(error)
      del future, fn, args, kwargs
      with self._lock:
        self._idle += 1


SessionKey = tuple[Operation, Tuning, Optional[Cache]]


@dataclasses.dataclass(eq=False)
class SharedSession:
  """An open session and what all its users in this process share."""
  key: SessionKey
  ready: concurrent.futures.Future[None]
  users: int = 0
  link: Optional[Link] = None
  budget: Optional[ByteBudget] = None
  #: Sessions opened and not yet reported as a metric.
  unreported_connections: int = 0
  #: Who waits for which answer, for operations that answer.
  answers: Answers = dataclasses.field(default_factory=Answers)

  @property
  def session(self) -> Session:
    assert self.link is not None
    return self.link.session


class Runtime:
  """One event loop on one thread, and the sessions open on it.

  Args:
    loop_factory: makes the loop; tests pass one whose clock they own.
    rng: of the backoff; tests pass a seeded one.
  """
  _current: Optional[Runtime] = None
  _current_lock = threading.Lock()

  def __init__(
      self,
      loop_factory: Callable[[], asyncio.AbstractEventLoop] = (
          asyncio.new_event_loop),
      rng: Optional[random.Random] = None):
    self._loop_factory = loop_factory
    self._rng = rng
    self._lock = threading.Lock()
    self._loop: Optional[asyncio.AbstractEventLoop] = None
    self._thread: Optional[threading.Thread] = None
    self._sessions: dict[SessionKey, SharedSession] = {}
    self._pid = os.getpid()
    self.pool = DaemonPool(BLOCKING_THREADS)

  @classmethod
  def current(cls) -> Runtime:
    """The runtime of this process."""
    with cls._current_lock:
      if cls._current is None or cls._current._pid != os.getpid():
        cls._current = cls()
      return cls._current

  @classmethod
  def _forget(cls) -> None:
    """In a forked child: the parent's loop and sockets are not ours."""
    cls._current_lock = threading.Lock()
    cls._current = None

  @property
  def alive(self) -> bool:
    return (
        self._pid == os.getpid() and self._thread is not None
        and self._thread.is_alive())

  def loop(self) -> asyncio.AbstractEventLoop:
    """The running loop, started at the first call."""
    with self._lock:
      if self._loop is None:
        loop = self._loop_factory()
        started = threading.Event()
        self._thread = threading.Thread(
            target=_run_loop,
            args=(loop, started),
            name='beam-connector-loop',
            daemon=True)
        self._thread.start()
        started.wait()
        self._loop = loop
      return self._loop

  def run(
      self,
      coroutine: Coroutine[Any, Any, Any],
      timeout: Optional[float] = None) -> Any:
    """Runs a coroutine on the loop and waits for it, from another thread."""
    return asyncio.run_coroutine_threadsafe(coroutine,
                                            self.loop()).result(timeout)

  def acquire(
      self,
      operation: Operation,
      tuning: Tuning,
      cache: Optional[Cache] = None) -> SharedSession:
    """Joins the session of this operation, opening it if need be.

    Raises:
      FatalError: the service is not usable: wrong address, key or permission.
      OutageError: the service could not be reached in time.
    """
    key = (operation, tuning, cache)
    with self._lock:
      shared = self._sessions.get(key)
      opening = shared is None
      if shared is None:
        shared = SharedSession(key, concurrent.futures.Future())
        self._sessions[key] = shared
      shared.users += 1
    if opening:
      try:
        self.run(self._open(shared))
      except BaseException as error:
        with self._lock:
          self._sessions.pop(key, None)
        shared.ready.set_exception(error)
        raise
      shared.ready.set_result(None)
    else:
      shared.ready.result()
    return shared

  def release(self, shared: SharedSession) -> None:
    """Leaves a session; the last one closes it."""
    with self._lock:
      shared.users -= 1
      if shared.users > 0:
        return
      if self._sessions.get(shared.key) is shared:
        del self._sessions[shared.key]
    if not self.alive or (shared.link is not None and shared.link.closing):
      return
    try:
      self.run(_close(shared), _CLOSE_SECONDS)
    except concurrent.futures.TimeoutError:
      _LOGGER.warning(
          '%s: the session did not close in %g s',
          shared.key[0].target,
          _CLOSE_SECONDS)
    except Exception as error:  # pylint: disable=broad-except
      # All that was delivered is acknowledged: nothing depends on it.
      _LOGGER.warning(
          '%s: the session did not close cleanly: %s',
          shared.key[0].target,
          redact(f'{type(error).__name__}: {error}'))

  def shutdown(self) -> None:
    """Cancels what is in flight, closes the sessions and stops the loop."""
    with self._lock:
      sessions = list(self._sessions.values())
      self._sessions.clear()
      loop, thread = self._loop, self._thread
      self._loop = None
    if loop is None or thread is None or not thread.is_alive():
      return
    future = asyncio.run_coroutine_threadsafe(_stop(sessions), loop)
    try:
      future.result(_CLOSE_SECONDS)
    except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
      pass
    loop.call_soon_threadsafe(loop.stop)
    thread.join(_CLOSE_SECONDS)

  async def _open(self, shared: SharedSession) -> None:
    operation, tuning, cache = shared.key
    policy = RetryPolicy(base=0.2 if tuning.backoff is None else tuning.backoff)
    deadline = tuning.open_deadline or DEFAULT_OPEN_DEADLINE_SECONDS
    rng = self._rng or random.Random()
    loop = asyncio.get_running_loop()
    began = loop.time()
    failures = 0
    while True:
      try:
        left = max(1.0, deadline - (loop.time() - began))
        session = await asyncio.wait_for(operation.open(), left)
        break
      except Exception as error:  # pylint: disable=broad-except
        if isinstance(error, DeliveryError):
          raise
        failures += 1
        if isinstance(error, asyncio.TimeoutError) and not str(error):
          verdict = Verdict(
              Kind.TRANSIENT,
              reason='no answer: check the address, and that the workers can '
              'reach it')
        else:
          verdict = operation.classify(error)
        reason = redact(
            verdict.reason or f'{type(error).__name__}: {error}'.rstrip(': '))
        if verdict.kind not in (Kind.TRANSIENT, Kind.THROTTLED):
          raise FatalError(
              f'{operation.target}: can not connect: {reason}') from None
        delay = policy.delay(failures, verdict.retry_after, rng)
        if loop.time() + delay - began > deadline:
          raise OutageError(
              f'{operation.target}: could not be reached within '
              f'{deadline:g} s ({failures} attempt(s)): {reason}') from None
        if failures == 1:
          _LOGGER.warning(
              '%s: can not connect yet: %s', operation.target, reason)
        await asyncio.sleep(delay)
    limits = tuning.apply(session.limits)
    flow = Flow(
        limits,
        quota_share=tuning.quota_share or 1.0,
        rate_limiter=tuning.rate_limiter,
        pool=self.pool)
    shared.budget = ByteBudget(
        int(tuning.in_flight_bytes or DEFAULT_IN_FLIGHT_BYTES))
    shared.link = Link(
        operation,
        session,
        limits,
        flow,
        RetryPolicy(
            base=policy.base,
            attempt_timeout=limits.attempt_timeout,
            deadline=limits.deadline),
        Refusals(
            DEFAULT_REFUSALS_IN_A_ROW if tuning.refusals_in_a_row is
            None else tuning.refusals_in_a_row),
        collect_outages=tuning.on_outage == 'collect',
        pool=self.pool,
        rng=rng)
    if cache is not None:
      shared.answers = Answers(AnswerCache(cache))
    shared.unreported_connections = 1


async def blocking(fn: Callable[..., Any], *args: Any) -> Any:
  """Runs a call that blocks on a thread that never holds up the process's end.

  For `Operation.open`: what reads files or asks a control plane. The threads of
  `asyncio.to_thread` are joined when the process ends.
  """
  return await asyncio.get_running_loop().run_in_executor(
      Runtime.current().pool, fn, *args)


# Just below the largest block whose release teaches glibc anything (malloc.c:
# DEFAULT_MMAP_THRESHOLD_MAX, 32 MiB).
_TEACHING_BYTES = (32 << 20) - 8192


def _keep_memory() -> None:
  """Lets the allocator keep the memory of requests from one to the next.

  By default glibc gives blocks of some hundred KB back to the kernel at once,
  which then clears every page of the next request anew: a fifth of the time of
  a write. It learns from the largest block released so far. This one is never
  touched, so that it costs nothing; with other allocators nothing happens.
  """
  block = bytearray(_TEACHING_BYTES)
  del block


def _run_loop(
    loop: asyncio.AbstractEventLoop, started: threading.Event) -> None:
  asyncio.set_event_loop(loop)
  _keep_memory()
  loop.call_soon(started.set)
  try:
    loop.run_forever()
  finally:
    loop.close()


async def _close(shared: SharedSession) -> None:
  if shared.link is not None:
    await shared.link.session.close()


async def _stop(sessions: list[SharedSession]) -> None:
  for shared in sessions:
    if shared.link is not None:
      shared.link.closing = True
  me = asyncio.current_task()
  tasks = [task for task in asyncio.all_tasks() if task is not me]
  for task in tasks:
    task.cancel()
  await asyncio.gather(*tasks, return_exceptions=True)
  await asyncio.gather(
      *(_close(shared) for shared in sessions), return_exceptions=True)


def _at_exit() -> None:
  runtime = Runtime._current
  if runtime is not None and runtime._pid == os.getpid():
    runtime.shutdown()


if hasattr(os, 'register_at_fork'):
  os.register_at_fork(after_in_child=Runtime._forget)
atexit.register(_at_exit)
