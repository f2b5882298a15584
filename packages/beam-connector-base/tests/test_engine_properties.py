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
"""Properties that hold whatever a service does, for many bundles at once.

The service keeps its own log from the bytes that it was sent; the engine's
reports are compared with that log, never with themselves.
"""

import asyncio
import collections
import dataclasses
import random

import engine_toys as toys
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.errors import FatalError
from beam_connector_base.errors import OutageError
from beam_connector_base.errors import SystematicRefusalError
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import FATAL
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
from beam_connector_base.tuning import Tuning

# What a batch, and a row of it, costs of the budget besides its bytes.
BATCH_COST = 1024
ROW_COST = 256

CHECKED = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def frame(destination):
  return 5 + len(destination)


class Chaos(toys.Store):
  """Fails as the schedule says, request by request, and then recovers.

  Args:
    faults: what happens to the n-th request; see `answer`.
    poison: how bad rows are refused: 'index', or 'whole' with their request.
    seed: for what a partial answer holds.
  """
  def __init__(self, limits, faults=(), poison='index', seed=0, forever=False):
    super().__init__(limits)
    self.faults = list(faults)
    self.forever = forever
    self.poison = poison
    self.rng = random.Random(seed)
    self.rows = {}
    self.refused = set()
    self.superseded = set()
    self.busy_keys = set()
    self.acknowledgements = []
    self.versions = {}
    self.first_sent = []

  def know(self, rows):
    """Tells the log what the ids on the wire stand for."""
    for row in rows:
      self.rows[row.id] = row

  def fault(self):
    if not self.faults:
      return 'ok'
    if self.forever:
      return self.faults[len(self.requests) % len(self.faults)]
    return self.faults.pop(0)

  def at(self, id_):
    row = self.rows[id_]
    return row.to, row.id if row.key is None else row.key

  async def answer(self, batch, ids):
    ordered = self.limits.keys in ('serial', 'newest')
    places = [self.at(i) for i in ids]
    self.first_sent += [i for i in ids if i not in self.first_sent]
    if ordered and self.busy_keys.intersection(places):
      self.violations.append(f'two requests with the same key: {places}')
    if ordered:
      self.busy_keys.update(places)
    try:
      # Not a divisor of any timeout: an answer and its timeout never meet.
      await asyncio.sleep(0.0131 * (1 + len(ids) % 5))
      return await self.respond(ids)
    finally:
      if ordered:
        self.busy_keys.difference_update(places)

  async def respond(self, ids):
    fault = self.fault()
    if fault == 'transient':
      raise toys.ToyError(Verdict(Kind.TRANSIENT, status=503))
    if fault == 'throttled':
      raise toys.ToyError(throttled())
    if fault == 'retry after':
      raise toys.ToyError(throttled(1.7))
    if fault == 'timeout':
      await asyncio.Event().wait()
    if fault == 'lost':  # written, and nobody heard of it
      raise ConnectionResetError('reset by peer')
    if fault == 'too large' and len(ids) > 1:
      raise toys.ToyError(TOO_LARGE)
    if fault == 'fatal':
      raise toys.ToyError(FATAL, 'unknown key')
    bad = [i for i in ids if self.rows[i].nature == 'bad']
    if bad and self.poison == 'whole':
      if len(ids) == 1:
        self.refused.add(ids[0])
      raise toys.ToyError(Verdict(Kind.PERMANENT, status=400), f'row {bad[0]}')
    if fault == 'odd refusal' and len(ids) > 1:
      raise toys.ToyError(Verdict(Kind.PERMANENT, status=400))
    if not bad and fault != 'partial':
      self.acknowledge(ids)
      return ALL_OK
    return [self.reply(i, fault) for i in ids]

  def reply(self, id_, fault):
    if self.rows[id_].nature == 'bad':
      self.refused.add(id_)
      return Failed(Verdict(Kind.PERMANENT, status=400), f'row {id_}')
    choice = self.rng.randrange(6) if fault == 'partial' else 0
    if choice == 1:
      return Failed(TRANSIENT, 'busy')
    if choice == 2:
      return Failed(throttled(0.9), 'busy')
    if choice == 3:
      return Unanswered()
    if choice == 4 and self.limits.keys == 'free':
      self.superseded.add(id_)
      return SUPERSEDED
    self.acknowledge([id_])
    return Done(None)

  def acknowledge(self, ids):
    for i in ids:
      place, version = self.at(i), self.rows[i].version
      if self.limits.keys == 'newest':
        known = self.versions.get(place)
        if known is not None and version < known:
          self.violations.append(f'{version} overwrote {known} at {place}')
        self.versions[place] = max(version, known or 0)
      self.written[i] += 1
      self.acknowledgements.append(i)


