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
"""Lookup cases: no leaked secret, and nothing done before the workers start."""

from __future__ import annotations

import logging
import pickle

import apache_beam as beam
import pytest

from beam_harness.conformance.lookup_hooks import LookupHooks
from beam_harness.conformance.safety import check_construction
from beam_harness.conformance.safety import check_no_secret_is_carried
from beam_harness.conformance.safety import display_data
from beam_harness.engines import engine

__all__ = ['SafetyCases']


class SafetyCases(LookupHooks):
  """What a pipeline carries, prints and does at construction."""

  # ------------------------------------------------------------------- secrets

  def test_no_secret_is_in_what_a_pipeline_carries(self, emulator):
    pipeline = engine('fnapi').pipeline()
    lookup = self.make_transform(
        emulator, tuning=self.tuning(), on_error='collect')
    result = (
        pipeline | beam.Create(self.questions(self.keys(3)))
        | 'Lookup' >> lookup)
    _ = result.failed | beam.Map(print)
    check_no_secret_is_carried(pipeline, lookup, self.secret)

  def test_no_secret_is_in_errors_and_logs(self, emulator, tmp_path, caplog):
    # A service that repeats the credential it was given.
    said = f'the credential {self.secret} may not do that'
    # Not of everything: the emulator's own libraries log what they receive.
    ours = self.transform.__module__.partition('.')[0]
    with (caplog.at_level(logging.DEBUG, logger='beam_connector_base'),
          caplog.at_level(logging.DEBUG, logger=ours)):
      for rule in (self.fault('error', status=403, message=said),
                   self.fault('error', status=503, message=said),
                   self.poison(message=said)):
        emulator.faults([rule])
        with pytest.raises(Exception) as caught:
          self.look_up(
              emulator,
              self.questions(['k1', 'poison']),
              tmp_path,
              tuning=self.tuning(deadline=0.3),
              on_error='fail')
        assert 'may not do that' in str(caught.value)
        error: BaseException | None = caught.value
        while error is not None:
          assert self.secret not in str(error)
          assert self.secret.encode() not in pickle.dumps(str(error.args))
          error = error.__cause__ or error.__context__
    assert self.secret not in caplog.text

  def test_no_secret_is_in_failed_records(self, emulator, tmp_path):
    said = f'the credential {self.secret} may not do that'
    emulator.faults([self.poison(message=said)])
    self.store(emulator, ['k1'])
    outcome = self.look_up(emulator, self.questions(['k1', 'poison']), tmp_path)
    self.check(outcome, ['k1'], refused=['poison'])
    failed = self.only(outcome.failed)
    assert 'may not do that' in failed.message
    assert self.secret not in str(failed)

  # --------------------------------------------------------------- display data

  def test_display_data_name_the_target(self, emulator):
    lookup = self.make_transform(emulator, tuning=self.tuning())
    assert self.target in str(display_data(lookup))

  # --------------------------------------------------------------- construction

  def test_construction_touches_no_network_and_no_heavy_module(self):
    check_construction(
        self.construction,
        'lookup',
        self.secret_variable,
        self.heavy_modules,
        "p | beam.Create([{'id': 'a'}])")
