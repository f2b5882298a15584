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
"""The engines of Beam that tests run pipelines on, and what each really is.

`DirectRunner` is not one engine: it tries Prism, then FnApiRunner, then
BundleBasedDirectRunner, so one test runs on different engines on different
machines. Tests therefore name their engine:

    fnapi = engine('fnapi')
    pipeline = fnapi.pipeline()
    pipeline | ...
    result = fnapi.run(pipeline)

An `Engine` says in its fields what a test may rely on. Where an engine does
not keep the type of an error, assert on the text of the message. An emulator
listens on loopback TCP, so every engine reaches one, whether it lives in a
thread of the test process or in a process of its own.

To add an engine, add an entry to `ENGINES`.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any
from typing import Optional

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

__all__ = ['ENGINES', 'Engine', 'EngineTimeout', 'WorkerDied', 'engine']


class EngineTimeout(AssertionError):
  """A pipeline did not end in time; the message holds all threads' stacks."""


class WorkerDied(AssertionError):
  """A worker process ended while the pipeline still needed it."""


@dataclasses.dataclass(frozen=True)
class Engine:
  """One way to run a pipeline.

  Attributes:
    name: as given to `engine`.
    options: pipeline options that choose it.
    workers: bundles that may run at the same time.
    worker_processes: DoFns run in other processes, which inherit environment
      variables but no module state, monkeypatches or open sockets.
    encodes_elements: elements go through their coders between any two stages
      and between the runner and the workers.
    attempts: how often a failing bundle is tried in all.
    executions: how often a bundle that does not fail is executed; the outputs
      and metrics of the last time count, the side effects of all.
    keeps_error_type: a failure raises the exception of the DoFn itself, not a
      RuntimeError that quotes it.
    timeout: seconds after which `run` gives up.
  """
  name: str
  options: tuple[str, ...]
  workers: int = 1
  worker_processes: bool = False
  encodes_elements: bool = False
  attempts: int = 1
  executions: int = 1
  keeps_error_type: bool = True
  timeout: float = 60.0

  def pipeline(self, *options: str) -> beam.Pipeline:
    """An empty pipeline for this engine, with more options if wanted."""
    return beam.Pipeline(options=PipelineOptions([*self.options, *options]))

  def run(
      self, pipeline: beam.Pipeline, timeout: Optional[float] = None) -> Any:
    """Runs the pipeline to its end, or stops waiting.

    The pipeline runs on a thread of its own: an engine whose worker process
    died waits for ever, and a connector under test may hang.

    Args:
      pipeline: as made by `pipeline`.
      timeout: seconds; None is the engine's own.

    Returns:
      The result of a pipeline that is DONE.

    Raises:
      EngineTimeout: it did not end in time. Its worker processes are killed.
      WorkerDied: a worker process ended early.
      Exception: what the pipeline raised.
    """
    run = _Run(pipeline)
    run.start()
    limit = time.monotonic() + (self.timeout if timeout is None else timeout)
    watch = _Workers() if self.worker_processes else None
    try:
      while not run.ended.wait(0.1 if watch else limit - time.monotonic()):
        if watch:
          watch.look(run)
        if time.monotonic() >= limit:
          raise EngineTimeout(
              f'the pipeline on engine {self.name!r} did not end in time\n' +
              _stacks())
    finally:
      if watch and not run.ended.is_set():
        watch.kill()
    if run.error is not None:
      # What Beam may say instead of waiting for ever.
      if watch and 'Channel closed prematurely' in str(run.error):
        raise WorkerDied(f'{self.name!r}: {run.error}') from run.error
      raise run.error
    if run.result.state != PipelineState.DONE:
      raise AssertionError(
          f'the pipeline on engine {self.name!r} ended as {run.result.state}')
    return run.result


#: Facts of Beam 2.77, each observed by running it.
ENGINES: dict[str, Engine] = {
    e.name: e for e in (
        Engine('fnapi', ('--runner=FnApiRunner',)),
        Engine(
            'fnapi-threads', (
                '--runner=FnApiRunner', '--direct_running_mode=multi_threading',
                '--direct_num_workers=4'), workers=4, encodes_elements=True),
        Engine(
            'fnapi-repeat', (
                '--runner=FnApiRunner',
                '--direct_runner_bundle_repeat=2'), executions=3),
        Engine(
            'bundle-retry', (
                '--runner=BundleBasedDirectRunner',), workers=2, attempts=4),
        Engine(
            'processes', (
                '--runner=FnApiRunner',
                '--direct_running_mode=multi_processing',
                '--direct_num_workers=2'), workers=2, worker_processes=True,
            encodes_elements=True, keeps_error_type=False, timeout=120.0),
        Engine(
            'loopback', (
                '--runner=PortableRunner', '--job_endpoint=embed',
                '--environment_type=LOOPBACK'
            ), encodes_elements=True, keeps_error_type=False),)
}