# -------------------------------------------------------------- strategies

FAULTS = st.lists(
    st.sampled_from([
        'ok',
        'ok',
        'transient',
        'throttled',
        'retry after',
        'timeout',
        'lost',
        'too large',
        'odd refusal',
        'partial',
        'partial'
    ]),
    max_size=25)

LIMITS = st.builds(
    Limits,
    max_records=st.integers(1, 9),
    max_bytes=st.one_of(st.none(), st.integers(40, 160)),
    frame_bytes=st.just(frame),
    separator_bytes=st.integers(0, 1),
    in_flight=st.integers(1, 4),
    max_in_flight=st.integers(4, 8),
    attempt_timeout=st.just(5.0),
    deadline=st.just(100_000.0))

ROW = st.builds(
    toys.Row,
    id=st.just(0),
    to=st.sampled_from(['a', 'bb', 'ccc']),
    key=st.integers(0, 6),
    version=st.integers(0, 4),
    size=st.integers(5, 50),
    nature=st.sampled_from(['good'] * 8 + ['bad', 'invalid']))

# Of one bundle: single rows, and blocks of rows in one buffer or in a list.
ELEMENTS = st.lists(
    st.one_of(
        ROW,
        st.builds(
            toys.Rows,
            st.lists(ROW, min_size=0, max_size=12),
            as_list=st.booleans())),
    max_size=25)

BUNDLES = st.lists(ELEMENTS, min_size=1, max_size=3)


def numbered(bundles):
  """The same with an id of its own for each row."""
  count = 0

  def number(row):
    nonlocal count
    count += 1
    return dataclasses.replace(row, id=count)

  return [[
      number(e) if isinstance(e, toys.Row) else toys.Rows(
          map(number, e), e.as_list) for e in elements
  ] for elements in bundles]


def rows_in(elements):
  return [row for element in elements for row in toys.rows_of(element)]


# ------------------------------------------------------------------- runs


@dataclasses.dataclass
class Run:
  service: Chaos
  bundles: list
  outcomes: list
  most_bytes: int
  used_bytes: int
  in_flight: int


def run(service, bundles, **tuning):
  """Runs each bundle in a thread of its own, over one session."""
  runtime = toys.jumping_runtime()
  operation = toys.Toy(service)
  settings_ = Tuning(refusals_in_a_row=0, **tuning)
  bundles = numbered(bundles)
  for elements in bundles:
    service.know(rows_in(elements))
  shared = runtime.acquire(operation, settings_)
  try:
    outcomes = toys.in_threads([
        lambda elements=elements: toys.run_bundle(
            Dispatcher(operation, settings_, runtime=runtime), elements)
        for elements in bundles
    ])
    toys.eventually(
        lambda: shared.budget.used == 0 and not service.in_flight,
        'everything ends')
    return Run(
        service,
        bundles,
        outcomes,
        shared.budget.most,
        shared.budget.used,
        shared.link.flow.requests.in_flight)
  finally:
    runtime.shutdown()


def check_always(result, budget):
  """What holds even for bundles that failed."""
  service = result.service
  assert service.violations == []
  assert (result.used_bytes, result.in_flight) == (0, 0)
  # A batch larger than all of it is let through when it is alone.
  limits = service.limits
  largest = BATCH_COST + 20 + limits.max_records * (ROW_COST + 101)
  assert result.most_bytes <= max(budget, largest)
  for elements, outcome in zip(result.bundles, result.outcomes, strict=True):
    check_settled(service, elements, outcome)


