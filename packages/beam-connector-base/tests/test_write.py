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
import collections
import dataclasses
import pickle
import threading
import time
import typing
import uuid

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.metrics.metric import Lineage
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.ml.rag.types import Chunk
from apache_beam.ml.rag.types import Content
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import TaggedOutput
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms.display import DisplayData
from apache_beam.transforms.window import GlobalWindow
from apache_beam.transforms.window import IntervalWindow
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import PaneInfo
from apache_beam.utils.windowed_value import WindowedValue

from beam_connector_base.errors import DeliveryError
from beam_connector_base.errors import LostRecordError
from beam_connector_base.failures import FailedRecord
from beam_connector_base.failures import RecordRefusedError
from beam_connector_base.metrics import LedgerRow
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import FATAL
from beam_connector_base.operation import PERMANENT
from beam_connector_base.operation import TRANSIENT
from beam_connector_base.operation import Block
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Session
from beam_connector_base.operation import throttled
from beam_connector_base.rows import as_mapping
from beam_connector_base.rows import is_block
from beam_connector_base.tuning import Tuning
from beam_connector_base.write import WriteFn
from beam_connector_base.write import WriteRecords

# ------------------------------------------------------------ a service in memory

QUICK = Tuning(backoff=0.001)


class Store:
  """What the service holds, and what it was asked."""
  def __init__(self):
    self.rows = {}
    self.requests = []  # (destination, keys, outcome)
    self.opened = 0
    self.closed = 0
    # Errors to answer with, one per request, before anything is stored.
    self.script = collections.deque()
    self.lock = threading.Lock()
    self.answering = threading.Event()
    self.answering.set()


STORES = collections.defaultdict(Store)


class Refused(Exception):
  pass


class Throttled(Exception):
  pass


class Denied(Exception):
  pass


@dataclasses.dataclass(frozen=True)
class Upsert(Operation):
  """Writes rows with an `id` for a `tenant`; refuses ids that begin with bad."""
  store: str
  max_records: int = 4
  max_bytes: int = 10_000
  versions: bool = False
  forgets: bool = False

  async def open(self):
    STORES[self.store].opened += 1
    return UpsertSession(self)

  def classify(self, error):
    if isinstance(error, Refused):
      return dataclasses.replace(PERMANENT, status=400)
    if isinstance(error, Throttled):
      return throttled()
    if isinstance(error, Denied):
      return FATAL
    return TRANSIENT

  @property
  def target(self):
    return f'memory:{self.store}'


class UpsertSession(Session):
  def __init__(self, operation):
    self._operation = operation
    self._store = STORES[operation.store]
    self.limits = Limits(
        max_records=operation.max_records,
        max_bytes=operation.max_bytes,
        keys='newest' if operation.versions else 'unique')

  def encode(self, element):
    if self._operation.forgets:
      return
    rows = element.to_pylist() if is_block(element) else [as_mapping(element)]
    by_tenant = collections.defaultdict(list)
    for i, row in enumerate(rows):
      if not row.get('id'):
        yield Invalid(i, 'it has no id', error_type='NoId')
      else:
        by_tenant[str(row.get('tenant', ''))].append((i, row))
    for tenant, numbered in by_tenant.items():
      offsets = [0]
      for _, row in numbered:
        offsets.append(offsets[-1] + len(str(row.get('text', ''))) + 1)
      yield Block(
          tenant,
          tuple(row for _, row in numbered),
          offsets,
          keys=tuple(row['id'] for _, row in numbered),
          versions=tuple(row.get('version', 0) for _, row in numbered)
          if self._operation.versions else None,
          row_ids=tuple(i for i, _ in numbered))

  async def send(self, batch):
    store = self._store
    keys = tuple(batch.keys())
    with store.lock:
      error = store.script.popleft() if store.script else None
      if error is None and any(key.startswith('bad') for key in keys):
        error = Refused('bad is not allowed')
      store.requests.append((batch.destination, keys, type(error).__name__))
      if error is None:
        for row in batch.rows():
          store.rows[batch.destination, row['id']] = row
    while not store.answering.is_set():
      await asyncio.sleep(0.001)
    if error is not None:
      raise error
    return ALL_OK

  async def close(self):
    self._store.closed += 1


@pytest.fixture
def name():
  return f'store-{uuid.uuid4().hex}'


