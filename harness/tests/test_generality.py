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
"""The base proves itself on other shapes of services than Pinecone's.

A batch operation over HTTP and JSON that answers for each record, in the style
of SageMaker's BatchWriteRecord, as a client that awaits and as one that blocks.
Neither needed anything of the base that was not there.
"""

import dataclasses
import inspect
import math
import pathlib
import zlib
from typing import NamedTuple

import apache_beam as beam
import pytest
from batch_write import MAX_BYTES
from batch_write import MAX_ENTRIES
from batch_write import WriteFeatures
from emulator_toys import batchwrite

from beam_connector_base import EnvSecret
from beam_harness.conformance import SinkConformance

_HERE = pathlib.Path(__file__).parent


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
def store(emulators, monkeypatch):
  monkeypatch.setenv('FEATURE_STORE_KEY', batchwrite.KEY)
  # Worker processes find the connector here.
  monkeypatch.setenv('PYTHONPATH', str(_HERE))
  with emulators.lend('emulator_toys.batchwrite') as emulator:
    yield emulator


class FeatureSuite(SinkConformance):
  transform = WriteFeatures
  namespace = 'WriteFeatures'
  target = 'books'
  write_operation = 'BatchWriteRecord'
  lineage = ('features:books',)
  secret = batchwrite.KEY
  secret_variable = 'FEATURE_STORE_KEY'
  max_records = MAX_ENTRIES
  max_bytes = MAX_BYTES
  row_bytes = 220
  partial_failures = True
  idle_requests = ('DescribeFeatureGroup',)
  construction = f'''
      import sys
      sys.path.insert(0, {str(_HERE)!r})
      from batch_write import WriteFeatures
      sink = WriteFeatures('books', 'http://127.0.0.1:9')
      '''
  blocking = False

  @pytest.fixture
  def emulator(self, store):
    return store

  def make_transform(self, emulator, *, secret_variable=None, **options):
    return WriteFeatures(
        'books',
        emulator.url,
        key=EnvSecret(secret_variable or 'FEATURE_STORE_KEY'),
        blocking=self.blocking,
        **options)

  def make_element(self, key, kind='dict'):
    pages = zlib.crc32(key.encode()) % 1000 / 4
    return _KINDS[kind](id=key, pages=pages, text=f'text of {key:>20}')

  def stored(self, emulator):
    return emulator.snapshot().get('books', {})

  def expected(self, key):
    return {name: str(value) for name, value in self.make_element(key).items()}

  def bad_element(self, key):
    return {'id': key, 'pages': math.nan, 'text': 'bad'}

  def large_element(self, key, nbytes):
    return {'id': key, 'pages': 1.0, 'text': 'x' * nbytes}


class TestBatchWriteConformance(FeatureSuite):
  """A client that awaits does what every sink must do."""


class BlockingSuite(FeatureSuite):
  blocking = True


#: What a client that blocks may do differently.
_BLOCKING = [
    ('test_elements_of_every_kind_are_written', {
        'kind': 'dict'
    }),
    ('test_elements_of_every_kind_are_written', {
        'kind': 'RecordBatch'
    }),
    ('test_batches_are_filled_up_to_the_bytes', {
        'kind': 'RecordBatch'
    }),
    ('test_requests_are_in_flight_together_up_to_the_limit', {}),
    ('test_all_bundles_of_a_process_share_the_limit', {}),
    ('test_a_fault_that_passes_costs_nothing', {
        'fault': 'throttled'
    }),
    ('test_a_fault_that_passes_costs_nothing', {
        'fault': 'timeout'
    }),
    ('test_a_fault_that_passes_costs_nothing', {
        'fault': 'connection reset'
    }),
    ('test_a_fault_that_passes_costs_nothing', {
        'fault': 'truncated answer'
    }),
    ('test_the_wait_that_the_service_asks_for_is_kept', {}),
    ('test_throttled_requests_are_fewer_at_a_time', {}),
    ('test_only_what_failed_of_a_request_is_tried_again', {}),
    ('test_poison_is_isolated_and_its_neighbours_are_written', {}),
    ('test_a_missing_permission_stops_at_once_and_says_so', {
        'status': 403
    }),
    ('test_an_outage_fails_the_bundle_and_dead_letters_nothing', {}),
    ('test_no_connection_outlives_the_pipeline', {}),
    ('test_many_bundles_at_a_time', {}),
    ('test_worker_processes_write_the_same', {}),
    ('test_metrics_equal_the_log_of_the_service', {}),
    ('test_no_secret_is_in_errors_and_logs', {}),
]


