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
"""The job that shows what the connectors do, on real data, and checks it.

`python -m beam_harness.demo`; see `--help`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Optional

__all__ = ['main']

# The variables that numpy's builds read when they are loaded. Two pipeline
# threads, each with one core, embed 1.4 times as fast as two that both spread
# every product over two cores.
_ONE_THREAD_EACH = ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS')


def main(argv: Optional[Sequence[str]] = None) -> int:
  """Runs the demo; returns the exit code, 0 when all checks held."""
  parser = argparse.ArgumentParser(
      prog='python -m beam_harness.demo',
      description='Embeds real texts in a Beam pipeline, writes them to a '
      'local Pinecone emulator, searches it with real questions, classifies '
      'handwritten digits by their nearest neighbours, repeats the write under '
      'injected faults, and checks that every answer is that of an exact '
      'search and that nothing was lost. Needs no network.')
  parser.add_argument(
      '--json', metavar='FILE', help='also write the checks to FILE')
  parser.add_argument(
      '--limit',
      metavar='N',
      type=_at_least_one,
      help='take N texts per source, not all of them')
  options = parser.parse_args(argv)

  for variable in _ONE_THREAD_EACH:
    os.environ.setdefault(variable, '1')
  # Beam warns about optional packages that are not installed.
  logging.basicConfig(level=logging.ERROR)
  from beam_harness.demo.report import Checks
  from beam_harness.demo.run import run

  checks = Checks(sys.stdout)
  stderr = sys.stderr
  before = signal.signal(signal.SIGINT, _interrupt)
  try:
    run(sys.stdout, checks, limit=options.limit)
  except KeyboardInterrupt:
    print('Interrupted; the emulator is stopped.', file=stderr)
    return 130
  except Exception as e:
    traceback.print_exc()
    checks.equal('the demo ran to its end', type(e).__name__, 'no error')
  finally:
    signal.signal(signal.SIGINT, before)
  if options.json:
    checks.write_json(options.json)
  return 0 if checks.all_ok else 1


def _interrupt(signum: int, frame: Optional[FrameType]) -> None:
  # Threads of an interrupted pipeline go on until the process ends, and complain
  # at length, by logging and by printing, about what was taken from them.
  logging.disable(logging.CRITICAL)
  sys.stderr = open(os.devnull, 'w', encoding='utf-8')
  raise KeyboardInterrupt


def _at_least_one(text: str) -> int:
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError('must be at least 1')
  return number
