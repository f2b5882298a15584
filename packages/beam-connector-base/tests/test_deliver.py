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
import pickle
import random

import engine_toys as toys
import pytest

from beam_connector_base import errors
from beam_connector_base.deliver import deliver
from beam_connector_base.errors import FatalError
from beam_connector_base.errors import OutageError
from beam_connector_base.errors import SystematicRefusalError
from beam_connector_base.link import Refusals
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import FATAL
from beam_connector_base.operation import PERMANENT
from beam_connector_base.operation import SUPERSEDED
from beam_connector_base.operation import TOO_LARGE
from beam_connector_base.operation import TRANSIENT
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Unanswered
from beam_connector_base.operation import Verdict
from beam_connector_base.operation import throttled
from beam_connector_base.reports import Report
from beam_connector_base.tuning import Tuning

UNAVAILABLE = Verdict(Kind.TRANSIENT, status=503)
BAD_REQUEST = Verdict(Kind.PERMANENT, status=400)


def error(verdict, text=''):
  return toys.ToyError(verdict, text)


def rows(n, **common):
  return [toys.Row(i, **common) for i in range(n)]


def one(session, records=4, **link):
  """One delivery of so many records, on a loop of its own."""
  async def main():
    return await toys.delivery(toys.link_to(session, **link), rows(records))

  return toys.virtual(main)


def together(session, sizes, **link):
  """Several deliveries at once over one link."""
  async def main():
    shared = toys.link_to(session, **link)
    number = 0
    batches = []
    for size in sizes:
      batches.append([toys.Row(number + i) for i in range(size)])
      number += size
    return shared, await asyncio.gather(
        *(toys.delivery(shared, batch) for batch in batches))

  return toys.virtual(main)


class Refusing(toys.Store):
  """Refuses each request that holds a bad row, as a whole."""
  def __init__(self, bad, verdict=BAD_REQUEST, **kwargs):
    super().__init__(**kwargs)
    self.bad = set(bad)
    self.verdict = verdict

  async def answer(self, batch, ids):
    if self.bad & set(ids):
      raise error(self.verdict, f'row {min(self.bad & set(ids))} is bad')
    self.written.update(ids)
    return ALL_OK


# ---------------------------------------------------------------- retrying


def test_a_request_that_succeeds_settles_every_row_as_written():
  store = toys.Scripted()
  result = one(store)
  assert result.fates == dict.fromkeys(range(4), 'written')
  assert (result.report.written, result.report.retried) == (4, 0)
  (attempt,) = result.report.attempts
  assert (attempt.outcome, attempt.records) == ('ok', 4)
  assert attempt.nbytes == 32


@pytest.mark.parametrize(
    'failure,outcome',
    [
        (error(UNAVAILABLE), 'transient'),
        (error(throttled()), 'throttled'),
        (ConnectionResetError('reset'), 'transient'),
        (toys.Scripted.HANG, 'timeout'),
        (asyncio.CancelledError(), 'transient'),
    ],
    ids=['unavailable', 'throttled', 'reset', 'no answer', 'cancelled by peer'])
def test_what_may_pass_is_tried_again_and_blames_no_record(failure, outcome):
  store = toys.Scripted([failure, failure])
  result = one(store)
  assert result.error is None
  assert result.fates == dict.fromkeys(range(4), 'written')
  assert [a.outcome for a in result.report.attempts] == [outcome] * 2 + ['ok']
  assert result.report.retried == 8
  assert store.requests == [[0, 1, 2, 3]] * 3


def test_a_request_without_an_answer_is_cancelled_after_its_timeout():
  store = toys.Scripted([toys.Scripted.HANG])
  result = one(store, tuning=Tuning(attempt_timeout=7))
  assert store.in_flight == 0
  assert result.report.attempts[0].seconds == pytest.approx(7)
  assert 7 <= store.times[1] <= 7 + 0.2


def test_the_batch_says_which_try_it_is():
  seen = []

  class Counting(toys.Scripted):
    async def answer(self, batch, ids):
      seen.append(batch.attempt)
      return await super().answer(batch, ids)

  one(Counting([error(UNAVAILABLE)] * 2))
  assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    'verdict', [throttled(5.0), Verdict(TRANSIENT.kind, 5)])
