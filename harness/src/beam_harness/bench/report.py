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
"""What a run prints and writes: a table, and JSON."""

from __future__ import annotations

import json
import os
import platform
import shutil
import textwrap
import time
from collections.abc import Iterable
from collections.abc import Sequence
from importlib import metadata
from typing import Any
from typing import TextIO

from beam_harness.bench.results import Result
from beam_harness.bench.results import Target

__all__ = ['Table', 'as_json', 'environment', 'number', 'summary', 'write_json']

_PACKAGES = (
    'apache-beam',
    'beam-connector-base',
    'beam-pinecone',
    'grpcio',
    'numpy',
    'pinecone',
    'pyarrow')
# Widths of the columns behind the name.
_VALUE = 9
_RATIO = 25
_TARGET = 9
_OK = 6
_LEAST_NAME = 30


class Table:
  """The results as lines of a table, printed as they come.

  Args:
    out: where to print.
    width: in characters; None asks the terminal.
  """
  def __init__(self, out: TextIO, width: int | None = None):
    self._out = out
    if width is None:
      width = shutil.get_terminal_size((120, 24)).columns
    self._name = max(_LEAST_NAME, width - (3 * _VALUE + _RATIO + _TARGET + _OK))
    self._group = ''

  def add(self, result: Result) -> None:
    """Prints one result."""
    if result.group != self._group:
      self._group = result.group
      self._head(result.group)
    name = textwrap.wrap(f'{result.name} [{result.unit}]', self._name - 1)
    cells = (
        f'{number(result.ours):>{_VALUE}}{number(result.peer):>{_VALUE}}'
        f'{number(result.floor):>{_VALUE}}{_spread(result):>{_RATIO}}'
        f'{_target(result.target):>{_TARGET}}'
        f'{"ok" if result.ok else "MISS":>{_OK}}')
    for i, part in enumerate(name):
      line = f'{part:<{self._name}}{cells if i == 0 else ""}'
      print(line.rstrip(), file=self._out)
    self._out.flush()

  def _head(self, group: str) -> None:
    columns = (
        f'{"ours":>{_VALUE}}{"peer":>{_VALUE}}{"floor":>{_VALUE}}'
        f'{"ratio (low .. high)":>{_RATIO}}{"target":>{_TARGET}}{"":>{_OK}}')
    head = f'{group:<{self._name}}{columns}'.rstrip()
    print(f'\n{head}\n{"-" * len(head)}', file=self._out)


def summary(results: Sequence[Result]) -> str:
  """One line about all targets."""
  aimed = [r for r in results if r.target is not None]
  missed = [r for r in aimed if not r.ok]
  text = f'{len(aimed) - len(missed)} of {len(aimed)} targets met'
  if missed:
    text += '; missed: ' + '; '.join(r.name for r in missed)
  return text + '.'


def environment(*, quick: bool, seconds: float) -> dict[str, Any]:
  """Where and with what the figures were measured."""
  return {
      'date': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
      'quick': quick,
      'seconds': round(seconds, 1),
      'python': platform.python_version(),
      'system': platform.platform(),
      'processor': _processor(),
      'cores': _cores(),
      'load': [round(each, 2) for each in os.getloadavg()],
      'packages': dict(_versions(_PACKAGES)),
  }


def as_json(results: Iterable[Result], about: dict[str, Any]) -> dict[str, Any]:
  return {
      'results': [result.to_json() for result in results],
      'environment': about,
  }


def write_json(
    path: str, results: Iterable[Result], about: dict[str, Any]) -> None:
  """Writes `{"results": [{"name", "unit", "ours", ...}], "environment"}`."""
  with open(path, 'w', encoding='utf-8') as file:
    json.dump(as_json(results, about), file, indent=2)
    file.write('\n')


def number(value: float | None) -> str:
  """Three digits that matter; '-' for none."""
  if value is None:
    return '-'
  if abs(value) >= 1000:
    return f'{value:,.0f}'
  if abs(value) >= 100:
    return f'{value:.0f}'
  if abs(value) >= 0.1:
    return f'{value:.3g}'
  return f'{value:.2g}'


def _spread(result: Result) -> str:
  ratio = result.ratio
  if ratio is None:
    return '-'
  return f'{number(ratio.median)} ({number(ratio.low)} .. {number(ratio.high)})'


def _target(target: Target | None) -> str:
  return '-' if target is None else target.text


def _processor() -> str:
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      for line in file:
        if line.startswith('model name'):
          return line.partition(':')[2].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()


def _cores() -> int:
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
  for name in names:
    try:
      yield name, metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
