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

import threading

import engine_toys as toys
import pytest

from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.errors import DeliveryError
from beam_connector_base.errors import FatalError
from beam_connector_base.errors import LostRecordError
from beam_connector_base.errors import OutageError
from beam_connector_base.errors import SystematicRefusalError
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import FATAL
from beam_connector_base.operation import PERMANENT
from beam_connector_base.operation import SUPERSEDED
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Verdict
from beam_connector_base.tuning import Tuning

UNAVAILABLE = Verdict(Kind.TRANSIENT, status=503)


@pytest.fixture
def runtime():
  made = toys.jumping_runtime()
  yield made
  made.shutdown()


@pytest.fixture
def held():
  made = toys.held_runtime()
  yield made
  made.shutdown()


def dispatcher(service, runtime, **tuning):
  return Dispatcher(toys.Toy(service), Tuning(**tuning), runtime=runtime)


def rows(*ids, **common):
  return [toys.Row(i, **common) for i in ids]


# ------------------------------------------------------------- the ordinary


def test_elements_come_back_with_their_tickets_once_all_rows_settled(runtime):
  service = toys.Store(Limits(max_records=2))
  outcome = toys.run_bundle(
      dispatcher(service, runtime),
      rows(0, 1) + [toys.Rows(rows(2, 3, 4)), toys.Row(5)])
  assert outcome.error is None
  assert sorted(
      (s.ticket, s.rows) for s in outcome.submissions) == [(0, 1), (1, 1),
                                                           (2, 3), (3, 1)]
  assert all(
      s.failures is None and not s.superseded for s in outcome.submissions)
  assert service.written == dict.fromkeys(range(6), 1)


def test_what_settled_is_handed_out_while_others_are_on_their_way(held):
  answer = threading.Event()

  class Half(toys.Store):
    async def answer(self, batch, ids):
      if 0 in ids:
        return await super().answer(batch, ids)
      answer.set()
      return await toys.Scripted([toys.Scripted.HANG]).answer(batch, ids)

  each = dispatcher(Half(Limits(max_records=2)), held)
  bundle = each.bundle()
  got = []
  for row in rows(0, 1, 2, 3):
    bundle.submit(row, row.id)
  assert answer.wait(toys.PATIENCE_SECONDS)

  def some():
    got.extend(bundle.settled())
    return len(got) == 2

  toys.eventually(some, 'two elements settle')
  assert sorted(s.ticket for s in got) == [0, 1]
  assert bundle.settled() == []
  bundle.cancel()
  each.close()


def test_rows_of_one_element_may_go_to_several_destinations(runtime):
  service = toys.Store()
  element = toys.Rows([
      toys.Row(0, to='a'),
      toys.Row(1, to='b'),
      toys.Row(2, to='a'),
      toys.Row(3, to='b', nature='invalid')
  ])
  (submission,) = toys.run_bundle(
      dispatcher(service, runtime), [element]).submissions
  assert submission.destinations == {'a': 2, 'b': 1}
  assert submission.rows == 4
  assert sorted(service.requests) == [[0, 2], [1]]
  (failure,) = submission.failures
  assert (failure.row, failure.destination, failure.stage) == (3, 'b', 'encode')


def test_an_element_without_rows_settles_at_once(runtime):
  service = toys.Store()
  outcome = toys.run_bundle(dispatcher(service, runtime), [toys.Rows([])])
  assert [s.rows for s in outcome.submissions] == [0]
  assert service.requests == []


def test_an_empty_bundle_sends_nothing(runtime):
  service = toys.Store()
  outcome = toys.run_bundle(dispatcher(service, runtime), [])
  assert (outcome.error, outcome.submissions, outcome.reports) == (None, [], [])