def test_the_wait_that_the_service_asked_for_is_a_floor(verdict):
  store = toys.Scripted([error(verdict)] * 5)
  one(store, rng=random.Random(3))
  gaps = [b - a for a, b in zip(store.times, store.times[1:], strict=False)]
  for n, gap in enumerate(gaps):
    assert 5.0 <= gap <= 5.0 + 0.2 * 2**n + 1e-6


def test_without_a_wait_the_pause_is_full_jitter():
  gaps = []
  for seed in range(60):
    store = toys.Scripted([error(UNAVAILABLE)] * 4)
    one(store, rng=random.Random(seed))
    gaps.append(
        [b - a for a, b in zip(store.times, store.times[1:], strict=False)])
  for n, column in enumerate(zip(*gaps, strict=True)):
    window = 0.2 * 2**n
    assert max(column) <= window
    assert min(column) < 0.2 * window and max(column) > 0.8 * window


def test_only_rows_without_a_final_answer_are_tried_again():
  store = toys.Scripted([
      [Done(None), Unanswered(), Failed(UNAVAILABLE, 'busy'), Done(None)],
      [Done(None), Unanswered()],
  ])
  result = one(store)
  assert store.requests == [[0, 1, 2, 3], [1, 2], [2]]
  assert result.fates == dict.fromkeys(range(4), 'written')
  assert [a.outcome for a in result.report.attempts
         ] == ['partial', 'partial', 'ok']
  assert result.report.retried == 3


def test_rows_refused_by_index_are_final_and_their_neighbours_written():
  store = toys.Scripted([[
      Done(None),
      Failed(PERMANENT, 'no such field', 'BadField'),
      Failed(TOO_LARGE, 'too large'),
      SUPERSEDED
  ]])
  result = one(store)
  assert result.fates == {
      0: 'written',
      1: Failed(PERMANENT, 'no such field', 'BadField'),
      2: Failed(TOO_LARGE, 'too large'),
      3: SUPERSEDED
  }
  report = result.report
  assert (report.written, report.refused, report.superseded) == (1, 2, 1)
  assert len(store.requests) == 1


# ------------------------------------------------- throttling and the limit


def test_a_throttled_record_in_a_success_holds_back_every_delivery():
  store = toys.Scripted([[Done(None), Failed(throttled(9.0))]])

  async def main():
    link = toys.link_to(store)
    first = asyncio.ensure_future(toys.delivery(link, rows(2)))
    while not store.requests:
      await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    await asyncio.gather(
        first, *(toys.delivery(link, [toys.Row(10 + i)]) for i in range(3)))
    assert link.flow.requests.limit == pytest.approx(8 * 0.7)

  toys.virtual(main)
  assert store.times[0] == 0.0
  assert min(store.times[1:]) >= 9.0
  assert len(store.times) == 5


def test_a_throttled_request_holds_back_every_delivery():
  store = toys.Scripted([error(throttled(9.0))])
  link, results = together(store, [1] * 4, tuning=Tuning(in_flight=1))
  assert min(store.times[1:]) >= 9.0
  assert all(result.error is None for result in results)
  # All four waited, for the same nine seconds.
  assert 9.0 <= link.flow.throttled.take(lambda: 0.0) < 10.0
  assert link.flow.requests.in_flight == 0


def test_many_throttled_answers_of_one_round_are_one_decrease():
  store = toys.Scripted([error(throttled())] * 8)
  store.seconds = 1.0
  link, _ = together(store, [1] * 8)
  assert store.most_in_flight == 8
  assert link.flow.requests.limit >= 8 * 0.7


def test_a_timeout_counts_as_pressure_and_an_error_does_not():
  for failure, limit in ((toys.Scripted.HANG, 5.6), (error(UNAVAILABLE), 8.0)):
    link, _ = together(toys.Scripted([failure]), [1])
    assert link.flow.requests.limit == pytest.approx(limit)


def test_a_reply_with_throttled_records_does_not_make_the_limit_grow():
  limits = []

  def one_of(ids):
    limits.append(link[0].flow.requests.limit)
    return [Done(None)] + [Failed(throttled())] * (len(ids) - 1)

  link = []
  # With one request in flight the limit is always what holds others back.
  store = toys.Scripted([one_of] * 10, limits=Limits(in_flight=1))

  async def main():
    link.append(toys.link_to(store))
    return await toys.delivery(link[0], rows(10))

  assert toys.virtual(main).error is None
  assert limits == [1.0] * 10


