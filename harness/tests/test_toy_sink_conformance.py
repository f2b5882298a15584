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
"""The sink suite passes a sink that is right, and fails those that are not."""

import asyncio
import dataclasses
import inspect
import logging
import math
import types
import zlib
from typing import ClassVar
from typing import NamedTuple
from urllib.parse import urlsplit

import apache_beam as beam
import pytest
from apache_beam.transforms.window import TimestampedValue

from beam_connector_base import ALL_OK
from beam_connector_base import Block
from beam_connector_base import EnvSecret
from beam_connector_base import Kind
from beam_connector_base import Operation
from beam_connector_base import Verdict
from beam_harness.conformance import SinkConformance
from beam_harness.conformance import toy_service
from beam_harness.conformance.toy_sink import PutBooks
from beam_harness.conformance.toy_sink import ToySession
from beam_harness.conformance.toy_sink import WriteToToy


class BookTuple(NamedTuple):
  id: str
  pages: float
  text: str


@dataclasses.dataclass
class BookData:
  id: str
  pages: float
  text: str


_KINDS = {
    'dict': dict,
    'Row': beam.Row,
    'NamedTuple': BookTuple,
    'dataclass': BookData,
}


@pytest.fixture
def toy(emulators, monkeypatch):
  monkeypatch.setenv('TOY_KEY', toy_service.KEY)
  with emulators.lend('beam_harness.conformance.toy_service') as emulator:
    yield emulator


class ToySuite(SinkConformance):
  transform = WriteToToy
  namespace = 'WriteToToy'
  target = 'books'
  write_operation = 'put'
  lineage = ('toy:books',)
  secret = toy_service.KEY
  secret_variable = 'TOY_KEY'
  max_records = toy_service.MAX_RECORDS
  max_bytes = toy_service.MAX_BYTES
  row_bytes = 70
  partial_failures = True
  idle_requests = ('describe',)
  construction = '''
      from beam_harness.conformance.toy_sink import WriteToToy
      sink = WriteToToy('http://127.0.0.1:9')
      '''
  #: What those that are broken on purpose replace.
  operation: type[Operation] = PutBooks

  @pytest.fixture
  def emulator(self, toy):
    return toy

  def make_transform(self, emulator, *, secret_variable=None, **options):
    return WriteToToy(
        emulator.url,
        key=EnvSecret(secret_variable or 'TOY_KEY'),
        operation=self.operation,
        **options)

  def make_element(self, key, kind='dict'):
    return _KINDS[kind](**self.expected(key))

  def stored(self, emulator):
    return emulator.snapshot().get('books', {})

  def expected(self, key):
    pages = zlib.crc32(key.encode()) % 1000 / 4
    return {'id': key, 'pages': pages, 'text': f'text of {key:>20}'}

  def bad_element(self, key):
    return {'id': key, 'pages': math.nan, 'text': 'bad'}

  def large_element(self, key, nbytes):
    return {'id': key, 'pages': 1.0, 'text': 'x' * nbytes}


class TestWriteToToyConformance(ToySuite):
  """The sink as it is passes every case."""


# ---------------------------------------------------------- broken on purpose


class BrokenSuite(ToySuite):
  """Gives up sooner, so that what hangs on does not take long."""
  @staticmethod
  def tuning(**changes):
    patience = {'deadline': 1.0, 'open_deadline': 1.0, 'attempt_timeout': 1.0}
    return SinkConformance.tuning(**{**patience, **changes})


class _WrappedSink(beam.PTransform):
  """A sink with something wrong before or after it."""
  def __init__(self, sink, wrap):
    super().__init__()
    self._sink = sink
    self._wrap = wrap

  def expand(self, pcoll):
    return self._wrap(pcoll, self._sink)


class _ForgetfulBuffer(beam.DoFn):
  """Buffers, and forgets what is left when the bundle ends."""
  def start_bundle(self):
    self._buffer = []

  def process(self, element, timestamp=beam.DoFn.TimestampParam):
    self._buffer.append(TimestampedValue(element, timestamp))
    if len(self._buffer) == 4:
      buffer, self._buffer = self._buffer, []
      yield from buffer


def _forgets_the_rest_of_a_bundle(pcoll, sink):
  return pcoll | beam.ParDo(_ForgetfulBuffer()) | sink


def _announces_what_is_not_written_yet(pcoll, sink):
  result = pcoll | sink
  return types.SimpleNamespace(
      written=pcoll, failed=result.failed, ledger=result.ledger)


