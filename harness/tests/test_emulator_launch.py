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
"""Emulators start, say why they did not, and leave nothing behind."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest
from emulator_toys.clients import Rest

from beam_harness.emulators.handle import Emulator
from beam_harness.emulators.handle import EmulatorError
from beam_harness.emulators.launch import start
from beam_harness.emulators.requestlog import Capture
from beam_harness.faults import FaultPlan
from beam_harness.faults import FaultRule

TOY = 'emulator_toys.keyvalue'


def eventually(condition, timeout=20.0):
  deadline = time.monotonic() + timeout
  while not condition():
    assert time.monotonic() < deadline, 'did not happen in time'
    time.sleep(0.01)


def refuses_connections(host):
  name, _, port = host.rpartition(':')
  try:
    socket.create_connection((name, int(port)), 1).close()
  except OSError:
    return True
  return False


@pytest.fixture(autouse=True)
def logs(tmp_path, monkeypatch):
  """Where the logs of processes are: a folder of the test's own."""
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  return tmp_path


@pytest.mark.parametrize('mode', ['thread', 'process'])
def test_an_emulator_serves_until_it_is_closed(mode, logs):
  with start(TOY, mode=mode) as emulator:
    assert emulator.host.startswith('127.0.0.1:')
    assert emulator.url == f'http://127.0.0.1:{emulator.port}'
    assert (emulator.pid == os.getpid()) == (mode == 'thread')
    assert emulator.environment() == {'TOY_HOST': emulator.url}
    with Rest(emulator) as client:
      assert client.call('/echo', b'x')[2] == b'x'
  assert refuses_connections(emulator.host)
  assert list(logs.iterdir()) == []
  emulator.close()


@pytest.mark.parametrize('mode', ['thread', 'process'])
def test_plan_and_capture_of_the_start_come_back_with_a_reset(mode):
  with start(TOY,
             mode=mode,
             faults=FaultPlan([FaultRule('error', first=1)]),
             capture=Capture(bodies=True)) as emulator:
    with Rest(emulator) as client:
      assert client.call('/echo', b'x')[0] == 503
      assert client.call('/echo', b'x')[0] == 200
      emulator.faults(None)
      emulator.capture()
      emulator.reset()
      assert client.call('/echo', b'x')[0] == 503
    assert [each.body for each in emulator.log()] == [b'x']


def test_another_handle_can_attach_to_a_running_emulator():
  with start(TOY) as emulator:
    other = Emulator(emulator.host)
    other.seed({'rows': {'a': '1'}})
    other.close()  # Does not stop what it did not start.
    assert emulator.snapshot() == {'rows': {'a': '1'}}


@pytest.mark.parametrize('mode', ['thread', 'process'])
def test_a_port_that_is_taken_is_an_error(mode):
  with start(TOY) as emulator:
    with pytest.raises(OSError, match='[Aa]ddress already in use'):
      start(TOY, mode=mode, port=emulator.port)


@pytest.mark.parametrize('mode', ['thread', 'process'])
@pytest.mark.parametrize(
    'arguments, error',
    [
        ({
            'service': 'nosuch'
        }, "no emulator named 'nosuch'"),
        ({
            'service': 'emulator_toys.nosuch'
        },
         "no emulator named 'emulator_toys.nosuch'"),
        ({
            'service': 'emulator_toys.clients'
        }, 'has no create_service'),
        ({
            'faults': FaultPlan([FaultRule('partial', 'get')])
        },
         "answers 'get' as a whole"),
    ])
def test_wrong_arguments_are_named_at_once(mode, arguments, error):
  with pytest.raises(ValueError, match=error):
    start(**{'service': TOY, 'mode': mode, **arguments})


def test_an_unknown_mode_is_an_error():
  with pytest.raises(ValueError, match='thread or process'):
    start(TOY, mode='docker')


def test_a_process_that_does_not_start_shows_the_end_of_its_log(logs):
  with pytest.raises(EmulatorError, match='the toy cannot live here') as caught:
    start(TOY, mode='process', options={'only_in': os.getpid()})
  # It stays, for whoever wants to see more of it.
  log, = logs.iterdir()
  assert str(log) in str(caught.value)


def test_a_process_that_died_is_said_to_have_and_leaves_its_log(logs, caplog):
  with start(TOY, mode='process') as emulator:
    with Rest(emulator) as client:
      assert client.call('/put', b'=broken=')[0] == 500
    assert list(logs.iterdir()) == []
    os.kill(emulator.pid, signal.SIGKILL)
    eventually(lambda: refuses_connections(emulator.host))
    with pytest.raises(EmulatorError,
                       match='its process ended with -9') as caught:
      emulator.log()
  log, = logs.iterdir()
  assert str(log) in str(caught.value)
  assert 'the toy is broken' in log.read_text()
  assert str(log) in caplog.text


def test_a_running_process_has_no_log_that_could_be_left_behind(logs):
  with start(TOY, mode='process') as emulator:
    assert emulator.pid != os.getpid()
    assert list(logs.iterdir()) == []
  with pytest.raises(EmulatorError, match='its process ended with 0'):
    emulator.log()
  assert list(logs.iterdir()) == []


def test_ctrl_c_in_the_terminal_is_the_parents_to_handle():
  with start(TOY, mode='process') as emulator:
    os.kill(emulator.pid, signal.SIGINT)
    emulator.seed({'rows': {'a': '1'}})
    assert emulator.snapshot() == {'rows': {'a': '1'}}


PARENT = '''
import sys, time
from beam_harness.emulators.launch import start
emulator = start('emulator_toys.keyvalue', mode='process')
print(emulator.host, emulator.pid, flush=True)
time.sleep(600)
'''


def test_a_killed_parent_leaves_no_emulator_behind(logs):
  parent = subprocess.Popen([sys.executable, '-c', PARENT],
                            stdout=subprocess.PIPE,
                            text=True,
                            env={
                                **os.environ,
                                'PYTHONPATH':
                                    str(pathlib.Path(__file__).parent)
                            })
  host, pid = parent.stdout.readline().split()
  assert not refuses_connections(host)
  parent.kill()
  parent.wait()
  parent.stdout.close()
  eventually(lambda: refuses_connections(host))
  eventually(lambda: not os.path.exists(f'/proc/{pid}'))
  assert list(logs.iterdir()) == []
