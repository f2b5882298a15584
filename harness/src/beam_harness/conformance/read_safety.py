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
"""Read cases: metrics as the emulator saw it, secrets, construction."""

from __future__ import annotations

import logging
import pickle

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import Lineage

from beam_harness.conformance.read_hooks import ReadHooks
from beam_harness.conformance.safety import check_construction
from beam_harness.conformance.safety import check_no_secret_is_carried
from beam_harness.conformance.safety import display_data
from beam_harness.engines import engine

__all__ = ['MetricCases', 'SafetyCases']


class MetricCases(ReadHooks):
  """Counters are compared with the emulator's own log, not with themselves."""
  @pytest.mark.parametrize('as_blocks', [False, True], ids=['rows', 'blocks'])
  def test_metrics_equal_the_log_of_the_service(
      self, emulator, tmp_path, as_blocks):
    stored = self.shards(emulator, 3, self.page + 20)
    emulator.faults([
        self.fault('list', 'throttle', retry_after=1.5, count=1),
        self.fault('list', 'error', status=503, skip=2, count=2),
    ])
    applied = self.read(
        emulator,
        tmp_path,
        as_blocks=as_blocks,
        tuning=self.tuning(deadline=30.0))
    self.check(applied, stored)
    # What is asked while connecting is not counted.
    log = [e for e in emulator.log() if e.operation not in self.idle_requests]
    counters = applied.counters(self.namespace)
    assert counters['requests'] == len(log)
    assert counters['requests_ok'] == sum(entry.ok for entry in log)
    assert counters['requests_throttled'] == 1
    assert counters['requests_transient'] == 2
    assert counters.get('requests_refused', 0) == 0
    assert counters['records_found'] == sum(map(len, stored.values()))
    assert counters.get('records_missing', 0) == 0
    distributions = applied.distributions(self.namespace)
    assert distributions['request_latency_ms'].count == len(log)
    elapsed = max(map(self.ended, log)) - log[0].started
    assert 1 <= counters['cumulativeThrottlingSeconds'] <= elapsed + 1

  def test_the_source_is_in_the_lineage(self, emulator, tmp_path):
    self.shards(emulator, 2, 3)
    applied = self.read(emulator, tmp_path)
    metrics = applied.result.metrics()
    assert Lineage.query(metrics, Lineage.SOURCE) == set(self.lineage)
    assert Lineage.query(metrics, Lineage.SINK) == set()


class SafetyCases(ReadHooks):
  """What a pipeline carries, prints and does at construction."""
  def test_no_secret_is_in_what_a_pipeline_carries(self, emulator):
    pipeline = engine('fnapi').pipeline()
    source = self.make_transform(emulator, tuning=self.tuning())
    _ = pipeline | 'Read' >> source | beam.Map(print)
    check_no_secret_is_carried(pipeline, source, self.secret)

  def test_no_secret_is_in_errors_and_logs(self, emulator, tmp_path, caplog):
    # A service that repeats the credential it was given.
    said = f'the credential {self.secret} may not do that'
    self.shards(emulator, 1, 3)
    # Not of everything: the emulator's own libraries log what they receive.
    ours = self.transform.__module__.partition('.')[0]
    with (caplog.at_level(logging.DEBUG, logger='beam_connector_base'),
          caplog.at_level(logging.DEBUG, logger=ours)):
      for step in ('list', 'fetch'):
        if not self.operation(step):
          continue
        for status in (400, 403, 503):
          emulator.faults(
              [self.fault(step, 'error', status=status, message=said)])
          with pytest.raises(Exception) as caught:
            self.read(emulator, tmp_path, tuning=self.tuning(deadline=0.3))
          assert 'may not do that' in str(caught.value)
          error: BaseException | None = caught.value
          while error is not None:
            assert self.secret not in str(error)
            assert self.secret.encode() not in pickle.dumps(str(error.args))
            error = error.__cause__ or error.__context__
    assert self.secret not in caplog.text

  def test_display_data_name_the_target(self, emulator):
    source = self.make_transform(emulator, tuning=self.tuning())
    assert self.target in str(display_data(source))

  def test_construction_touches_no_network_and_no_heavy_module(self):
    check_construction(
        self.construction,
        'read',
        self.secret_variable,
        self.heavy_modules,
        'p')