@pytest.fixture
def store(name):
  return STORES[name]


def pipeline(**options):
  return beam.Pipeline(runner='FnApiRunner', options=PipelineOptions(**options))


def write(name, on_error='collect', tuning=QUICK, **operation):
  return WriteRecords(
      Upsert(name, **operation),
      on_error=on_error,
      tuning=tuning,
      namespace='WriteToMemory',
      lineage=('memory', name))


def dicts(*ids, **fields):
  return [{'id': i, **fields} for i in ids]


def ids(n, prefix='r'):
  return [f'{prefix}{i}' for i in range(n)]


def wait_until(condition):
  deadline = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < deadline, 'waited in vain'
    time.sleep(0.001)


# ------------------------------------------------------------------ what is written


class Named(typing.NamedTuple):
  id: str


@dataclasses.dataclass
class Data:
  id: str


ELEMENTS = [
    {
        'id': 'dict'
    },
    beam.Row(id='row'),
    Named('named'),
    Data('data'),
    Chunk(content=Content(text='t'), id='chunk'),
]


def test_elements_of_all_kinds_are_written_and_come_out_unchanged(name, store):
  with pipeline() as p:
    result = p | beam.Create(ELEMENTS) | write(name, 'fail')
    assert_that(result.written, equal_to(ELEMENTS))
  assert {key for _, key in store.rows
         } == {'dict', 'row', 'named', 'data', 'chunk'}


@pytest.mark.parametrize('repeat', [0, 2])
def test_repeated_bundles_leave_the_same_rows_and_outputs(name, store, repeat):
  with pipeline(direct_runner_bundle_repeat=repeat) as p:
    result = (
        p | beam.Create(dicts(*ids(50), 'bad1', '', tenant='t')) | write(name))
    assert_that(result.written, equal_to(dicts(*ids(50), tenant='t')))
    assert_that(
        result.failed | beam.Map(lambda f: (f.key, f.stage)),
        equal_to([('bad1', 'send'), ('', 'encode')]),
        label='failed')
    assert_that(
        result.ledger,
        equal_to([LedgerRow('t', 51, 50, 0, 1), LedgerRow('', 1, 0, 0, 1)]),
        label='ledger')
  assert len(store.rows) == 50


def test_bundle_that_is_retried_leaves_the_same_rows_and_outputs(name, store):
  # An error nobody else would retry: the first attempt fails as a whole.
  store.script.append(Denied('for the moment'))
  with beam.Pipeline(runner='BundleBasedDirectRunner') as p:
    result = p | beam.Create(dicts(*ids(20))) | write(name, 'fail')
    assert_that(result.written, equal_to(dicts(*ids(20))))
  assert [request for request in store.requests if request[2] == 'Denied']
  assert len(store.rows) == 20


def test_output_types_are_the_inputs_own(name):
  p = pipeline()
  for element_type in (Named, pa.RecordBatch):
    result = (
        p | f'Create {element_type}' >> beam.Create(
            []).with_output_types(element_type)
        | f'Write {element_type}' >> write(name))
    assert result.written.element_type is element_type
    assert result.failed.element_type is FailedRecord
    assert result.ledger.element_type is LedgerRow


# --------------------------------------------------------------------------- blocks


def block(*keys, **fields):
  return pa.record_batch({
      'id': list(keys), **{
          k: [v] * len(keys) for k, v in fields.items()
      }
  })


def test_block_comes_out_once_without_its_refused_rows(name, store):
  blocks = [block('a', 'bad1', None, 'b'), block(*ids(9)), block('bad2')]
  with pipeline() as p:
    result = (
        p | beam.Create(blocks).with_output_types(pa.RecordBatch) | write(name))
    assert_that(
        result.written | beam.Map(lambda b: b.column(0).to_pylist()),
        equal_to([['a', 'b'], ids(9)]))
    assert_that(
        result.failed | beam.Map(lambda f: (f.element.to_pylist(), f.key)),
        equal_to([
            ([{
                'id': 'bad1'
            }], 'bad1'),
            ([{
                'id': None
            }], ''),
            ([{
                'id': 'bad2'
            }], 'bad2'),
        ]),
        label='failed')
    assert_that(
        result.ledger, equal_to([LedgerRow('', 14, 11, 0, 3)]), label='ledger')
  assert {key for _, key in store.rows} == {'a', 'b', *ids(9)}


