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
"""Peak memory of a run and of one ten times as large, each its own process.

`python -m beam_harness.bench.memory engine --rows 100000` does one run and
prints its peak.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import logging
import resource
import subprocess
import sys
from collections.abc import Iterator
from collections.abc import Sequence

from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.operation import Block
from beam_harness.bench import toy
from beam_harness.bench.measure import median
from beam_harness.bench.measure import ratio
from beam_harness.bench.results import Result
from beam_harness.bench.results import Target

__all__ = ['main', 'peak_mb', 'tenfold']

TARGET = Target.at_most(1.1)
_TIMEOUT_SECONDS = 300.0
_BLOCK_ROWS = 1000
_SERVICE_SECONDS = 0.001


def tenfold(
    name: str,
    what: str,
    rows: int,
    *,
    group: str,
    note: str,
    pairs: int = 1,
    arguments: Sequence[str] = ()) -> Result:
  """Compares the peak memory of `10 * rows` with that of `rows`.

  Args:
    name: of the result; the numbers of rows are put behind it.
    what: the run, as in `main`.
    rows: of the small run.
    group, note: of the result.
    pairs: how often to compare.
    arguments: more of them, for `main`.
  """
  large, small = [], []
  # The two at the same time: they share nothing but cores, and no time is
  # measured.
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    for _ in range(pairs):
      peaks = pool.map(
          lambda n: peak_mb([what, '--rows', str(n), *arguments]),
          (10 * rows, rows))
      large.append(next(peaks))
      small.append(next(peaks))
  return Result(
      f'{name}, {10 * rows:,} against {rows:,}',
      'MB',
      median(large),
      median(small),
      ratio=ratio(large, small),
      target=TARGET,
      group=group,
      note='the highest resident set, one process per run; ' + note,
      samples={
          f'{10 * rows:,}': large, f'{rows:,}': small
      })


def peak_mb(arguments: Sequence[str]) -> float:
  """The peak, in MB, of a process of its own that runs `main`.

  Raises:
    RuntimeError: it failed; the message ends with what it said.
  """
  command = [sys.executable, '-m', 'beam_harness.bench.memory', *arguments]
  done = subprocess.run(
      command,
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=_TIMEOUT_SECONDS,
      check=False)
  if done.returncode:
    raise RuntimeError(
        f'{" ".join(command[2:])} ended with {done.returncode}:\n'
        f'{done.stderr[-2000:]}')
  return json.loads(done.stdout.splitlines()[-1])['peak_mb']


def main(argv: Sequence[str] | None = None) -> int:
  """Does one run in this process and prints its peak memory as JSON."""
  parser = argparse.ArgumentParser(prog='python -m beam_harness.bench.memory')
  parser.add_argument('what', choices=['engine', 'pinecone'])
  parser.add_argument('--rows', type=int, required=True)
  parser.add_argument('--host', help='of the index, for pinecone')
  parser.add_argument('--dimension', type=int, help='of its vectors')
  options = parser.parse_args(argv)
  logging.basicConfig(level=logging.ERROR)
  if options.what == 'engine':
    _run_engine(options.rows)
  else:
    from beam_harness.bench.writing import write_made_up
    write_made_up(options.host, options.rows, options.dimension)
  print(json.dumps({'peak_mb': round(_own_peak_mb(), 1)}))
  return 0


def _run_engine(rows: int) -> None:
  """Delivers so many rows, made as they are needed."""
  dispatcher = Dispatcher(toy.ToyOperation(_SERVICE_SECONDS))
  with toy.opened(dispatcher):
    toy.feed(dispatcher, _mixed(rows))


def _mixed(rows: int) -> Iterator[Block]:
  """Half the rows as single records, half as blocks, in turn."""
  for _ in range(rows // (2 * _BLOCK_ROWS)):
    yield from toy.records(_BLOCK_ROWS)
    yield from toy.blocks(_BLOCK_ROWS, _BLOCK_ROWS)


def _own_peak_mb() -> float:
  # Not `ru_maxrss` where it can be helped: Linux carries that of the process
  # that started this one over to it, however small this one is.
  try:
    with open('/proc/self/status', encoding='ascii') as status:
      for line in status:
        if line.startswith('VmHWM:'):
          return int(line.split()[1]) * 1024 / 1e6
  except OSError:
    pass
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == '__main__':
  sys.exit(main())
