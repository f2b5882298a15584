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

import asyncio
import pathlib
import random
import subprocess
import sys
import textwrap
import threading
import time

import engine_toys as toys
import pytest

from beam_connector_base import bundle as bundle_module
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.errors import DeliveryError
from beam_connector_base.errors import FatalError
from beam_connector_base.errors import OutageError
from beam_connector_base.operation import FATAL
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Verdict
from beam_connector_base.runtime import DaemonPool
from beam_connector_base.runtime import Runtime
from beam_connector_base.testing import VirtualTimeLoop
from beam_connector_base.tuning import Tuning

UNAVAILABLE = Verdict(Kind.TRANSIENT, status=503)


@pytest.fixture
def runtime():
  made = toys.jumping_runtime()
  yield made
  made.shutdown()


def dispatcher(service, runtime, name='toy', **tuning):
  return Dispatcher(toys.Toy(service, name), Tuning(**tuning), runtime=runtime)


class Opening(toys.Store):
  """Answers each `open` with the next item: an error, or seconds it takes."""
  def __init__(self, script=()):
    super().__init__()
    self.script = list(script)
    self.tries = 0
    self.times = []

  async def open(self):
    self.tries += 1
    self.times.append(asyncio.get_running_loop().time())
    item = self.script.pop(0) if self.script else 0
    if isinstance(item, Exception):
      raise item
    await asyncio.sleep(item)
    return await super().open()


# ----------------------------------------------------------------- sharing


def test_nothing_runs_before_it_is_needed():
  before = threading.active_count()
  made = Runtime()
  Dispatcher(toys.Toy(toys.Store()), runtime=made)
  assert threading.active_count() == before
  assert not made.alive
  made.shutdown()


def test_equal_operations_share_a_session_until_the_last_one_leaves(runtime):
  service = toys.Store()
  one, two = dispatcher(service, runtime), dispatcher(service, runtime)
  one.open()
  one.open()
  two.open()
  assert one.session is two.session
  assert service.opened == 1
  one.close()
  one.close()
  assert service.closed == 0
  assert toys.run_bundle(two, [toys.Row(1)]).error is None
  two.close()
  assert service.closed == 1
  assert toys.run_bundle(two, [toys.Row(2)]).error is None
  assert service.opened == 2


def test_what_differs_in_value_has_a_session_of_its_own(runtime):
  service = toys.Store()
  all_ = [
      dispatcher(service, runtime),
      dispatcher(service, runtime, name='other'),
      dispatcher(service, runtime, max_records=5),
      dispatcher(toys.Store(), runtime),
  ]
  for each in all_:
    each.open()
  assert service.opened == 3
  assert len({id(each._shared) for each in all_}) == 4


def test_budgets_and_limits_are_shared_with_the_session(runtime):
  service = toys.Scripted()
  service.seconds = 1.0
  outcomes = toys.in_threads([
      lambda n=n: toys.run_bundle(
          dispatcher(service, runtime, max_records=1, in_flight=2),
          [toys.Row(100 * n + i) for i in range(20)]) for n in range(3)
  ])
  assert [outcome.error for outcome in outcomes] == [None] * 3
  assert service.opened == 1
  assert service.most_in_flight == 2


def test_threads_that_open_at_once_wait_for_one_session(runtime):
  service = Opening([5.0])
  barrier = threading.Barrier(8)

  def open_():
    each = dispatcher(service, runtime)
    barrier.wait(toys.PATIENCE_SECONDS)
    each.open()
    return each.session

  sessions = toys.in_threads([open_] * 8)
  assert sessions == [service] * 8
  assert (service.tries, service.opened) == (1, 1)


def test_connections_are_reported_once(runtime):
  service = toys.Store()
  all_ = [dispatcher(service, runtime) for _ in range(2)]
  reports = []
  for each in all_ * 2:
    reports += toys.run_bundle(each, [toys.Row(1)]).reports
  assert [report.connections for report in reports] == [1, 0, 0, 0]


# ------------------------------------------------------------ failing to open


@pytest.mark.parametrize(
    'error', [toys.ToyError(FATAL, 'unknown key'), ValueError('a bug')])
def test_a_service_that_is_not_usable_fails_at_once(runtime, error):
  service = Opening([error])
  with pytest.raises(FatalError, match=f'toy: can not connect: .*{error}'):
    dispatcher(service, runtime).open()
  assert service.tries == 1