@pytest.mark.parametrize(
    'case, arguments',
    _BLOCKING,
    ids=lambda value: value
    if isinstance(value, str) else '-'.join(value.values())
    if all(isinstance(each, str) for each in value.values()) else '')
def test_a_client_that_blocks_passes(store, request, case, arguments):
  run = getattr(BlockingSuite(), case)
  names = set(inspect.signature(run).parameters) - {'emulator', *arguments}
  fixtures = {name: request.getfixturevalue(name) for name in names}
  run(emulator=store, **arguments, **fixtures)


# ------------------------------------------------- failures of single records


@pytest.fixture(params=[FeatureSuite, BlockingSuite], ids=['awaits', 'blocks'])
def suite(request):
  return request.param()


def _with(suite, keys, event_time):
  return [{**suite.make_element(key), 'event_time': event_time} for key in keys]


@pytest.mark.parametrize('block', [False, True], ids=['', 'block'])
def test_a_record_that_failed_alone_is_refused_without_a_second_request(
    suite, store, tmp_path, block):
  good, never = suite.keys(60), suite.keys(3, prefix='never')
  elements = _with(suite, good, 'now')
  for i, element in enumerate(_with(suite, never, 'never')):
    elements.insert(20 * i + 7, element)
  if block:
    elements = [suite.make_block(elements)]
  outcome = suite.write(store, elements, tmp_path)
  assert suite.keys_of(o.value for o in outcome.written) == good
  assert sorted(suite.stored(store)) == good
  failed = [output.value for output in outcome.failed]
  assert sorted(each.key for each in failed) == never
  for each in failed:
    assert (each.stage, each.attempts) == ('send', 1)
    assert each.error_type == 'ValidationException'
    assert 'ValidationException of this record' in each.message
  # Those of one bundle may overtake one another.
  assert sorted(e.records for e in suite.requests(store)) == [13, 25, 25]


@pytest.mark.parametrize('event_time', ['busy', 'broken'])
def test_a_record_that_may_yet_succeed_is_tried_again_alone(
    suite, store, tmp_path, event_time):
  good, later = suite.keys(20), suite.keys(3, prefix='later')
  elements = _with(suite, good, 'now')
  for i, element in enumerate(_with(suite, later, event_time)):
    elements.insert(6 * i + 1, element)
  outcome = suite.write(store, elements, tmp_path)
  assert suite.keys_of(o.value for o in outcome.written) == sorted(good + later)
  assert outcome.failed == []
  assert [e.records for e in suite.requests(store)] == [23, 3]
  counters = outcome.counters('WriteFeatures')
  assert counters['records_retried'] == 3


def test_all_ways_to_fail_at_once_leave_each_record_accounted_for(
    suite, store, tmp_path):
  store.faults([
      suite.fault('partial', share=0.1, probability=0.2),
      suite.fault('throttle', probability=0.1),
      suite.fault('error', status=500, probability=0.1),
      suite.fault('reset', probability=0.05, after_effect=True),
      suite.poison(),
  ])
  good = suite.keys(600)
  late = suite.keys(20, prefix='late')
  never = suite.keys(8, prefix='never')
  poison = suite.keys(3, prefix='poison')
  elements = (
      _with(suite, good, 'now') + _with(suite, late, 'busy') +
      _with(suite, never, 'never') + _with(suite, poison, 'now'))
  # Spread by a number that has nothing to do with their order.
  elements.sort(key=lambda element: zlib.crc32(element['id'].encode()))
  outcome = suite.write(store, elements, tmp_path)
  assert suite.keys_of(o.value for o in outcome.written) == sorted(good + late)
  assert sorted(o.value.key for o in outcome.failed) == sorted(never + poison)
  assert sorted(suite.stored(store)) == sorted(good + late)


def test_a_key_that_comes_twice_is_never_twice_in_a_request(
    suite, store, tmp_path):
  elements = _with(suite, 3 * suite.keys(5), 'now')
  outcome = suite.write(store, elements, tmp_path)
  assert len(outcome.written) == 15
  assert [entry.records for entry in suite.requests(store)] == [5, 5, 5]