def test_empty_block_is_no_error_and_no_output(name, store):
  with pipeline() as p:
    result = (
        p | beam.Create([block('a').slice(0, 0)]).with_output_types(
            pa.RecordBatch) | write(name, 'fail'))
    assert_that(result.written, equal_to([]))
  assert store.requests == []


def test_rows_of_a_block_are_accounted_for_by_destination(name):
  tenants = pa.record_batch({
      'id': ['a', 'b', 'bad', None], 'tenant': ['x', 'y', 'y', 'x']
  })
  with pipeline() as p:
    result = (
        p | beam.Create([tenants]).with_output_types(pa.RecordBatch)
        | write(name))
    _ = result.failed | beam.Map(str)
    assert_that(
        result.ledger,
        equal_to([
            LedgerRow('x', 1, 1, 0, 0),
            LedgerRow('y', 2, 1, 0, 1),
            LedgerRow('', 1, 0, 0, 1),
        ]))


# ------------------------------------------------------------------------- on_error


def test_refused_record_stops_the_bundle_with_its_key_and_the_remedy(name):
  with pytest.raises(
      RuntimeError,
      match=("WriteToMemory: memory:store-.*record 'bad1' for 't' was refused "
             r"\[400\]: .*bad is not allowed.*on_error='collect'")):
    with pipeline() as p:
      _ = p | beam.Create(dicts('a', 'bad1', tenant='t')) | write(name, 'fail')


def test_record_that_is_never_sent_stops_the_bundle_too(name):
  with pytest.raises(RuntimeError, match='a record was refused: NoId: it has'):
    with pipeline() as p:
      _ = p | beam.Create(dicts('')) | write(name, 'fail')


def test_too_large_a_record_is_a_failed_record(name, store):
  with pipeline() as p:
    result = (p | beam.Create(dicts('large', text='x' * 20_000)) | write(name))
    assert_that(
        result.failed | beam.Map(lambda f: (f.key, f.stage, f.attempts)),
        equal_to([('large', 'encode', 0)]))
    assert_that(
        result.ledger, equal_to([LedgerRow('', 1, 0, 0, 1)]), label='ledger')
  assert store.requests == []


def test_unread_failures_are_refused_before_anything_runs(name, store):
  with pytest.raises(RuntimeError, match=r'WriteToMemory.*nothing reads'):
    with pipeline() as p:
      _ = p | beam.Create(dicts('a')) | write(name)
  assert store.opened == 0


def test_error_handler_is_given_the_failures(name):
  with pipeline() as p:
    records = p | beam.Create(dicts('a', 'bad1'))
    keys = beam.Map(lambda f: f.key)
    with beam.transforms.error_handling.ErrorHandler(keys) as handler:
      result = records | write(name, handler)
    assert_that(result.written, equal_to(dicts('a')))
    assert_that(handler.output(), equal_to(['bad1']), label='handled')


@pytest.mark.parametrize(
    'wrong, error',
    [
        ({
            'on_error': 'ignore'
        }, ValueError),
        ({
            'on_error': None
        }, TypeError),
        ({
            'tuning': {
                'max_records': 1
            }
        }, TypeError),
        ({
            'tuning': Tuning(on_outage='collect'), 'on_error': 'fail'
        },
         ValueError),
    ])
def test_wrong_arguments_are_refused_at_construction(name, wrong, error):
  with pytest.raises(error, match='on_error|tuning must'):
    write(name, **wrong)


def test_what_is_no_operation_is_refused_at_construction():
  with pytest.raises(TypeError, match='Operation, not str'):
    WriteRecords('index', namespace='x')


def test_service_that_denies_access_fails_the_pipeline_and_no_record(
    name, store):
  store.script.extend([Denied('no permission')] * 10)
  with pytest.raises(Exception, match='no permission'):
    with pipeline() as p:
      result = p | beam.Create(dicts('a')) | write(name)
      _ = result.failed | beam.Map(str)
  assert store.rows == {}


def test_outage_can_be_collected(name, store):
  store.script.extend([ConnectionError('down')] * 1000)
  tuning = Tuning(on_outage='collect', deadline=0.01, backoff=0.001)
  with pipeline() as p:
    result = p | beam.Create(dicts('a')) | write(name, tuning=tuning)
    assert_that(result.written, equal_to([]))
    assert_that(
        result.failed | beam.Map(lambda f: (f.stage, f.element['id'])),
        equal_to([('outage', 'a')]),
        label='failed')
    assert_that(
        result.ledger, equal_to([LedgerRow('', 1, 0, 0, 1)]), label='ledger')


