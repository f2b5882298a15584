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
"""Five services as different as real ones, through the whole engine.

They keep it general: each answers in a way that the others do not.
"""

import asyncio
import collections
import threading

import engine_toys as toys
import pytest

from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.errors import OutageError
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Session
from beam_connector_base.operation import Unanswered
from beam_connector_base.operation import Verdict
from beam_connector_base.operation import throttled
from beam_connector_base.tuning import Tuning


@pytest.fixture
def runtime():
  made = toys.held_runtime()
  yield made
  made.shutdown()


def rows(n, **common):
  return [toys.Row(i, **common) for i in range(n)]


def failed_ids(submissions):
  return sorted(
      toys.rows_of(s.element)[failure.row].id
      for s in submissions
      for failure in s.failures or ())


def run(service, elements, runtime, **tuning):
  dispatcher = Dispatcher(toys.Toy(service), Tuning(**tuning), runtime=runtime)
  try:
    return toys.run_bundle(dispatcher, elements, lambda: toys.let_go(runtime))
  finally:
    dispatcher.close()


# ------------------------------------------------- 1. partial failure by key


class FailsByKey(toys.Store):
  """Answers with the keys that failed, as BatchWriteItem or MSET do.

  Args:
    busy: how many times a key is throttled before it is written.
    refused: keys that are never accepted.
  """
  def __init__(self, busy, refused):
    super().__init__(Limits(max_records=10, keys='unique'))
    self.busy = collections.Counter(busy)
    self.refused = refused

  def call(self, records):
    """What the service does: keys to what is wrong with them."""
    wrong = {}
    for key, id_ in records.items():
      if key in self.refused:
        wrong[key] = 'ValidationError'
      elif self.busy[key]:
        self.busy[key] -= 1
        wrong[key] = 'ThroughputExceeded'
      else:
        self.written[id_] += 1
    return wrong

  async def answer(self, batch, ids):
    keys = list(batch.keys())
    wrong = self.call(dict(zip(keys, ids, strict=True)))
    if not wrong:
      return ALL_OK
    return [self.reply(wrong.get(key)) for key in keys]

  def reply(self, wrong):
    if wrong is None:
      return Done(None)
    if wrong == 'ThroughputExceeded':
      return Failed(throttled(2.0), wrong)
    return Failed(Verdict(Kind.PERMANENT, status=400), wrong, wrong)


@pytest.mark.parametrize('as_block', [False, True])
def test_partial_failure_by_key(runtime, as_block):
  service = FailsByKey({'k3': 1, 'k4': 3, 'k27': 2}, {'k7', 'k31'})
  all_ = [toys.Row(i, key=f'k{i}') for i in range(40)]
  elements = [toys.Rows(all_[:25]), toys.Rows(all_[25:])] if as_block else all_
  outcome = run(service, elements, runtime)
  assert outcome.error is None
  assert failed_ids(outcome.submissions) == [7, 31]
  # Only what failed is sent again, so that each row is written once.
  assert service.written == {i: 1 for i in range(40) if i not in (7, 31)}
  sent = collections.Counter(i for ids in service.requests for i in ids)
  assert {i: n for i, n in sent.items() if n > 1} == {3: 2, 4: 4, 27: 3}
  assert service.violations == []
  failure = outcome.submissions[0].failures
  (failure,) = [
      f for s in outcome.submissions for f in s.failures or () if f.key == 'k31'
  ]
  assert (failure.stage, failure.error_type) == ('send', 'ValidationError')
  assert (failure.http_status, failure.attempts) == (400, 1)


def test_the_same_key_twice_goes_into_two_requests(runtime):
  service = FailsByKey({}, set())
  outcome = run(
      service, [toys.Row(i, key='kx'[i % 2]) for i in range(6)], runtime)
  assert outcome.error is None and service.violations == []
  assert sorted(service.requests) == [[0, 1], [2, 3], [4, 5]]


# ----------------------------------------------- 2. errors without an index


class RefusesTheRequest(toys.Store):
  """Says that something in the request is bad, and not what.

  Args:
    siblings: 'written' or 'not written', with the bad one in the request.
  """
  def __init__(self, bad, siblings):
    super().__init__(Limits(max_records=16))
    self.bad = bad
    self.siblings = siblings

  async def answer(self, batch, ids):
    bad = self.bad.intersection(ids)
    if not bad or self.siblings == 'written':
      self.written.update(i for i in ids if i not in bad)
    if bad:
      raise toys.ToyError(Verdict(Kind.PERMANENT, status=400), 'bad request')
    return ALL_OK


