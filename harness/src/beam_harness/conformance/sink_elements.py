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
"""Sink cases: kinds of element, batches, limits, concurrency."""

from __future__ import annotations

import math

import pytest
from apache_beam import Reshuffle

from beam_harness.conformance.sink_hooks import KINDS
from beam_harness.conformance.sink_hooks import SinkHooks

__all__ = ['ElementCases']


class ElementCases(SinkHooks):
  """What comes in, and how it is put into requests."""

  # ------------------------------------------------------------------ elements

  @pytest.mark.parametrize('kind', KINDS)
  def test_elements_of_every_kind_are_written(self, emulator, tmp_path, kind):
    keys = self.keys(12)
    elements = self.elements(keys, kind)
    outcome = self.write(emulator, elements, tmp_path)
    self.check(emulator, outcome, keys)
    for output in outcome.written:
      assert any(self.same(output.value, element) for element in elements)

  def test_elements_of_the_services_own_kinds_are_written(
      self, emulator, tmp_path):
    for kind in self.extra_kinds:
      keys = self.keys(5, prefix=f'{kind}-')
      outcome = self.write(emulator, self.elements(keys, kind), tmp_path)
      assert sorted(self.key_of(o.value) for o in outcome.written) == keys
      stored = self.stored(emulator)
      assert {key: stored.get(key) for key in keys} == self.expect(keys)

  def test_no_elements_make_no_request(self, emulator, tmp_path):
    outcome = self.write(emulator, [], tmp_path)
    self.check(emulator, outcome, [])
    asked = {entry.operation for entry in emulator.log()}
    assert asked <= set(self.idle_requests)

  def test_a_key_that_comes_twice_settles_twice(self, emulator, tmp_path):
    if not self.stores_by_key:
      pytest.skip('the service does not store by key')
    keys = self.keys(6)
    outcome = self.write(emulator, self.elements(keys + keys), tmp_path)
    assert self.keys_of(o.value for o in outcome.written) == sorted(keys + keys)
    assert not outcome.failed
    assert self.stored(emulator) == self.expect(keys)

  # ----------------------------------------------------- refused before sending

  def test_a_bad_record_is_refused_and_its_neighbours_are_written(
      self, emulator, tmp_path):
    keys = self.keys(9)
    elements = self.elements(keys)
    elements.insert(4, self.bad_element('bad'))
    outcome = self.write(emulator, elements, tmp_path)
    self.check(emulator, outcome, keys, ['bad'])
    (failed,) = (output.value for output in outcome.failed)
    assert (failed.stage, failed.attempts) == ('encode', 0)
    assert failed.key == 'bad'
    assert failed.message and failed.error_type
    assert sum(entry.records for entry in self.requests(emulator)) == len(keys)

  @pytest.mark.parametrize('kind', ['bad', 'poison'])
  def test_one_bad_row_of_a_block_is_refused_alone(
      self, emulator, tmp_path, kind):
    emulator.faults([self.poison()])
    keys = self.keys(9)
    rows = self.elements(keys)
    rows.insert(
        4,
        self.bad_element('bad')
        if kind == 'bad' else self.make_element('poison'))
    block = self.make_block(rows)
    outcome = self.write(emulator, [block], tmp_path)
    self.check(emulator, outcome, keys, [kind])
    (failed,) = (output.value for output in outcome.failed)
    # The row's slice, not the block: it can be written again as it is.
    assert self.same(failed.element, block.slice(4, 1))
    (written,) = (output.value for output in outcome.written)
    assert written.num_rows == len(keys)

  def test_a_record_over_the_limit_is_refused_alone(self, emulator, tmp_path):
    limit = 20 * self.row_bytes
    keys = self.keys(9)
    elements = self.elements(keys)
    elements.insert(4, self.large_element('large', limit))
    outcome = self.write(
        emulator, elements, tmp_path, tuning=self.tuning(max_bytes=limit))
    self.check(emulator, outcome, keys, ['large'])
    (failed,) = (output.value for output in outcome.failed)
    assert failed.key == 'large'
    assert str(limit) in failed.message
    assert all(entry.nbytes <= limit for entry in self.requests(emulator))

  # ------------------------------------------------------------------- batches

  @pytest.mark.parametrize('kind', ['dict', 'RecordBatch'])
  def test_batches_are_filled_up_to_the_count(self, emulator, tmp_path, kind):
    keys = self.keys(50)
    outcome = self.write(
        emulator,
        self.elements(keys, kind),
        tmp_path,
        tuning=self.tuning(max_records=7))
    self.check(emulator, outcome, keys)
    sizes = sorted(entry.records for entry in self.requests(emulator))
    assert sizes == [1] + [7] * 7

  @pytest.mark.parametrize('kind', ['dict', 'RecordBatch'])
  def test_batches_are_filled_up_to_the_bytes(self, emulator, tmp_path, kind):
    keys = self.keys(60)
    limit = 8 * self.row_bytes
    outcome = self.write(
        emulator,
        self.elements(keys, kind),
        tmp_path,
        tuning=self.tuning(max_bytes=limit))
    self.check(emulator, outcome, keys)
    entries = self.requests(emulator)
    largest_row = max(entry.nbytes / entry.records for entry in entries)
    assert all(entry.nbytes <= limit for entry in entries)
    # All but the last are so full that no further record would have fitted.
    full = [e for e in entries if e.nbytes + 1.5 * largest_row > limit]
    assert len(full) >= len(entries) - 1

  def test_the_services_own_limits_are_kept_without_being_told(
      self, emulator, tmp_path):
    keys = self.keys(self.max_records + 10)
    outcome = self.write(emulator, self.elements(keys), tmp_path)
    self.check(emulator, outcome, keys)
    entries = self.requests(emulator)
    assert all(entry.ok for entry in entries)
    assert all(entry.records <= self.max_records for entry in entries)
    assert all(entry.nbytes <= self.max_bytes for entry in entries)
    least = max(
        math.ceil(len(keys) / self.max_records),
        math.ceil(sum(entry.nbytes for entry in entries) / self.max_bytes))
    assert len(entries) == least

  # --------------------------------------------------------------- concurrency

  def test_requests_are_in_flight_together_up_to_the_limit(
      self, emulator, tmp_path):
    emulator.faults([self.fault('latency', seconds=0.1)])
    keys = self.keys(24)
    outcome = self.write(
        emulator,
        self.elements(keys),
        tmp_path,
        tuning=self.tuning(max_records=1, in_flight=4))
    self.check(emulator, outcome, keys)
    assert emulator.max_in_flight(self.write_operation) == 4

  def test_all_bundles_of_a_process_share_the_limit(self, emulator, tmp_path):
    emulator.faults([self.fault('latency', seconds=0.05)])
    keys = self.keys(40)
    outcome = self.write(
        emulator,
        self.elements(keys),
        tmp_path,
        tuning=self.tuning(max_records=1, in_flight=3),
        before=Reshuffle(),
        on='fnapi-threads')
    self.check(emulator, outcome, keys)
    assert emulator.max_in_flight(self.write_operation) == 3