# --------------------------------------------------------- failed records, replayed


def mend(failed):
  element = failed.element
  if isinstance(element, pa.RecordBatch):
    return pa.record_batch({'id': ['good-block']})
  if isinstance(element, dict):
    return {**element, 'id': 'good-dict'}
  if isinstance(element, beam.Row):
    return beam.Row(id='good-row')
  element = dataclasses.replace(element, id='good-chunk')
  return element


def test_failed_records_survive_a_shuffle_and_can_be_replayed(name, store):
  bad = [
      {
          'id': 'bad-dict'
      },
      beam.Row(id='bad-row'),
      Chunk(content=Content(text='t'), id='bad-chunk'),
      block('a', 'bad-block'),
  ]
  with pipeline() as p:
    result = p | beam.Create(bad) | 'First' >> write(name)
    again = (
        result.failed | beam.Reshuffle() | beam.Map(mend)
        | 'Second' >> write(name, 'fail'))
    assert_that(again.written | beam.combiners.Count.Globally(), equal_to([4]))
  assert {key for _, key in store.rows
         } == {'a', 'good-dict', 'good-row', 'good-chunk', 'good-block'}


def test_failed_records_survive_the_way_between_worker_processes():
  # Worker processes can't import this module: what is local goes by value.
  class RefuseAllSession(Session):
    limits = Limits()

    def encode(self, element):
      rows = element.num_rows if isinstance(element, pa.RecordBatch) else 1
      return [Invalid(i, 'never', error_type='Never') for i in range(rows)]

  class RefuseAll(Operation):
    target = 'nowhere'

    async def open(self):
      return RefuseAllSession()

    def classify(self, error):
      return FATAL

  def kind(failed):
    return type(failed.element).__name__, failed.error_type, failed.http_status

  elements = [{'n': 1}, beam.Row(n=2), block('a', 'b')]
  with pipeline(direct_running_mode='multi_processing',
                direct_num_workers=2) as p:
    result = (
        p | beam.Create(elements)
        | WriteRecords(RefuseAll(), on_error='collect', namespace='Refuse'))
    assert_that(
        result.failed | beam.Reshuffle() | beam.Map(kind),
        equal_to([('dict', 'Never', None), ('Row', 'Never', None),
                  ('RecordBatch', 'Never', None),
                  ('RecordBatch', 'Never', None)]))


def test_failed_record_says_what_and_why(name):
  at = Timestamp(1234.5)
  with pipeline() as p:
    result = (
        p | beam.Create(dicts('bad1', tenant='t'))
        | beam.Map(lambda d: TimestampedValue(d, at)) | write(name))
    assert_that(
        result.failed,
        equal_to([
            FailedRecord({
                'id': 'bad1', 'tenant': 't'
            },
                         't',
                         'bad1',
                         'send',
                         'permanent',
                         'Refused: bad is not allowed',
                         400,
                         1,
                         at)
        ]))


# ---------------------------------------------------- windows, timestamps and panes


class WhereItIs(beam.DoFn):
  def process(self, element, wv=beam.DoFn.WindowedValueParam):
    key = element.key if isinstance(element, FailedRecord) else element['id']
    yield key, float(wv.timestamp), tuple(wv.windows)


def at(second, key):
  return TimestampedValue({'id': key}, second)