@pytest.mark.parametrize('siblings', ['written', 'not written'])
@pytest.mark.parametrize('as_block', [False, True])
def test_errors_without_an_index(runtime, siblings, as_block):
  bad = {3, 17, 18, 40}
  service = RefusesTheRequest(bad, siblings)
  all_ = rows(48)
  elements = [toys.Rows(all_, as_list=True)] if as_block else all_
  outcome = run(service, elements, runtime)
  assert outcome.error is None
  assert failed_ids(outcome.submissions) == sorted(bad)
  assert set(service.written) == set(range(48)) - bad
  if siblings == 'not written':
    assert set(service.written.values()) == {1}
  assert all([i] in service.requests for i in bad)
  # 3 batches, and at most two requests per level of 16 and bad record.
  assert len(service.requests) <= 3 + 4 * 2 * 4
  report = outcome.reports
  assert sum(r.written for r in report) == 44
  assert sum(r.refused for r in report) == 4
  assert sum(r.retried for r in report) == 0


# ---------------------------------- 3. late and unordered acknowledgements


class Stream:
  """A bidirectional stream; acknowledges by key, in any order, and late."""
  def __init__(self, service):
    self.service = service
    self.broken = False
    self.waiting = {}

  def write(self, rows_by_key):
    """Sends rows; a future per key, resolved when it is acknowledged."""
    loop = asyncio.get_running_loop()
    futures = {}
    for key, id_ in rows_by_key.items():
      futures[key] = self.waiting[key] = loop.create_future()
      delay = self.service.delay(id_)
      if delay is not None:
        loop.call_later(delay, self.acknowledge, key, id_)
    return futures

  def acknowledge(self, key, id_):
    self.service.written[id_] += 1
    if self.broken:
      self.service.late += 1  # nobody listens any more
      return
    self.service.acknowledged.append(id_)
    self.waiting.pop(key).set_result(None)

  def close(self):
    self.broken = True
    for future in self.waiting.values():
      if not future.done():
        future.set_exception(ConnectionResetError('the stream is closed'))
        future.exception()
    self.waiting = {}


class StreamSession(toys.Store):
  """One stream at a time; a send that is cancelled closes it.

  Args:
    delays: seconds until a row is acknowledged, try by try; None for never.
  """
  def __init__(self, delays):
    super().__init__(Limits(max_records=4, keys='serial', in_flight=3))
    self.delays = collections.defaultdict(list, delays)
    self.stream = None
    self.streams = 0
    self.acknowledged = []
    self.late = 0

  def delay(self, id_):
    tries = self.delays[id_]
    return tries.pop(0) if tries else 0.1 + (id_ * 7 % 10) / 100

  async def answer(self, batch, ids):
    if self.stream is None or self.stream.broken:
      self.stream = Stream(self)
      self.streams += 1
    stream = self.stream
    keys = list(batch.keys())
    futures = stream.write(dict(zip(keys, ids, strict=True)))
    try:
      await asyncio.wait(futures.values())
    except asyncio.CancelledError:
      # An acknowledgement that came now would be taken for that of a retry.
      stream.close()
      raise
    return [
        Unanswered() if futures[key].exception() else Done(None) for key in keys
    ]


def test_acknowledgements_out_of_order(runtime):
  service = StreamSession({0: [3.0], 5: [2.0]})
  outcome = run(service, rows(12), runtime)
  assert outcome.error is None
  assert service.acknowledged != sorted(service.acknowledged)
  assert service.acknowledged[-1] == 0
  assert service.written == dict.fromkeys(range(12), 1)
  assert service.streams == 1


def test_a_late_acknowledgement_can_not_be_taken_for_that_of_a_retry(runtime):
  # Row 2 is acknowledged after 7 s, when its request was given up after 5 and
  # is on its way again; its second try is never acknowledged.
  service = StreamSession({2: [7.0, None, 0.1], 5: [6.0]})
  outcome = run(service, rows(8), runtime, attempt_timeout=5)
  assert outcome.error is None
  assert failed_ids(outcome.submissions) == []
  assert len(outcome.submissions) == 8
  assert service.late >= 2  # rows 2 and 5, on closed streams
  tries = collections.Counter(i for ids in service.requests for i in ids)
  assert (tries[2], service.acknowledged.count(2)) == (3, 1)
  assert service.acknowledged.count(5) == 1
  attempts = [a.outcome for r in outcome.reports for a in r.attempts]
  assert attempts.count('timeout') >= 2


