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
"""Read cases: which records come out, as what, and where they can go."""

from __future__ import annotations

import collections
from typing import Any

import pyarrow as pa
import pytest
from apache_beam.transforms.window import FixedWindows
from apache_beam.transforms.window import SlidingWindows
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import MIN_TIMESTAMP

from beam_harness.conformance.hooks import alike
from beam_harness.conformance.pipelines import apply
from beam_harness.conformance.read_hooks import ReadHooks
from beam_harness.engines import engine

__all__ = ['RecordCases']

_SECOND = 1_000_000  # microseconds

_EITHER = pytest.mark.parametrize(
    'as_blocks', [False, True], ids=['rows', 'blocks'])


class RecordCases(ReadHooks):
  """Each record once, and nothing else."""

  # --------------------------------------------------------------- which of them

  @_EITHER
  def test_an_empty_source_gives_nothing(self, emulator, tmp_path, as_blocks):
    applied = self.read(emulator, tmp_path, as_blocks=as_blocks)
    assert applied.outputs['records'] == []

  @_EITHER
  def test_one_shard_is_read(self, emulator, tmp_path, as_blocks):
    stored = self.shards(emulator, 1, 7)
    applied = self.read(emulator, tmp_path, as_blocks=as_blocks)
    self.check(applied, stored)

  @_EITHER
  def test_many_shards_are_read(self, emulator, tmp_path, as_blocks):
    stored = self.shards(emulator, 30, 3)
    self.store(emulator, 'lonely', ['k1'])
    stored['lonely'] = ['k1']
    applied = self.read(emulator, tmp_path, as_blocks=as_blocks)
    self.check(applied, stored)

  @pytest.mark.parametrize('beyond', [-1, 0, 1])
  def test_pages_are_read_to_the_last(self, emulator, tmp_path, beyond):
    stored = self.shards(emulator, 1, 3 * self.page + beyond)
    applied = self.read(emulator, tmp_path, shards=list(stored))
    self.check(applied, stored)
    assert len(self.requests(emulator, 'list')) == self.pages(stored)

  @_EITHER
  def test_many_pages_of_many_shards_are_read(
      self, emulator, tmp_path, as_blocks):
    stored = self.shards(emulator, 4, 2 * self.page + self.page // 2)
    applied = self.read(emulator, tmp_path, as_blocks=as_blocks)
    self.check(applied, stored)

  def test_only_the_shards_that_are_named_are_read(self, emulator, tmp_path):
    stored = self.shards(emulator, 5, 4)
    applied = self.read(emulator, tmp_path, shards=['s3', 's1'])
    self.check(applied, {name: stored[name] for name in ('s1', 's3')})

  def test_a_shard_that_is_named_and_not_there_is_named_again(
      self, emulator, tmp_path):
    self.shards(emulator, 2, 4)
    with pytest.raises(Exception) as caught:
      self.read(emulator, tmp_path, shards=['s1', 'nowhere'])
    assert 'nowhere' in str(caught.value)
    assert self.target in str(caught.value)

  def test_a_prefix_chooses_records(self, emulator, tmp_path):
    stored = self.shards(emulator, 2, self.page + 20)
    # Ten of them, across the border of a page.
    first = f'{self.page - 3:05d}'[:4]
    applied = self.read(emulator, tmp_path, prefix=f's1-k{first}')
    self.check(
        applied,
        {'s1': [key for key in stored['s1'] if key.startswith(f's1-k{first}')]})

  def test_a_filter_chooses_records(self, emulator, tmp_path):
    if self.where is None:
      pytest.skip('the source has no filter')
    stored = self.shards(emulator, 3, self.page + 20)
    applied = self.read(emulator, tmp_path, where=self.where)
    chosen = {
        shard: list(filter(self.matches, keys))
        for shard, keys in stored.items()
    }
    assert all(0 < len(chosen[shard]) < len(stored[shard]) for shard in stored)
    self.check(applied, chosen)

  # ---------------------------------------------------------------- as what

  def test_rows_and_blocks_hold_the_same(self, emulator, tmp_path):
    self.shards(emulator, 3, self.page + 5)
    read = [
        self.read(emulator, tmp_path, as_blocks=as_blocks)
        for as_blocks in (False, True)
    ]
    rows, blocks = (applied.outputs['records'] for applied in read)
    assert all(isinstance(output.value, pa.RecordBatch) for output in blocks)
    assert not any(isinstance(output.value, pa.RecordBatch) for output in rows)
    assert len(blocks) < len(rows)
    in_rows, in_blocks = (
        sorted(map(self.record_of, self.rows_of(outputs)), key=_shard_and_key)
        for outputs in (rows, blocks))
    assert alike(in_rows, in_blocks)

  def test_all_blocks_have_one_schema(self, emulator, tmp_path):
    self.shards(emulator, 3, self.page + 5)
    applied = self.read(emulator, tmp_path, as_blocks=True)
    schemas = [output.value.schema for output in applied.outputs['records']]
    assert len(schemas) >= 3
    assert all(schema == schemas[0] for schema in schemas)

  @_EITHER
  def test_columns_narrow_what_is_read(self, emulator, tmp_path, as_blocks):
    columns, left_out = self.narrow
    if not left_out:
      pytest.skip('the source has no columns to choose from')
    stored = self.shards(emulator, 2, 5)
    applied = self.read(
        emulator, tmp_path, columns=columns, as_blocks=as_blocks)
    rows = self.rows_of(applied.outputs['records'])
    assert sorted(row[self.key_field] for row in rows) == sorted(
        key for keys in stored.values() for key in keys)
    for row in rows:
      assert all(row.get(name) is None for name in left_out)

  def test_records_are_in_the_global_window(self, emulator, tmp_path):
    self.shards(emulator, 1, 5)
    applied = self.read(emulator, tmp_path)
    times = {output.timestamp for output in applied.outputs['records']}
    assert times == {MIN_TIMESTAMP.micros}

  # ------------------------------------------------------ requests as elements

  @_EITHER
  def test_requests_of_a_pcollection_are_each_answered(
      self, emulator, tmp_path, as_blocks):
    stored = self.shards(emulator, 4, self.page + 10)
    requests = [
        TimestampedValue(self.make_request(['s0', 's2']), 3),
        TimestampedValue(self.make_request(['s1'], 's1-k0000'), 14),
    ]
    applied = self._read_all(
        emulator, requests, tmp_path, as_blocks, FixedWindows(10))
    expected = {
        's0': stored['s0'],
        's1': [k for k in stored['s1'] if k.startswith('s1-k0000')],
        's2': stored['s2'],
    }
    self.check(applied, expected)
    for output in applied.outputs['records']:
      second = 14 if output.value in self._of(output, 's1') else 3
      start = second // 10 * 10
      assert output.timestamp == second * _SECOND
      assert output.windows == ((start * _SECOND, (start + 10) * _SECOND),)

  def test_a_request_in_several_windows_is_answered_in_each(
      self, emulator, tmp_path):
    stored = self.shards(emulator, 1, 4)
    requests = [TimestampedValue(self.make_request(['s0']), 20)]
    applied = self._read_all(
        emulator, requests, tmp_path, False, SlidingWindows(20, 10))
    windows: dict[Any, list[Any]] = collections.defaultdict(list)
    for output in applied.outputs['records']:
      _, key, _ = self.record_of(self.rows_of([output])[0])
      windows[key] += output.windows
    assert sorted(windows) == stored['s0']
    for several in windows.values():
      assert sorted(several) == [(10 * _SECOND, 30 * _SECOND),
                                 (20 * _SECOND, 40 * _SECOND)]

  def test_no_requests_read_nothing(self, emulator, tmp_path):
    self.shards(emulator, 2, 4)
    applied = self._read_all(emulator, [], tmp_path, False, None)
    assert applied.outputs['records'] == []
    assert {e.operation for e in emulator.log()} <= set(self.idle_requests)

  # ------------------------------------------------------------------ round trip

  @_EITHER
  def test_what_is_read_can_be_written_as_it_is(self, emulator, as_blocks):
    stored = self.shards(emulator, 3, self.page + 10)
    pipeline = engine('fnapi').pipeline()
    records = pipeline | 'Read' >> self.make_transform(
        emulator, tuning=self.tuning(), as_blocks=as_blocks)
    _ = records | 'Write' >> self.make_sink(emulator)
    engine('fnapi').run(pipeline)
    keys = [key for keys in stored.values() for key in keys]
    copied = self.copied(emulator)
    assert sorted(copied) == sorted(keys)
    assert all(alike(copied[key], self.expected(key)) for key in keys)

  # ------------------------------------------------------------------- helpers

  def _read_all(self, emulator, requests, folder, as_blocks, window):
    transform = self.make_read_all(
        emulator, as_blocks=as_blocks, tuning=self.tuning())
    return apply(
        transform,
        requests,
        folder, lambda records: {'records': records},
        window=window)

  def _of(self, output, shard):
    """The output's value in a list, if its records are of that shard."""
    shards = {self.record_of(row)[0] for row in self.rows_of([output])}
    assert len(shards) == 1
    return [output.value] if shards == {shard} else []


def _shard_and_key(record):
  return record[:2]
