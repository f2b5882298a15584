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
"""Sink cases: the metrics say what the emulator saw."""

from __future__ import annotations

from apache_beam.metrics.metric import Lineage

from beam_harness.conformance.sink_hooks import SinkHooks

__all__ = ['MetricCases']


class MetricCases(SinkHooks):
  """Counters are compared with the emulator's own log, not with themselves."""
  def test_metrics_equal_the_log_of_the_service(self, emulator, tmp_path):
    # One request at a time: which request meets which fault is known.
    emulator.faults([
        self.fault('throttle', retry_after=1.5, count=1),
        self.fault('error', status=503, skip=2, count=2),
        # No fault of the connection: an attempt on one that is going away
        # fails without ever reaching the service's log.
        self.fault('error', status=500, skip=5, count=1),
        self.poison(),
    ])
    keys = self.keys(45)
    poison = self.keys(2, prefix='poison')
    elements = self.elements(keys[:20] + poison + keys[20:])
    elements.insert(9, self.bad_element('bad'))
    outcome = self.write(
        emulator,
        elements,
        tmp_path,
        tuning=self.tuning(max_records=10, in_flight=1))
    self.check(emulator, outcome, keys, poison + ['bad'])
    log = self.requests(emulator)
    counters = outcome.counters(self.namespace)
    distributions = outcome.distributions(self.namespace)

    assert counters['requests'] == len(log)
    assert counters['requests_ok'] == sum(entry.ok for entry in log)
    assert counters['requests_throttled'] == 1
    assert counters['requests_transient'] == 3
    assert counters['requests_refused'] == sum(
        entry.fault == 'poison' for entry in log)
    assert counters.get('requests_fatal', 0) == 0
    assert counters['bytes_sent'] == sum(entry.nbytes for entry in log)

    assert counters['records_written'] == len(keys)
    assert counters['records_written'] == sum(
        entry.records for entry in log if entry.ok)
    assert counters['records_refused'] == len(poison) + 1
    assert counters.get('records_superseded', 0) == 0
    assert counters['records_retried'] == sum(
        entry.records
        for entry in log
        if not entry.ok and entry.fault != 'poison')

    batches = -(-(len(keys) + len(poison)) // 10)
    assert distributions['batch_records'].count == batches
    assert distributions['batch_records'].sum == len(keys) + len(poison)
    assert distributions['batch_records'].max == 10
    assert sum(
        value for name, value in counters.items()
        if name.startswith('flush_')) == batches
    assert distributions['request_latency_ms'].count == len(log)
    assert distributions['in_flight'].max == emulator.max_in_flight(
        self.write_operation) == 1

    # Whole seconds; the rest of one may be left from, or for, somebody else.
    # Never more than a clock shows, however many batches wait for one gate.
    elapsed = self.ended(log[-1]) - log[0].started
    assert 1 <= counters['cumulativeThrottlingSeconds'] <= elapsed + 1
    assert counters['connections_opened'] == 1

  def test_the_target_is_in_the_lineage(self, emulator, tmp_path):
    outcome = self.write(emulator, self.elements(self.keys(3)), tmp_path)
    sinks = Lineage.query(outcome.result.metrics(), Lineage.SINK)
    assert sinks == set(self.lineage)

  def test_no_trouble_counts_no_trouble(self, emulator, tmp_path):
    keys = self.keys(30)
    outcome = self.write(
        emulator,
        self.elements(keys, 'RecordBatch'),
        tmp_path,
        tuning=self.tuning(max_records=8))
    self.check(emulator, outcome, keys)
    log = self.requests(emulator)
    counters = outcome.counters(self.namespace)
    assert counters['requests'] == counters['requests_ok'] == len(log) == 4
    assert counters['bytes_sent'] == sum(entry.nbytes for entry in log)
    assert counters['records_written'] == len(keys)
    trouble = (
        'requests_throttled',
        'requests_transient',
        'requests_refused',
        'requests_fatal',
        'records_refused',
        'records_superseded',
        'records_retried',
        'cumulativeThrottlingSeconds')
    assert not {name: counters[name] for name in trouble if counters.get(name)}