def test_all_threads_that_wait_get_the_failure_and_later_ones_try_again(
    runtime):
  fail = threading.Event()

  class Failing(Opening):
    async def open(self):
      if not self.tries:
        self.tries += 1
        await asyncio.get_running_loop().run_in_executor(None, fail.wait)
        raise toys.ToyError(FATAL, 'unknown key')
      return await super().open()

  # The wait is real, the clock must not jump over it.
  held = toys.held_runtime()
  service = Failing()
  shared_operation = toys.Toy(service)

  def open_():
    try:
      Dispatcher(shared_operation, runtime=held).open()
    except FatalError as error:
      return error
    return None

  def release():
    toys.eventually(
        lambda: sum(s.users for s in held._sessions.values()) == 4,
        'all have joined')
    fail.set()

  *errors, _ = toys.in_threads([open_] * 4 + [release])
  assert [type(error) for error in errors] == [FatalError] * 4
  assert service.tries == 1
  again = Dispatcher(shared_operation, runtime=held)
  again.open()
  assert service.opened == 1
  again.close()
  held.shutdown()


def test_a_service_that_is_away_for_a_while_is_waited_for(runtime):
  service = Opening([
      toys.ToyError(UNAVAILABLE),
      ConnectionRefusedError(),
      toys.ToyError(Verdict(Kind.THROTTLED, retry_after=7.0))
  ])
  dispatcher(service, runtime).open()
  assert service.opened == 1
  assert service.times[3] - service.times[2] >= 7.0


def test_a_service_that_stays_away_is_an_outage(runtime):
  service = Opening([toys.ToyError(UNAVAILABLE, 'down')] * 10_000)
  with pytest.raises(OutageError, match='within 45 s .*: down'):
    dispatcher(service, runtime, open_deadline=45).open()
  assert 2 < service.tries < 60
  assert service.times[-1] <= 45


def test_a_connection_that_hangs_is_an_outage(runtime):
  service = Opening([10_000.0] * 100)
  with pytest.raises(OutageError, match='within 45 s .*no answer.*address'):
    dispatcher(service, runtime, open_deadline=45).open()


# ---------------------------------------------------------------- the end


def test_closing_in_mid_flight_cancels_and_leaves_nothing(runtime):
  service = toys.Scripted([toys.Scripted.HANG] * 10)
  # A clock that stands still: the requests are in flight until cancelled.
  held = toys.held_runtime()
  each = dispatcher(service, held, max_records=1)
  bundle = each.bundle()
  budget, flow = each._shared.budget, each._shared.link.flow
  for i in range(20):
    bundle.submit(toys.Row(i))
  toys.eventually(lambda: service.in_flight == 8, 'requests are in flight')
  assert budget.used > 0
  bundle.cancel()
  each.close()
  assert service.closed == 1
  toys.eventually(
      lambda: not (service.in_flight or budget.used or flow.requests.in_flight),
      'everything comes back')
  assert bundle.settled() == []
  with pytest.raises(DeliveryError, match='cancelled'):
    bundle.drain()
  held.shutdown()


def test_a_runtime_that_ends_fails_bundles_that_wait():
  held = toys.held_runtime()
  service = toys.Scripted([toys.Scripted.HANG] * 10)
  each = dispatcher(service, held)

  def end():
    assert service.sending.wait(toys.PATIENCE_SECONDS)
    began = time.monotonic()
    held.shutdown()
    return time.monotonic() - began

  outcome, seconds = toys.in_threads(
      [lambda: toys.run_bundle(each, [toys.Row(1)]), end])
  assert isinstance(outcome.error, DeliveryError)
  assert 'ended' in str(outcome.error)
  assert service.in_flight == 0 and service.closed == 1
  assert len(service.requests) == 1
  assert seconds < bundle_module._WATCH_SECONDS


def test_a_loop_that_dies_fails_bundles_that_wait(monkeypatch):
  monkeypatch.setattr(bundle_module, '_WATCH_SECONDS', 0.02)
  held = toys.held_runtime()
  service = toys.Scripted([toys.Scripted.HANG] * 10)
  each = dispatcher(service, held)

  def die():
    assert service.sending.wait(toys.PATIENCE_SECONDS)
    held.loop().call_soon_threadsafe(held.loop().stop)

  outcome, _ = toys.in_threads(
      [lambda: toys.run_bundle(each, [toys.Row(1)]), die])
  assert isinstance(outcome.error, DeliveryError)
  assert 'the event loop has ended' in str(outcome.error)


def test_a_loop_that_died_fails_what_comes_later():
  held = toys.held_runtime()
  each = dispatcher(toys.Store(), held, max_records=2)
  bundle = each.bundle()
  bundle.submit(toys.Row(1))
  held.shutdown()
  with pytest.raises(DeliveryError, match='the event loop has ended'):
    bundle.submit(toys.Row(2))
  with pytest.raises(DeliveryError, match='the event loop has ended'):
    bundle.drain()
  bundle.cancel()
  each.close()


def test_a_bundle_that_waits_for_bytes_notices_that_the_loop_died():
  held = toys.held_runtime()
  service = toys.Scripted([toys.Scripted.HANG] * 10)
  each = dispatcher(service, held, max_records=1, in_flight_bytes=1500)
  budget = None

  def die():
    assert service.sending.wait(toys.PATIENCE_SECONDS)
    toys.eventually(lambda: len(budget._queue) == 1, 'the bundle waits')
    held.loop().call_soon_threadsafe(held.loop().stop)
    toys.eventually(lambda: not held.alive, 'the loop ends')
    budget.wake()

  each.open()
  budget = each._shared.budget
  outcome, _ = toys.in_threads(
      [lambda: toys.run_bundle(each, [toys.Row(1), toys.Row(2)]), die])
  assert isinstance(outcome.error, DeliveryError)


