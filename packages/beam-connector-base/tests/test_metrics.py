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

import pickle
import uuid

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.transforms.window import IntervalWindow

from beam_connector_base.metrics import BundleLedger
from beam_connector_base.metrics import DeliveryMetrics
from beam_connector_base.metrics import LedgerRow
from beam_connector_base.reports import Attempt
from beam_connector_base.reports import Report


@pytest.fixture
def namespace():
  # The fractions of seconds are kept per process and namespace.
  return f'WriteTo{uuid.uuid4().hex}'


class Record(beam.DoFn):
  def __init__(self, namespace):
    self._metrics = DeliveryMetrics(namespace)

  def process(self, reports):
    self._metrics.record(reports)


def counted(namespace, *reports):
  p = beam.Pipeline(runner='FnApiRunner')
  # The list of reports is created on the worker: reports need no coder.
  _ = (
      p | beam.Create([pickle.dumps(report) for report in reports])
      | beam.Map(lambda dumped: [pickle.loads(dumped)])
      | beam.ParDo(Record(namespace)))
  result = p.run()
  result.wait_until_finish()
  found = result.metrics().query(MetricsFilter().with_namespace(namespace))
  return {
      m.key.metric.name: m.committed for kind in ('counters', 'distributions')
      for m in found[kind]
  }


def report(*outcomes, **fields):
  attempts = [Attempt(outcome, None, 0.25, 3, 30) for outcome in outcomes]
  return Report('d', 3, 30, 'full_bytes', attempts, **fields)


def test_every_outcome_of_a_request_has_a_class(namespace):
  seen = counted(
      namespace,
      report(
          'ok',
          'partial',
          'throttled',
          'transient',
          'timeout',
          'refused',
          'too_large',
          'fatal'))
  assert seen['requests'] == 8
  assert {
      k: v for k, v in seen.items() if k.startswith('requests_')
  } == {
      'requests_ok': 2,
      'requests_throttled': 1,
      'requests_transient': 2,
      'requests_refused': 2,
      'requests_fatal': 1,
  }
  assert seen['bytes_sent'] == 240
  assert seen['request_latency_ms'].sum == 2000


def test_batches_are_described(namespace):
  seen = counted(
      namespace,
      report('ok', connections=1, retried=2, in_flight=4),
      report('ok', in_flight=7))
  assert seen['connections_opened'] == 1
  assert seen['records_retried'] == 2
  assert (seen['in_flight'].min, seen['in_flight'].max) == (4, 7)
  assert (seen['batch_records'].count, seen['batch_bytes'].sum) == (2, 60)
  assert seen['flush_full_bytes'] == 2


def test_fractions_of_throttled_seconds_add_up_across_bundles(namespace):
  seen = counted(namespace, *[report('throttled', throttled_seconds=0.4)] * 6)
  assert seen['cumulativeThrottlingSeconds'] == 2
  seen = counted(namespace, report('throttled', throttled_seconds=0.7))
  assert seen['cumulativeThrottlingSeconds'] == 1


def test_waiting_without_being_throttled_is_not_reported_as_throttling(
    namespace):
  assert 'cumulativeThrottlingSeconds' not in counted(
      namespace, report('transient', 'ok'))


def test_metrics_can_be_pickled_after_use(namespace):
  metrics = DeliveryMetrics(namespace, ('memory', 's'))
  metrics.settled(written=1, refused=2, superseded=3, unreached=4)
  pickle.loads(pickle.dumps(metrics)).settled(
      written=1, refused=0, superseded=0, unreached=0)


def test_ledger_of_a_bundle_has_one_row_per_window_and_destination():
  first, second = IntervalWindow(0, 10), IntervalWindow(10, 20)
  ledger = BundleLedger()
  ledger.add((first, second), 'a', written=2)
  ledger.add((first,), 'a', superseded=1)
  ledger.add((first,), 'b', failed=3)
  rows = [(wv.value, wv.windows, wv.timestamp) for wv in ledger.rows()]
  assert rows == [
      (LedgerRow('a', 3, 2, 1, 0), (first,), first.max_timestamp()),
      (LedgerRow('a', 2, 2, 0, 0), (second,), second.max_timestamp()),
      (LedgerRow('b', 3, 0, 0, 3), (first,), first.max_timestamp()),
  ]
