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
"""The lookup suite passes a lookup that is right, and fails those that are not.
"""

import asyncio
import dataclasses
import inspect
import logging
import threading
import types
import zlib
from typing import ClassVar
from typing import NamedTuple

import apache_beam as beam
import pytest
from apache_beam.transforms.window import FixedWindows
from apache_beam.transforms.window import TimestampedValue

from beam_connector_base import Block
from beam_connector_base import Done
from beam_connector_base import EnvSecret
from beam_connector_base import Kind
from beam_connector_base import Operation
from beam_connector_base import Verdict
from beam_connector_base.lookup import Join
from beam_connector_base.operation import MISSING
from beam_harness.conformance import LookupConformance
from beam_harness.conformance import toy_service
from beam_harness.conformance.toy_lookup import AddBook
from beam_harness.conformance.toy_lookup import AskBooks
from beam_harness.conformance.toy_lookup import AskingSession
from beam_harness.conformance.toy_lookup import LookupToy
from beam_harness.conformance.toy_lookup import ToyEnrichmentHandler


class QuestionTuple(NamedTuple):
  id: str
  note: str


@dataclasses.dataclass
class QuestionData:
  id: str
  note: str


_KINDS = {
    'dict': dict,
    'Row': beam.Row,
    'NamedTuple': QuestionTuple,
    'dataclass': QuestionData,
}


@pytest.fixture
def toy(emulators, monkeypatch):
  monkeypatch.setenv('TOY_KEY', toy_service.KEY)
  with emulators.lend('beam_harness.conformance.toy_service') as emulator:
    yield emulator


class ToySuite(LookupConformance):
  transform = LookupToy
  namespace = 'LookupToy'
  target = 'books'
  ask_operation = 'ask'
  lineage = ('toy:books',)
  secret = toy_service.KEY
  secret_variable = 'TOY_KEY'
  max_records = toy_service.MAX_RECORDS
  partial_failures = True
  idle_requests = ('describe',)
  construction = '''
      from beam_harness.conformance.toy_lookup import LookupToy
      lookup = LookupToy('http://127.0.0.1:9')
      '''
  #: What those that are broken on purpose replace.
  operation: type[Operation] = AskBooks
  join = None

  @pytest.fixture
  def emulator(self, toy):
    return toy

  def make_transform(self, emulator, *, secret_variable=None, **options):
    return LookupToy(
        emulator.url,
        key=EnvSecret(secret_variable or 'TOY_KEY'),
        operation=self.operation,
        join=self.join,
        **options)

  def make_handler(self, emulator, *, secret_variable=None, **options):
    return ToyEnrichmentHandler(
        emulator.url,
        key=EnvSecret(secret_variable or 'TOY_KEY'),
        operation=self.operation,
        **options)

  def store(self, emulator, keys):
    emulator.seed({'books': {key: self.expected(key) for key in keys}})

  def make_question(self, key, kind='dict'):
    return _KINDS[kind](id=key, note=f'asked for {key}')

  def bad_question(self):
    return self.make_question('')

  def expected(self, key):
    pages = zlib.crc32(key.encode()) % 1000 / 4
    return {'pages': pages, 'text': f'text of {key}'}

  def answer_of(self, joined):
    answer = {name: joined.get(name) for name in ('pages', 'text')}
    return None if set(answer.values()) == {None} else answer


class TestLookupToyConformance(ToySuite):
  """The lookup as it is passes every case."""


# ---------------------------------------------------------- broken on purpose


class BrokenSuite(ToySuite):
  """Gives up sooner, so that what hangs on does not take long."""
  @staticmethod
  def tuning(**changes):
    patience = {'deadline': 1.0, 'open_deadline': 1.0, 'attempt_timeout': 1.0}
    return LookupConformance.tuning(**{**patience, **changes})


class _Wrapped(beam.PTransform):
  """A lookup with something wrong before or after it."""
  def __init__(self, lookup, wrap):
    super().__init__()
    self._lookup = lookup
    self._wrap = wrap

  def expand(self, pcoll):
    return self._wrap(pcoll, self._lookup)