def test_the_longest_wait_that_a_reply_asks_for_counts():
  store = toys.Scripted([[
      Failed(throttled(4.0)),
      Failed(Verdict(Kind.TRANSIENT, retry_after=9.0)),
      Failed(throttled(2.0)),
      Unanswered()
  ]])
  one(store)
  assert 9.0 <= store.times[1] <= 9.2


def test_the_limit_grows_while_it_is_what_holds_requests_back():
  store = toys.Scripted(limits=Limits(in_flight=2, max_in_flight=6))
  store.seconds = 1.0
  link, _ = together(store, [1] * 60)
  assert store.most_in_flight == 6
  assert store.violations == []
  few = toys.Scripted(limits=Limits(in_flight=8, max_in_flight=64))
  few.seconds = 1.0
  link, _ = together(few, [1] * 7)
  assert link.flow.requests.limit == 8.0


def test_requests_in_flight_never_exceed_the_users_cap():
  store = toys.Scripted(
      [error(UNAVAILABLE), toys.Scripted.HANG, error(throttled(1))] * 5)
  store.seconds = 0.5
  _, results = together(store, [2] * 40, tuning=Tuning(in_flight=3))
  assert store.most_in_flight == 3
  assert all(result.error is None for result in results)
  assert max(result.report.in_flight for result in results) == 3


def test_the_rate_limiter_is_asked_before_each_attempt():
  class Limiter:
    def allow(self, *, hits_added):
      asked.append(hits_added)
      return True

  asked = []
  # ByValue hands out a copy once pickled; within one process it is this one.
  store = toys.Scripted([error(UNAVAILABLE), [Done(None)] * 3 + [Unanswered()]])
  one(store, tuning=Tuning(rate_limiter=Limiter()))
  assert asked == [4, 4, 1]


# ------------------------------------------------------------------ poison


@pytest.mark.parametrize('bad', [[0], [7], [3, 4], [0, 15], [1, 5, 9, 13]])
def test_bad_records_are_isolated_and_the_others_written(bad):
  store = Refusing(bad)
  result = one(store, 16)
  assert result.failed() == bad
  assert store.written == {i: 1 for i in range(16) if i not in bad}
  assert all([i] in store.requests for i in bad)
  # Halving: a request and its sibling per level and bad record.
  assert len(store.requests) <= 1 + 2 * 4 * len(bad)
  for i in bad:
    reply = result.fates[i]
    assert reply.verdict.status == 400
    assert reply.reason == f'row {i} is bad'


def test_a_record_is_never_blamed_before_it_was_tried_alone():
  # The service refuses the first request whatever it holds.
  store = toys.Scripted([error(BAD_REQUEST, 'odd')])
  result = one(store, 4)
  assert result.failed() == []
  assert store.requests == [[0, 1, 2, 3], [0, 1], [2, 3]]


def test_a_request_that_is_too_large_is_halved_without_a_pause():
  class Small(toys.Store):
    async def answer(self, batch, ids):
      times.append(asyncio.get_running_loop().time())
      if len(ids) > 2:
        raise error(TOO_LARGE, 'too large')
      self.written.update(ids)
      return ALL_OK

  times = []
  store = Small()
  result = one(store, 8)
  assert result.failed() == [] and result.report.retried == 0
  assert store.written == dict.fromkeys(range(8), 1)
  assert set(times) == {0.0}
  assert [a.outcome for a in result.report.attempts].count('too_large') == 3


def test_a_record_that_is_too_large_alone_is_refused():
  store = Refusing([2], TOO_LARGE)
  result = one(store, 4)
  assert result.failed() == [2]
  assert result.fates[2].verdict.kind is Kind.TOO_LARGE
  assert result.fates[2].error_type == 'too_large'


def test_halving_gets_on_while_others_fail_for_a_while():
  class Shaky(Refusing):
    async def answer(self, batch, ids):
      self.calls = getattr(self, 'calls', 0) + 1
      if self.calls % 2:
        raise error(UNAVAILABLE)
      return await super().answer(batch, ids)

  store = Shaky([5])
  result = one(store, 8)
  assert result.failed() == [5]
  assert store.written == {i: 1 for i in range(8) if i != 5}