@pytest.mark.parametrize('as_block', [False, True])
def test_invalid_and_oversized_rows_fail_without_being_sent(runtime, as_block):
  limits = Limits(max_bytes=100, frame_bytes=lambda to: 10, separator_bytes=1)
  service = toys.Store(limits)
  all_ = [
      toys.Row(0, size=90),
      toys.Row(1, size=91),
      toys.Row(2, nature='invalid'),
      toys.Row(3)
  ]
  outcome = toys.run_bundle(
      dispatcher(service, runtime), [toys.Rows(all_)] if as_block else all_)
  failures = {
      toys.rows_of(s.element)[f.row].id: f for s in outcome.submissions
      for f in s.failures or ()
  }
  assert sorted(failures) == [1, 2]
  assert failures[1].error_type == 'RecordTooLarge'
  assert failures[1].http_status == 413
  assert '91 bytes' in failures[1].message and '100 bytes' in failures[1].message
  assert failures[2].error_type == 'Bad' and failures[2].key == '2'
  assert {f.stage for f in failures.values()} == {'encode'}
  assert {f.attempts for f in failures.values()} == {0}
  assert sorted(service.written) == [0, 3]
  assert service.violations == []


def test_a_failure_says_where_why_and_after_how_many_attempts(runtime):
  service = toys.Scripted([
      toys.ToyError(UNAVAILABLE), [
          Failed(
              Verdict(Kind.PERMANENT, status=422), 'no such field', 'BadField')
      ]
  ])
  (submission,) = toys.run_bundle(
      dispatcher(service, runtime), rows(7, key='k', to='ns')).submissions
  (failure,) = submission.failures
  assert failure.destination == 'ns' and failure.key == 'k'
  assert (failure.stage, failure.error_type) == ('send', 'BadField')
  assert (failure.message, failure.http_status) == ('no such field', 422)
  assert failure.attempts == 2


def test_superseded_rows_are_counted_and_not_failed(runtime):
  service = toys.Scripted([[SUPERSEDED, Done(None)]])
  (submission,) = toys.run_bundle(
      dispatcher(service, runtime), [toys.Rows(rows(0, 1))]).submissions
  assert submission.superseded == 1 and submission.failures is None


def test_reports_tell_what_happened_to_each_batch(runtime):
  service = toys.Scripted([
      toys.ToyError(UNAVAILABLE),
      [Done(None), Failed(PERMANENT, 'no'), SUPERSEDED]
  ],
                          Limits(max_records=3))
  outcome = toys.run_bundle(dispatcher(service, runtime), rows(0, 1, 2))
  (report,) = outcome.reports
  assert (report.destination, report.records, report.nbytes) == ('a', 3, 24)
  assert report.flush == 'full_records'
  assert [a.outcome for a in report.attempts] == ['transient', 'partial']
  assert [a.status for a in report.attempts] == [503, None]
  assert (report.written, report.refused, report.superseded) == (1, 1, 1)
  assert (report.retried, report.in_flight, report.connections) == (3, 1, 1)


def test_run_delivers_everything_in_the_order_of_the_input(runtime):
  service = toys.Scripted([toys.ToyError(UNAVAILABLE)] * 3,
                          Limits(max_records=4))
  submissions = dispatcher(service, runtime).run(rows(*range(30)))
  assert [s.element.id for s in submissions] == list(range(30))


def test_run_raises_and_leaves_nothing_behind(runtime):
  service = toys.Scripted([toys.ToyError(FATAL, 'unknown key')])
  each = dispatcher(service, runtime)
  with pytest.raises(FatalError, match='unknown key'):
    each.run(rows(1))
  assert len(each.run(rows(2))) == 1


# ----------------------------------------------------------------- failing


def test_a_fatal_answer_fails_the_bundle_after_a_bounded_number_of_requests(
    runtime):
  service = toys.Scripted([toys.ToyError(FATAL, 'unknown key')] * 10_000,
                          Limits(max_records=1))
  service.seconds = 1.0
  each = dispatcher(service, runtime, in_flight=4)
  outcome = toys.run_bundle(each, rows(*range(2000)))
  assert isinstance(outcome.error, FatalError)
  assert 'unknown key' in str(outcome.error)
  assert outcome.submissions == []
  # Those in flight with the first, and those that got their permits.
  assert len(service.requests) <= 8
  toys.eventually(lambda: each._shared.budget.used == 0, 'bytes come back')