class _Result(types.SimpleNamespace):
  """Outputs of which `joined` is not the PCollection itself."""


def _moves_outputs_to_another_time(pcoll, lookup):
  result = pcoll | lookup
  joined = result | 'At 0' >> beam.Map(lambda row: TimestampedValue(row, 0))
  return _Result(joined=joined, missing=result.missing, failed=result.failed)


def _forgets_the_pane(pcoll, lookup):
  result = pcoll | lookup
  joined = result | beam.Reshuffle() | beam.WindowInto(
      result.windowing.windowfn)
  return _Result(joined=joined, missing=result.missing, failed=result.failed)


def _keeps_one_window(pcoll, lookup):
  result = pcoll | lookup
  joined = result | beam.WindowInto(FixedWindows(20))
  return _Result(joined=joined, missing=result.missing, failed=result.failed)


def _reads_its_failures_itself(pcoll, lookup):
  result = pcoll | lookup
  _ = result.failed | 'Drop' >> beam.Map(lambda failed: None)
  return result


def _loses_what_is_missing(pcoll, lookup):
  result = pcoll | lookup
  result.missing = result.missing | 'Nothing' >> beam.Filter(lambda _: False)
  return result


def _announces_what_is_not_answered_yet(pcoll, lookup):
  result = pcoll | lookup
  return _Result(joined=pcoll, missing=result.missing, failed=result.failed)


class _MixesUpAnswers(AskingSession):
  async def send(self, batch):
    answer = await self.request('POST', b'\n'.join(batch.buffers()))
    found = iter(answer['found'].values())
    return [Done(next(found, MISSING)) for _ in range(batch.n)]


class _TakesAnErrorForNotFound(AskingSession):
  async def send(self, batch):
    try:
      return await super().send(batch)
    except Exception:
      return [Done(MISSING)] * batch.n


class _OverlooksPartialFailures(AskingSession):
  async def send(self, batch):
    return [
        reply if isinstance(reply, Done) else Done(MISSING)
        for reply in await super().send(batch)
    ]


class _AsksForEachRow(AskingSession):
  """Each row has a key of its own as far as the engine can see."""
  def encode(self, element):
    for item in super().encode(element):
      if isinstance(item, Block):
        item.keys = [_Unequal(key) for key in item.keys]
      yield item


class _AsksInEachThread(AskingSession):
  """Keys of different bundle threads never are the same."""
  def encode(self, element):
    for item in super().encode(element):
      if isinstance(item, Block):
        item.keys = [_OfThread(key) for key in item.keys]
      yield item


class _Unequal(str):
  __slots__ = ()
  __hash__ = object.__hash__

  def __eq__(self, other):
    return self is other


class _OfThread(str):
  def __new__(cls, key):
    self = super().__new__(cls, key)
    self.thread = threading.get_ident()
    return self

  def __hash__(self):
    return hash((str(self), self.thread))

  def __eq__(self, other):
    return str(self) == str(other) and (
        self.thread == getattr(other, 'thread', self.thread))


class _RemembersByItself(AskingSession):
  _known: ClassVar[dict] = {}

  async def send(self, batch):
    keys = list(batch.keys())
    if not all((self._operation, key) in self._known for key in keys):
      for key, reply in zip(keys, await super().send(batch), strict=True):
        self._known[self._operation, key] = reply
    return [self._known[self._operation, key] for key in keys]


class _AsksForNull(AskingSession):
  def encode(self, element):
    if isinstance(element, dict) and element['id'] is None:
      element = {**element, 'id': 'None'}
    yield from super().encode(element)


class _AsksForAnything(AskingSession):
  def encode(self, element):
    if isinstance(element, dict) and not element['id']:
      element = {**element, 'id': '?'}
    yield from super().encode(element)


class _ForgetsTheLimits(AskingSession):
  def __init__(self, operation, key):
    super().__init__(operation, key)
    self.limits = dataclasses.replace(
        self.limits, max_records=10_000, max_bytes=None)


class _AsksOneAfterTheOther(AskingSession):
  def __init__(self, operation, key):
    super().__init__(operation, key)
    self._turn = asyncio.Lock()

  async def send(self, batch):
    async with self._turn:
      return await super().send(batch)


