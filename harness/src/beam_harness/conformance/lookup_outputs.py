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
"""Lookup cases: what comes out, when, in which window, and who must read it."""

from __future__ import annotations

import collections
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.transforms.error_handling import ErrorHandler
from apache_beam.transforms.window import FixedWindows
from apache_beam.transforms.window import SlidingWindows
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.windowed_value import PaneInfoTiming

from beam_harness.conformance.lookup_hooks import LookupHooks
from beam_harness.conformance.pipelines import apply
from beam_harness.conformance.pipelines import gather
from beam_harness.conformance.pipelines import load
from beam_harness.engines import engine

__all__ = ['OutputCases']

_SECOND = 1_000_000  # microseconds


class OutputCases(LookupHooks):
  """Outputs belong to the element they tell about."""

  # -------------------------------------------------------- windows, timestamps

  def test_outputs_keep_element_window_and_timestamp(self, emulator, tmp_path):
    emulator.faults([self.poison()])
    good = self.keys(30)
    self.store(emulator, good)
    apart = ['poison'] + (['missing'] if self.answers_nothing else [])
    keys = good[:10] + apart[:1] + good[10:] + apart[1:]
    # One a second; windows of ten seconds; requests across windows.
    seconds = {key: i for i, key in enumerate(keys)}
    outcome = self.look_up(
        emulator, [
            TimestampedValue(self.make_question(key), seconds[key])
            for key in keys
        ],
        tmp_path,
        window=FixedWindows(10),
        on_missing='separate',
        tuning=self.tuning(max_records=7))
    self.check(outcome, good, refused=['poison'])
    outputs = outcome.joined + outcome.missing + outcome.failed
    assert len(outputs) == len(keys)
    for output in outputs:
      failed = output in outcome.failed
      element = output.value.element if failed else output.value
      second = seconds[self.key_of(element)]
      start = second // 10 * 10
      assert output.timestamp == second * _SECOND
      assert output.windows == ((start * _SECOND, (start + 10) * _SECOND),)
      if failed:
        assert output.value.timestamp.micros == output.timestamp

  def test_outputs_keep_them_when_batched_across_bundles(
      self, emulator, tmp_path):
    emulator.faults([self.poison()])
    keys = self.keys(30)
    self.store(emulator, keys)
    seconds = {key: i for i, key in enumerate(keys + ['poison'])}
    outcome = self.look_up(
        emulator,
        [
            TimestampedValue(self.make_question(key), second)
            for key, second in seconds.items()
        ],
        tmp_path,
        window=FixedWindows(10),
        tuning=self.tuning(across_bundles=1.0, max_records=10))
    self.check(outcome, keys, refused=['poison'])
    for output in outcome.joined + outcome.failed:
      failed = output in outcome.failed
      key = self.key_of(output.value.element if failed else output.value)
      start = seconds[key] // 10 * 10
      assert output.timestamp == seconds[key] * _SECOND
      assert output.windows == ((start * _SECOND, (start + 10) * _SECOND),)

  def test_rows_of_a_block_keep_its_window_and_timestamp(
      self, emulator, tmp_path):
    blocks, good = [], []
    for i in range(3):
      keys = self.keys(5, prefix=f'{i}-')
      good += keys
      rows = self.questions(keys)
      if self.answers_nothing:
        rows.insert(i, self.make_question(f'missing{i}'))
      rows.insert(i, self.bad_question())
      blocks.append(TimestampedValue(self.make_block(rows), 10 * i + 3))
    self.store(emulator, good)
    outcome = self.look_up(
        emulator,
        blocks,
        tmp_path,
        window=FixedWindows(10),
        on_missing='separate',
        tuning=self.tuning(max_records=4))
    self.check_joined(self.rows_of(outcome.joined), good)
    expected = [
        ((start * _SECOND, (start + 10) * _SECOND),) for start in (0, 10, 20)
    ]
    outputs = [outcome.joined, outcome.failed]
    if self.answers_nothing:
      outputs.append(outcome.missing)
    for of_one_kind in outputs:
      assert sorted(output.windows for output in of_one_kind) == expected
      for output in of_one_kind:
        assert output.timestamp == output.windows[0][0] + 3 * _SECOND
    for output in outcome.joined:
      number = output.windows[0][0] // (10 * _SECOND)
      assert {key[0] for key in self.keys_of([output.value])} == {str(number)}

  def test_an_element_in_several_windows_is_joined_once_in_each(
      self, emulator, tmp_path):
    keys = self.keys(4)
    self.store(emulator, keys)
    apart = ['missing'] if self.answers_nothing else []
    outcome = self.look_up(
        emulator,
        [
            TimestampedValue(self.make_question(key), 20 + i)
            for i, key in enumerate(keys + apart)
        ],
        tmp_path,
        window=SlidingWindows(20, 5),
        on_missing='separate')
    assert self.asked(emulator) == len(keys + apart)
    for outputs, expected in ((outcome.joined, keys), (outcome.missing, apart)):
      windows: dict[str, list[Any]] = collections.defaultdict(list)
      for output in outputs:
        windows[self.key_of(output.value)] += output.windows
      assert sorted(windows) == expected
      for key, several in windows.items():
        second = 20 + (keys + apart).index(key)
        assert sorted(several) == [(start * _SECOND, (start + 20) * _SECOND)
                                   for start in (5, 10, 15, 20)
                                   if start <= second < start + 20]

  def test_outputs_keep_the_pane_of_their_element(self, emulator, tmp_path):
    keys = self.keys(6)
    self.store(emulator, keys)
    outcome = self.look_up(
        emulator,
        [
            TimestampedValue(self.make_question(key), i)
            for i, key in enumerate(keys)
        ],
        tmp_path,
        window=FixedWindows(10),
        before=_Fire(),
        on_missing='separate')
    self.check(outcome, keys)
    # Before a GroupByKey fired nobody knows of panes.
    (pane,) = {output.pane for output in outcome.joined}
    assert PaneInfoTiming.UNKNOWN not in pane

  # ------------------------------------------------------------------- chaining

  def test_lookups_chain_like_any_transform(self, emulator, tmp_path):
    keys, missing = self.keys(8), ['missing'] if self.answers_nothing else []
    self.store(emulator, keys)
    lookup = _Chain(
        self.make_transform(emulator, tuning=self.tuning()),
        self.make_transform(emulator, tuning=self.tuning(max_records=3)),
        list(self.make_question('a key')))
    applied = apply(
        lookup,
        self.questions(keys + missing),
        tmp_path, lambda results: {
            'first': results[0],
            'then': results[1],
            'both': results | beam.Flatten(),
            'counted': results[0] | beam.combiners.Count.Globally(),})
    outputs = applied.outputs
    self.check_joined(self.rows_of(outputs['first']), keys, missing)
    self.check_joined(self.rows_of(outputs['then']), keys, missing)
    self.check_joined(self.rows_of(outputs['both']), 2 * keys, 2 * missing)
    assert [o.value for o in outputs['counted']] == [len(keys + missing)]

  # ------------------------------------------------------------- failed records

  def test_dead_letters_carry_their_element_and_can_be_asked_again(
      self, emulator, tmp_path):
    emulator.faults([self.poison()])
    keys, poison = self.keys(20), self.keys(3, prefix='poison')
    self.store(emulator, keys + poison)
    path = tmp_path / 'kept'
    pipeline = engine('fnapi').pipeline()
    lookup = self.make_transform(
        emulator, tuning=self.tuning(), on_error='collect')
    result = (
        pipeline | beam.Create(self.questions(keys + poison))
        | 'Lookup' >> lookup)
    # Through the coder of failed records, as on their way to wherever they are
    # kept.
    gather(result.failed | beam.Reshuffle(), path, 'Kept')
    engine('fnapi').run(pipeline)
    kept = [output.value for output in load(path)]
    assert sorted(failed.key for failed in kept) == poison
    for failed in kept:
      assert self.same(failed.element, self.make_question(failed.key))

    emulator.faults(None)
    again = self.look_up(
        emulator, [failed.element for failed in kept],
        tmp_path,
        before=beam.Map(_as_it_is))
    self.check(again, poison)

  def test_failed_records_that_nobody_reads_are_refused_at_construction(
      self, emulator):
    pipeline = engine('fnapi').pipeline()
    lookup = self.make_transform(
        emulator, tuning=self.tuning(), on_error='collect')
    _ = pipeline | beam.Create(self.questions(self.keys(3))) | 'L' >> lookup
    with pytest.raises(Exception, match=r'\.failed'):
      engine('fnapi').run(pipeline)
    assert emulator.log() == []

  def test_an_error_handler_gets_the_failed_records(self, emulator, tmp_path):
    emulator.faults([self.poison()])
    keys = self.keys(5)
    self.store(emulator, keys)
    pipeline = engine('fnapi').pipeline()
    with ErrorHandler(_Gather(tmp_path / 'handled')) as handler:
      lookup = self.make_transform(
          emulator, tuning=self.tuning(), on_error=handler)
      result = (
          pipeline
          | beam.Create(self.questions(keys + ['poison']))
          | 'Lookup' >> lookup)
      gather(self.outputs_of(result)['joined'], tmp_path / 'joined', 'Joined')
    engine('fnapi').run(pipeline)
    handled = [output.value.key for output in load(tmp_path / 'handled')]
    assert handled == ['poison']
    self.check_joined(self.rows_of(load(tmp_path / 'joined')), keys)


class _Chain(beam.PTransform):
  """Two lookups, the second of what the first one joined."""
  def __init__(self, first, then, fields):
    super().__init__()
    self._first = first
    self._then = then
    self._fields = fields

  def expand(self, pcoll):
    fields = self._fields
    first = pcoll | 'First' >> self._first
    asked = first | beam.Map(lambda row: {name: row[name] for name in fields})
    return first, asked | 'Then' >> self._then


class _Fire(beam.PTransform):
  """Groups and takes apart: elements get the pane of the group."""
  def expand(self, pcoll):
    return (
        pcoll
        | beam.WithKeys(lambda _: 0)
        | beam.GroupByKey()
        | beam.FlatMap(lambda group: group[1]))


class _Gather(beam.PTransform):
  def __init__(self, path):
    super().__init__()
    self._path = path

  def expand(self, pcoll):
    gather(pcoll, self._path, 'Gather')
    return pcoll


def _as_it_is(element):
  return element
