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
"""The pytest plugin: emulators and the engine's name as fixtures.

An emulator is started once for a session, when the first test asks for it,
and is reset before each test that gets it. When such a test fails its report
shows the last requests; when the emulator itself broke, the test fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator

import pytest

from beam_harness.emulators.handle import Emulator
from beam_harness.emulators.handle import EmulatorError
from beam_harness.emulators.launch import Mode
from beam_harness.emulators.launch import start

__all__ = ['Emulators', 'emulators', 'engine_name', 'pinecone']

_LAST_REQUESTS = 12


class Emulators:
  """The emulators of one session, by service; starts what is asked for."""
  def __init__(self, mode: Mode):
    self.mode = mode
    self._running: dict[str, Emulator] = {}
    #: Those that the test being run has got.
    self.lent: dict[str, Emulator] = {}

  @contextlib.contextmanager
  def lend(self, service: str) -> Iterator[Emulator]:
    """The emulator of a service as if just started, for one test.

    Raises:
      AssertionError: at the end, if the emulator itself broke meanwhile.
    """
    emulator = self._running.get(service)
    if emulator is None:
      emulator = self._running[service] = start(service, mode=self.mode)
    emulator.reset()
    self.lent[service] = emulator
    try:
      yield emulator
      if defects := emulator.defects:
        raise AssertionError(
            f'the {service} emulator itself broke {len(defects)} times; '
            f'first:\n{defects[0]}')
    finally:
      del self.lent[service]

  def close(self) -> None:
    for emulator in self._running.values():
      emulator.close()
    self._running.clear()


_EMULATORS = pytest.StashKey[Emulators]()


def pytest_addoption(parser: pytest.Parser) -> None:
  group = parser.getgroup('beam-harness')
  group.addoption(
      '--emulators',
      choices=('thread', 'process'),
      default='thread',
      help='run emulators as threads of this process (default) or as '
      'processes of their own')
  group.addoption(
      '--engine',
      default='fnapi',
      metavar='NAME',
      help='engine that pipelines of the tests run on (default: fnapi)')


def pytest_configure(config: pytest.Config) -> None:
  config.stash[_EMULATORS] = Emulators(config.getoption('--emulators'))


def pytest_unconfigure(config: pytest.Config) -> None:
  if _EMULATORS in config.stash:
    config.stash[_EMULATORS].close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
  report = yield
  if report.failed:
    for service, emulator in item.config.stash[_EMULATORS].lent.items():
      try:
        text = emulator.describe_last(_LAST_REQUESTS) or 'none'
      except EmulatorError as e:
        text = str(e)
      report.sections.append((f'last requests to the {service} emulator', text))
  return report


@pytest.fixture(scope='session')
def emulators(request: pytest.FixtureRequest) -> Emulators:
  """The emulators of this session: `with emulators.lend('pinecone') as e:`."""
  return request.config.stash[_EMULATORS]


def _lent(service: str) -> Callable[[Emulators], Iterator[Emulator]]:
  def fixture(emulators: Emulators) -> Iterator[Emulator]:
    with emulators.lend(service) as emulator:
      yield emulator

  fixture.__doc__ = f'The {service} emulator, as if just started.'
  return fixture


pinecone = pytest.fixture(_lent('pinecone'), name='pinecone')


@pytest.fixture
def engine_name(request: pytest.FixtureRequest) -> str:
  """Name of the engine to run pipelines on: what `--engine` says."""
  return request.config.getoption('--engine')
