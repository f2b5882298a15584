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
"""The toy emulator that the tests of the emulator framework talk to."""

import pathlib
import sys

import pytest

from beam_harness.plugin import Emulators

# Where the toy is found, here and by an emulator's own process.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

TOY = 'emulator_toys.keyvalue'


@pytest.fixture(scope='session')
def _toys():
  toys = {mode: Emulators(mode) for mode in ('thread', 'process')}
  yield toys
  for each in toys.values():
    each.close()


@pytest.fixture
def toy(_toys):
  """The toy emulator in a thread, as if just started."""
  with _toys['thread'].lend(TOY) as emulator:
    yield emulator


@pytest.fixture(params=['thread', 'process'])
def toy_in_each_mode(_toys, request):
  """The toy emulator, in a thread and in its own process."""
  with _toys[request.param].lend(TOY) as emulator:
    yield emulator