def test_a_session_that_fails_to_close_does_not_fail_the_work(runtime, caplog):
  class Rude(toys.Store):
    async def close(self):
      raise ConnectionResetError('gone already')

  each = dispatcher(Rude(), runtime)
  assert toys.run_bundle(each, [toys.Row(1)]).error is None
  each.close()
  assert 'gone already' in caplog.text


def test_a_session_of_a_runtime_that_ended_is_not_closed_again():
  made = toys.jumping_runtime()
  service = toys.Store()
  each = dispatcher(service, made)
  each.open()
  made.shutdown()
  other = dispatcher(toys.Store(), made)
  other.open()
  each.close()
  assert service.closed == 1
  other.close()
  made.shutdown()


def test_shutting_down_twice_or_unused_is_harmless():
  made = Runtime()
  made.shutdown()
  made.run(asyncio.sleep(0))
  made.shutdown()
  made.shutdown()
  assert not made.alive


# -------------------------------------------------------------------- forks

FORK = '''
import os, sys, threading
sys.path.append(sys.argv[1])
import engine_toys as toys
from beam_connector_base.dispatcher import Dispatcher

service = toys.Store()
dispatcher = Dispatcher(toys.Toy(service))
assert toys.run_bundle(dispatcher, [toys.Row(1)]).error is None
assert service.opened == 1

def child():
  outcome = toys.run_bundle(dispatcher, [toys.Row(2), toys.Row(3)])
  assert outcome.error is None, outcome.error
  assert len(outcome.submissions) == 2
  # In this process: its own session, and not the parent's.
  assert service.opened == 2, service.opened
  assert service.requests == [[1], [2, 3]]
  dispatcher.close()
  assert service.closed == 1

# A parent in the middle of a bundle: its thread must not matter to the child.
bundle = dispatcher.bundle()
bundle.submit(toys.Row(4))
for _ in range(2):
  pid = os.fork()
  if not pid:
    code = 1
    try:
      child()
      code = 0
    finally:
      sys.stderr.flush()
      os._exit(code)
  _, status = os.waitpid(pid, 0)
  assert status == 0, status
assert len(bundle.drain()) == 1
assert service.requests == [[1], [4]]
assert (service.opened, service.closed) == (1, 0)
dispatcher.close()
assert service.closed == 1
print('fine')
'''


def test_a_forked_child_opens_its_own_and_leaves_the_parent_alone():
  here = str(pathlib.Path(toys.__file__).parent)
  done = subprocess.run([sys.executable, '-c', textwrap.dedent(FORK), here],
                        capture_output=True,
                        text=True,
                        timeout=toys.PATIENCE_SECONDS,
                        check=False)
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip().endswith('fine')


# -------------------------------------------------------------------- pool


def test_the_pool_runs_calls_at_once_and_passes_errors_on():
  pool = DaemonPool(3)
  together = threading.Barrier(3)
  futures = [
      pool.submit(together.wait, toys.PATIENCE_SECONDS) for _ in range(3)
  ]
  assert sorted(f.result(toys.PATIENCE_SECONDS) for f in futures) == [0, 1, 2]
  with pytest.raises(ZeroDivisionError):
    pool.submit(lambda: 1 / 0).result(toys.PATIENCE_SECONDS)


def test_the_pool_never_runs_more_calls_than_it_has_threads():
  pool = DaemonPool(2)
  lock = threading.Lock()
  running = []
  most = []

  def call():
    with lock:
      running.append(1)
      most.append(len(running))
    threading.Event().wait(0.001)
    with lock:
      running.pop()

  for future in [pool.submit(call) for _ in range(40)]:
    future.result(toys.PATIENCE_SECONDS)
  assert 1 <= max(most) <= 2


# ------------------------------------------------------------ virtual clock


def test_hours_pass_in_no_time_on_a_virtual_clock():
  loop = VirtualTimeLoop()
  began = time.monotonic()
  loop.run_until_complete(asyncio.sleep(36_000))
  assert loop.time() == pytest.approx(36_000)
  assert time.monotonic() - began < 5
  loop.close()


def test_a_seeded_runtime_backs_off_alike():
  times = []
  for _ in range(2):
    service = Opening([toys.ToyError(UNAVAILABLE)] * 6)
    made = Runtime(loop_factory=VirtualTimeLoop, rng=random.Random(5))
    dispatcher(service, made).open()
    made.shutdown()
    times.append([at - service.times[0] for at in service.times])
  assert times[0] == pytest.approx(times[1])