def test_records_refused_alike_one_after_the_other_stop_the_bundle():
  store = Refusing(range(100), BAD_REQUEST)
  result = one(store, 100, most_refusals=5)
  assert isinstance(result.error, SystematicRefusalError)
  assert 'row 4 is bad' in str(result.error)
  assert len(result.failed()) == 4
  assert sum(len(ids) == 1 for ids in store.requests) == 5


def test_a_written_record_in_between_starts_the_count_anew():
  bad = [i for i in range(64) if i % 4]
  store = Refusing(bad)
  result = one(store, 64, most_refusals=5)
  assert result.error is None and result.failed() == bad


def test_refusals_for_different_reasons_are_not_systematic():
  refusals = Refusals(3)
  assert not refusals.refused(400, 'field "a" of record 17 is null')
  assert not refusals.refused(400, 'field "b" of record 18 is null')
  assert not refusals.refused(400, 'wrong dimension 7')
  assert not refusals.refused(400, 'wrong dimension 8')
  assert not refusals.refused(422, 'wrong dimension 9')
  refusals.refused(422, 'wrong dimension 10')
  assert refusals.refused(422, 'wrong dimension 11')


def test_with_zero_nothing_is_systematic():
  store = Refusing(range(50))
  result = one(store, 50, most_refusals=0)
  assert result.error is None and len(result.failed()) == 50


# ----------------------------------------------------- outages and the end


def test_an_outage_past_the_deadline_raises_and_blames_no_record():
  store = toys.Scripted([error(UNAVAILABLE, 'try later')] * 10_000)
  result = one(store, tuning=Tuning(deadline=30))
  assert isinstance(result.error, OutageError)
  assert 'try later' in str(result.error) and 'toy' in str(result.error)
  assert result.settled == [] and result.report.refused == 0
  assert 15 <= result.ended <= 30
  # Full jitter up to 20 s: an outage is probed, not stormed.
  assert len(store.requests) < 30


def test_progress_extends_the_deadline():
  def slowly(ids):
    return [Done(None)] + [Unanswered()] * (len(ids) - 1)

  store = toys.Scripted([slowly] * 50)
  store.seconds = 6.0
  result = one(store, 20, tuning=Tuning(deadline=10))
  assert result.error is None
  assert result.ended > 100
  assert result.fates == dict.fromkeys(range(20), 'written')


def test_what_was_written_before_an_outage_stays_written():
  store = toys.Scripted([[Done(None), Failed(UNAVAILABLE)]] +
                        [error(UNAVAILABLE)] * 10_000)
  result = one(store, 2, tuning=Tuning(deadline=20))
  assert isinstance(result.error, OutageError)
  assert result.fates == {0: 'written'}


def test_outages_are_collected_only_on_request():
  store = toys.Scripted([error(UNAVAILABLE, 'down')] * 10_000)
  result = one(store, tuning=Tuning(deadline=30, on_outage='collect'))
  assert result.error is None
  assert result.failed() == [0, 1, 2, 3]
  assert {settled.stage for settled in result.settled} == {'outage'}
  assert result.fates[0].reason == 'down'
  assert result.report.refused == 4


def test_a_wait_beyond_the_deadline_is_not_waited_for():
  store = toys.Scripted([error(throttled(3600))] * 2)
  result = one(store, tuning=Tuning(deadline=60))
  assert isinstance(result.error, OutageError)
  assert result.ended < 1 and len(store.requests) == 1


@pytest.mark.parametrize(
    'answer',
    [
        error(Verdict(Kind.FATAL, status=401), 'unknown key'),
        [Done(None)] * 3 + [Failed(FATAL, 'unknown key')],
    ],
    ids=['request', 'record'])
def test_a_fatal_answer_stops_at_once_and_says_why(answer):
  store = toys.Scripted([answer] * 100)
  result = one(store)
  assert isinstance(result.error, FatalError)
  assert 'unknown key' in str(result.error)
  assert 'no record was given up' in str(result.error)
  assert len(store.requests) == 1
  assert result.failed() == []


def test_an_error_that_nobody_knows_is_fatal():
  result = one(toys.Scripted([ZeroDivisionError('1 / 0')]))
  assert isinstance(result.error, FatalError)
  assert 'ZeroDivisionError: 1 / 0' in str(result.error)


