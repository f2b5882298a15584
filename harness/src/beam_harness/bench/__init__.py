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
"""Benchmarks: what the engine and the connectors cost, against their peers.

`python -m beam_harness.bench`, or `beam-harness bench`; see `--help`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
import traceback
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from beam_harness.bench.results import Result
  from beam_harness.bench.sizes import Sizes

__all__ = ['GROUPS', 'main', 'run']

#: Groups of benchmarks; each is a module with `SECTIONS`.
GROUPS = ('engine', 'pinecone')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs benchmarks.

  Returns:
    The exit code: 0 when all was measured, whatever the figures; 1 when a
    benchmark failed.
  """
  parser = argparse.ArgumentParser(
      prog='python -m beam_harness.bench',
      description='Measures the engine and the connectors against their peers. '
      'Services are emulators in processes of their own; no network is needed. '
      'A missed target is shown and does not change the exit code: figures '
      'depend on the machine.')
  parser.add_argument(
      'group', nargs='*', help=f'{" or ".join(GROUPS)}; all by default')
  parser.add_argument(
      '--json', metavar='FILE', help='also write the figures to FILE')
  parser.add_argument(
      '--html', metavar='FILE', help='also write a report with plots to FILE')
  parser.add_argument(
      '--quick',
      action='store_true',
      help='measure less: within a minute, with wider spreads')
  options = parser.parse_args(argv)
  for group in options.group:
    if group not in GROUPS:
      parser.error(f'no benchmarks named {group!r}: {" or ".join(GROUPS)}')

  # Beam warns about optional packages that are not installed.
  logging.basicConfig(level=logging.ERROR)
  from beam_harness.bench import report
  from beam_harness.bench import sizes

  began = time.monotonic()
  table = report.Table(sys.stdout)
  results, failures = run(
      options.group or GROUPS,
      sizes.QUICK if options.quick else sizes.FULL,
      table.add)
  seconds = time.monotonic() - began
  print(f'\n{report.summary(results)} {seconds:.0f} s.')
  for failure in failures:
    print(f'\nNot measured:\n{failure}', file=sys.stderr)
  about = report.environment(quick=options.quick, seconds=seconds)
  if options.json:
    report.write_json(options.json, results, about)
  if options.html:
    from beam_harness.bench import html
    html.write(options.html, results, about)
  return 1 if failures else 0


def run(
    groups: Iterable[str],
    sizes: Sizes,
    show: Callable[[Result], object] = lambda result: None
) -> tuple[list[Result], list[str]]:
  """Runs the benchmarks of some groups; one that fails stops no other.

  Args:
    groups: of `GROUPS`.
    sizes: how much to measure.
    show: called with each result as it comes.

  Returns:
    The results, and the stack traces of what could not be measured.
  """
  from beam_harness.bench.results import not_measured
  results: list[Result] = []
  failures: list[str] = []

  def add(result: Result) -> None:
    results.append(result)
    show(result)

  for group in groups:
    module = importlib.import_module(f'beam_harness.bench.{group}')
    for section in module.SECTIONS:
      try:
        for result in section(sizes):
          add(result)
      except Exception as e:
        failures.append(traceback.format_exc())
        what = (section.__doc__ or section.__name__).partition('\n')[0]
        add(not_measured(what, '', None, group, f'{type(e).__name__}: {e}'))
  return results, failures