@pytest.mark.parametrize('max_records', [1, 1000])
def test_outputs_keep_their_own_window_and_timestamp(name, max_records):
  n = 60
  inputs = [at(i, f'bad{i}' if i % 20 == 7 else f'r{i}') for i in range(n)]
  expected = [(
      v.value['id'],
      float(i), (IntervalWindow(i // 10 * 10, i // 10 * 10 + 10),))
              for i, v in enumerate(inputs)]
  with pipeline() as p:
    result = (
        p | beam.Create(inputs) | beam.Map(lambda v: v)
        | beam.WindowInto(beam.window.FixedWindows(10))
        | write(name, max_records=max_records))
    assert_that(
        result.written | beam.ParDo(WhereItIs()),
        equal_to([e for e in expected if e[0][0] == 'r']))
    assert_that(
        result.failed | 'F' >> beam.ParDo(WhereItIs()),
        equal_to([e for e in expected if e[0][0] == 'b']),
        label='failed')
    assert_that(
        result.ledger
        | beam.Map(lambda row, w=beam.DoFn.WindowParam: (float(w.start), row)),
        equal_to([(i * 10.0, LedgerRow('', 10, 9, 0, 1)) if i % 2 == 0 else
                  (i * 10.0, LedgerRow('', 10, 10, 0, 0)) for i in range(6)]),
        label='ledger')


def test_element_in_several_windows_reaches_each_of_them_once(name):
  # With one record per request some settle while others are processed.
  n = 200
  with pipeline() as p:
    result = (
        p | beam.Create([at(100, 'bad'), *(at(100, f'r{i}') for i in range(n))])
        | beam.Map(lambda v: v)
        | beam.WindowInto(beam.window.SlidingWindows(20, 5))
        | write(name, max_records=1))
    assert_that(
        result.written | beam.Map(lambda e: (e['id'], 1))
        | beam.CombinePerKey(sum)
        | beam.Map(lambda kv, w=beam.DoFn.WindowParam: (float(w.start), kv)),
        equal_to([(start, (f'r{i}', 1))
                  for i in range(n)
                  for start in (85.0, 90.0, 95.0, 100.0)]))
    assert_that(
        result.failed
        | 'W' >> beam.Map(lambda f, w=beam.DoFn.WindowParam: float(w.start)),
        equal_to([85.0, 90.0, 95.0, 100.0]),
        label='failed')
    assert_that(
        result.ledger, equal_to([LedgerRow('', n + 1, n, 0, 1)] * 4), label='l')


PANE = PaneInfo(True, False, 0, 3, -1)


def by_hand(name, **kwargs):
  fn = WriteFn(Upsert(name, **kwargs), QUICK, fail=False, name='ByHand')
  fn.setup()
  return fn


GLOBAL = (GlobalWindow(),)


def value(key, windows=GLOBAL, second=1):
  return WindowedValue({'id': key}, Timestamp(second), windows, PANE)


def process(fn, wv):
  return list(fn.process(wv.value, wv))


def test_what_settles_early_is_emitted_as_itself_while_others_are_processed(
    name, store):
  fn = by_hand(name, max_records=1)
  windows = (IntervalWindow(0, 10), IntervalWindow(5, 15))
  first, second = value('bad'), value('late', windows, 7)
  store.answering.clear()
  fn.start_bundle()
  assert process(fn, first) == []
  store.answering.set()
  out = []

  def failures():
    out.extend(process(fn, second))
    return [o.value for o in out if isinstance(o, TaggedOutput)]

  wait_until(failures)
  failed = failures()[0]
  assert failed.value.element == {'id': 'bad'}
  assert (failed.timestamp, failed.pane_info) == (Timestamp(1), PANE)
  # Beam repeats the windows once for each window of the current input.
  assert len(failed.windows * len(windows)) == 1
  out += fn.finish_bundle()
  assert second in out
  fn.teardown()


# ------------------------------------------------------------- ledger and versions


def test_superseded_records_need_no_care_and_are_counted_apart(name, store):
  fn = by_hand(name, versions=True, max_records=1)
  new, old = value('a'), value('a', second=2)
  new.value['version'], old.value['version'] = 2, 1
  block_of_old = WindowedValue(
      block('a', 'b', version=1), Timestamp(3), (GlobalWindow(),), PANE)
  fn.start_bundle()
  out = process(fn, new)
  wait_until(lambda: store.rows)
  for wv in (old, block_of_old):
    out += process(fn, wv)
  out += fn.finish_bundle()
  fn.teardown()
  written = [o for o in out if not isinstance(o, TaggedOutput)]
  # Neither the record nor its row of the block is missing in `.written`.
  assert new in written and old in written and block_of_old in written
  assert [o.value.value for o in out if isinstance(o, TaggedOutput)
         ] == [LedgerRow('', 4, 2, 2, 0)]
  assert store.rows['', 'a']['version'] == 2


# -------------------------------------------------------------------------- metrics


def counters(result, namespace='WriteToMemory'):
  found = result.metrics().query(MetricsFilter().with_namespace(namespace))
  values = {m.key.metric.name: m.committed for m in found['counters']}
  values.update(
      {m.key.metric.name: m.committed for m in found['distributions']})
  return values


def test_metrics_equal_what_the_service_saw(name, store):
  store.script.extend([Throttled('slow down'), ConnectionError('reset'), None])
  p = pipeline()
  result = p | beam.Create(dicts(*ids(30), 'bad1', '',
                                 tenant='t')) | write(name)
  _ = result.failed | beam.Map(str)
  done = p.run()
  done.wait_until_finish()
  seen = counters(done)
  outcomes = collections.Counter(outcome for _, _, outcome in store.requests)
  assert seen['requests'] == len(store.requests)
  assert seen['requests_ok'] == outcomes['NoneType']
  assert seen['requests_throttled'] == 1
  assert seen['requests_transient'] == 1
  assert seen['requests_refused'] == outcomes['Refused']
  assert seen['records_written'] == len(store.rows) == 30
  assert seen['records_refused'] == 2
  assert seen['records_retried'] > 0
  assert seen['connections_opened'] == store.opened == 1
  assert seen['batch_records'].sum == 31
  assert seen['batch_records'].max == 4
  assert seen['request_latency_ms'].count == len(store.requests)
  assert seen['in_flight'].max >= 1
  assert seen['flush_full_records'] + seen['flush_finish'] == (
      seen['batch_records'].count)


def test_sink_is_named_in_the_lineage(name):
  p = pipeline()
  _ = p | beam.Create(dicts('a')) | write(name, 'fail')
  done = p.run()
  done.wait_until_finish()
  assert Lineage.query(done.metrics(), Lineage.SINK) == {f'memory:{name}'}


# ---------------------------------------------------------------- life of the DoFn


def test_nothing_is_opened_at_construction_and_all_is_closed_at_the_end(
    name, store):
  p = pipeline()
  _ = p | beam.Create(dicts('a')) | write(name, 'fail')
  assert store.opened == 0
  p.run().wait_until_finish()
  assert store.opened == 1


def test_teardown_cancels_what_is_in_flight_and_leaves_the_session(name, store):
  store.answering.clear()
  fn = by_hand(name, max_records=1)
  fn.start_bundle()
  process(fn, value('a'))
  wait_until(lambda: store.requests)
  fn.teardown()
  wait_until(lambda: store.closed == 1)


def test_bundle_left_over_by_a_failed_attempt_is_not_taken_for_the_next(
    name, store):
  store.answering.clear()
  fn = by_hand(name, max_records=1)
  fn.start_bundle()
  process(fn, value('left-over'))
  wait_until(lambda: store.requests)
  fn.start_bundle()
  store.answering.set()
  process(fn, value('next'))
  out = list(fn.finish_bundle())
  fn.teardown()
  assert 'left-over' not in str(out)
  assert LedgerRow('', 1, 1, 0, 0) in [
      o.value.value for o in out if isinstance(o, TaggedOutput)
  ]


def test_instance_can_be_used_again_after_a_bundle_failed(name, store):
  store.script.append(Denied('for the moment'))
  fn = by_hand(name)
  fn.start_bundle()
  process(fn, value('a'))
  with pytest.raises(DeliveryError):
    fn.finish_bundle()
  fn.start_bundle()
  process(fn, value('a'))
  assert value('a') in list(fn.finish_bundle())
  fn.teardown()


def test_element_that_becomes_no_row_is_an_error(name):
  with pytest.raises(LostRecordError, match='encoded as 0'):
    fn = by_hand(name, forgets=True)
    fn.start_bundle()
    process(fn, value('a'))
  with pytest.raises(LostRecordError, match='2 row.s. was encoded as 0'):
    fn.start_bundle()
    process(
        fn,
        WindowedValue(block('a', 'b'), Timestamp(0), (GlobalWindow(),), PANE))
  fn.teardown()


def test_errors_survive_pickling():
  error = RecordRefusedError('a refused record')
  assert str(pickle.loads(pickle.dumps(error))) == 'a refused record'


def test_display_data_names_target_and_settings(name):
  items = DisplayData.create_from(
      write(name, tuning=Tuning(max_records=7, deadline=1.5))).items
  assert {
      item.key: item.value for item in items
  } == {
      'target': f'memory:{name}',
      'on_error': 'collect',
      'max_records': 7,
      'deadline': 1.5,
  }