class _AsksTwice(AskingSession):
  async def send(self, batch):
    await super().send(batch)
    return await super().send(batch)


class _LogsItsCredential(AskingSession):
  async def send(self, batch):
    logging.getLogger('beam_connector_base.toy').info('key %s', self._key)
    return await super().send(batch)


@dataclasses.dataclass(frozen=True)
class _BlamesTheQuestionsForAnything(AskBooks):
  def classify(self, error):
    return Verdict(Kind.PERMANENT, status=500, reason=str(error))


@dataclasses.dataclass(frozen=True)
class _TriesAnythingAgain(AskBooks):
  def classify(self, error):
    return Verdict(Kind.TRANSIENT, status=500, reason=str(error))


@dataclasses.dataclass(frozen=True)
class _IgnoresTheWaitAskedFor(AskBooks):
  def classify(self, error):
    return dataclasses.replace(super().classify(error), retry_after=None)


@dataclasses.dataclass(frozen=True)
class _HidesTheReason(AskBooks):
  def classify(self, error):
    return dataclasses.replace(super().classify(error), reason='no')


@dataclasses.dataclass(frozen=True)
class _CarriesItsCredential(AskBooks):
  carried: str = toy_service.KEY


class _JoinsToTheWrongElement(AddBook):
  """Keeps state: the answer of the element before."""
  _last: ClassVar[list] = [MISSING]

  def row(self, element, answer):
    self._last.append(answer)
    return super().row(element, self._last[-2])


class _LeavesNullsOut(AddBook):
  def row(self, element, answer):
    return dict(element) if answer is MISSING else super().row(element, answer)


class _KeepsOnlyTheAnswers(AddBook):
  def block(self, batch, answers):
    return super().block(batch, answers).select(['id', 'pages', 'text'])


class _TurnsRowsRound(AddBook):
  def block(self, batch, answers):
    joined = super().block(batch, answers)
    return joined.take(list(range(joined.num_rows))[::-1])


def _suite(broken):
  """The suite of a lookup with something replaced by something broken."""
  if inspect.isfunction(broken):

    class Wrapped(BrokenSuite):
      def make_transform(self, emulator, **options):
        return _Wrapped(super().make_transform(emulator, **options), broken)

      def outputs_of(self, result):
        if isinstance(result, _Result):
          return vars(result)
        return super().outputs_of(result)

    return Wrapped()
  if issubclass(broken, Join):

    class Joined(BrokenSuite):
      join = broken()

    return Joined()
  replaced = broken
  if issubclass(broken, AskingSession):

    @dataclasses.dataclass(frozen=True)
    class Replaced(AskBooks):
      def session(self, key):
        return broken(self, key)

    replaced = Replaced

  class Suite(BrokenSuite):
    operation = replaced

  return Suite()


