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
"""Lookup cases: kinds of element, what is missing, null or bad, requests."""

from __future__ import annotations

import math
from collections.abc import Mapping

import apache_beam as beam
import pyarrow as pa
import pytest

from beam_connector_base.rows import as_mapping
from beam_harness.conformance.hooks import KINDS
from beam_harness.conformance.hooks import alike
from beam_harness.conformance.lookup_hooks import LookupHooks

__all__ = ['QuestionCases']

_EITHER = ('dict', 'RecordBatch')


class QuestionCases(LookupHooks):
  """What comes in, what comes out of it, and how it is put into requests."""

  # ------------------------------------------------------------------ elements

  @pytest.mark.parametrize('kind', KINDS)
  def test_elements_of_every_kind_are_joined(self, emulator, tmp_path, kind):
    keys = self.keys(12)
    self.store(emulator, keys)
    outcome = self.look_up(emulator, self.questions(keys, kind), tmp_path)
    self.check(outcome, keys)
    for output in outcome.joined:
      if kind == 'RecordBatch':
        assert isinstance(output.value, pa.RecordBatch)
      elif kind == 'dict':
        assert isinstance(output.value, Mapping)

  def test_elements_of_the_services_own_kinds_are_joined(
      self, emulator, tmp_path):
    for kind in self.extra_kinds:
      keys = self.keys(5, prefix=f'{kind}-')
      self.store(emulator, keys)
      outcome = self.look_up(emulator, self.questions(keys, kind), tmp_path)
      assert sorted(self.key_of(o.value) for o in outcome.joined) == keys
      for output in outcome.joined:
        answer = self.answer_of(as_mapping(output.value))
        assert alike(answer, self.expected(self.key_of(output.value)))

  def test_a_block_keeps_its_columns_and_the_order_of_its_rows(
      self, emulator, tmp_path):
    keys = self.keys(20)
    self.store(emulator, keys[::2])
    asked = keys[7:] + keys[:7] + keys[3:5]
    (block,) = self.questions(asked, 'RecordBatch')
    outcome = self.look_up(
        emulator, [block], tmp_path, tuning=self.tuning(max_records=6))
    joined = self.only(outcome.joined)
    names = block.schema.names
    assert joined.schema.names[:len(names)] == names
    assert joined.schema.names[len(names):]
    assert self.same(joined.select(names), block)
    stored = set(keys[::2])
    self.check(
        outcome, [key for key in asked if key in stored],
        [key for key in asked if key not in stored])

  def test_no_elements_make_no_request(self, emulator, tmp_path):
    outcome = self.look_up(emulator, [], tmp_path)
    self.check(outcome, [])
    asked = {entry.operation for entry in emulator.log()}
    assert asked <= set(self.idle_requests)

  # ------------------------------------------------------------ what is missing

  @pytest.mark.parametrize('kind', _EITHER)
  def test_what_is_missing_is_joined_with_nulls(self, emulator, tmp_path, kind):
    if not self.answers_nothing:
      pytest.skip('the service has an answer for every key')
    keys, missing = self.keys(9), self.keys(4, prefix='missing')
    self.store(emulator, keys)
    mixed = missing[:1] + keys[:5] + missing[1:] + keys[5:]
    outcome = self.look_up(emulator, self.questions(mixed, kind), tmp_path)
    self.check(outcome, keys, missing)
    assert outcome.missing == []
    # With nulls, not without the fields.
    fields = {frozenset(row) for row in self.rows_of(outcome.joined)}
    assert len(fields) == 1

  @pytest.mark.parametrize('kind', _EITHER)
  def test_what_is_missing_goes_its_own_way_unchanged(
      self, emulator, tmp_path, kind):
    if not self.answers_nothing:
      pytest.skip('the service has an answer for every key')
    keys, missing = self.keys(9), self.keys(4, prefix='missing')
    self.store(emulator, keys)
    mixed = missing[:1] + keys[:5] + missing[1:] + keys[5:]
    outcome = self.look_up(
        emulator, self.questions(mixed, kind), tmp_path, on_missing='separate')
    self.check(outcome, keys)
    assert self.keys_of(o.value for o in outcome.missing) == missing
    for output in outcome.missing:
      assert any(
          self.same(output.value, element)
          for element in self.questions(missing, kind))

  @pytest.mark.parametrize('kind', _EITHER)
  def test_what_is_missing_is_a_failed_record_if_one_asks_for_it(
      self, emulator, tmp_path, kind):
    if not self.answers_nothing:
      pytest.skip('the service has an answer for every key')
    keys, missing = self.keys(9), self.keys(2, prefix='missing')
    self.store(emulator, keys)
    mixed = missing[:1] + keys + missing[1:]
    outcome = self.look_up(
        emulator, self.questions(mixed, kind), tmp_path, on_missing='fail')
    self.check(outcome, keys, refused=missing)
    for failed in (output.value for output in outcome.failed):
      assert failed.key in missing
      assert failed.message and failed.error_type

  def test_what_is_missing_stops_the_pipeline_and_says_how_to_go_on(
      self, emulator, tmp_path):
    if not self.answers_nothing:
      pytest.skip('the service has an answer for every key')
    keys = self.keys(3)
    self.store(emulator, keys)
    with pytest.raises(Exception) as caught:
      self.look_up(
          emulator,
          self.questions(keys + ['missing-7']),
          tmp_path,
          on_missing='fail',
          on_error='fail')
    message = str(caught.value)
    for part in ('missing-7', self.target, 'on_missing'):
      assert part in message

  @pytest.mark.parametrize('kind', _EITHER)
  def test_a_null_key_is_asked_for_by_nobody(self, emulator, tmp_path, kind):
    if not self.null_key:
      pytest.skip('the lookup has no key that could be null')
    keys = self.keys(6)
    self.store(emulator, keys)
    questions = self.questions(keys)
    questions.insert(3, self.null_question())
    if kind == 'RecordBatch':
      questions = [self.make_block(questions)]
    outcome = self.look_up(emulator, questions, tmp_path, on_missing='separate')
    self.check_joined(self.rows_of(outcome.joined), keys)
    elements = [o.value for o in outcome.missing]
    if self.null_key == 'refused':
      failed = self.only(outcome.failed)
      assert (failed.stage, failed.attempts) == ('encode', 0)
      assert elements == []
      elements = [failed.element]
    else:
      assert outcome.failed == []
    assert len(elements) == 1
    assert _only_row(elements[0])[self.key_field] is None
    assert self.asked(emulator) == len(keys)

  # ----------------------------------------------------- refused before sending

  def test_a_bad_question_is_refused_and_its_neighbours_are_joined(
      self, emulator, tmp_path):
    keys = self.keys(9)
    self.store(emulator, keys)
    bad = self.bad_question()
    questions = self.questions(keys)
    questions.insert(4, bad)
    outcome = self.look_up(emulator, questions, tmp_path)
    self.check_joined(self.rows_of(outcome.joined), keys)
    failed = self.only(outcome.failed)
    assert self.same(failed.element, bad)
    assert (failed.stage, failed.attempts) == ('encode', 0)
    assert failed.message and failed.error_type
    assert self.asked(emulator) == len(keys)

  @pytest.mark.parametrize('kind', ['bad', 'poison'])
  def test_one_bad_row_of_a_block_is_refused_alone(
      self, emulator, tmp_path, kind):
    emulator.faults([self.poison()])
    keys = self.keys(9)
    self.store(emulator, keys)
    rows = self.questions(keys)
    rows.insert(
        4,
        self.bad_question() if kind == 'bad' else self.make_question('poison'))
    block = self.make_block(rows)
    outcome = self.look_up(emulator, [block], tmp_path)
    self.check_joined(self.rows_of(outcome.joined), keys)
    failed = self.only(outcome.failed)
    # The row's slice, not the block: it can be asked again as it is.
    assert self.same(failed.element, block.slice(4, 1))

  # ------------------------------------------------------------------- requests

  @pytest.mark.parametrize('kind', _EITHER)
  def test_requests_are_filled_up_to_the_count(self, emulator, tmp_path, kind):
    keys = self.keys(50)
    self.store(emulator, keys)
    outcome = self.look_up(
        emulator,
        self.questions(keys, kind),
        tmp_path,
        tuning=self.tuning(max_records=7))
    self.check(outcome, keys)
    size = self.per_request(7)
    sizes = sorted(entry.records for entry in self.requests(emulator))
    full, rest = divmod(len(keys), size)
    assert sizes == [rest] * bool(rest) + [size] * full

  def test_the_services_own_limits_are_kept_without_being_told(
      self, emulator, tmp_path):
    keys = self.keys(self.max_records + 10)
    self.store(emulator, keys)
    outcome = self.look_up(emulator, self.questions(keys), tmp_path)
    self.check(outcome, keys)
    entries = self.requests(emulator)
    assert all(entry.ok for entry in entries)
    assert all(entry.records <= self.max_records for entry in entries)
    assert self.asked(emulator) == len(keys)
    # Bytes may be fewer than the count would allow, but not by much.
    assert len(entries) <= 4 * math.ceil(len(keys) / self.max_records)

  def test_requests_are_in_flight_together_up_to_the_limit(
      self, emulator, tmp_path):
    emulator.faults([self.fault('latency', seconds=0.1)])
    keys = self.keys(24)
    self.store(emulator, keys)
    outcome = self.look_up(
        emulator,
        self.questions(keys),
        tmp_path,
        tuning=self.tuning(max_records=1, in_flight=4))
    self.check(outcome, keys)
    assert emulator.max_in_flight(self.ask_operation) == 4

  def test_all_bundles_of_a_process_share_the_limit(self, emulator, tmp_path):
    emulator.faults([self.fault('latency', seconds=0.05)])
    keys = self.keys(40)
    self.store(emulator, keys)
    outcome = self.look_up(
        emulator,
        self.questions(keys),
        tmp_path,
        tuning=self.tuning(max_records=1, in_flight=3),
        before=beam.Reshuffle(),
        on='fnapi-threads')
    self.check(outcome, keys)
    assert emulator.max_in_flight(self.ask_operation) == 3


def _only_row(element):
  if isinstance(element, pa.RecordBatch):
    (row,) = element.to_pylist()
    return row
  return as_mapping(element)
