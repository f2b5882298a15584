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
"""Sink cases: bundles that run again, other processes, killed workers."""

from __future__ import annotations

import os
import signal
import time

import apache_beam as beam
import pytest

from beam_harness.conformance.pipelines import Trail
from beam_harness.conformance.sink_hooks import SinkHooks
from beam_harness.emulators.handle import Emulator
from beam_harness.engines import WorkerDied
from beam_harness.engines import engine

__all__ = ['EngineCases']


class EngineCases(SinkHooks):
  """However often a bundle runs, and wherever, the state is the same."""
  def test_repeated_bundles_leave_the_same_state(self, emulator, tmp_path):
    emulator.faults([self.poison()])
    keys = self.keys(40)
    outcome = self.write(
        emulator, self.elements(keys + ['poison']), tmp_path, on='fnapi-repeat')
    self.check(emulator, outcome, keys, ['poison'])
    times = engine('fnapi-repeat').executions
    received = sum(e.records for e in self.requests(emulator) if e.ok)
    assert received == times * len(keys)

  def test_a_bundle_that_is_tried_again_leaves_the_same_state(
      self, emulator, tmp_path):
    # A lost permission fails the bundle when part of it is written already.
    emulator.faults([self.fault('error', status=403, skip=2, count=1)])
    keys = self.keys(40)
    outcome = self.write(
        emulator,
        self.elements(keys),
        tmp_path,
        on='bundle-retry',
        tuning=self.tuning(max_records=5, in_flight=1))
    self.check(emulator, outcome, keys)
    assert emulator.fault_hits == [1]
    received = sum(e.records for e in self.requests(emulator) if e.ok)
    assert received > len(keys)

  def test_a_bundle_that_fails_each_time_says_why(self, emulator, tmp_path):
    emulator.faults([
        self.fault(
            'error', status=403, message='the credential may not do this')
    ])
    attempts = engine('bundle-retry').attempts
    with pytest.raises(Exception, match=self.fatal_message):
      self.write(
          emulator,
          self.elements(self.keys(40)),
          tmp_path,
          on='bundle-retry',
          tuning=self.tuning(max_records=5, in_flight=1),
          trails=True)
    assert Trail.read(tmp_path / 'failed') == []
    # Each attempt begins anew and stops at its first request; the next one may
    # be on its way when the answer comes.
    assert attempts <= len(self.requests(emulator)) <= 2 * attempts

  def test_no_connection_outlives_the_pipeline(self, emulator, tmp_path):
    keys = self.keys(20)
    before = emulator.open_connections
    outcome = self.write(
        emulator,
        self.elements(keys),
        tmp_path,
        before=beam.Reshuffle(),
        on='fnapi-threads')
    self.check(emulator, outcome, keys)
    limit = time.monotonic() + 3
    while emulator.open_connections > before:
      assert time.monotonic() < limit, f'{emulator.open_connections} are open'

  def test_many_bundles_at_a_time(self, emulator, tmp_path):
    emulator.faults([
        self.fault('error', status=503, probability=0.2),
        self.poison(),
    ])
    keys = self.keys(400)
    poison = self.keys(4, prefix='poison')
    outcome = self.write(
        emulator,
        self.elements(keys + poison),
        tmp_path,
        before=beam.Reshuffle(),
        on='fnapi-threads',
        tuning=self.tuning(max_records=20))
    self.check(emulator, outcome, keys, poison)

  @pytest.mark.parametrize('kind', ['Row', 'RecordBatch'])
  def test_elements_and_outputs_pass_their_coders(
      self, emulator, tmp_path, kind):
    emulator.faults([self.poison()])
    keys = self.keys(30)
    outcome = self.write(
        emulator,
        self.elements(keys + ['poison'], kind),
        tmp_path,
        before=beam.Reshuffle(),
        on='loopback')
    self.check(emulator, outcome, keys, ['poison'])

  def test_worker_processes_write_the_same(self, emulator, tmp_path):
    emulator.faults([self.poison()])
    keys = self.keys(100)
    poison = self.keys(2, prefix='poison')
    outcome = self.write(
        emulator,
        self.elements(keys + poison),
        tmp_path,
        before=beam.Reshuffle(),
        on='processes',
        tuning=self.tuning(max_records=10))
    self.check(emulator, outcome, keys, poison)

  @pytest.mark.filterwarnings(
      'ignore::pytest.PytestUnhandledThreadExceptionWarning')
  def test_a_killed_worker_and_a_second_run_leave_the_same_state(
      self, emulator, tmp_path):
    keys = self.keys(60)
    # Batches of five: some are stored when the worker is killed.
    tuning = self.tuning(max_records=5)
    with pytest.raises(WorkerDied):
      self.write(
          emulator,
          self.elements(keys),
          tmp_path,
          before=beam.ParDo(_Kill(emulator.host, self.write_operation)),
          on='processes',
          tuning=tuning)
    before = self.stored(emulator)
    assert 0 < len(before) < len(keys)
    assert before == self.expect(before)
    outcome = self.write(emulator, self.elements(keys), tmp_path, tuning=tuning)
    self.check(emulator, outcome, keys)


class _Kill(beam.DoFn):
  """Kills its own process in the middle of a bundle.

  Not before the emulator has got something, so that there is something that
  the second run finds.
  """
  def __init__(self, host, operation):
    self._host = host
    self._operation = operation
    self._seen = 0

  def process(self, element):
    self._seen += 1
    if self._seen == 20:
      Emulator(
          self._host).wait_for(lambda counts: counts[self._operation].ok > 0)
      os.kill(os.getpid(), signal.SIGKILL)
    yield element
