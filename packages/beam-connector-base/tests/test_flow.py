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
import threading

import engine_toys as toys
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from beam_connector_base.errors import OutageError
from beam_connector_base.flow import AdaptiveLimit
from beam_connector_base.flow import ByteBudget
from beam_connector_base.flow import Flow
from beam_connector_base.flow import TokenBucket
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Rate


def never():
  return False


async def a_moment():
  """Lets every task that can run do so."""
  for _ in range(10):
    await asyncio.sleep(0)


# ------------------------------------------------------------------- bytes


class Waiter:
  """A thread that takes bytes."""
  def __init__(self, budget, nbytes, stop=never):
    self.got = None
    waiting = len(budget._queue)
    self._thread = threading.Thread(
        target=self._take, args=(budget, nbytes, stop), daemon=True)
    self._thread.start()
    toys.eventually(
        lambda: self.got is not None or len(budget._queue) > waiting,
        'the thread takes or queues')

  def _take(self, budget, nbytes, stop):
    self.got = budget.take(nbytes, stop)

  def result(self):
    self._thread.join(toys.PATIENCE_SECONDS)
    return self.got


def test_bytes_are_granted_up_to_the_capacity_and_then_in_order():
  budget = ByteBudget(100)
  assert budget.take(60, never) and budget.take(40, never)
  large = Waiter(budget, 80)
  small = Waiter(budget, 10)
  budget.give_back(40)  # enough for the second in line, who must not overtake
  assert large.got is None and small.got is None
  budget.give_back(60)
  assert large.result() and small.result()
  assert (budget.used, budget.most) == (90, 100)


def test_a_batch_larger_than_the_budget_goes_alone():
  budget = ByteBudget(100)
  assert budget.take(1, never)
  huge = Waiter(budget, 1000)
  assert huge.got is None
  budget.give_back(1)
  assert huge.result()
  after = Waiter(budget, 1)
  assert after.got is None
  budget.give_back(1000)
  assert after.result()
  assert budget.most == 1000


def test_one_who_stops_waiting_lets_the_next_one_through():
  budget = ByteBudget(100)
  assert budget.take(90, never)
  stopped = threading.Event()
  first = Waiter(budget, 50, stopped.is_set)
  second = Waiter(budget, 10)
  assert second.got is None
  stopped.set()
  budget.wake()
  assert first.result() is False
  assert second.result() is True
  budget.give_back(90)
  budget.give_back(10)
  assert budget.used == 0


# ----------------------------------------------------------------- permits


def test_permits_are_bounded_and_given_in_order():
  async def main():
    limit = AdaptiveLimit(2, 10)
    got = []

    async def take(name):
      await limit.take()
      got.append(name)

    tasks = [asyncio.ensure_future(take(i)) for i in range(5)]
    await a_moment()
    assert got == [0, 1] and limit.in_flight == 2
    limit.give_back()
    limit.give_back()
    await a_moment()
    assert got == [0, 1, 2, 3] and limit.in_flight == 2
    limit.give_back()
    await asyncio.gather(*tasks)

  toys.virtual(main)


@pytest.mark.parametrize('cancel_first', [True, False])
def test_a_permit_is_not_lost_with_a_waiter_cancelled_at_that_moment(
    cancel_first):
  async def main():
    limit = AdaptiveLimit(1, 1)
    await limit.take()
    task = asyncio.ensure_future(limit.take())
    await a_moment()
    if cancel_first:
      task.cancel()
      limit.give_back()
    else:
      limit.give_back()
      task.cancel()
    with pytest.raises(asyncio.CancelledError):
      await task
    assert limit.in_flight == 0
    await asyncio.wait_for(limit.take(), 1)

  toys.virtual(main)


def test_waiting_for_requests_that_never_return_ends():
  async def main():
    limit = AdaptiveLimit(2, 2, patience=100.0)
    await limit.take()
    await limit.take()
    waiting = [asyncio.ensure_future(limit.take()) for _ in range(2)]
    with pytest.raises(OutageError, match='not one of 2 requests in flight'):
      await waiting[0]
    assert asyncio.get_running_loop().time() == pytest.approx(100.0)
    with pytest.raises(OutageError):
      await waiting[1]
    limit.give_back()
    await limit.take()
    assert limit.in_flight == 2

  toys.virtual(main)