def test_what_is_refused_alike_record_after_record_stops_the_bundle(runtime):
  class Refuses(toys.Store):
    async def answer(self, batch, ids):
      raise toys.ToyError(
          Verdict(Kind.PERMANENT, status=400), f'row {ids[0]} has no dimension')

  service = Refuses(Limits(max_records=8))
  outcome = toys.run_bundle(
      dispatcher(service, runtime, refusals_in_a_row=6), rows(*range(1000)))
  assert isinstance(outcome.error, SystematicRefusalError)
  assert 'has no dimension' in str(outcome.error)
  assert 'refusals_in_a_row' in str(outcome.error)
  # Eight batches in flight, each halved until six in a row stood alone.
  assert len(service.requests) < 8 * 15


def test_an_outage_fails_the_bundle_and_no_record(runtime):
  service = toys.Scripted([toys.ToyError(UNAVAILABLE, 'down')] * 10_000)
  outcome = toys.run_bundle(
      dispatcher(service, runtime, deadline=100), rows(*range(10)))
  assert isinstance(outcome.error, OutageError)
  assert outcome.submissions == []


def test_an_outage_is_collected_only_on_request(runtime):
  service = toys.Scripted([toys.ToyError(UNAVAILABLE, 'down')] * 10_000)
  outcome = toys.run_bundle(
      dispatcher(service, runtime, deadline=100, on_outage='collect'),
      rows(*range(10)))
  assert outcome.error is None
  failures = [f for s in outcome.submissions for f in s.failures]
  assert len(failures) == 10
  assert {(f.stage, f.http_status) for f in failures} == {('outage', 503)}


def test_an_encoder_that_raises_fails_the_bundle_and_cancels_it(held):
  class Buggy(toys.Scripted):
    def encode(self, element):
      if element.id == 3:
        raise ZeroDivisionError('a user function')
      return super().encode(element)

  service = Buggy([toys.Scripted.HANG] * 9, Limits(max_records=1))
  each = dispatcher(service, held)
  bundle = each.bundle()
  for row in rows(1, 2):
    bundle.submit(row)
  toys.eventually(lambda: service.in_flight == 2, 'two in flight')
  with pytest.raises(ZeroDivisionError):
    bundle.submit(toys.Row(3))
  with pytest.raises(ZeroDivisionError):
    bundle.drain()
  toys.eventually(
      lambda: not (service.in_flight or each._shared.budget.used),
      'both are cancelled')
  each.close()


def test_an_encoder_that_yields_nonsense_is_a_bug(runtime):
  class Nonsense(toys.Store):
    def encode(self, element):
      yield 'a row'

  outcome = toys.run_bundle(dispatcher(Nonsense(), runtime), rows(1))
  assert isinstance(outcome.error, FatalError)
  assert 'encode() yielded str' in str(outcome.error)


def test_books_that_do_not_balance_are_an_error_and_never_silence(runtime):
  class Thief(toys.Store):
    async def answer(self, batch, ids):
      batch.pieces.pop()
      batch.n -= 1
      return ALL_OK

  outcome = toys.run_bundle(dispatcher(Thief(), runtime), rows(1, 2))
  assert isinstance(outcome.error, LostRecordError)
  assert '2 rows were submitted and 1 settled' in str(outcome.error)


def test_a_bug_in_a_delivery_surfaces(runtime):
  class Odd(toys.Store):
    def encode(self, element):
      yield Block('a', element.wire, keys=(element.id,), versions=([],))

  service = Odd(Limits(keys='newest'))
  each = dispatcher(service, runtime)
  assert toys.run_bundle(each, rows(1)).error is None
  service.encode = lambda element: [
      Block('a', element.wire, keys=(element.id,), versions=(5,))
  ]
  outcome = toys.run_bundle(each, rows(1))
  assert isinstance(outcome.error, FatalError)
  assert 'a bug in the delivery: TypeError' in str(outcome.error)


