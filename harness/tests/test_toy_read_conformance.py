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
"""The read suite passes a source that is right, and fails those that are not.
"""

import inspect
import json
import logging
import urllib.request
import zlib
from typing import ClassVar

import apache_beam as beam
import pyarrow as pa
import pytest

from beam_connector_base import EnvSecret
from beam_harness.conformance import ReadConformance
from beam_harness.conformance import toy_service
from beam_harness.conformance.toy_read import FetchFn
from beam_harness.conformance.toy_read import ListFn
from beam_harness.conformance.toy_read import ReadAllFromToy
from beam_harness.conformance.toy_read import ReadFromToy
from beam_harness.conformance.toy_read import ToyReadRequest
from beam_harness.conformance.toy_sink import WriteToToy


@pytest.fixture
def toy(emulators, monkeypatch):
  monkeypatch.setenv('TOY_KEY', toy_service.KEY)
  with emulators.lend('beam_harness.conformance.toy_service') as emulator:
    yield emulator


class ToySuite(ReadConformance):
  transform = ReadFromToy
  namespace = 'ReadFromToy'
  target = 'shel'  # 'the shelves at', 'shelf'
  list_operation = 'list'
  fetch_operation = 'ask'
  lineage = ('toy:books',)
  secret = toy_service.KEY
  secret_variable = 'TOY_KEY'
  page = toy_service.PAGE
  narrow = (('pages',), ('text',))
  idle_requests = ('describe',)
  construction = '''
      from beam_harness.conformance.toy_read import ReadFromToy
      read = ReadFromToy('http://127.0.0.1:9')
      '''
  #: What those that are broken on purpose replace.
  steps = None

  @pytest.fixture
  def emulator(self, toy):
    return toy

  def make_transform(self, emulator, *, secret_variable=None, **options):
    if 'shards' in options:
      options['shelves'] = options.pop('shards')
    return ReadFromToy(
        emulator.url,
        key=EnvSecret(secret_variable or 'TOY_KEY'),
        steps=self.steps,
        **options)

  def make_read_all(self, emulator, **options):
    return ReadAllFromToy(emulator.url, steps=self.steps, **options)

  def make_request(self, shards=None, prefix=None):
    return ToyReadRequest(shards, prefix or '')

  def store(self, emulator, shard, keys):
    emulator.seed(
        {shard: {
            key: {
                'id': key, **self.expected(key)
            } for key in keys
        }})

  def delete(self, emulator, shard, key):
    request = urllib.request.Request(
        f'{emulator.url}/shelves/{shard}/{key}',
        method='DELETE',
        headers={'authorization': f'Bearer {toy_service.KEY}'})
    assert json.load(urllib.request.urlopen(request, timeout=10)) == {}

  def expected(self, key):
    pages = zlib.crc32(key.encode()) % 1000 / 4
    return {'pages': pages, 'text': f'text of {key}'}

  def record_of(self, row):
    return row['shelf'], row['id'], {name: row[name] for name in _COLUMNS}

  def make_sink(self, emulator):
    emulator.seed({'copies': {}})
    return WriteToToy(emulator.url, 'copies')

  def copied(self, emulator):
    return {
        key: {
            name: record[name] for name in _COLUMNS
        } for key, record in emulator.snapshot()['copies'].items()
    }


_COLUMNS = ('pages', 'text')


class TestReadFromToyConformance(ToySuite):
  """The source as it is passes every case."""


# ---------------------------------------------------------- broken on purpose


class BrokenSuite(ToySuite):
  """Gives up sooner, so that what hangs on does not take long."""
  @staticmethod
  def tuning(**changes):
    patience = {'deadline': 1.0, 'open_deadline': 1.0, 'attempt_timeout': 1.0}
    return ReadConformance.tuning(**{**patience, **changes})


class _LosesThePageAfterAFullOne(ListFn):
  def process(self, element):
    for i, page in enumerate(super().process(element)):
      if i != 1:
        yield page


class _StopsAtTheFirstPage(ListFn):
  def page(self, shelf, prefix, after):
    page = super().page(shelf, prefix, after)
    page.pop('after', None)
    return page


class _GoesOnAfterTheLastPage(ListFn):
  def page(self, shelf, prefix, after):
    page = super().page(shelf, prefix, after)
    if len(page['ids']) == toy_service.PAGE:
      page['after'] = page['ids'][-1]
    return page


class _BeginsAnewAfterAFault(ListFn):
  """Emits what it has once more."""
  def process(self, element):
    pages = []
    try:
      for page in super().process(element):
        pages.append(page)
        yield page
    except Exception:
      yield from pages
      yield from super().process(element)


class _TakesWhatItHasForAll(ListFn):
  def page(self, shelf, prefix, after):
    try:
      return super().page(shelf, prefix, after)
    except Exception:
      return {'ids': []}


class _ForgetsThePrefix(ListFn):
  def page(self, shelf, prefix, after):
    return super().page(shelf, '', after)


class _ListsAgainAndAgain(ListFn):
  def page(self, shelf, prefix, after):
    super().page(shelf, prefix, '')
    return super().page(shelf, prefix, after)


class _RemembersWhatItListed(ListFn):
  """Across bundles: what runs again is taken for read."""
  _seen: ClassVar[set] = set()

  def process(self, element):
    for shelf, ids in super().process(element):
      new = [each for each in ids if (self._reading, each) not in self._seen]
      self._seen.update((self._reading, each) for each in new)
      yield shelf, new