def _moves_outputs_to_another_time(pcoll, sink):
  result = pcoll | sink
  return types.SimpleNamespace(
      written=result.written
      | 'At 0' >> beam.Map(lambda element: TimestampedValue(element, 0)),
      failed=result.failed,
      ledger=result.ledger)


def _reads_its_failures_itself(pcoll, sink):
  result = pcoll | sink
  _ = result.failed | 'Drop' >> beam.Map(lambda failed: None)
  return result


class _LosesOneOfEachBatch(ToySession):
  async def send(self, batch):
    rows = b'\n'.join(batch.buffers()).split(b'\n')
    await self.request('PUT', b'\n'.join(rows[:-1]))
    return ALL_OK


class _TakesAnyAnswerForAYes(ToySession):
  async def send(self, batch):
    try:
      await super().send(batch)
    except Exception:
      pass
    return ALL_OK


class _OverlooksPartialFailures(ToySession):
  async def send(self, batch):
    await super().send(batch)
    return ALL_OK


class _ForgetsTheSeparators(ToySession):
  def __init__(self, operation, key):
    super().__init__(operation, key)
    self.limits = dataclasses.replace(self.limits, separator_bytes=0)


class _UnderstatesSizes(ToySession):
  def encode(self, element):
    for item in super().encode(element):
      if isinstance(item, Block):
        item.offsets = (0, 1)
      yield item


class _ForgetsTheLimits(ToySession):
  def __init__(self, operation, key):
    super().__init__(operation, key)
    self.limits = dataclasses.replace(
        self.limits, max_records=10_000, max_bytes=None)


class _MendsBadRecords(ToySession):
  def encode(self, element):
    if isinstance(element, dict) and math.isnan(element['pages']):
      element = {**element, 'pages': 0}
    yield from super().encode(element)


class _SendsTwice(ToySession):
  async def send(self, batch):
    replies, _ = await asyncio.gather(super().send(batch), super().send(batch))
    return replies


class _SendsOneAfterTheOther(ToySession):
  def __init__(self, operation, key):
    super().__init__(operation, key)
    self._turn = asyncio.Lock()

  async def send(self, batch):
    async with self._turn:
      return await super().send(batch)


