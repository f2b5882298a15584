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
"""Sink cases: what a service and a network do to requests."""

from __future__ import annotations

import math

import pytest

from beam_harness.conformance.hooks import PASSING_FAULTS
from beam_harness.conformance.pipelines import Trail
from beam_harness.conformance.sink_hooks import SinkHooks

__all__ = ['FaultCases']


class FaultCases(SinkHooks):
  """Nothing is lost, nothing is written that should not be, nothing hangs."""

  # -------------------------------------------------------------- what passes

  @pytest.mark.parametrize('fault', PASSING_FAULTS)
  def test_a_fault_that_passes_costs_nothing(self, emulator, tmp_path, fault):
    rule, tuning = PASSING_FAULTS[fault]
    emulator.faults([self.fault(**rule)])
    keys = self.keys(20)
    outcome = self.write(
        emulator,
        self.elements(keys),
        tmp_path,
        tuning=self.tuning(max_records=5, **tuning))
    self.check(emulator, outcome, keys)
    entries = self.requests(emulator)
    assert emulator.fault_hits == [rule['count']]
    ok = [entry for entry in entries if entry.ok]
    assert sum(entry.records for entry in ok) == len(keys)
    failures = 0 if rule['kind'] == 'slow_body' else rule['count']
    if rule['kind'] == 'reset':
      # A reset takes along whatever else was in flight on its connection.
      assert len(ok) < len(entries) <= 4 * (1 + failures)
    else:
      assert len(entries) == 4 + failures

  def test_the_wait_that_the_service_asks_for_is_kept(self, emulator, tmp_path):
    emulator.faults([self.fault('throttle', retry_after=1, count=1)])
    keys = self.keys(5)
    outcome = self.write(emulator, self.elements(keys), tmp_path)
    self.check(emulator, outcome, keys)
    first, second = self.requests(emulator)
    assert first.fault == 'throttle' and second.ok
    assert 1.0 <= second.started - self.ended(first) < 3.0

  def test_throttled_requests_are_fewer_at_a_time(self, emulator, tmp_path):
    emulator.faults([
        self.fault('throttle', first=12),
        self.fault('latency', seconds=0.02),
    ])
    keys = self.keys(60)
    outcome = self.write(
        emulator,
        self.elements(keys),
        tmp_path,
        tuning=self.tuning(max_records=1, in_flight=8))
    self.check(emulator, outcome, keys)
    throttled = [e for e in self.requests(emulator) if e.fault == 'throttle']
    assert len(throttled) == 12
    last = max(map(self.ended, throttled))
    after = sorted((entry.started, self.ended(entry))
                   for entry in self.requests(emulator)
                   if entry.started > last)[:12]
    at_once = max(
        sum(start <= moment < end
            for start, end in after)
        for moment, _ in after)
    assert at_once < 8

  # ------------------------------------------------------------ what is refused

  def test_only_what_failed_of_a_request_is_tried_again(
      self, emulator, tmp_path):
    if not self.partial_failures:
      pytest.skip('the service answers a request as a whole')
    emulator.faults([self.fault('partial', records='[02468]$', first=1)])
    keys = self.keys(10)
    outcome = self.write(emulator, self.elements(keys), tmp_path)
    self.check(emulator, outcome, keys)
    assert [e.records for e in self.requests(emulator)] == [10, 5]

  def test_poison_is_isolated_and_its_neighbours_are_written(
      self, emulator, tmp_path):
    emulator.faults([self.poison(message='this record is no good')])
    keys = self.keys(60)
    poison = self.keys(3, prefix='poison')
    mixed = keys[:5] + poison[:2] + keys[5:44] + poison[2:] + keys[44:]
    outcome = self.write(
        emulator,
        self.elements(mixed),
        tmp_path,
        tuning=self.tuning(max_records=21))
    self.check(emulator, outcome, keys, poison)
    for failed in (output.value for output in outcome.failed):
      assert failed.stage == 'send'
      assert failed.http_status == self.refusal_status
      assert 'this record is no good' in failed.message
      assert failed.error_type
      assert failed.key in poison
      # It was found by halving: tried with others, then alone.
      assert failed.attempts > 1
    # Halving n records for one bad one takes no more than 2 log2(n) requests.
    most = 3 + len(poison) * 2 * math.ceil(math.log2(21))
    assert len(self.requests(emulator)) <= most

  def test_a_refused_record_stops_the_pipeline_unless_told_otherwise(
      self, emulator, tmp_path):
    emulator.faults([self.poison(message='this record is no good')])
    keys = self.keys(5) + ['poison']
    with pytest.raises(Exception) as caught:
      self.write(emulator, self.elements(keys), tmp_path, on_error='fail')
    message = str(caught.value)
    for part in ('poison', 'this record is no good', self.target, 'on_error'):
      assert part in message

  def test_records_refused_one_after_the_other_stop_the_pipeline(
      self, emulator, tmp_path):
    emulator.faults([self.poison(message='the table is broken')])
    # Fewer than a request holds: all are sent when the bundle ends, so that
    # nothing of it is emitted before it fails.
    keys = self.keys(40, prefix='poison')
    with pytest.raises(Exception, match='the table is broken'):
      self.write(
          emulator,
          self.elements(keys),
          tmp_path,
          tuning=self.tuning(refusals_in_a_row=8, max_records=50),
          trails=True)
    assert Trail.read(tmp_path / 'failed') == []
    assert len(self.requests(emulator)) < len(keys)

  # --------------------------------------------------------------- what is fatal

  @pytest.mark.parametrize('status', [401, 403])
  def test_a_missing_permission_stops_at_once_and_says_so(
      self, emulator, tmp_path, status):
    emulator.faults([
        self.fault(
            'error', status=status, message='the credential may not do this')
    ])
    with pytest.raises(Exception, match=self.fatal_message) as caught:
      self.write(
          emulator,
          self.elements(self.keys(100)),
          tmp_path,
          tuning=self.tuning(max_records=2, in_flight=4),
          trails=True)
    assert self.target in str(caught.value)
    # Those in flight, and as many that take their places before all is stopped.
    assert len(self.requests(emulator)) <= 8
    assert Trail.read(tmp_path / 'failed') == []
    assert Trail.read(tmp_path / 'written') == []

  def test_a_wrong_credential_is_said_before_anything_is_written(
      self, emulator, tmp_path, monkeypatch):
    monkeypatch.setenv('WRONG_CREDENTIAL', 'c0nf0rmance-wr0ng')
    with pytest.raises(Exception, match=self.fatal_message) as caught:
      self.write(
          emulator,
          self.elements(self.keys(100)),
          tmp_path,
          secret_variable='WRONG_CREDENTIAL')
    assert self.target in str(caught.value)
    assert 'c0nf0rmance-wr0ng' not in str(caught.value)
    assert self.stored(emulator) == {}

  def test_a_credential_that_is_not_there_is_named(
      self, emulator, tmp_path, monkeypatch):
    monkeypatch.delenv('MISSING_CREDENTIAL', raising=False)
    with pytest.raises(Exception, match='MISSING_CREDENTIAL'):
      self.write(
          emulator,
          self.elements(self.keys(5)),
          tmp_path,
          secret_variable='MISSING_CREDENTIAL')
    assert emulator.log() == []

  # ----------------------------------------------------------------- no service

  def test_a_service_that_is_not_there_is_named(self, emulator, tmp_path):
    nowhere = self.unreachable()
    with pytest.raises(Exception, match=nowhere.host):
      self.write(
          nowhere,
          self.elements(self.keys(5)),
          tmp_path,
          tuning=self.tuning(open_deadline=1.0, deadline=1.0))

  def test_an_outage_fails_the_bundle_and_dead_letters_nothing(
      self, emulator, tmp_path):
    emulator.faults([self.fault('error', status=503, skip=3)])
    with pytest.raises(Exception) as caught:
      self.write(
          emulator,
          self.elements(self.keys(40)),
          tmp_path,
          tuning=self.tuning(deadline=0.5, max_records=5, in_flight=1),
          trails=True)
    assert self.target in str(caught.value)
    assert Trail.read(tmp_path / 'failed') == []
    written = self.keys_of(Trail.read(tmp_path / 'written'))
    stored = self.stored(emulator)
    assert len(stored) == 15
    assert set(written) <= set(stored)

  def test_an_outage_makes_dead_letters_if_one_asks_for_it(
      self, emulator, tmp_path):
    emulator.faults([self.fault('error', status=503, skip=3)])
    keys = self.keys(40)
    outcome = self.write(
        emulator,
        self.elements(keys),
        tmp_path,
        tuning=self.tuning(
            deadline=0.3, max_records=5, in_flight=2, on_outage='collect'))
    stored = self.stored(emulator)
    assert len(stored) == 15
    self.check(emulator, outcome, stored, set(keys) - set(stored))
    assert {output.value.stage for output in outcome.failed} == {'outage'}

  # --------------------------------------------------------------- all together

  def test_ten_thousand_records_under_faults_all_arrive_or_are_refused(
      self, emulator, tmp_path):
    emulator.faults([
        self.fault('error', status=503, probability=0.06),
        self.fault('throttle', probability=0.05),
        self.fault('reset', probability=0.02),
        self.fault('reset', probability=0.03, after_effect=True),
        self.fault('truncate', probability=0.04),
        self.poison(),
    ])
    keys = self.keys(9_990)
    poison = self.keys(6, prefix='poison')
    bad = self.keys(4, prefix='bad')
    elements = self.elements(keys)
    # Spread, so that most requests hold none and some hold two.
    for i, key in enumerate(poison):
      elements.insert(1_500 * i, self.make_element(key))
    for i, key in enumerate(bad):
      elements.insert(2_000 * i + 33, self.bad_element(key))
    outcome = self.write(
        emulator, elements, tmp_path, tuning=self.tuning(max_records=50))
    self.check(emulator, outcome, keys, poison + bad)
    requests = self.requests(emulator)
    faults = sum(entry.fault not in (None, 'poison') for entry in requests)
    assert 0.12 <= faults / len(requests) <= 0.28