class _InventsWhatIsGone(FetchFn):
  def process(self, element):
    shelf, ids = element
    found = list(super().process(element))
    yield from found
    if not self._reading.as_blocks:
      for key in set(ids) - {row['id'] for row in found}:
        yield {'id': key, 'shelf': shelf, 'pages': None, 'text': None}


class _FetchesFromTheWrongShelf(FetchFn):
  def process(self, element):
    for row in super().process(element):
      yield {**row, 'shelf': 's0'}


class _MixesUpRecords(FetchFn):
  def ask(self, operation, elements):
    return super().ask(operation, elements)[::-1]


class _LosesTheLastRowOfABlock(FetchFn):
  def block(self, rows):
    return super().block(rows[:-1] or rows)


class _GuessesTheSchemaOfEachBlock(FetchFn):
  def block(self, rows):
    block = pa.RecordBatch.from_pylist(rows)
    if rows[0]['shelf'] == 's1':
      block = block.select(['shelf', 'id', 'pages', 'text'])
    return block


class _ForgetsTheWindow(FetchFn):
  def process(self, element):
    for row in super().process(element):
      yield beam.transforms.window.TimestampedValue(row, 0)


class _CountsNothing(FetchFn):
  def ask(self, operation, elements):
    self._metrics.record = lambda reports: None
    return super().ask(operation, elements)


class _LogsItsCredential(FetchFn):
  def ask(self, operation, elements):
    logging.getLogger('beam_connector_base.toy').info('%s', toy_service.KEY)
    return super().ask(operation, elements)


class _LeavesConnectionsOpen(FetchFn):
  _kept: ClassVar[list] = []

  def ask(self, operation, elements):
    request = urllib.request.Request(
        f'{self._reading.url}/shelves',
        headers={'authorization': f'Bearer {toy_service.KEY}'})
    connection = urllib.request.http.client.HTTPConnection(
        self._reading.url.partition('//')[2])
    connection.request('GET', request.selector, headers=request.headers)
    self._kept.append((connection, connection.getresponse()))
    return super().ask(operation, elements)


def _suite(broken):
  class Suite(BrokenSuite):
    steps = (broken,
             FetchFn) if issubclass(broken, ListFn) else (ListFn, broken)

  return Suite()


_ROWS = {'as_blocks': False}
_BLOCKS = {'as_blocks': True}
_CAUGHT = [
    (
        _LosesThePageAfterAFullOne,
        'test_many_pages_of_many_shards_are_read',
        _ROWS),
    (
        _LosesThePageAfterAFullOne,
        'test_many_pages_of_many_shards_are_read',
        _BLOCKS),
    (
        _LosesThePageAfterAFullOne,
        'test_what_is_read_can_be_written_as_it_is',
        _ROWS),
    (_StopsAtTheFirstPage, 'test_pages_are_read_to_the_last', {
        'beyond': 1
    }),
    (_GoesOnAfterTheLastPage, 'test_pages_are_read_to_the_last', {
        'beyond': 0
    }),
    (
        _BeginsAnewAfterAFault,
        'test_a_bundle_that_fails_in_the_middle_of_a_shard_is_read_again', {
            'step': 'list', 'as_blocks': False
        }),
    (
        _TakesWhatItHasForAll,
        'test_an_outage_fails_the_pipeline', {
            'step': 'list', 'kind': 'error'
        }),
    (
        _TakesWhatItHasForAll,
        'test_a_shard_that_is_named_and_not_there_is_named_again', {}),
    (
        _TakesWhatItHasForAll,
        'test_a_missing_permission_stops_at_once_and_says_so', {
            'step': 'list', 'status': 403
        }),
    (_ForgetsThePrefix, 'test_a_prefix_chooses_records', {}),
    (
        _ListsAgainAndAgain,
        'test_a_listing_goes_on_where_it_was_interrupted', {}),
    (_RemembersWhatItListed, 'test_repeated_bundles_give_each_record_once', {}),
    (
        _InventsWhatIsGone,
        'test_what_is_deleted_after_it_was_listed_is_left_out', {}),
    (_FetchesFromTheWrongShelf, 'test_many_shards_are_read', _ROWS),
    (_MixesUpRecords, 'test_one_shard_is_read', _ROWS),
    (_LosesTheLastRowOfABlock, 'test_one_shard_is_read', _BLOCKS),
    (_LosesTheLastRowOfABlock, 'test_rows_and_blocks_hold_the_same', {}),
    (_GuessesTheSchemaOfEachBlock, 'test_all_blocks_have_one_schema', {}),
    (
        _ForgetsTheWindow,
        'test_requests_of_a_pcollection_are_each_answered',
        _ROWS),
    (_ForgetsTheWindow, 'test_records_are_in_the_global_window', {}),
    (_CountsNothing, 'test_metrics_equal_the_log_of_the_service', _ROWS),
    (_LogsItsCredential, 'test_no_secret_is_in_errors_and_logs', {}),
    (_LeavesConnectionsOpen, 'test_no_connection_outlives_the_pipeline', {}),
]


@pytest.mark.parametrize(
    'broken, case, arguments',
    _CAUGHT,
    ids=lambda value: getattr(
        value, '__name__', value if isinstance(value, str) else ''))
def test_the_suite_fails_a_source_that(toy, request, broken, case, arguments):
  run = getattr(_suite(broken), case)
  names = set(inspect.signature(run).parameters) - {'emulator', *arguments}
  fixtures = {name: request.getfixturevalue(name) for name in names}
  # Only what the case itself asserts: not an accident in the broken source.
  with pytest.raises((AssertionError, pytest.fail.Exception)):
    run(emulator=toy, **arguments, **fixtures)