class _LeavesConnectionsOpen(ToySession):
  _kept: ClassVar[list] = []

  async def send(self, batch):
    url = urlsplit(self._operation.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    self._kept.append((reader, writer))
    writer.write(b'GET / HTTP/1.1\r\nhost: toy\r\n\r\n')
    await reader.readuntil(b'\r\n\r\n')
    return await super().send(batch)


class _LogsItsCredential(ToySession):
  async def send(self, batch):
    logging.getLogger('beam_connector_base.toy').info('key %s', self._key)
    return await super().send(batch)


@dataclasses.dataclass(frozen=True)
class _BlamesTheRecordsForAnything(PutBooks):
  def classify(self, error):
    return Verdict(Kind.PERMANENT, status=500, reason=str(error))


@dataclasses.dataclass(frozen=True)
class _TriesAnythingAgain(PutBooks):
  def classify(self, error):
    return Verdict(Kind.TRANSIENT, status=500, reason=str(error))


@dataclasses.dataclass(frozen=True)
class _IgnoresTheWaitAskedFor(PutBooks):
  def classify(self, error):
    return dataclasses.replace(super().classify(error), retry_after=None)


@dataclasses.dataclass(frozen=True)
class _OverlooksThrottling(PutBooks):
  def classify(self, error):
    verdict = super().classify(error)
    if verdict.kind is Kind.THROTTLED:
      return Verdict(Kind.TRANSIENT, status=429, reason=str(error))
    return verdict


@dataclasses.dataclass(frozen=True)
class _HidesTheReason(PutBooks):
  def classify(self, error):
    return dataclasses.replace(super().classify(error), reason='no')


@dataclasses.dataclass(frozen=True)
class _CarriesItsCredential(PutBooks):
  carried: str = toy_service.KEY


def _suite(broken):
  """The suite of a sink with something of it replaced by something broken."""
  if inspect.isfunction(broken):

    class Wrapped(BrokenSuite):
      def make_transform(self, emulator, **options):
        sink = super().make_transform(emulator, **options)
        return _WrappedSink(sink, broken)

    return Wrapped()
  replaced = broken
  if issubclass(broken, ToySession):

    @dataclasses.dataclass(frozen=True)
    class Replaced(PutBooks):
      def session(self, key):
        return broken(self, key)

    replaced = Replaced

  class Suite(BrokenSuite):
    operation = replaced

  return Suite()


_CAUGHT = [
    (
        _forgets_the_rest_of_a_bundle,
        'test_batches_are_filled_up_to_the_count', {
            'kind': 'dict'
        }),
    (
        _announces_what_is_not_written_yet,
        'test_an_outage_fails_the_bundle_and_dead_letters_nothing', {}),
    (
        _moves_outputs_to_another_time,
        'test_outputs_keep_element_window_and_timestamp', {}),
    (
        _reads_its_failures_itself,
        'test_failed_records_that_nobody_reads_are_refused_at_construction',
        {}),
    (
        _LosesOneOfEachBatch,
        'test_elements_of_every_kind_are_written', {
            'kind': 'RecordBatch'
        }),
    (_LosesOneOfEachBatch, 'test_repeated_bundles_leave_the_same_state', {}),
    (
        _TakesAnyAnswerForAYes,
        'test_a_fault_that_passes_costs_nothing', {
            'fault': 'unavailable'
        }),
    (
        _TakesAnyAnswerForAYes,
        'test_ten_thousand_records_under_faults_all_arrive_or_are_refused', {}),
    (
        _TakesAnyAnswerForAYes,
        'test_poison_is_isolated_and_its_neighbours_are_written', {}),
    (
        _OverlooksPartialFailures,
        'test_only_what_failed_of_a_request_is_tried_again', {}),
    (
        _UnderstatesSizes,
        'test_batches_are_filled_up_to_the_bytes', {
            'kind': 'dict'
        }),
    (_ForgetsTheSeparators, 'test_no_trouble_counts_no_trouble', {}),
    (
        _ForgetsTheLimits,
        'test_the_services_own_limits_are_kept_without_being_told', {}),
    (
        _MendsBadRecords,
        'test_a_bad_record_is_refused_and_its_neighbours_are_written', {}),
    (_OverlooksThrottling, 'test_throttled_requests_are_fewer_at_a_time', {}),
    (_SendsTwice, 'test_no_trouble_counts_no_trouble', {}),
    (_SendsTwice, 'test_requests_are_in_flight_together_up_to_the_limit', {}),
    (
        _SendsOneAfterTheOther,
        'test_requests_are_in_flight_together_up_to_the_limit', {}),
    (_LeavesConnectionsOpen, 'test_no_connection_outlives_the_pipeline', {}),
    (_LogsItsCredential, 'test_no_secret_is_in_errors_and_logs', {}),
    (
        _BlamesTheRecordsForAnything,
        'test_an_outage_fails_the_bundle_and_dead_letters_nothing', {}),
    (
        _BlamesTheRecordsForAnything,
        'test_a_fault_that_passes_costs_nothing', {
            'fault': 'throttled'
        }),
    (
        _BlamesTheRecordsForAnything,
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
        'test_a_refused_record_stops_the_pipeline_unless_told_otherwise', {}),
    (_CarriesItsCredential, 'test_no_secret_is_in_what_a_pipeline_carries', {}),
]


@pytest.mark.parametrize(
    'broken, case, arguments',
    _CAUGHT,
    ids=lambda value: getattr(
        value, '__name__', value if isinstance(value, str) else ''))
def test_the_suite_fails_a_sink_that(toy, request, broken, case, arguments):
  run = getattr(_suite(broken), case)
  names = set(inspect.signature(run).parameters) - {'emulator', *arguments}
  fixtures = {name: request.getfixturevalue(name) for name in names}
  # Only what the case itself asserts: not an accident in the broken sink.
  with pytest.raises((AssertionError, pytest.fail.Exception)):
    run(emulator=toy, **arguments, **fixtures)


def test_the_suite_fails_a_sink_that_connects_at_construction():
  suite = _suite(PutBooks)
  suite.construction = '''
      import contextlib
      import socket
      from beam_harness.conformance.toy_sink import WriteToToy
      with contextlib.suppress(OSError):
        socket.create_connection(('127.0.0.1', 9))
      sink = WriteToToy('http://127.0.0.1:9')
      '''
  with pytest.raises(AssertionError, match='127.0.0.1'):
    suite.test_construction_touches_no_network_and_no_heavy_module()


def test_the_suite_fails_a_sink_that_imports_what_is_heavy():
  suite = _suite(PutBooks)
  suite.construction = '\n      import sqlite3' + ToySuite.construction
  suite.heavy_modules = ('sqlite3',)
  with pytest.raises(AssertionError, match='sqlite3'):
    suite.test_construction_touches_no_network_and_no_heavy_module()