def test_what_a_broken_stream_acknowledged_is_not_sent_again(runtime):
  broke = []

  class Breaks(StreamSession):
    async def answer(self, batch, ids):
      if not broke:
        broke.append(True)
        asyncio.get_running_loop().call_later(1.0, lambda: self.stream.close())
      return await super().answer(batch, ids)

  service = Breaks({1: [None], 3: [None]})
  outcome = run(service, rows(4), runtime)
  assert outcome.error is None
  assert service.requests == [[0, 1, 2, 3], [1, 3]]
  assert service.written == dict.fromkeys(range(4), 1)


# ------------------------------- 4. a blocking call that can't be cancelled


class Blocking(toys.Store):
  """An SDK: calls block their thread, and each is let go by the test."""
  def __init__(self, **limits):
    super().__init__(
        Limits(
            **{
                'max_records': 1, 'max_in_flight': 1, 'in_flight': 1, **limits
            }))
    self.calls = []
    self.lock = threading.Lock()
    self.running = 0
    self.free = False
    self.send_blocking = self.call

  def call(self, batch):
    ids = self.receive(batch)
    go = threading.Event()
    with self.lock:
      self.running += 1
      self.most_in_flight = max(self.most_in_flight, self.running)
      self.calls.append((ids, go))
    assert self.free or go.wait(toys.PATIENCE_SECONDS)
    with self.lock:
      self.running -= 1
      self.written.update(ids)
    return ALL_OK

  def wait_for_calls(self, n):
    toys.eventually(lambda: len(self.calls) >= n, f'{n} calls')


def test_a_call_that_timed_out_keeps_its_slot_until_it_returns(runtime):
  service = Blocking()
  operation = toys.Toy(service)
  tuning = Tuning(attempt_timeout=5)
  shared = runtime.acquire(operation, tuning)
  dispatcher = Dispatcher(operation, tuning, runtime=runtime)
  bundle = dispatcher.bundle()
  bundle.submit(toys.Row(1))
  bundle.submit(toys.Row(2))
  service.wait_for_calls(1)
  # Its attempt is over, and so is the first pause: yet nothing else starts.
  toys.let_pass(runtime, 100)
  assert [ids for ids, _ in service.calls] == [[1]]
  assert shared.link.flow.requests.in_flight == 1
  service.calls[0][1].set()
  service.wait_for_calls(2)
  for n in (2, 3):
    service.wait_for_calls(n)
    service.calls[n - 1][1].set()
  assert len(bundle.drain()) == 2
  # The late success of row 1 was not believed: it was sent once more.
  assert sorted(ids[0] for ids, _ in service.calls) == [1, 1, 2]
  assert service.most_in_flight == 1
  assert shared.link.flow.requests.in_flight == 0
  dispatcher.close()


def test_calls_run_at_the_same_time(runtime):
  service = Blocking(in_flight=4, max_in_flight=4)
  dispatcher = Dispatcher(toys.Toy(service), runtime=runtime)
  bundle = dispatcher.bundle()
  for row in rows(10):
    bundle.submit(row)
  for n in range(1, 11):
    service.wait_for_calls(min(10, n + 3))
    service.calls[n - 1][1].set()
  assert len(bundle.drain()) == 10
  assert service.most_in_flight == 4
  assert service.written == dict.fromkeys(range(10), 1)
  dispatcher.close()


def test_with_ordered_keys_nothing_is_sent_again_before_a_call_returned(
    runtime):
  service = Blocking(keys='serial', in_flight=8, max_in_flight=8)
  dispatcher = Dispatcher(
      toys.Toy(service), Tuning(attempt_timeout=5), runtime=runtime)
  bundle = dispatcher.bundle()
  bundle.submit(toys.Row(1, key='k'))
  bundle.submit(toys.Row(2, key='k'))
  service.wait_for_calls(1)
  toys.let_pass(runtime, 100)
  assert [ids for ids, _ in service.calls] == [[1]]
  service.calls[0][1].set()
  service.wait_for_calls(2)
  service.calls[1][1].set()
  assert len(bundle.drain()) == 2
  assert [ids for ids, _ in service.calls] == [[1], [2]]
  dispatcher.close()


def test_a_cancelled_bundle_keeps_its_keys_while_its_call_runs(runtime):
  service = Blocking(keys='newest', in_flight=8, max_in_flight=8)
  operation = toys.Toy(service)
  shared = runtime.acquire(operation, Tuning())
  dispatcher = Dispatcher(operation, runtime=runtime)
  first = dispatcher.bundle()
  first.submit(toys.Row(1, key='k', version=1))
  service.wait_for_calls(1)
  first.cancel()
  toys.eventually(lambda: shared.budget.used == 0, 'the bytes come back')
  # The runner tries again: the late call must not land on the newer version.
  second = dispatcher.bundle()
  second.submit(toys.Row(2, key='k', version=2))
  second.submit(toys.Row(3, key='other', version=1))
  service.wait_for_calls(2)
  toys.let_pass(runtime, 100)
  assert [ids for ids, _ in service.calls] == [[1], [3]]
  service.calls[1][1].set()
  service.calls[0][1].set()
  service.wait_for_calls(3)
  service.calls[2][1].set()
  assert len(second.drain()) == 2
  assert shared.link.flow.requests.in_flight == 0
  dispatcher.close()


