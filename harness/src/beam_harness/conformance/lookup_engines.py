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
"""Lookup cases: bundles that run again, many at a time, other processes."""

from __future__ import annotations

import time

import apache_beam as beam
import pytest

from beam_connector_base.cache import Cache
from beam_harness.conformance.lookup_hooks import LookupHooks
from beam_harness.conformance.pipelines import Trail
from beam_harness.engines import engine

__all__ = ['EngineCases']


class EngineCases(LookupHooks):
  """However often a bundle runs, and wherever, the answers are the same."""
  @pytest.mark.parametrize('cache', [None, Cache(ttl=600)], ids=['', 'cached'])
  def test_repeated_bundles_give_the_same_answers(
      self, emulator, tmp_path, cache):
    emulator.faults([self.poison()])
    keys, missing = self.known(emulator, 37)
    outcome = self.look_up(
        emulator,
        self.questions(keys + missing + ['poison']),
        tmp_path,
        on='fnapi-repeat',
        cache=cache)
    self.check(outcome, keys, missing, ['poison'])
    times = 1 if cache else engine('fnapi-repeat').executions
    answered = sum(e.records for e in self.requests(emulator) if e.ok)
    assert answered == times * len(keys + missing)

  def test_a_bundle_that_is_tried_again_gives_each_answer_once(
      self, emulator, tmp_path):
    # A lost permission fails the bundle when part of it is answered already.
    emulator.faults([self.fault('error', status=403, skip=2, count=1)])
    keys, missing = self.known(emulator, 37)
    outcome = self.look_up(
        emulator,
        self.questions(keys + missing),
        tmp_path,
        on='bundle-retry',
        tuning=self.tuning(max_records=5, in_flight=1))
    self.check(outcome, keys, missing)
    assert emulator.fault_hits == [1]
    assert self.asked(emulator) > len(keys + missing)

  def test_a_bundle_that_fails_each_time_says_why(self, emulator, tmp_path):
    emulator.faults([
        self.fault(
            'error', status=403, message='the credential may not do this')
    ])
    attempts = engine('bundle-retry').attempts
    with pytest.raises(Exception, match=self.fatal_message):
      self.look_up(
          emulator,
          self.questions(self.keys(40)),
          tmp_path,
          on='bundle-retry',
          tuning=self.tuning(max_records=5, in_flight=1),
          trails=True)
    for name in ('joined', 'missing', 'failed'):
      assert Trail.read(tmp_path / name) == []
    # Each attempt begins anew and stops at its first request; the next one may
    # be on its way when the answer comes.
    assert attempts <= len(self.requests(emulator)) <= 2 * attempts

  def test_no_connection_outlives_the_pipeline(self, emulator, tmp_path):
    keys, missing = self.known(emulator, 37)
    before = emulator.open_connections
    outcome = self.look_up(
        emulator,
        self.questions(keys + missing),
        tmp_path,
        before=beam.Reshuffle(),
        on='fnapi-threads')
    self.check(outcome, keys, missing)
    limit = time.monotonic() + 3
    while emulator.open_connections > before:
      assert time.monotonic() < limit, f'{emulator.open_connections} are open'

  def test_many_bundles_at_a_time(self, emulator, tmp_path):
    emulator.faults([
        self.fault('error', status=503, probability=0.2),
        self.poison(),
    ])
    keys, missing = self.known(emulator, 200)
    poison = self.keys(4, prefix='poison')
    outcome = self.look_up(
        emulator,
        self.questions(2 * keys + missing + poison),
        tmp_path,
        before=beam.Reshuffle(),
        on='fnapi-threads',
        tuning=self.tuning(max_records=20))
    self.check(outcome, 2 * keys, missing, poison)

  @pytest.mark.parametrize('kind', ['Row', 'RecordBatch'])
  def test_elements_and_outputs_pass_their_coders(
      self, emulator, tmp_path, kind):
    emulator.faults([self.poison()])
    keys, missing = self.known(emulator, 37)
    outcome = self.look_up(
        emulator,
        self.questions(keys + missing + ['poison'], kind),
        tmp_path,
        before=beam.Reshuffle(),
        on='loopback')
    self.check(outcome, keys, missing, ['poison'])

  def test_worker_processes_give_the_same_answers(self, emulator, tmp_path):
    emulator.faults([self.poison()])
    keys, missing = self.known(emulator, 100)
    poison = self.keys(2, prefix='poison')
    outcome = self.look_up(
        emulator,
        self.questions(keys + missing + poison),
        tmp_path,
        before=beam.Reshuffle(),
        on='processes',
        cache=Cache(ttl=600),
        tuning=self.tuning(max_records=10))
    self.check(outcome, keys, missing, poison)