def test_a_bug_before_a_delivery_surfaces_and_does_not_hang(runtime):
  class Nowhere:
    def __str__(self):
      raise KeyError('no name')

  class Odd(toys.Store):
    def encode(self, element):
      yield Block(Nowhere(), element.wire)

  each = dispatcher(Odd(), runtime)
  outcome = toys.run_bundle(each, rows(1))
  assert isinstance(outcome.error, FatalError)
  assert 'a bug in the delivery: KeyError' in str(outcome.error)
  assert each._shared.budget.used == 0


# --------------------------------------------- failing with others around


class Two(toys.Store):
  """Never answers the rows below 100, and writes the others."""
  def __init__(self, fatal, **limits):
    super().__init__(Limits(**{'max_records': 1, 'in_flight': 4, **limits}))
    self.fatal = fatal
    self.doomed = toys.Scripted([toys.Scripted.HANG] * 1000)

  async def answer(self, batch, ids):
    if ids[0] == self.fatal:
      raise toys.ToyError(FATAL, 'unknown key')
    if ids[0] < 100:
      await self.doomed.answer(batch, ids)
    return await super().answer(batch, ids)


def test_a_bundle_that_fails_leaves_others_alone_and_returns_everything(held):
  service = Two(fatal=3)
  each = dispatcher(service, held)
  each.open()
  flow, budget = each._shared.link.flow, each._shared.budget
  doomed, other = each.bundle(), each.bundle()
  for row in rows(0, 1, 2):
    doomed.submit(row)
  toys.eventually(lambda: service.in_flight == 3, 'three hang')
  for row in rows(*range(100, 120)):
    other.submit(row)
  assert len(other.drain()) == 20
  doomed.submit(toys.Row(3))
  with pytest.raises(FatalError, match='unknown key'):
    doomed.drain()
  toys.eventually(
      lambda: not (service.in_flight or budget.used or flow.requests.in_flight),
      'the hanging end, and everything comes back')
  assert doomed.settled() == []
  with pytest.raises(FatalError, match='unknown key'):
    doomed.submit(toys.Row(4))
  # Nothing of it is left for the next one.
  outcome = toys.run_bundle(each, rows(*range(200, 230)))
  assert outcome.error is None
  assert sorted(s.element.id for s in outcome.submissions) == list(
      range(200, 230))
  assert sum(r.written for r in outcome.reports) == 30
  each.close()


@pytest.mark.parametrize('keys', ['serial', 'newest'])
def test_the_keys_of_a_failed_bundle_are_free_for_the_next(held, keys):
  service = Two(fatal=9, keys=keys)
  each = dispatcher(service, held)
  doomed = each.bundle()
  # One in flight, one that waits for its turn, and one that fails it all.
  for row in (toys.Row(0, key='k'), toys.Row(1, key='k')):
    doomed.submit(row)
  toys.eventually(lambda: service.in_flight == 1, 'one hangs')
  doomed.submit(toys.Row(9, key='x'))
  with pytest.raises(FatalError):
    doomed.drain()
  again = toys.run_bundle(
      each, [toys.Row(100, key='k'), toys.Row(101, key='k')])
  assert again.error is None
  assert [ids for ids in service.requests if ids[0] >= 100] == [[100], [101]]
  each.close()


