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
"""Read cases: bundles that run again, many at a time, other processes."""

from __future__ import annotations

import time

import pytest

from beam_harness.conformance.read_hooks import ReadHooks
from beam_harness.engines import engine

__all__ = ['EngineCases']


class EngineCases(ReadHooks):
  """However often a bundle runs, and wherever, each record comes once."""
  def test_repeated_bundles_give_each_record_once(self, emulator, tmp_path):
    stored = self.shards(emulator, 2, self.page + 20)
    applied = self.read(
        emulator, tmp_path, shards=list(stored), on='fnapi-repeat')
    self.check(applied, stored)
    times = engine('fnapi-repeat').executions
    lists = len(self.requests(emulator, 'list'))
    assert lists == times * self.pages(stored)

  @pytest.mark.parametrize('step', ['list', 'fetch'])
  @pytest.mark.parametrize('as_blocks', [False, True], ids=['rows', 'blocks'])
  def test_a_bundle_that_fails_in_the_middle_of_a_shard_is_read_again(
      self, emulator, tmp_path, step, as_blocks):
    if not self.operation(step):
      pytest.skip('the pages hold the records')
    stored = self.shards(emulator, 2, 4 * self.page)
    # A lost permission fails the bundle when part of it is read already.
    skip = 2 if step == 'list' else 0
    emulator.faults([self.fault(step, 'error', status=403, skip=skip, count=1)])
    applied = self.read(
        emulator, tmp_path, on='bundle-retry', as_blocks=as_blocks)
    self.check(applied, stored)
    assert emulator.fault_hits == [1]

  def test_a_bundle_that_fails_each_time_says_why(self, emulator, tmp_path):
    self.shards(emulator, 1, 5)
    emulator.faults([
        self.fault(
            'list',
            'error',
            status=403,
            message='the credential may not do this')
    ])
    with pytest.raises(Exception, match=self.fatal_message):
      self.read(emulator, tmp_path, on='bundle-retry')
    attempts = engine('bundle-retry').attempts
    assert len(self.requests(emulator, 'list')) == attempts

  def test_shards_are_read_side_by_side(self, emulator, tmp_path):
    stored = self.shards(emulator, 8, 2)
    emulator.faults([self.fault('list', 'latency', seconds=0.3)])
    applied = self.read(emulator, tmp_path, on='fnapi-threads')
    self.check(applied, stored)
    assert emulator.max_in_flight(self.list_operation) >= 3

  @pytest.mark.parametrize('as_blocks', [False, True], ids=['rows', 'blocks'])
  def test_many_bundles_at_a_time(self, emulator, tmp_path, as_blocks):
    stored = self.shards(emulator, 12, self.page + 3)
    rules = [self.fault('list', 'error', status=503, probability=0.2)]
    if self.fetch_operation:
      rules.append(self.fault('fetch', 'error', status=503, probability=0.2))
    emulator.faults(rules)
    applied = self.read(
        emulator, tmp_path, on='fnapi-threads', as_blocks=as_blocks)
    self.check(applied, stored)

  @pytest.mark.parametrize('as_blocks', [False, True], ids=['rows', 'blocks'])
  def test_records_pass_their_coders(self, emulator, tmp_path, as_blocks):
    stored = self.shards(emulator, 3, self.page + 3)
    applied = self.read(emulator, tmp_path, on='loopback', as_blocks=as_blocks)
    self.check(applied, stored)

  def test_worker_processes_read_the_same(self, emulator, tmp_path):
    stored = self.shards(emulator, 5, self.page + 20)
    applied = self.read(emulator, tmp_path, on='processes')
    self.check(applied, stored)

  def test_no_connection_outlives_the_pipeline(self, emulator, tmp_path):
    stored = self.shards(emulator, 4, self.page + 20)
    before = emulator.open_connections
    applied = self.read(emulator, tmp_path, on='fnapi-threads')
    self.check(applied, stored)
    limit = time.monotonic() + 3
    while emulator.open_connections > before:
      assert time.monotonic() < limit, f'{emulator.open_connections} are open'