def test_calls_that_hold_all_slots_for_ever_fail_bundles_and_hang_none():
  runtime = toys.jumping_runtime(grace=0.1)
  service = Blocking()
  dispatcher = Dispatcher(
      toys.Toy(service),
      Tuning(attempt_timeout=5, deadline=50),
      runtime=runtime)

  def bundle_of(id_):
    return lambda: toys.run_bundle(dispatcher, [toys.Row(id_)])

  outcomes = toys.in_threads([bundle_of(1), bundle_of(2)])
  for outcome in outcomes:
    assert isinstance(outcome.error, OutageError)
    assert 'toy: not one of 1 requests in flight' in str(outcome.error)
  assert len(service.calls) == 1
  service.free = True
  service.calls[0][1].set()
  assert bundle_of(3)().error is None
  dispatcher.close()
  runtime.shutdown()


def test_a_call_that_never_returns_fails_bundles_and_does_not_hang_them():
  # The clock jumps, but gives threads a moment before.
  runtime = toys.jumping_runtime(grace=0.1)
  service = Blocking(keys='serial', in_flight=8, max_in_flight=8)
  dispatcher = Dispatcher(
      toys.Toy(service), Tuning(deadline=50), runtime=runtime)

  def bundle_of(id_):
    return lambda: toys.run_bundle(dispatcher, [toys.Row(id_, key='k')])

  outcomes = toys.in_threads([bundle_of(1), bundle_of(2)])
  outcomes.append(bundle_of(3)())
  assert [type(outcome.error) for outcome in outcomes] == [OutageError] * 3
  assert len(service.calls) == 1
  service.free = True
  service.calls[0][1].set()
  toys.eventually(lambda: service.running == 0, 'the call returns')
  # From now on the key is free again.
  assert bundle_of(4)().error is None
  assert sorted(service.written) in ([1, 4], [2, 4])
  dispatcher.close()
  runtime.shutdown()


# --------------------------------------------- 5. answers matched to inputs


class Lookup(Session):
  """Answers each key with a value, of a table; half of them at a time.

  An element is a list of keys, None among them for a row that can't be asked.
  """
  def __init__(self, answers, shy):
    self.limits = Limits(max_records=5, separator_bytes=1, answers=answers)
    self.shy = shy
    self.asked = []

  async def open(self):
    return self

  def encode(self, element):
    ok = [i for i, key in enumerate(element) if key is not None]
    for i, key in enumerate(element):
      if key is None:
        yield Invalid(i, 'no key')
    keys = [element[i] for i in ok]
    wires = [key.encode() for key in keys]
    offsets = [0]
    for wire in wires:
      offsets.append(offsets[-1] + len(wire))
    yield Block('table', b''.join(wires), offsets, keys, None, ok)

  async def send(self, batch):
    keys = b','.join(batch.rows()).decode().split(',')
    self.asked += keys
    if self.shy and len(keys) > 1:
      return [
          Done(f'<{key}>') if i % 2 else Unanswered()
          for i, key in enumerate(keys)
      ]
    return [Done(f'<{key}>') for key in keys]


@pytest.mark.parametrize('shy', [False, True])
@pytest.mark.parametrize('answers', [False, True])
def test_answers_are_matched_to_their_inputs(runtime, answers, shy):
  service = Lookup(answers, shy)
  dispatcher = Dispatcher(toys.Toy(service), runtime=runtime)
  elements = [['a', 'b', None, 'c'], ['d'], [], ['a', None], ['e'] * 7]
  toys.let_go(runtime)
  submissions = dispatcher.run(elements)
  assert [s.element for s in submissions] == elements
  for submission in submissions:
    wanted = {
        i: f'<{key}>'
        for i, key in enumerate(submission.element)
        if key is not None
    }
    assert (submission.values or {}) == wanted
    assert sorted(f.row for f in submission.failures or ()) == [
        i for i, key in enumerate(submission.element) if key is None
    ]
  if answers and not shy:
    assert sorted(service.asked) == ['a', 'b', 'c', 'd', 'e']
  dispatcher.close()
