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
"""The engines are what `beam_harness.engines` says they are."""

import os

import apache_beam as beam
import pytest

from beam_harness.engines import ENGINES
from beam_harness.engines import EngineTimeout
from beam_harness.engines import WorkerDied
from beam_harness.engines import engine

# Worker processes can't import this module by name: what they run is given by
# value, as lambdas and closures.


def _note(path):
  """A function that passes elements through and notes who saw them."""
  def note(element):
    import os
    with open(path, 'a', encoding='ascii') as f:
      f.write(f'{os.getpid()} {element}\n')
    return element

  return note


def _notes(path):
  with open(path, encoding='ascii') as f:
    return [tuple(map(int, line.split())) for line in f]


@pytest.mark.parametrize('name', sorted(ENGINES))
def test_an_engine_executes_a_bundle_as_often_as_it_says(name, tmp_path):
  each = engine(name)
  path = str(tmp_path / 'seen')
  pipeline = each.pipeline()
  _ = pipeline | beam.Create([7]) | beam.Map(_note(path))
  each.run(pipeline)
  notes = _notes(path)
  assert [element for _, element in notes] == [7] * each.executions
  elsewhere = {pid for pid, _ in notes} != {os.getpid()}
  assert elsewhere == each.worker_processes


@pytest.mark.parametrize('name', sorted(set(ENGINES) - {'processes'}))
def test_an_engine_tries_a_failing_bundle_as_often_as_it_says(name, tmp_path):
  each = engine(name)
  path = str(tmp_path / 'seen')

  note = _note(path)

  # In one step: an engine without fusion tries only the step that failed.
  def note_and_fail(element):
    note(element)
    raise KeyError('the reason')

  pipeline = each.pipeline()
  _ = pipeline | beam.Create([7]) | beam.Map(note_and_fail)
  with pytest.raises(Exception, match='the reason') as caught:
    each.run(pipeline)
  # Worker threads over gRPC quote the error, too, when it comes back.
  if each.keeps_error_type and not each.encodes_elements:
    assert isinstance(caught.value, KeyError)
  assert len(_notes(path)) == each.attempts


def test_a_failure_in_a_worker_process_tells_its_reason():
  processes = engine('processes')

  def fail(element):
    raise KeyError('the reason')

  pipeline = processes.pipeline()
  _ = pipeline | beam.Create([7]) | beam.Map(fail)
  with pytest.raises(RuntimeError, match='the reason'):
    processes.run(pipeline)


@pytest.mark.filterwarnings(
    'ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_killed_worker_ends_the_run(tmp_path):
  processes = engine('processes')
  path = str(tmp_path / 'seen')

  def die(element):
    import os
    import signal
    os.kill(os.getpid(), signal.SIGKILL)

  pipeline = processes.pipeline()
  _ = pipeline | beam.Create([7]) | beam.Map(_note(path)) | beam.Map(die)
  with pytest.raises(WorkerDied):
    processes.run(pipeline)
  assert _notes(path)


def test_a_pipeline_that_hangs_fails_with_the_stacks_of_its_threads(tmp_path):
  fnapi = engine('fnapi')
  fifo = str(tmp_path / 'fifo')
  os.mkfifo(fifo)

  def hang(element):
    with open(fifo, encoding='ascii'):
      return element

  pipeline = fnapi.pipeline()
  _ = pipeline | beam.Create([7]) | beam.Map(hang)
  with pytest.raises(EngineTimeout, match='in hang'):
    fnapi.run(pipeline, timeout=3.0)
  # Lets the thread that was left behind end.
  with open(fifo, 'w', encoding='ascii'):
    pass


def test_an_unknown_engine_is_refused_with_the_names_there_are():
  with pytest.raises(ValueError, match="'spark'.*fnapi, .*loopback"):
    engine('spark')
