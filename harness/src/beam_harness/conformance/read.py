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
"""The read suite: what every source must do."""

from __future__ import annotations

from beam_harness.conformance.cases import problems_of
from beam_harness.conformance.read_engines import EngineCases
from beam_harness.conformance.read_faults import FaultCases
from beam_harness.conformance.read_records import RecordCases
from beam_harness.conformance.read_safety import MetricCases
from beam_harness.conformance.read_safety import SafetyCases

__all__ = ['ReadConformance']


class ReadConformance(RecordCases,
                      FaultCases,
                      EngineCases,
                      MetricCases,
                      SafetyCases):
  """Subclass it, answer the questions of `ReadHooks`, get the cases.

  What was asked is observed at the emulator, what was read at the output.
  """
  def test_every_standard_case_is_kept(self):
    assert problems_of(type(self)) == []