def test_a_bug_in_classify_does_not_hide_the_error():
  class Buggy(toys.Toy):
    def classify(self, error):
      raise KeyError('oops')

  store = toys.Scripted([ValueError('the cause')])

  async def main():
    link = toys.link_to(store)
    link.operation = Buggy(store)
    return await toys.delivery(link, rows(1))

  result = toys.virtual(main)
  assert isinstance(result.error, FatalError)
  assert 'classify() raised KeyError' in str(result.error)


@pytest.mark.parametrize(
    'replies,message',
    [
        ([Done(None)] * 3, '3 for 4 rows'),
        ([], '0 for 4 rows'),
        (None, 'None for 4 rows'),
        ([Done(None)] * 3 + ['ok'], 'answered str for a row'),
    ])
def test_a_session_that_answers_nonsense_is_a_bug_and_not_a_loss(
    replies, message):
  class Wrong(toys.Store):
    async def answer(self, batch, ids):
      return replies

  result = one(Wrong())
  assert isinstance(result.error, FatalError)
  assert message in str(result.error)
  assert result.settled == []


@pytest.mark.parametrize(
    'script',
    [
        [error(UNAVAILABLE)],
        [error(throttled(1))],
        [toys.Scripted.HANG],
        [error(FATAL)],
        [ZeroDivisionError()],
        [[Done(None)]],
        [asyncio.CancelledError()],
    ])
def test_permits_come_back_whatever_happens(script):
  link, _ = together(toys.Scripted(script * 3), [4, 4, 4])
  assert link.flow.requests.in_flight == 0


@pytest.mark.parametrize(
    'when', ['sending', 'pausing', 'at the gate', 'queued'])
def test_a_cancelled_delivery_returns_its_permit_and_settles_nothing(when):
  store = toys.Scripted({
      'sending': [toys.Scripted.HANG],
      'pausing': [error(Verdict(Kind.TRANSIENT, 50))],
  }.get(when, []))
  cancelled = []

  async def main():
    link = toys.link_to(store, tuning=Tuning(in_flight=1))
    if when == 'at the gate':
      link.flow.close_gate('a', 50)
    if when == 'queued':
      await link.flow.requests.take()
    settled = []
    batch = toys.batch_of(rows(4), link.limits)
    report = Report('a', 4, batch.nbytes, 'finish')
    task = asyncio.ensure_future(
        deliver(batch, link, report, settled.append, lambda: bool(cancelled)))
    await asyncio.sleep(1)
    cancelled.append(True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
      await task
    assert settled == []
    assert link.flow.requests.in_flight == (when == 'queued')
    assert store.in_flight == 0

  toys.virtual(main)


def test_errors_of_a_delivery_survive_a_process_boundary():
  for name in errors.__all__:
    raised = getattr(errors, name)('what happened')
    copy = pickle.loads(pickle.dumps(raised))
    assert type(copy) is type(raised) and str(copy) == 'what happened'


# -------------------------------------------------- requests of one row each


def test_rows_sent_side_by_side_count_as_a_request_each():
  store = toys.Scripted([[
      Done(None),
      Failed(BAD_REQUEST),
      Failed(throttled()),
      Unanswered(),
  ],
                         error(UNAVAILABLE)],
                        Limits(side_by_side=True))
  result = one(store)
  assert list(result.fates.values()).count('written') == 3
  assert [
      (a.outcome, a.status, a.records, a.nbytes) for a in result.report.attempts
  ] == [
      ('ok', None, 1, 8),
      ('refused', 400, 1, 8),
      ('throttled', 429, 1, 8),
      ('transient', None, 1, 8),
      ('transient', 503, 1, 8),
      ('transient', 503, 1, 8),
      ('ok', None, 1, 8),
      ('ok', None, 1, 8),
  ]


def test_an_outage_is_logged_once_a_minute_not_once_a_batch(caplog):
  class Down(toys.Store):
    async def answer(self, batch, ids):
      raise error(UNAVAILABLE, 'the service is down')

  together(Down(), [1] * 8, tuning=Tuning(deadline=130.0))
  warnings = [r for r in caplog.records if 'the service is down' in r.message]
  assert 2 <= len(warnings) <= 3
