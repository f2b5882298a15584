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
"""Read cases: what a service and a network do to requests, and what is gone."""

from __future__ import annotations

import threading

import pytest

from beam_harness.conformance.hooks import PASSING_FAULTS
from beam_harness.conformance.pipelines import Trail
from beam_harness.conformance.read_hooks import ReadHooks
from beam_harness.faults import FaultRule

__all__ = ['FaultCases']

_STEPS = pytest.mark.parametrize('step', ['list', 'fetch'])


class FaultCases(ReadHooks):
  """A read that ends well has read all; one that can not says why."""

  # -------------------------------------------------------------- what passes

  @_STEPS
  @pytest.mark.parametrize('fault', PASSING_FAULTS)
  def test_a_fault_that_passes_costs_nothing(
      self, emulator, tmp_path, step, fault):
    self.need(step)
    rule, tuning = PASSING_FAULTS[fault]
    stored = self.shards(emulator, 2, 2 * self.page + 10)
    emulator.faults([self.fault(step, skip=1, **rule)])
    applied = self.read(
        emulator, tmp_path, shards=list(stored), tuning=self.tuning(**tuning))
    self.check(applied, stored)
    hits = emulator.fault_hits
    assert 1 <= hits[0] <= rule['count']
    if step == 'list' and rule['kind'] not in ('reset', 'slow_body'):
      # Only the page that failed is asked for again, not the shard.
      assert len(self.requests(emulator, step)) == self.pages(stored) + hits[0]

  def test_a_listing_goes_on_where_it_was_interrupted(self, emulator, tmp_path):
    stored = self.shards(emulator, 1, 6 * self.page)
    emulator.faults([
        self.fault('list', 'error', status=503, skip=3, count=2),
        self.fault('list', 'reset', skip=7, count=1),
    ])
    applied = self.read(emulator, tmp_path, shards=list(stored))
    self.check(applied, stored)
    assert emulator.fault_hits == [2, 1]
    # The page that failed, not those before it.
    assert len(self.requests(emulator, 'list')) == self.pages(stored) + 3

  @_STEPS
  def test_the_wait_that_the_service_asks_for_is_kept(
      self, emulator, tmp_path, step):
    self.need(step)
    stored = self.shards(emulator, 1, 3)
    emulator.faults([self.fault(step, 'throttle', retry_after=1, count=1)])
    applied = self.read(emulator, tmp_path)
    self.check(applied, stored)
    first, second, *_ = self.requests(emulator, step)
    assert first.fault == 'throttle'
    assert 1.0 <= second.started - self.ended(first) < 3.0

  def test_a_read_with_a_filter_passes_faults_too(self, emulator, tmp_path):
    if self.where is None:
      pytest.skip('the source has no filter')
    stored = self.shards(emulator, 2, self.page + 20)
    operation = self.filter_operation
    emulator.faults([
        FaultRule('error', operation, count=2),
        FaultRule('throttle', operation, skip=2, count=1),
        FaultRule('truncate', operation, skip=3, count=1),
    ])
    applied = self.read(emulator, tmp_path, where=self.where)
    self.check(
        applied,
        {
            shard: list(filter(self.matches, keys))
            for shard, keys in stored.items()
        })
    assert emulator.fault_hits == [2, 1, 1]

  @pytest.mark.parametrize('as_blocks', [False, True], ids=['rows', 'blocks'])
  def test_many_pages_under_faults_give_each_record_once(
      self, emulator, tmp_path, as_blocks):
    stored = self.shards(emulator, 6, 5 * self.page + 3)
    rules = []
    for step in ('list', 'fetch'):
      if self.operation(step):
        rules += [
            self.fault(step, 'error', status=503, probability=0.15),
            self.fault(step, 'throttle', probability=0.1),
            self.fault(step, 'reset', probability=0.05),
            self.fault(step, 'reset', probability=0.05, after_effect=True),
            self.fault(step, 'truncate', probability=0.1),
        ]
    emulator.faults(rules)
    applied = self.read(emulator, tmp_path, as_blocks=as_blocks)
    self.check(applied, stored)
    assert sum(emulator.fault_hits) > 5

  # ---------------------------------------------------------------- what is gone

  def test_what_is_deleted_after_it_was_listed_is_left_out(
      self, emulator, tmp_path):
    if not self.fetch_operation:
      pytest.skip('the pages hold the records')
    stored = self.shards(emulator, 2, 12)
    # Fetches wait, before the service looks, until the record is gone.
    emulator.faults([self.fault('fetch', 'latency', seconds=1.0)])
    gone = stored['s1'].pop(5)
    deleted = threading.Event()

    def delete():
      emulator.wait_for(
          lambda counts: counts[self.fetch_operation].requests > 0,
          timeout=20.0)
      self.delete(emulator, 's1', gone)
      deleted.set()

    thread = threading.Thread(target=delete, daemon=True)
    thread.start()
    applied = self.read(
        emulator,
        tmp_path,
        tuning=self.tuning(attempt_timeout=10.0, deadline=30.0))
    thread.join(10)
    assert deleted.is_set()
    self.check(applied, stored)
    assert applied.counters(self.namespace)['records_missing'] == 1

  # -------------------------------------------------------------- what is fatal

  @_STEPS
  @pytest.mark.parametrize('status', [401, 403])
  def test_a_missing_permission_stops_at_once_and_says_so(
      self, emulator, tmp_path, step, status):
    self.need(step)
    self.shards(emulator, 2, 3 * self.page)
    emulator.faults([
        self.fault(
            step,
            'error',
            status=status,
            message='the credential may not do this')
    ])
    with pytest.raises(Exception, match=self.fatal_message) as caught:
      self.read(emulator, tmp_path, trails=True)
    assert self.target in str(caught.value)
    assert Trail.read(tmp_path / 'records') == []
    # Those that were under way together.
    assert len(self.requests(emulator, step)) <= 16

  def test_a_wrong_credential_is_said(self, emulator, tmp_path, monkeypatch):
    self.shards(emulator, 1, 3)
    monkeypatch.setenv('WRONG_CREDENTIAL', 'c0nf0rmance-wr0ng')
    with pytest.raises(Exception, match=self.fatal_message) as caught:
      self.read(emulator, tmp_path, secret_variable='WRONG_CREDENTIAL')
    assert self.target in str(caught.value)
    assert 'c0nf0rmance-wr0ng' not in str(caught.value)

  def test_a_credential_that_is_not_there_is_named(
      self, emulator, tmp_path, monkeypatch):
    monkeypatch.delenv('MISSING_CREDENTIAL', raising=False)
    with pytest.raises(Exception, match='MISSING_CREDENTIAL'):
      self.read(emulator, tmp_path, secret_variable='MISSING_CREDENTIAL')
    assert emulator.log() == []

  # ----------------------------------------------------------------- no service

  def test_a_service_that_is_not_there_is_named(self, emulator, tmp_path):
    nowhere = self.unreachable()
    with pytest.raises(Exception, match=nowhere.host):
      self.read(
          nowhere,
          tmp_path,
          tuning=self.tuning(open_deadline=1.0, deadline=1.0))

  @_STEPS
  @pytest.mark.parametrize('kind', ['error', 'throttle', 'hang', 'reset'])
  def test_an_outage_fails_the_pipeline(self, emulator, tmp_path, step, kind):
    self.need(step)
    self.shards(emulator, 1, 3 * self.page)
    # In the middle of it: what was read so far is not taken for all.
    emulator.faults([self.fault(step, kind, skip=1 if step == 'list' else 0)])
    with pytest.raises(Exception) as caught:
      self.read(
          emulator,
          tmp_path,
          tuning=self.tuning(deadline=0.5, attempt_timeout=0.3))
    assert self.target in str(caught.value)

  def need(self, step):
    if not self.operation(step):
      pytest.skip('the pages hold the records')
