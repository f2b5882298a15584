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
"""Published suites of what every connector must do.

A connector's tests subclass a suite, say how its elements and its emulator
look, and get the standard cases:

    class TestWriteToPinecone(SinkConformance):
      ...

A case may be replaced only with `overrides_case`, which takes the reason; the
suite itself and `test_conformance_guard.py` fail when a standard case is
missing or replaced without one.
"""

import pytest

# Before the modules are imported: their asserts explain themselves then.
pytest.register_assert_rewrite(
    'beam_harness.conformance.cases',
    'beam_harness.conformance.hooks',
    'beam_harness.conformance.lookup',
    'beam_harness.conformance.lookup_engines',
    'beam_harness.conformance.lookup_enrichment',
    'beam_harness.conformance.lookup_faults',
    'beam_harness.conformance.lookup_hooks',
    'beam_harness.conformance.lookup_metrics',
    'beam_harness.conformance.lookup_outputs',
    'beam_harness.conformance.lookup_questions',
    'beam_harness.conformance.lookup_safety',
    'beam_harness.conformance.lookup_sharing',
    'beam_harness.conformance.read',
    'beam_harness.conformance.read_engines',
    'beam_harness.conformance.read_faults',
    'beam_harness.conformance.read_hooks',
    'beam_harness.conformance.read_records',
    'beam_harness.conformance.read_safety',
    'beam_harness.conformance.safety',
    'beam_harness.conformance.sink',
    'beam_harness.conformance.sink_elements',
    'beam_harness.conformance.sink_engines',
    'beam_harness.conformance.sink_faults',
    'beam_harness.conformance.sink_hooks',
    'beam_harness.conformance.sink_metrics',
    'beam_harness.conformance.sink_outputs',
    'beam_harness.conformance.sink_safety')

# pylint: disable=wrong-import-position
from beam_harness.conformance.cases import overrides_case  # noqa: E402
from beam_harness.conformance.cases import problems_of  # noqa: E402
from beam_harness.conformance.cases import standard_cases  # noqa: E402
from beam_harness.conformance.lookup import LookupConformance  # noqa: E402
from beam_harness.conformance.read import ReadConformance  # noqa: E402
from beam_harness.conformance.sink import SinkConformance  # noqa: E402

__all__ = [
    'LookupConformance',
    'ReadConformance',
    'SinkConformance',
    'overrides_case',
    'problems_of',
    'standard_cases'
]
