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
"""Lookup cases: what a service and a network do to requests."""

from __future__ import annotations

import math

import pytest

from beam_harness.conformance.hooks import PASSING_FAULTS
from beam_harness.conformance.lookup_hooks import LookupHooks
from beam_harness.conformance.pipelines import Trail

__all__ = ['FaultCases']


class FaultCases(LookupHooks):
  """No answer is lost or made up: least of all "not found" from an error."""

  # -------------------------------------------------------------- what passes

  @pytest.mark.parametrize('fault', PASSING_FAULTS)
  def test_a_fault_that_passes_costs_nothing(self, emulator, tmp_path, fault):
    rule, tuning = PASSING_FAULTS[fault]
    emulator.faults([self.fault(**rule)])
    keys = self.keys(20)
    self.store(emulator, keys)
    outcome = self.look_up(
        emulator,
        self.questions(keys),
        tmp_path,
        on_missing='separate',
        tuning=self.tuning(max_records=5, **tuning))
    self.check(outcome, keys)
    assert outcome.missing == []
    assert emulator.fault_hits == [rule['count']]
    entries = self.requests(emulator)
    requests = len(keys) // self.per_request(5)
    failures = 0 if rule['kind'] == 'slow_body' else rule['count']
    if rule['kind'] == 'reset':
      # A reset takes along whatever else was in flight on its connection.
      assert requests < len(entries) <= requests * (1 + failures)
    elif rule['kind'] == 'hang':
      # A request that hangs takes along those it was handed over with.
      assert requests < len(entries) <= requests + failures * self.together
    else:
      assert len(entries) == requests + failures

  def test_the_wait_that_the_service_asks_for_is_kept(self, emulator, tmp_path):
    emulator.faults([self.fault('throttle', retry_after=1, count=1)])
    keys = self.keys(1)
    self.store(emulator, keys)
    outcome = self.look_up(emulator, self.questions(keys), tmp_path)
    self.check(outcome, keys)
    first, second = self.requests(emulator)
    assert first.fault == 'throttle' and second.ok
    assert 1.0 <= second.started - self.ended(first) < 3.0

  # ------------------------------------------------------------ what is refused

  def test_only_what_failed_of_a_request_is_asked_again(
      self, emulator, tmp_path):
    if not self.partial_failures:
      pytest.skip('the service answers a request as a whole')
    emulator.faults([self.fault('partial', records='[02468]$', first=1)])
    keys = self.keys(10)
    self.store(emulator, keys)
    outcome = self.look_up(emulator, self.questions(keys), tmp_path)
    self.check(outcome, keys)
    assert [e.records for e in self.requests(emulator)] == [10, 5]

  def test_poison_is_isolated_and_its_neighbours_are_answered(
      self, emulator, tmp_path):
    emulator.faults([self.poison(message='this key is no good')])
    keys = self.keys(60)
    poison = self.keys(3, prefix='poison')
    self.store(emulator, keys + poison)
    mixed = keys[:5] + poison[:2] + keys[5:44] + poison[2:] + keys[44:]
    outcome = self.look_up(
        emulator,
        self.questions(mixed),
        tmp_path,
        tuning=self.tuning(max_records=21))
    self.check(outcome, keys, refused=poison)
    for failed in (output.value for output in outcome.failed):
      assert failed.stage == 'send'
      assert failed.http_status == self.refusal_status
      assert 'this key is no good' in failed.message
      assert failed.error_type
      assert failed.key in poison
      assert failed.attempts > 1 or self.max_records == 1
    # Halving n keys for one bad one takes no more than 2 log2(n) requests.
    size = self.per_request(21)
    most = len(mixed) / size + len(poison) * 2 * math.ceil(math.log2(size))
    assert len(self.requests(emulator)) <= most

  def test_a_refused_question_stops_the_pipeline_unless_told_otherwise(
      self, emulator, tmp_path):
    emulator.faults([self.poison(message='this key is no good')])
    keys = self.keys(5) + ['poison']
    self.store(emulator, keys)
    with pytest.raises(Exception) as caught:
      self.look_up(emulator, self.questions(keys), tmp_path, on_error='fail')
    message = str(caught.value)
    for part in ('poison', 'this key is no good', self.target, 'on_error'):
      assert part in message

  def test_questions_refused_one_after_the_other_stop_the_pipeline(
      self, emulator, tmp_path):
    emulator.faults([self.poison(message='the table is broken')])
    keys = self.keys(200, prefix='poison')
    with pytest.raises(Exception, match='the table is broken'):
      self.look_up(
          emulator,
          self.questions(keys),
          tmp_path,
          tuning=self.tuning(refusals_in_a_row=8, max_records=50),
          trails=True)
    # In a bundle that then fails: the runner takes none of them.
    assert len(Trail.read(tmp_path / 'failed')) < 8
    # Not each of them was tried alone; those that are handed over together are
    # tried together first.
    limit = len(keys) if self.together == 1 else 2 * len(keys)
    assert len(self.requests(emulator)) < limit

  # --------------------------------------------------------------- what is fatal

  @pytest.mark.parametrize('status', [401, 403])
  def test_a_missing_permission_stops_at_once_and_says_so(
      self, emulator, tmp_path, status):
    keys = self.keys(100)
    self.store(emulator, keys)
    # An answer that takes a moment: what is in flight meanwhile is not sent
    # because nobody knew.
    emulator.faults([
        self.fault(
            'error', status=status, message='the credential may not do this'),
        self.fault('latency', seconds=0.05),
    ])
    with pytest.raises(Exception, match=self.fatal_message) as caught:
      self.look_up(
          emulator,
          self.questions(keys),
          tmp_path,
          tuning=self.tuning(max_records=2, in_flight=4),
          trails=True)
    assert self.target in str(caught.value)
    # Those in flight, and as many that take their places before all is stopped.
    assert len(self.requests(emulator)) <= 8
    for name in ('joined', 'missing', 'failed'):
      assert Trail.read(tmp_path / name) == []

  def test_a_wrong_credential_is_said_before_anything_is_asked(
      self, emulator, tmp_path, monkeypatch):
    monkeypatch.setenv('WRONG_CREDENTIAL', 'c0nf0rmance-wr0ng')
    with pytest.raises(Exception, match=self.fatal_message) as caught:
      self.look_up(
          emulator,
          self.questions(self.keys(100)),
          tmp_path,
          secret_variable='WRONG_CREDENTIAL')
    assert self.target in str(caught.value)
    assert 'c0nf0rmance-wr0ng' not in str(caught.value)
    assert self.requests(emulator) == []

  def test_a_credential_that_is_not_there_is_named(
      self, emulator, tmp_path, monkeypatch):
    monkeypatch.delenv('MISSING_CREDENTIAL', raising=False)
    with pytest.raises(Exception, match='MISSING_CREDENTIAL'):
      self.look_up(
          emulator,
          self.questions(self.keys(5)),
          tmp_path,
          secret_variable='MISSING_CREDENTIAL')
    assert emulator.log() == []

  # ----------------------------------------------------------------- no service

  def test_a_service_that_is_not_there_is_named(self, emulator, tmp_path):
    nowhere = self.unreachable()
    with pytest.raises(Exception, match=nowhere.host):
      self.look_up(
          nowhere,
          self.questions(self.keys(5)),
          tmp_path,
          tuning=self.tuning(open_deadline=1.0, deadline=1.0))

  @pytest.mark.parametrize('kind', ['error', 'throttle', 'reset', 'hang'])
  def test_an_outage_fails_the_bundle_and_is_not_taken_for_an_answer(
      self, emulator, tmp_path, kind):
    emulator.faults([self.fault(kind, skip=3)])
    keys = self.keys(8 * self.per_request(5))
    self.store(emulator, keys)
    with pytest.raises(Exception) as caught:
      self.look_up(
          emulator,
          self.questions(keys),
          tmp_path,
          on_missing='separate',
          tuning=self.tuning(
              deadline=0.5, attempt_timeout=0.3, max_records=5, in_flight=1),
          trails=True)
    assert self.target in str(caught.value)
    assert Trail.read(tmp_path / 'failed') == []
    assert Trail.read(tmp_path / 'missing') == []
    joined = self.keys_of(Trail.read(tmp_path / 'joined'))
    assert len(joined) <= 3 * self.per_request(5)
    assert set(joined) <= set(keys)

  def test_an_outage_makes_dead_letters_if_one_asks_for_it(
      self, emulator, tmp_path):
    emulator.faults([self.fault('error', status=503, skip=3)])
    keys = self.keys(8 * self.per_request(5))
    self.store(emulator, keys)
    # Each twice: who waits for another's request shares its fate.
    outcome = self.look_up(
        emulator,
        self.questions(keys + keys, 'RecordBatch'),
        tmp_path,
        tuning=self.tuning(
            deadline=0.3, max_records=5, in_flight=2, on_outage='collect'))
    answered = self.keys_of(o.value for o in outcome.joined)
    assert len(answered) == 2 * 3 * self.per_request(5)
    left = sorted(2 * sorted(set(keys) - set(answered)))
    self.check(outcome, answered, refused=left)
    assert {output.value.stage for output in outcome.failed} == {'outage'}

  # --------------------------------------------------------------- all together

  def test_thousands_of_questions_under_faults_are_each_answered_or_refused(
      self, emulator, tmp_path):
    n = 3_000 if self.max_records > 1 else 500
    keys = self.keys(n)
    poison = self.keys(4, prefix='poison')
    missing = self.keys(20, prefix='missing') if self.answers_nothing else []
    self.store(emulator, keys)
    emulator.faults([
        self.fault('error', status=503, probability=0.06),
        self.fault('throttle', probability=0.05),
        self.fault('reset', probability=0.02),
        self.fault('reset', probability=0.03, after_effect=True),
        self.fault('truncate', probability=0.04),
        self.poison(),
    ])
    asked = keys + keys[::3]
    # Spread, so that most requests hold none and some hold two.
    for i, key in enumerate(poison):
      asked.insert(n // 4 * i, key)
    for i, key in enumerate(missing):
      asked.insert(n // 20 * i + 3, key)
    questions = self.questions(asked)
    questions.insert(n // 2, self.bad_question())
    outcome = self.look_up(
        emulator, questions, tmp_path, tuning=self.tuning(max_records=20))
    self.check_joined(self.rows_of(outcome.joined), keys + keys[::3], missing)
    failed = [output.value for output in outcome.failed]
    assert sorted(f.key for f in failed if f.stage == 'send') == poison
    assert sum(f.stage == 'encode' for f in failed) == 1
    requests = self.requests(emulator)
    faults = sum(entry.fault not in (None, 'poison') for entry in requests)
    assert 0.1 <= faults / len(requests) <= 0.3