def test_waiting_goes_on_while_requests_return():
  async def main():
    limit = AdaptiveLimit(1, 1, patience=100.0)
    loop = asyncio.get_running_loop()
    await limit.take()
    waiting = [asyncio.ensure_future(limit.take()) for _ in range(20)]
    for _ in range(20):
      await asyncio.sleep(60.0)
      limit.give_back()
    await asyncio.gather(*waiting)
    limit.give_back()
    assert loop.time() == pytest.approx(1200.0)
    assert limit.in_flight == 0

  toys.virtual(main)


def test_the_limit_grows_by_one_a_round_while_it_holds_requests_back():
  async def main():
    limit = AdaptiveLimit(2, 4)
    limits = []
    for _ in range(12):
      await limit.take()
      await limit.take()  # 2 of 2: full
      limits.append(limit.limit)
      for _ in range(2):
        limit.give_back()
        limit.succeeded()
      while limit.limit > 2 and limit.in_flight < int(limit.limit):
        await limit.take()
      while limit.in_flight:
        limit.give_back()
    assert limits[:2] == [2.0, 3.0]
    assert max(limits) <= 4.0

  toys.virtual(main)


def test_the_limit_does_not_grow_while_it_is_not_reached():
  async def main():
    limit = AdaptiveLimit(8, 64)
    for _ in range(1000):
      for _ in range(7):
        await limit.take()
      for _ in range(7):
        limit.give_back()
        limit.succeeded()
    assert limit.limit == 8.0

  toys.virtual(main)


def test_the_limit_shrinks_at_most_once_a_round_trip():
  limit = AdaptiveLimit(10, 10)
  # Ten requests sent at 1.0 are all refused; only the first says something new.
  for answered in (2.0, 2.1, 2.2, 2.3):
    limit.pressed(started=1.0, now=answered)
  assert limit.limit == 10 * AdaptiveLimit.DECREASE
  limit.pressed(started=1.9, now=2.4)
  assert limit.limit == 10 * AdaptiveLimit.DECREASE
  limit.pressed(started=2.1, now=3.0)
  assert limit.limit == pytest.approx(10 * AdaptiveLimit.DECREASE**2)


def test_the_limit_stays_between_one_and_the_most():
  limit = AdaptiveLimit(100, 3)
  assert limit.limit == 3
  for now in range(1, 50):
    limit.pressed(started=now, now=now + 0.5)
  assert limit.limit == 1.0
  assert AdaptiveLimit(0, 5).limit == 1.0


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.integers(1, 4),
    st.integers(1, 8),
    st.lists(st.sampled_from(['take', 'back', 'ok', 'press', 'cancel'])))
def test_permits_add_up_whatever_happens(start, most, steps):
  async def main():
    limit = AdaptiveLimit(start, most)
    tasks = []
    held = 0
    for now, step in enumerate(steps, 1):
      if step == 'take':
        tasks.append(asyncio.ensure_future(limit.take()))
      elif step == 'back' and held:
        limit.give_back()
        held -= 1
      elif step == 'ok':
        limit.succeeded()
      elif step == 'press':
        limit.pressed(now - 1, now)
      elif step == 'cancel' and tasks:
        tasks[-1].cancel()
      if step != 'cancel':  # cancels and what follows meet in one instant
        await a_moment()
      for task in [task for task in tasks if task.done()]:
        tasks.remove(task)
        held += not task.cancelled()
    await a_moment()
    held += sum(not task.cancelled() for task in tasks if task.done())
    assert limit.in_flight == held
    assert held <= most
    for _ in range(held):
      limit.give_back()
    waiting = [task for task in tasks if not task.done()]
    while waiting:
      await a_moment()
      done = [task for task in waiting if task.done()]
      assert done, 'waiters are left although all permits are free'
      for task in done:
        await task
        limit.give_back()
        waiting.remove(task)
    assert limit.in_flight == 0

  toys.virtual(main)


# ------------------------------------------------------------------- rates


def test_a_bucket_starts_full_and_refills():
  bucket = TokenBucket(10.0)
  assert bucket.reserve(10, now=5.0) == 0.0
  assert bucket.reserve(1, now=5.0) == pytest.approx(0.1)
  assert bucket.reserve(1, now=5.0) == pytest.approx(0.2)
  assert bucket.reserve(1, now=100.0) == 0.0
  assert bucket.reserve(9, now=100.0) == 0.0
  assert bucket.reserve(20, now=100.0) == pytest.approx(2.0)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.floats(0.5, 100),
    st.lists(
        st.tuples(st.floats(0, 3), st.integers(1, 50)), min_size=1,
        max_size=50))
