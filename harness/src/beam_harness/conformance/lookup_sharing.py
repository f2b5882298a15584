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
"""Lookup cases: equal keys are asked for once; answers are used again."""

from __future__ import annotations

import time

import apache_beam as beam
import pytest

from beam_connector_base.cache import Cache
from beam_harness.conformance.lookup_hooks import LookedUp
from beam_harness.conformance.lookup_hooks import LookupHooks
from beam_harness.conformance.pipelines import gather
from beam_harness.conformance.pipelines import load
from beam_harness.engines import engine

__all__ = ['SharingCases']

_SOON_SECONDS = 0.3


class SharingCases(LookupHooks):
  """How often a key is asked for is counted at the emulator."""

  # ---------------------------------------------------------------- duplicates

  @pytest.mark.parametrize('kind', ['dict', 'RecordBatch'])
  def test_equal_keys_of_a_bundle_are_asked_for_once(
      self, emulator, tmp_path, kind):
    keys, missing = self.keys(8), self.keys(2, prefix='missing')
    if not self.answers_nothing:
      missing = []
    self.store(emulator, keys)
    # Only what is on its way is shared: it is until all have asked.
    emulator.faults([self.fault('latency', seconds=_SOON_SECONDS)])
    asked = keys + missing + keys[::-1] + missing + keys
    outcome = self.look_up(
        emulator,
        self.questions(asked, kind),
        tmp_path,
        tuning=self.tuning(max_records=100))
    self.check(outcome, 3 * keys, 2 * missing)
    assert self.asked(emulator) == len(keys) + len(missing)

  def test_equal_keys_that_are_refused_are_each_a_failed_record(
      self, emulator, tmp_path):
    emulator.faults([self.poison()])
    keys = self.keys(4)
    self.store(emulator, keys)
    asked = ['poison'] + keys + ['poison'] + keys + ['poison']
    outcome = self.look_up(emulator, self.questions(asked), tmp_path)
    self.check(outcome, 2 * keys, refused=3 * ['poison'])

  def test_equal_keys_that_are_tried_again_are_all_answered(
      self, emulator, tmp_path):
    emulator.faults([self.fault('error', status=503, count=2)])
    keys = self.keys(6)
    self.store(emulator, keys)
    outcome = self.look_up(
        emulator,
        self.questions(keys + keys),
        tmp_path,
        tuning=self.tuning(max_records=3))
    self.check(outcome, keys + keys)
    answered = [e for e in self.requests(emulator) if e.ok]
    assert sum(entry.records for entry in answered) == len(keys)

  def test_bundles_that_run_together_share_their_requests(
      self, emulator, tmp_path):
    # While an answer takes its time all bundles come to ask for each key.
    emulator.faults([self.fault('latency', seconds=0.5)])
    keys = self.keys(20)
    self.store(emulator, keys)
    outcome = self.look_up(
        emulator,
        self.questions(20 * keys),
        tmp_path,
        tuning=self.tuning(max_records=1, in_flight=20),
        # For bundles that come late.
        cache=Cache(ttl=600),
        before=beam.Reshuffle(),
        on='fnapi-threads')
    self.check(outcome, 20 * keys)
    # Each of the four would ask for each key. Two that ask in the same instant
    # may not see one another.
    assert self.asked(emulator) < 2 * len(keys)

  # --------------------------------------------------------------------- cache

  def test_without_a_cache_a_later_bundle_asks_again(self, emulator, tmp_path):
    keys = self.keys(5)
    self.store(emulator, keys)
    self._look_up_twice(emulator, keys, [], tmp_path, None)
    assert self.asked(emulator) == 2 * len(keys)

  def test_a_cached_answer_is_not_asked_for_again(self, emulator, tmp_path):
    keys, missing = self.known(emulator, 6)
    self._look_up_twice(emulator, keys, missing, tmp_path, Cache(ttl=600))
    assert self.asked(emulator) == len(keys) + len(missing)

  def test_a_cached_answer_expires(self, emulator, tmp_path):
    keys, missing = self.known(emulator, 6)
    self._look_up_twice(
        emulator,
        keys,
        missing,
        tmp_path,
        Cache(ttl=_SOON_SECONDS),
        wait=_SOON_SECONDS)
    assert self.asked(emulator) == 2 * (len(keys) + len(missing))

  @pytest.mark.parametrize('seconds', [0, _SOON_SECONDS])
  def test_that_nothing_was_there_expires_in_its_own_time(
      self, emulator, tmp_path, seconds):
    if not self.answers_nothing:
      pytest.skip('the service has an answer for every key')
    keys, missing = self.known(emulator, 6)
    cache = Cache(ttl=600, missing_ttl=seconds)
    self._look_up_twice(emulator, keys, missing, tmp_path, cache, wait=seconds)
    assert self.asked(emulator) == len(keys) + 2 * len(missing)

  def test_a_cache_keeps_no_more_than_it_may(self, emulator, tmp_path):
    keys = self.keys(10)
    self.store(emulator, keys)
    self._look_up_twice(
        emulator, keys, [], tmp_path, Cache(ttl=600, max_entries=3))
    # A key that was just asked for may push out one that is still to come.
    assert self.asked(emulator) >= 2 * len(keys) - 3

  # ------------------------------------------------------------------- helpers

  def _look_up_twice(self, emulator, keys, missing, folder, cache, wait=0.0):
    """Two lookups of one pipeline, the second after the first."""
    def lookup():
      return self.make_transform(
          emulator, tuning=self.tuning(), cache=cache, on_missing='null')

    pipeline = engine('fnapi').pipeline()
    questions = self.questions(keys + missing)
    first = (
        pipeline
        | 'First questions' >> beam.Create(questions)
        | 'First' >> lookup())
    second = (
        pipeline
        | 'Then questions' >> beam.Create(questions)
        | beam.WaitOn(first)
        | beam.ParDo(_Later(wait))
        | 'Then' >> lookup())
    for name, result in (('first', first), ('second', second)):
      gather(self.outputs_of(result)['joined'], folder / name, name)
    done = engine('fnapi').run(pipeline)
    for name in ('first', 'second'):
      joined = LookedUp({'joined': load(folder / name), 'failed': []}, done)
      self.check(joined, keys, missing)


class _Later(beam.DoFn):
  """Lets the elements pass after a while: the cache looks at a real clock."""
  def __init__(self, seconds):
    self._seconds = seconds

  def start_bundle(self):
    time.sleep(self._seconds)

  def process(self, element):
    yield element