def test_a_bundle_that_gives_up_while_it_queues_lets_nobody_overtake(held):
  service = Two(fatal=None, keys='serial')
  each = dispatcher(service, held)
  first, second, third = each.bundle(), each.bundle(), each.bundle()
  first.submit(toys.Row(0, key='k'))
  toys.eventually(lambda: service.in_flight == 1, 'one hangs')
  second.submit(toys.Row(1, key='k'))
  third.submit(toys.Row(100, key='k'))
  third.submit(toys.Row(101, key='x'))
  second.cancel()
  toys.eventually(lambda: service.written[101] == 1, 'another key gets on')
  toys.let_pass(held, 5)
  assert service.requests == [[0], [101]]
  first.cancel()
  assert len(third.drain()) == 2
  assert service.requests == [[0], [101], [100]]
  each.close()


def test_a_bundle_that_waits_for_bytes_fails_with_its_own_error(held):
  service = Two(fatal=1)
  each = dispatcher(service, held, in_flight_bytes=3000)
  go = threading.Event()

  def fill():
    bundle = each.bundle()
    bundle.submit(toys.Row(0))
    bundle.submit(toys.Row(1))  # its answer fails the bundle
    go.wait(toys.PATIENCE_SECONDS)
    with pytest.raises(FatalError, match='unknown key'):
      for i in range(2, 50):
        bundle.submit(toys.Row(i))
      bundle.drain()
    return True

  def release():
    toys.eventually(lambda: service.sending.is_set(), 'it is sent')
    go.set()

  assert toys.in_threads([fill, release])[0] is True
  toys.eventually(lambda: each._shared.budget.used == 0, 'bytes come back')
  each.close()


def test_a_cancelled_bundle_takes_and_returns_nothing_more(held):
  service = Two(fatal=None)
  each = dispatcher(service, held)
  bundle = each.bundle()
  bundle.submit(toys.Row(0))
  toys.eventually(lambda: service.in_flight == 1, 'one hangs')
  bundle.cancel()
  bundle.cancel()
  with pytest.raises(DeliveryError, match='the bundle was cancelled'):
    bundle.submit(toys.Row(1))
  with pytest.raises(DeliveryError, match='the bundle was cancelled'):
    bundle.drain()
  toys.eventually(
      lambda: not (service.in_flight or each._shared.budget.used),
      'it is cancelled')
  assert service.requests == [[0]]
  each.close()


def test_a_bundle_cancelled_from_another_thread_does_not_hang(held):
  service = Two(fatal=None)
  each = dispatcher(service, held)
  bundle = each.bundle()
  bundle.submit(toys.Row(0))

  def cancel():
    assert service.sending.wait(toys.PATIENCE_SECONDS)
    bundle.cancel()

  error, _ = toys.in_threads([bundle.drain, cancel])
  assert isinstance(error, DeliveryError)
  each.close()


def test_submit_blocks_while_the_budget_is_spent(held):
  service = Two(fatal=None)
  each = dispatcher(service, held, in_flight_bytes=4000)
  each.open()
  budget = each._shared.budget
  submitted = []
  bundle = each.bundle()

  def fill():
    for i in range(100):
      bundle.submit(toys.Row(i))
      submitted.append(i)

  def look():
    toys.eventually(lambda: len(budget._queue) == 1, 'the bundle waits')
    count = len(submitted)
    bundle.cancel()
    return count

  error, count = toys.in_threads([fill, look])
  # 1288 bytes of budget each: 8 bytes and what a batch and a row cost besides.
  assert count == 3
  assert budget.most <= 4000
  assert isinstance(error, DeliveryError)
  each.close()


def test_memory_for_filling_batches_is_bounded(held):
  # Nothing is full, yet the bundle sends its fullest batches in time.
  service = Two(fatal=None, max_records=10_000)
  each = dispatcher(service, held, pending_bytes=20_000)
  bundle = each.bundle()
  for i in range(100, 200):
    bundle.submit(toys.Row(i, to=f'd{i % 7}', size=1000))
  toys.eventually(lambda: sum(map(len, service.requests)) >= 80, 'most is sent')
  assert len(bundle.drain()) == 100
  assert {r.flush for r in bundle.reports()} == {'budget', 'finish'}
  each.close()