def test_tokens_spent_never_exceed_rate_times_time_and_one_burst(rate, steps):
  bucket = TokenBucket(rate)
  now = 0.0
  spent = []
  for gap, tokens in steps:
    now += gap
    spent.append((now + bucket.reserve(tokens, now), tokens))
  for i, (began, _) in enumerate(spent):
    after = 0
    for at, tokens in spent[i + 1:]:
      after += tokens
      assert after <= rate * (at - began) + bucket.burst + 1e-6


def admissions(flow, wanted, seconds=0.0):
  """Times at which so many attempts were admitted; each takes `seconds`."""
  times = []

  async def attempt(destination, records, nbytes):
    await flow.admit(destination, records, nbytes)
    times.append((asyncio.get_running_loop().time(), destination))
    if seconds:
      await asyncio.sleep(seconds)
    flow.requests.give_back()

  async def main():
    await asyncio.gather(*(attempt(*one) for one in wanted))

  return main, times


def most_in_a_second(times):
  return max(
      sum(start <= at < start + 1.0 - 1e-9 for at in times) for start in times)


@pytest.mark.parametrize(
    'rate,per_second',
    [
        (Rate(requests=10), 10),
        (Rate(records=100), 10),
        (Rate(nbytes=5000), 10),
        (Rate(requests=10, records=40), 4),
    ])
def test_attempts_keep_to_the_documented_rate(rate, per_second):
  flow = Flow(Limits(rates=(rate,), in_flight=64))
  main, times = admissions(flow, [('a', 10, 500)] * 60)
  toys.virtual(main)
  when = [at for at, _ in times]
  # A burst of one second's worth, then the rate.
  assert most_in_a_second(when) <= 2 * per_second
  assert when[-1] == pytest.approx(60 / per_second - 1, rel=0.05)


def test_a_share_of_the_quota_is_a_share_of_the_rate():
  flow = Flow(Limits(rates=(Rate(requests=10),)), quota_share=0.5)
  main, times = admissions(flow, [('a', 1, 1)] * 30)
  toys.virtual(main)
  assert times[-1][0] == pytest.approx(5.0, rel=0.05)


def test_a_rate_per_destination_does_not_hold_up_the_others():
  flow = Flow(Limits(rates=(Rate(requests=1, scope='destination'),)))
  main, times = admissions(flow, [('a', 1, 1)] * 10 + [('b', 1, 1)] * 2)
  toys.virtual(main)
  assert [at for at, to in times if to == 'b'] == pytest.approx([0.0, 1.0])
  assert max(at for at, _ in times) == pytest.approx(9.0)


async def throttled(flow, admission):
  """Seconds that the admission counts as throttled."""
  now = asyncio.get_running_loop().time
  flow.throttled.take(now)
  await admission
  return flow.throttled.take(now)


def test_waiting_for_a_rate_is_reported_as_waiting():
  async def main():
    flow = Flow(Limits(rates=(Rate(requests=1),)))
    assert await throttled(flow, flow.admit('a', 1, 1)) == 0.0
    assert await throttled(flow, flow.admit('a', 1, 1)) == pytest.approx(1.0)
    flow.close_gate('a', 5.0)
    assert await throttled(flow, flow.admit('a', 1, 1)) == pytest.approx(5.0)

  toys.virtual(main)


def test_waiting_for_a_permit_is_not_reported_as_throttling():
  async def main():
    flow = Flow(Limits(in_flight=1, max_in_flight=1))
    await flow.admit('a', 1, 1)
    asyncio.get_running_loop().call_later(9, flow.requests.give_back)
    assert await throttled(flow, flow.admit('a', 1, 1)) == 0.0

  toys.virtual(main)


# ------------------------------------------------------------------- gates


def test_a_closed_gate_holds_back_every_delivery():
  async def main():
    flow = Flow(Limits())
    loop = asyncio.get_running_loop()
    flow.close_gate('a', 3.0)
    flow.close_gate('a', 1.0)  # a shorter wait does not open it earlier
    await asyncio.gather(*(flow.admit(to, 1, 1) for to in 'aabb'))
    assert loop.time() == pytest.approx(3.0)

  toys.virtual(main)


def test_a_timer_that_comes_a_little_early_does_not_spin_at_the_gate():
  async def main():
    flow = Flow(Limits())
    loop = asyncio.get_running_loop()
    flow.close_gate('a', 3.0)
    loop._now = 3.0 - 1e-10  # within the resolution of the loop's clock
    passes = 0

    async def spin():
      nonlocal passes
      while passes < 1000:
        passes += 1
        await asyncio.sleep(0)

    spinning = asyncio.ensure_future(spin())
    await asyncio.gather(*(flow.admit('a', 1, 1) for _ in range(3)))
    assert passes < 10
    spinning.cancel()

  toys.virtual(main)


