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
"""Lookup cases: the same lookup behind Beam's own Enrichment."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.io.requestresponse import NoOpsRepeater
from apache_beam.transforms.enrichment import Enrichment
from apache_beam.transforms.window import FixedWindows
from apache_beam.transforms.window import TimestampedValue

from beam_harness.conformance.lookup_hooks import LookupHooks
from beam_harness.conformance.pipelines import apply

__all__ = ['EnrichmentCases']

_SECOND = 1_000_000  # microseconds


class EnrichmentCases(LookupHooks):
  """An adapter adds nothing and loses nothing."""
  def test_the_enrichment_handler_gives_the_same_answers(
      self, emulator, tmp_path):
    keys = self.keys(12)
    missing = ['missing'] if self.answers_nothing else []
    self.store(emulator, keys)
    questions = self.questions(keys + missing, 'Row')
    outputs = self._enrich(emulator, questions, tmp_path)
    self.check_joined(self.rows_of(outputs), keys, missing)

  def test_the_enrichment_handler_batches_if_one_asks_for_it(
      self, emulator, tmp_path):
    keys = self.keys(24)
    self.store(emulator, keys)
    outputs = self._enrich(
        emulator,
        self.questions(keys, 'Row'),
        tmp_path,
        min_batch_size=8,
        max_batch_size=8)
    self.check_joined(self.rows_of(outputs), keys)
    requests = self.requests(emulator)
    assert len(requests) == len(keys) // self.per_request(8)

  def test_the_enrichment_handler_keeps_event_times(self, emulator, tmp_path):
    keys = self.keys(6)
    self.store(emulator, keys)
    questions = [
        TimestampedValue(self.make_question(key, 'Row'), 5 * i)
        for i, key in enumerate(keys)
    ]
    outputs = self._enrich(
        emulator, questions, tmp_path, window=FixedWindows(10))
    assert len(outputs) == len(keys)
    for output in outputs:
      second = 5 * keys.index(self.key_of(output.value))
      start = second // 10 * 10
      assert output.timestamp == second * _SECOND
      assert output.windows == ((start * _SECOND, (start + 10) * _SECOND),)

  def test_the_enrichment_handler_tries_again_by_itself(
      self, emulator, tmp_path):
    emulator.faults([
        self.fault('throttle', count=2),
        self.fault('error', status=503, count=2),
    ])
    keys = self.keys(6)
    self.store(emulator, keys)
    outputs = self._enrich(emulator, self.questions(keys, 'Row'), tmp_path)
    self.check_joined(self.rows_of(outputs), keys)
    assert emulator.fault_hits == [2, 2]

  def test_the_enrichment_handler_says_what_is_wrong(self, emulator, tmp_path):
    emulator.faults([self.poison(message='this key is no good')])
    with pytest.raises(Exception) as caught:
      self._enrich(emulator, self.questions(['poison'], 'Row'), tmp_path)
    for part in ('poison', 'this key is no good', self.target):
      assert part in str(caught.value)
    if not self.answers_nothing:
      return
    with pytest.raises(Exception) as caught:
      self._enrich(
          emulator,
          self.questions(['missing-7'], 'Row'),
          tmp_path,
          on_missing='fail')
    for part in ('missing-7', self.target, 'on_missing'):
      assert part in str(caught.value)

  def _enrich(self, emulator, questions, folder, window=None, **options):
    handler = self.make_handler(emulator, tuning=self.tuning(), **options)
    applied = apply(
        # Retries are the handler's own.
        Enrichment(handler, repeater=NoOpsRepeater()),
        questions,
        folder,
        lambda enriched: {'enriched': enriched | beam.Map(_as_it_is)},
        window=window)
    return applied.outputs['enriched']


def _as_it_is(element):
  return element