_DICT = {'kind': 'dict'}
_BLOCK = {'kind': 'RecordBatch'}
_CAUGHT = [
    (
        _moves_outputs_to_another_time,
        'test_outputs_keep_element_window_and_timestamp', {}),
    (_forgets_the_pane, 'test_outputs_keep_the_pane_of_their_element', {}),
    (
        _keeps_one_window,
        'test_an_element_in_several_windows_is_joined_once_in_each', {}),
    (
        _reads_its_failures_itself,
        'test_failed_records_that_nobody_reads_are_refused_at_construction',
        {}),
    (
        _loses_what_is_missing,
        'test_what_is_missing_goes_its_own_way_unchanged',
        _DICT),
    (
        _announces_what_is_not_answered_yet,
        'test_an_outage_fails_the_bundle_and_is_not_taken_for_an_answer', {
            'kind': 'error'
        }),
    (_MixesUpAnswers, 'test_elements_of_every_kind_are_joined', _DICT),
    (_MixesUpAnswers, 'test_elements_of_every_kind_are_joined', _BLOCK),
    (
        _MixesUpAnswers,
        'test_the_enrichment_handler_batches_if_one_asks_for_it', {}),
    (
        _TakesAnErrorForNotFound,
        'test_the_enrichment_handler_says_what_is_wrong', {}),
    (
        _MixesUpAnswers,
        'test_thousands_of_questions_under_faults_are_each_answered_or_refused',
        {}),
    (
        _TakesAnErrorForNotFound,
        'test_a_fault_that_passes_costs_nothing', {
            'fault': 'unavailable'
        }),
    (
        _TakesAnErrorForNotFound,
        'test_an_outage_fails_the_bundle_and_is_not_taken_for_an_answer', {
            'kind': 'error'
        }),
    (
        _TakesAnErrorForNotFound,
        'test_the_enrichment_handler_tries_again_by_itself', {}),
    (
        _OverlooksPartialFailures,
        'test_only_what_failed_of_a_request_is_asked_again', {}),
    (_AsksForEachRow, 'test_equal_keys_of_a_bundle_are_asked_for_once', _DICT),
    (_AsksForEachRow, 'test_equal_keys_of_a_bundle_are_asked_for_once', _BLOCK),
    (_AsksForEachRow, 'test_a_cached_answer_is_not_asked_for_again', {}),
    (
        _AsksInEachThread,
        'test_bundles_that_run_together_share_their_requests', {}),
    (_RemembersByItself, 'test_without_a_cache_a_later_bundle_asks_again', {}),
    (_RemembersByItself, 'test_a_cached_answer_expires', {}),
    (
        _RemembersByItself,
        'test_that_nothing_was_there_expires_in_its_own_time', {
            'seconds': 0
        }),
    (_AsksForNull, 'test_a_null_key_is_asked_for_by_nobody', _DICT),
    (
        _AsksForAnything,
        'test_a_bad_question_is_refused_and_its_neighbours_are_joined', {}),
    (
        _ForgetsTheLimits,
        'test_the_services_own_limits_are_kept_without_being_told', {}),
    (
        _AsksOneAfterTheOther,
        'test_requests_are_in_flight_together_up_to_the_limit', {}),
    (_AsksTwice, 'test_no_trouble_counts_no_trouble', {}),
    (_AsksTwice, 'test_requests_are_filled_up_to_the_count', _DICT),
    (_LogsItsCredential, 'test_no_secret_is_in_errors_and_logs', {}),
    (
        _BlamesTheQuestionsForAnything,
        'test_a_fault_that_passes_costs_nothing', {
            'fault': 'throttled'
        }),
    (
        _BlamesTheQuestionsForAnything,
        'test_a_missing_permission_stops_at_once_and_says_so', {
            'status': 401
        }),
    (
        _TriesAnythingAgain,
        'test_a_missing_permission_stops_at_once_and_says_so', {
            'status': 403
        }),
    (
        _IgnoresTheWaitAskedFor,
        'test_the_wait_that_the_service_asks_for_is_kept', {}),
    (
        _HidesTheReason,
        'test_a_refused_question_stops_the_pipeline_unless_told_otherwise', {}),
    (_CarriesItsCredential, 'test_no_secret_is_in_what_a_pipeline_carries', {}),
    (_JoinsToTheWrongElement, 'test_elements_of_every_kind_are_joined', _DICT),
    (_LeavesNullsOut, 'test_what_is_missing_is_joined_with_nulls', _DICT),
    (
        _KeepsOnlyTheAnswers,
        'test_a_block_keeps_its_columns_and_the_order_of_its_rows', {}),
    (
        _TurnsRowsRound,
        'test_a_block_keeps_its_columns_and_the_order_of_its_rows', {}),
]


@pytest.mark.parametrize(
    'broken, case, arguments',
    _CAUGHT,
    ids=lambda value: getattr(
        value, '__name__', value if isinstance(value, str) else ''))
def test_the_suite_fails_a_lookup_that(toy, request, broken, case, arguments):
  run = getattr(_suite(broken), case)
  names = set(inspect.signature(run).parameters) - {'emulator', *arguments}
  fixtures = {name: request.getfixturevalue(name) for name in names}
  # Only what the case itself asserts: not an accident in the broken lookup.
  with pytest.raises((AssertionError, pytest.fail.Exception)):
    run(emulator=toy, **arguments, **fixtures)