def check_settled(service, elements, outcome):
  """Each element at most once, and nothing about it that is not so."""
  tickets = [s.ticket for s in outcome.submissions]
  assert len(set(tickets)) == len(tickets)
  for submission in outcome.submissions:
    assert submission.element is elements[submission.ticket]
    rows = toys.rows_of(submission.element)
    assert submission.rows == len(rows)
    failures = submission.failures or []
    failed = {f.row: f for f in failures}
    assert len(failed) == len(failures), 'a row failed twice'
    silent = 0
    for i, row in enumerate(rows):
      if i in failed:
        check_failure(service, row, failed[i])
      elif not service.written[row.id]:
        # Neither written nor failed: then it was superseded, and rightly.
        silent += 1
        newest = service.versions.get(service.at(row.id), -1)
        assert row.id in service.superseded or row.version < newest
    assert silent == submission.superseded


def check_failure(service, row, failure):
  assert failure.destination == row.to
  assert not service.written[row.id], 'written, and reported as failed'
  if failure.stage == 'encode':
    limit = service.limits.max_bytes
    too_large = limit is not None and frame(row.to) + len(row.wire) > limit
    assert row.nature == 'invalid' or too_large
    assert all(row.id not in ids for ids in service.requests)
  else:
    assert failure.stage == 'send'
    assert row.id in service.refused, 'blamed without having been tried alone'


def check_complete(result, budget):
  """What holds for bundles that ended well."""
  service = result.service
  reports = [r for outcome in result.outcomes for r in outcome.reports]
  costs = [r.nbytes + BATCH_COST + ROW_COST * r.records for r in reports]
  assert result.most_bytes <= budget or result.most_bytes in costs
  for elements, outcome in zip(result.bundles, result.outcomes, strict=True):
    assert outcome.error is None
    assert sorted(s.ticket for s in outcome.submissions) == list(
        range(len(elements)))
    reports = outcome.reports
    written = [row.id for row in rows_in(elements) if service.written[row.id]]
    assert sum(r.written for r in reports) == len(written)
    assert sum(r.superseded for r in reports) == sum(
        s.superseded for s in outcome.submissions)
    assert sum(r.refused for r in reports) == sum(
        f.stage == 'send'
        for s in outcome.submissions
        for f in s.failures or ())
  # Nothing that was acknowledged was sent again.
  assert set(service.written.values()) <= {1}
  requests = sum(
      len(r.attempts) for outcome in result.outcomes for r in outcome.reports)
  assert requests == len(service.requests)


# ------------------------------------------------------------- properties


@CHECKED
@given(
    BUNDLES,
    LIMITS,
    FAULTS,
    st.sampled_from(['index', 'whole']),
    st.sampled_from(['free', 'unique']),
    st.sampled_from([1, 5_000, 60_000]),
    st.sampled_from([1, 4_000, 1 << 20]),
    st.integers(0, 99))
def test_every_row_settles_once_and_as_the_service_says(
    bundles, limits, faults, poison, keys, budget, pending, seed):
  service = Chaos(dataclasses.replace(limits, keys=keys), faults, poison, seed)
  result = run(service, bundles, in_flight_bytes=budget, pending_bytes=pending)
  check_always(result, budget)
  check_complete(result, budget)


@CHECKED
@given(
    BUNDLES,
    LIMITS,
    FAULTS,
    st.sampled_from(['index', 'whole']),
    st.sampled_from(['serial', 'newest']),
    st.sampled_from([1, 5_000, 60_000]),
    st.integers(0, 99))