def engine(name: str) -> Engine:
  """The engine of that name.

  Raises:
    ValueError: there is none; the message names those there are.
  """
  try:
    return ENGINES[name]
  except KeyError:
    raise ValueError(
        f'no engine named {name!r}; there are: {", ".join(ENGINES)}') from None


class _Run(threading.Thread):
  """A pipeline on its way."""
  def __init__(self, pipeline: beam.Pipeline):
    super().__init__(name='pipeline', daemon=True)
    self._pipeline = pipeline
    self.ended = threading.Event()
    self.result: Any = None
    self.error: Optional[BaseException] = None

  def is_in(self, function: str) -> bool:
    """Whether the pipeline's thread is in a function of that name."""
    frame = sys._current_frames().get(self.ident or 0)
    while frame is not None:
      if frame.f_code.co_name == function:
        return True
      frame = frame.f_back
    return False

  def run(self) -> None:
    try:
      self.result = self._pipeline.run()
      self.result.wait_until_finish()
    except BaseException as e:  # pylint: disable=broad-except
      self.error = e
    finally:
      self.ended.set()


class _Workers:
  """The worker processes of one run, found below this process.

  Beam starts them through a shell and keeps no handle that could be asked.
  Needs /proc; elsewhere it sees none, and only the timeout is left.
  """
  #: Longer than workers take to end when their pipeline does.
  GRACE_S = 3.0

  def __init__(self):
    self._earlier = _worker_pids()
    self._seen: set[int] = set()
    self._ending_since: Optional[float] = None

  def look(self, run: _Run) -> None:
    """Deals with what would make the pipeline wait for ever.

    A worker that is gone is never missed (WorkerDied). And when a pipeline has
    failed, its runner may wait without limit for a worker that never got the
    order to stop (Beam 2.77): that worker is killed, and the error comes out.
    """
    alive = _worker_pids() - self._earlier
    self._seen |= alive
    missing = self._seen - alive
    stopping = run.is_in('stop_worker')
    if not missing and not stopping:
      self._ending_since = None
      return
    if self._ending_since is None:
      self._ending_since = time.monotonic()
    if time.monotonic() - self._ending_since < self.GRACE_S:
      return
    if stopping:
      self.kill()
    else:
      raise WorkerDied(
          f'worker process {min(missing)} ended while the pipeline was running')

  def kill(self) -> None:
    """Kills the workers, and waits for the threads that wait for them."""
    for pid in _worker_pids() - self._earlier:
      try:
        os.kill(pid, signal.SIGKILL)
      except ProcessLookupError:
        pass
    limit = time.monotonic() + self.GRACE_S
    for thread in threading.enumerate():
      if thread.name == 'run_worker':
        thread.join(max(0.0, limit - time.monotonic()))


def _worker_pids() -> set[int]:
  """Living Beam workers among the descendants of this process."""
  parents: dict[int, int] = {}
  workers: set[int] = set()
  try:
    pids = [int(name) for name in os.listdir('/proc') if name.isdigit()]
  except FileNotFoundError:
    return set()
  for pid in pids:
    try:
      with open(f'/proc/{pid}/stat', 'rb') as f:
        state, parent = f.read().rpartition(b')')[2].split()[:2]
      with open(f'/proc/{pid}/cmdline', 'rb') as f:
        command = f.read()
    except (FileNotFoundError, ProcessLookupError):
      continue
    parents[pid] = int(parent)
    if b'sdk_worker_main' in command and state != b'Z':
      workers.add(pid)
  return {pid for pid in workers if _descends(pid, os.getpid(), parents)}


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
  while pid in parents:
    pid = parents[pid]
    if pid == ancestor:
      return True
  return False


def _stacks() -> str:
  names = {thread.ident: thread.name for thread in threading.enumerate()}
  return '\n'.join(
      f'Thread {names.get(ident, ident)}:\n' +
      ''.join(traceback.format_stack(frame))
      for ident, frame in sys._current_frames().items())
