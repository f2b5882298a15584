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
"""Lookup cases: the metrics say what the emulator saw."""

from __future__ import annotations

from apache_beam.metrics.metric import Lineage

from beam_connector_base.cache import Cache
from beam_harness.conformance.lookup_hooks import LookupHooks

__all__ = ['MetricCases']


class MetricCases(LookupHooks):
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
    keys, poison = self.keys(45), self.keys(2, prefix='poison')
    missing = self.keys(3, prefix='missing') if self.answers_nothing else []
    self.store(emulator, keys)
    asked = keys[:20] + poison + missing + keys[20:]
    # Before anything is answered: they wait for the others' requests.
    again = keys[:4]
    questions = self.questions(again + asked)
    questions.insert(9, self.bad_question())
    outcome = self.look_up(
        emulator,
        questions,
        tmp_path,
        tuning=self.tuning(max_records=10, in_flight=1))
    self.check_joined(self.rows_of(outcome.joined), keys + again, missing)
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

    assert counters['records_found'] == len(keys + again)
    assert counters.get('records_missing', 0) == len(missing)
    assert counters['records_refused'] == len(poison) + 1
    saved = counters.get('requests_saved', 0)
    assert saved <= len(again)
    answered = sum(entry.records for entry in log if entry.ok)
    assert answered == len(keys + again + missing) - saved
    assert counters['records_retried'] == sum(
        entry.records
        for entry in log
        if not entry.ok and entry.fault != 'poison')
    for name in ('cache_hits', 'cache_misses', 'records_written'):
      assert counters.get(name, 0) == 0

    asked_once = len(again + asked) - saved
    assert distributions['batch_records'].sum == asked_once
    assert distributions['batch_records'].max == self.per_request(10)
    assert sum(
        value for name, value in counters.items()
        if name.startswith('flush_')) == distributions['batch_records'].count
    assert distributions['request_latency_ms'].count == len(log)
    assert distributions['in_flight'].max == emulator.max_in_flight(
        self.ask_operation) == 1

    # Whole seconds; the rest of one may be left from, or for, somebody else.
    # Never more than a clock shows, however many requests wait for one gate.
    elapsed = self.ended(log[-1]) - log[0].started
    assert 1 <= counters['cumulativeThrottlingSeconds'] <= elapsed + 1
    assert counters['connections_opened'] == 1

  def test_hits_and_misses_of_the_cache_are_counted(self, emulator, tmp_path):
    keys = self.keys(12)
    missing = self.keys(3, prefix='missing') if self.answers_nothing else []
    self.store(emulator, keys)
    outcome = self.look_up(
        emulator,
        self.questions(4 * (keys + missing)),
        tmp_path,
        cache=Cache(ttl=600),
        tuning=self.tuning(max_records=5))
    self.check(outcome, 4 * keys, 4 * missing)
    counters = outcome.counters(self.namespace)
    rows = 4 * len(keys + missing)
    hits = counters.get('cache_hits', 0)
    assert hits + counters['cache_misses'] == rows
    saved = counters.get('requests_saved', 0)
    assert rows - hits - saved == self.asked(emulator) == len(keys + missing)
    assert counters['records_found'] == 4 * len(keys)
    assert counters.get('records_missing', 0) == 4 * len(missing)

  def test_the_source_is_in_the_lineage(self, emulator, tmp_path):
    keys = self.keys(3)
    self.store(emulator, keys)
    outcome = self.look_up(emulator, self.questions(keys), tmp_path)
    metrics = outcome.result.metrics()
    assert Lineage.query(metrics, Lineage.SOURCE) == set(self.lineage)
    assert Lineage.query(metrics, Lineage.SINK) == set()

  def test_no_trouble_counts_no_trouble(self, emulator, tmp_path):
    keys = self.keys(32)
    self.store(emulator, keys)
    outcome = self.look_up(
        emulator,
        self.questions(keys, 'RecordBatch'),
        tmp_path,
        tuning=self.tuning(max_records=8))
    self.check(outcome, keys)
    log = self.requests(emulator)
    counters = outcome.counters(self.namespace)
    assert counters['requests'] == counters['requests_ok'] == len(log)
    assert len(log) == len(keys) // self.per_request(8)
    assert counters['bytes_sent'] == sum(entry.nbytes for entry in log)
    assert counters['records_found'] == len(keys)
    trouble = (
        'requests_throttled',
        'requests_transient',
        'requests_refused',
        'requests_fatal',
        'requests_saved',
        'records_missing',
        'records_refused',
        'records_retried',
        'cumulativeThrottlingSeconds')
    assert not {name: counters[name] for name in trouble if counters.get(name)}
