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
"""Sink cases: what comes out, when, in which window, and who must read it."""

from __future__ import annotations

import collections
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.transforms.error_handling import ErrorHandler
from apache_beam.transforms.window import FixedWindows
from apache_beam.transforms.window import SlidingWindows
from apache_beam.transforms.window import TimestampedValue

from beam_harness.conformance.pipelines import gather
from beam_harness.conformance.pipelines import load
from beam_harness.conformance.pipelines import write
from beam_harness.conformance.sink_hooks import SinkHooks
from beam_harness.engines import engine

__all__ = ['OutputCases']

_SECOND = 1_000_000  # microseconds


class OutputCases(SinkHooks):
  """Outputs belong to the element they tell about."""

  # -------------------------------------------------------- windows, timestamps

  def test_outputs_keep_element_window_and_timestamp(self, emulator, tmp_path):
    emulator.faults([self.poison()])
    good = self.keys(30)
    poison = self.keys(2, prefix='poison')
    mixed = good[:10] + poison[:1] + ['bad'] + good[10:] + poison[1:]
    elements = {
        key: self.bad_element(key) if key == 'bad' else self.make_element(key)
        for key in mixed
    }
    # One a second; windows of ten seconds; batches across windows.
    seconds = {key: i for i, key in enumerate(mixed)}
    outcome = self.write(
        emulator,
        [TimestampedValue(elements[key], seconds[key]) for key in mixed],
        tmp_path,
        window=FixedWindows(10),
        tuning=self.tuning(max_records=7))
    self.check(emulator, outcome, good, poison + ['bad'])
    for output in outcome.written + outcome.failed:
      failed = output in outcome.failed
      element = output.value.element if failed else output.value
      key = self.key_of(element)
      start = seconds[key] // 10 * 10
      assert self.same(element, elements[key])
      assert output.timestamp == seconds[key] * _SECOND
      assert output.windows == ((start * _SECOND, (start + 10) * _SECOND),)
      if failed:
        assert output.value.timestamp.micros == output.timestamp

  def test_outputs_keep_them_when_batched_across_bundles(
      self, emulator, tmp_path):
    emulator.faults([self.poison()])
    keys = self.keys(30)
    seconds = {key: i for i, key in enumerate(keys + ['poison'])}
    outcome = self.write(
        emulator,
        [
            TimestampedValue(self.make_element(key), second)
            for key, second in seconds.items()
        ],
        tmp_path,
        window=FixedWindows(10),
        tuning=self.tuning(across_bundles=1.0, max_records=10))
    self.check(emulator, outcome, keys, ['poison'])
    for output in outcome.written + outcome.failed:
      failed = output in outcome.failed
      key = self.key_of(output.value.element if failed else output.value)
      start = seconds[key] // 10 * 10
      assert output.timestamp == seconds[key] * _SECOND
      assert output.windows == ((start * _SECOND, (start + 10) * _SECOND),)

  def test_rows_of_a_block_keep_its_window_and_timestamp(
      self, emulator, tmp_path):
    blocks = []
    for i in range(3):
      rows = self.elements(self.keys(5, prefix=f'{i}-'))
      rows.insert(i, self.bad_element(f'bad{i}'))
      blocks.append(TimestampedValue(self.make_block(rows), 10 * i + 3))
    outcome = self.write(
        emulator,
        blocks,
        tmp_path,
        window=FixedWindows(10),
        tuning=self.tuning(max_records=4))
    assert len(outcome.written) == len(outcome.failed) == 3
    for output in outcome.written + outcome.failed:
      failed = output in outcome.failed
      element = output.value.element if failed else output.value
      number = int(self.keys_of([element])[0].strip('bad')[0])
      start = number * 10 * _SECOND
      assert output.timestamp == start + 3 * _SECOND
      assert output.windows == ((start, start + 10 * _SECOND),)

  def test_an_element_in_several_windows_is_written_once(
      self, emulator, tmp_path):
    keys = self.keys(4)
    elements = [
        TimestampedValue(self.make_element(key), 20 + i)
        for i, key in enumerate(keys)
    ]
    outcome = self.write(
        emulator, elements, tmp_path, window=SlidingWindows(20, 5))
    assert self.stored(emulator) == self.expect(keys)
    assert sum(entry.records for entry in self.requests(emulator)) == len(keys)
    times = collections.Counter(
        self.key_of(output.value)
        for output in outcome.written
        for _ in output.windows)
    assert times == {key: 4 for key in keys}

  # ------------------------------------------------------------- failed records

  def test_dead_letters_can_be_written_again(self, emulator, tmp_path):
    emulator.faults([self.poison()])
    keys = self.keys(20)
    poison = self.keys(3, prefix='poison')
    path = tmp_path / 'kept'
    pipeline = engine('fnapi').pipeline()
    sink = self.make_transform(
        emulator, tuning=self.tuning(), on_error='collect')
    result = (
        pipeline | beam.Create(self.elements(keys + poison)) | 'Sink' >> sink)
    # Through the coder of failed records, as on their way to wherever they are
    # kept.
    gather(result.failed | beam.Reshuffle(), path, 'Kept')
    engine('fnapi').run(pipeline)
    kept = [output.value for output in load(path)]
    assert sorted(failed.key for failed in kept) == poison

    emulator.faults(None)
    again = write(
        sink, [failed.element for failed in kept],
        tmp_path,
        before=beam.Map(_as_it_is))
    assert self.keys_of(o.value for o in again.written) == poison
    assert self.stored(emulator) == self.expect(keys + poison)

  def test_failed_records_that_nobody_reads_are_refused_at_construction(
      self, emulator):
    pipeline = engine('fnapi').pipeline()
    sink = self.make_transform(
        emulator, tuning=self.tuning(), on_error='collect')
    _ = pipeline | beam.Create(self.elements(self.keys(3))) | 'Sink' >> sink
    with pytest.raises(Exception, match=r'\.failed'):
      engine('fnapi').run(pipeline)
    assert emulator.log() == []

  def test_an_error_handler_gets_the_failed_records(self, emulator, tmp_path):
    emulator.faults([self.poison()])
    path = tmp_path / 'handled'
    pipeline = engine('fnapi').pipeline()
    with ErrorHandler(_Gather(path)) as handler:
      sink = self.make_transform(
          emulator, tuning=self.tuning(), on_error=handler)
      _ = (
          pipeline
          | beam.Create(self.elements(self.keys(5) + ['poison']))
          | 'Sink' >> sink)
    engine('fnapi').run(pipeline)
    assert [output.value.key for output in load(path)] == ['poison']
    assert self.stored(emulator) == self.expect(self.keys(5))

  # ------------------------------------------------------------------ sequencing

  def test_what_waits_for_the_written_comes_after_all_of_it(
      self, emulator, tmp_path):
    emulator.faults([self.fault('latency', seconds=0.05)])
    first = self.keys(20)
    pipeline = engine('fnapi').pipeline()
    written = (
        pipeline
        | 'First elements' >> beam.Create(self.elements(first))
        | 'First' >> self.make_transform(
            emulator, tuning=self.tuning(max_records=5))).written
    _ = (
        pipeline
        | 'Then elements' >> beam.Create(self.elements(['then']))
        | beam.WaitOn(written)
        | 'Then' >> self.make_transform(emulator, tuning=self.tuning()))
    engine('fnapi').run(pipeline)
    assert self.stored(emulator) == self.expect(first + ['then'])
    *earlier, last = self.requests(emulator)
    assert [entry.records for entry in earlier] == [5] * 4
    assert last.records == 1
    assert last.started >= max(map(self.ended, earlier))

  # ---------------------------------------------------------------------- ledger

  def test_the_ledger_accounts_for_every_record_of_every_window(
      self, emulator, tmp_path):
    emulator.faults([self.poison()])
    keys = self.keys(24) + ['poison0', 'poison1', 'bad']
    elements = [
        TimestampedValue(
            self.bad_element(key) if key == 'bad' else self.make_element(key),
            10 * (i % 3)) for i, key in enumerate(keys)
    ]
    outcome = self.write(
        emulator,
        elements,
        tmp_path,
        window=FixedWindows(10),
        ledger=True,
        tuning=self.tuning(max_records=5))
    written = collections.Counter(o.windows for o in outcome.written)
    failed = collections.Counter(o.windows for o in outcome.failed)
    records: collections.Counter[Any] = collections.Counter()
    rows: collections.Counter[Any] = collections.Counter()
    for output in outcome.ledger:
      row = output.value
      assert row.records == row.written + row.superseded + row.failed
      records[output.windows] += row.records
      rows[output.windows, 'written'] += row.written + row.superseded
      rows[output.windows, 'failed'] += row.failed
    assert len(records) == 3 and set(records.values()) == {9}
    for window in records:
      assert rows[window, 'written'] == written[window]
      assert rows[window, 'failed'] == failed[window]
    # One row per window and destination, not one per bundle.
    places = [(o.windows, o.value.destination) for o in outcome.ledger]
    assert len(places) == len(set(places))


class _Gather(beam.PTransform):
  def __init__(self, path):
    super().__init__()
    self._path = path

  def expand(self, pcoll):
    gather(pcoll, self._path, 'Gather')
    return pcoll


def _as_it_is(element):
  return element
