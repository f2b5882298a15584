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
"""The pytest plugin, seen from inside a test run of its own."""

import pathlib

import pytest

pytest_plugins = ['pytester']

CONFTEST = f'''
import sys
import pytest
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})

@pytest.fixture
def toy(emulators):
  with emulators.lend('emulator_toys.keyvalue') as emulator:
    yield emulator
'''

HEAD = '''
import os
from emulator_toys.clients import Rest

def put(toy, body):
  with Rest(toy) as client:
    return client.call('/put', body)[0]
'''


@pytest.fixture
def run(pytester):
  def run(test, *options):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(HEAD + test)
    return pytester.runpytest_inprocess(
        '-p', 'beam_harness.plugin', '-p', 'no:cacheprovider', *options)

  return run


@pytest.mark.parametrize('mode', ['thread', 'process'])
def test_each_test_gets_the_one_emulator_as_if_just_started(run, mode):
  result = run(
      f'''
from beam_harness.faults import FaultRule
hosts = set()

def test_one(toy):
  hosts.add(toy.host)
  toy.faults([FaultRule('error')])
  assert put(toy, b'a=1') == 503
  assert (toy.pid == os.getpid()) == ({mode!r} == 'thread')

def test_two(toy):
  hosts.add(toy.host)
  assert toy.log() == [] and toy.snapshot() == {{'rows': {{}}}}
  assert put(toy, b'a=1') == 200

def test_three(toy):
  assert {{toy.host}} == hosts
  assert toy.snapshot() == {{'rows': {{}}}}
''',
      f'--emulators={mode}')
  result.assert_outcomes(passed=3)


def test_a_failure_shows_the_last_requests_and_no_secret(run):
  result = run(
      '''
def test_it(toy):
  for i in range(20):
    put(toy, b'a=%d' % i)
  assert False

def test_other():
  assert False
''')
  result.assert_outcomes(failed=2)
  result.stdout.fnmatch_lines([
      '*last requests to the emulator_toys.keyvalue emulator*',
      '#8 rest put: 1 records, 3 B -> 200 *',
      '#19 rest put: 1 records, 4 B -> 200 *',
  ])
  assert result.stdout.str().count('last requests to') == 1
  result.stdout.no_fnmatch_line('#7 *')
  result.stdout.no_fnmatch_line('*toy-secret-key*')


def test_a_defect_of_the_emulator_fails_the_test_that_met_it(run):
  result = run(
      '''
def test_it(toy):
  assert put(toy, b'=broken=') == 500

def test_next(toy):
  assert put(toy, b'a=1') == 200
''')
  result.assert_outcomes(passed=2, errors=1)
  result.stdout.fnmatch_lines(['*the toy is broken*'])


def test_an_emulator_that_is_gone_is_said_to_be_in_the_report(run):
  result = run(
      '''
import signal

def test_it(toy):
  os.kill(toy.pid, signal.SIGKILL)
  assert put(toy, b'a=1') == 200
''',
      '--emulators=process')
  result.stdout.fnmatch_lines(['*its process ended with -9*'])


def test_the_engine_is_what_the_option_says(run):
  test = '''
def test_it(engine_name):
  print('the engine is', engine_name)
'''
  run(test, '-s').stdout.fnmatch_lines(['*the engine is fnapi*'])
  run(test, '-s',
      '--engine=prism').stdout.fnmatch_lines(['*the engine is prism*'])


def test_the_pinecone_fixture_is_the_pinecone_emulator(run):
  result = run(
      '''
def test_it(pinecone):
  assert 'PINECONE_CONTROLLER_HOST' in pinecone.environment()
  assert pinecone.log() == []
''')
  result.assert_outcomes(passed=1)
