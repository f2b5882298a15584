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
"""The command line: an emulator for a person at a terminal."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
from emulator_toys.clients import Rest

from beam_harness import cli
from beam_harness.emulators.handle import Emulator

TOY = 'emulator_toys.keyvalue'


@pytest.fixture
def up():
  """Runs `beam-harness up` and ends it with Ctrl-C."""
  running = []

  def up(*arguments):
    process = subprocess.Popen(
        [sys.executable, '-m', 'beam_harness.cli', 'up', *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ, 'PYTHONPATH': str(pathlib.Path(__file__).parent)
        })
    running.append(process)
    return process

  yield up
  for process in running:
    if process.poll() is None:
      process.kill()
    process.communicate()


def test_up_prints_what_to_export_and_stops_on_ctrl_c(up, tmp_path):
  plan = tmp_path / 'plan.json'
  plan.write_text(json.dumps({'rules': [{'kind': 'error', 'first': 1}]}))
  process = up(TOY, '--faults', str(plan))
  line = process.stdout.readline()
  assert line.startswith('export TOY_HOST=http://127.0.0.1:')
  emulator = Emulator(line.strip().partition('//')[2])
  with Rest(emulator) as client:
    assert client.call('/echo', b'x')[0] == 503
    assert client.call('/echo', b'x')[0] == 200
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=20)
  assert process.returncode == 0
  assert emulator.host in errors and 'Traceback' not in errors


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['nosuch'], "no emulator named 'nosuch'"),
        ([TOY, '--faults', '{folder}/nosuch.json'], 'nosuch.json'),
        ([TOY, '--faults', '{folder}/plan.json'], 'kind must be one of'),
        ([TOY, '--port', '{taken}'], 'in use'),
    ])
def test_what_is_wrong_is_said_in_one_line(
    capsys, tmp_path, arguments, message):
  (tmp_path / 'plan.json').write_text('{"rules": [{"kind": "explode"}]}')
  with socket.create_server(('127.0.0.1', 0)) as sock:
    taken = sock.getsockname()[1]
    arguments = [
        each.format(folder=tmp_path, taken=taken) for each in arguments
    ]
    assert cli.main(['up', *arguments]) == 2
  printed = capsys.readouterr()
  assert printed.out == ''
  assert message in printed.err and printed.err.count('\n') == 1


def test_demo_gets_the_rest_of_the_command_line(capsys):
  with pytest.raises(SystemExit) as caught:
    cli.main(['demo', '--help'])
  assert caught.value.code == 0
  assert '--json' in capsys.readouterr().out


def test_a_command_that_does_not_exist_is_refused(capsys):
  with pytest.raises(SystemExit) as caught:
    cli.main(['fly'])
  assert caught.value.code == 2
  assert "'fly'" in capsys.readouterr().err