def test_keys_keep_their_order_and_versions_decide(
    bundles, limits, faults, poison, keys, budget, seed):
  service = Chaos(dataclasses.replace(limits, keys=keys), faults, poison, seed)
  result = run(service, bundles, in_flight_bytes=budget)
  check_always(result, budget)
  check_complete(result, budget)
  for elements in result.bundles:
    by_place = collections.defaultdict(list)
    for row in rows_in(elements):
      by_place[service.at(row.id)].append(row.id)
    for log in (service.acknowledgements, service.first_sent):
      position = {id_: n for n, id_ in enumerate(log)}
      for arrived in by_place.values():
        seen = [position[i] for i in arrived if i in position]
        assert seen == sorted(seen), 'a key was overtaken'
  if keys == 'newest':
    # The newest version that could be written is what stands in the end.
    best = {}
    for row in rows_in([e for b in result.bundles for e in b]):
      if service.written[row.id]:
        place = service.at(row.id)
        best[place] = max(best.get(place, 0), row.version)
    assert service.versions == best


@CHECKED
@given(
    BUNDLES,
    LIMITS,
    st.lists(
        st.sampled_from(
            ['ok', 'partial', 'transient', 'timeout', 'retry after', 'fatal']),
        min_size=1,
        max_size=8),
    st.sampled_from(['free', 'unique', 'serial', 'newest']),
    st.sampled_from([1, 5_000]),
    st.integers(0, 99))
def test_a_bundle_settles_everything_or_raises(
    bundles, limits, faults, keys, budget, seed):
  # The faults come round for ever, so that some runs can not succeed.
  limits = dataclasses.replace(limits, keys=keys, deadline=60.0)
  service = Chaos(limits, faults, 'whole', seed, forever=True)
  result = run(service, bundles, in_flight_bytes=budget)
  check_always(result, budget)
  for elements, outcome in zip(result.bundles, result.outcomes, strict=True):
    if outcome.error is None:
      assert len(outcome.submissions) == len(elements)
    else:
      assert isinstance(outcome.error, (FatalError, OutageError))
      assert not isinstance(outcome.error, SystematicRefusalError)
  # The session is as good as new for those who come after.
  service.faults = []
  again = run(service, bundles, in_flight_bytes=budget)
  assert [outcome.error for outcome in again.outcomes] == [None] * len(bundles)


@CHECKED
@given(BUNDLES, LIMITS, FAULTS, st.sampled_from(['free', 'serial']))
def test_outages_are_collected_without_a_record_lost(
    bundles, limits, faults, keys):
  limits = dataclasses.replace(limits, keys=keys, deadline=3.0)
  service = Chaos(limits, faults + ['transient'], forever=True)
  result = run(service, bundles, on_outage='collect')
  assert service.violations == []
  for elements, outcome in zip(result.bundles, result.outcomes, strict=True):
    assert outcome.error is None
    assert len(outcome.submissions) == len(elements)
    for submission in outcome.submissions:
      failed = {f.row: f.stage for f in submission.failures or ()}
      for i, row in enumerate(toys.rows_of(submission.element)):
        # Refused ones, and ones nobody answered for; all others are written.
        assert bool(service.written[row.id]) + (i in failed) + (
            row.id in service.superseded) == 1
        if failed.get(i) == 'send':
          assert row.id in service.refused


@settings(CHECKED, max_examples=15)
@given(FAULTS, st.sampled_from(['free', 'unique', 'serial', 'newest']))
def test_many_bundles_with_a_budget_for_one_batch_never_wait_in_a_circle(
    faults, keys):
  limits = Limits(
      max_records=4,
      frame_bytes=frame,
      in_flight=2,
      max_in_flight=2,
      keys=keys,
      attempt_timeout=5.0,
      deadline=100_000.0)
  bundles = [[
      toys.Row(0, to='ab'[i % 2], key=i % 5, version=i % 3, size=100)
      for i in range(40)
  ]
             for _ in range(6)]
  # Less than a batch of four rows costs; pending for less than one, too.
  budget = BATCH_COST + 2 * ROW_COST
  service = Chaos(limits, faults)
  result = run(service, bundles, in_flight_bytes=budget, pending_bytes=1500)
  check_always(result, budget)
  check_complete(result, budget)
  assert service.most_in_flight <= 2