def test_a_gate_is_the_destinations_where_the_rates_are():
  async def main():
    flow = Flow(Limits(rates=(Rate(requests=1000, scope='destination'),)))
    flow.close_gate('a', 3.0)
    await flow.admit('b', 1, 1)
    assert asyncio.get_running_loop().time() == 0.0
    await flow.admit('a', 1, 1)
    assert asyncio.get_running_loop().time() == pytest.approx(3.0)

  toys.virtual(main)


def test_a_gate_that_closes_while_one_queues_for_a_permit_holds_it_back():
  async def main():
    flow = Flow(Limits(in_flight=1, max_in_flight=1))
    loop = asyncio.get_running_loop()
    await flow.admit('a', 1, 1)
    queued = asyncio.ensure_future(flow.admit('a', 1, 1))
    await a_moment()
    flow.close_gate('a', 4.0)
    flow.requests.give_back()
    await queued
    assert loop.time() == pytest.approx(4.0)
    assert flow.requests.in_flight == 1

  toys.virtual(main)


def test_no_permit_is_held_while_waiting_for_a_gate_or_a_rate():
  async def main():
    flow = Flow(Limits(rates=(Rate(requests=1),)))
    await flow.admit('a', 1, 1)
    flow.requests.give_back()
    flow.close_gate('a', 10.0)
    waiting = [asyncio.ensure_future(flow.admit('a', 1, 1)) for _ in range(3)]
    for _ in range(9):
      await asyncio.sleep(1.0)
      assert flow.requests.in_flight == 0
    await asyncio.gather(*waiting)

  toys.virtual(main)


def test_attempts_held_back_by_a_gate_do_not_come_all_at_once():
  # A service that asked for a pause must not meet everything that has queued
  # since in the instant in which the pause ends.
  flow = Flow(Limits(rates=(Rate(requests=10),), in_flight=64))
  main, times = admissions(flow, [('a', 1, 1)] * 100)

  async def throttled():
    loop = asyncio.get_running_loop()
    loop.call_later(1.0, flow.close_gate, 'a', 30.0)
    await main()

  toys.virtual(throttled)
  when = [at for at, _ in times]
  assert not [at for at in when if 1.0 < at < 31.0]
  assert most_in_a_second(when) <= 20
  # Nor does it pay for the pause a second time.
  assert when[-1] == pytest.approx(31.0 + 8.0, abs=1.5)


def test_an_attempt_that_is_cancelled_while_waiting_frees_the_way():
  async def main():
    flow = Flow(Limits(rates=(Rate(requests=1),)))
    await flow.admit('a', 1, 1)
    first = asyncio.ensure_future(flow.admit('a', 1, 1))
    second = asyncio.ensure_future(flow.admit('a', 1, 1))
    await a_moment()
    first.cancel()
    await second
    assert asyncio.get_running_loop().time() <= 2.0 + 1e-9
    assert flow.requests.in_flight == 2

  toys.virtual(main)


def test_those_who_wait_for_the_same_second_are_throttled_for_one_second():
  async def main():
    flow = Flow(Limits())
    flow.close_gate('a', 5.0)
    crowd = asyncio.gather(*(flow.admit('a', 1, 1) for _ in range(8)))
    assert await throttled(flow, crowd) == pytest.approx(5.0)

  toys.virtual(main)


def test_a_wait_that_goes_on_is_counted_as_far_as_it_has_come():
  async def main():
    flow = Flow(Limits())
    now = asyncio.get_running_loop().time
    flow.close_gate('a', 5.0)
    waiting = asyncio.ensure_future(flow.admit('a', 1, 1))
    await asyncio.sleep(2.0)
    assert flow.throttled.take(now) == pytest.approx(2.0)
    await waiting
    assert flow.throttled.take(now) == pytest.approx(3.0)

  toys.virtual(main)


# ------------------------------------------------------ Beam's rate limiter


def test_the_rate_limiter_is_asked_with_the_records_until_it_allows():
  asked = []

  def allow(*, hits_added):
    asked.append(hits_added)
    return len(asked) > 3

  async def main():
    flow = Flow(Limits(), rate_limiter=allow)
    assert await throttled(flow, flow.admit('a', 25, 1)) == pytest.approx(0.3)
    assert asked == [25] * 4
    assert flow.requests.in_flight == 1

  toys.virtual(main)
