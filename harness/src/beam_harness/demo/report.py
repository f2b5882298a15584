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
"""What the demo prints: progress, findings, checks, and the checks as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import shutil
import textwrap
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import Optional
from typing import TextIO

__all__ = ['Check', 'Checks', 'Progress', 'snippet']

BAR_WIDTH = 24
TERMINAL_INTERVAL_S = 0.1
PLAIN_INTERVAL_S = 10.0


@dataclasses.dataclass(frozen=True)
class Check:
  """One claim of the demo: what was seen, what should be, whether it holds."""
  name: str
  value: Any
  expected: Any
  ok: bool


class Checks:
  """The claims of a run, printed as they are made.

  Args:
    out: where to print.
  """
  def __init__(self, out: TextIO):
    self._out = out
    self.made: list[Check] = []

  def equal(self, name: str, value: Any, expected: Any) -> None:
    """Claims that `value` is `expected`."""
    self._add(
        Check(name, value, expected, value == expected),
        str(_plain(value)),
        f'expected {_plain(expected)}')

  def at_least(self, name: str, value: float, least: float) -> None:
    """Claims that `value` is not below `least`."""
    self._add(
        Check(name, value, f'>= {least}', value >= least),
        str(_plain(value)),
        f'expected at least {_plain(least)}')

  def at_most(self, name: str, value: float, most: float) -> None:
    """Claims that `value` is not above `most`."""
    self._add(
        Check(name, value, f'<= {most}', value <= most),
        str(_plain(value)),
        f'expected at most {_plain(most)}')

  @property
  def all_ok(self) -> bool:
    """Whether there were claims and all of them hold."""
    return bool(self.made) and all(check.ok for check in self.made)

  def write_json(self, path: str) -> None:
    """Writes `{"checks": [{"name", "value", "expected", "ok"}, ...]}`."""
    checks = [dataclasses.asdict(check) for check in self.made]
    with open(path, 'w', encoding='utf-8') as file:
      json.dump({'checks': checks}, file, indent=2, default=str)
      file.write('\n')

  def summary(self) -> str:
    """One line about all claims."""
    failed = [check.name for check in self.made if not check.ok]
    if failed:
      return (
          f'{len(failed)} of {len(self.made)} checks FAILED: ' +
          '; '.join(failed))
    return f'All {len(self.made)} checks held.'

  def _add(self, check: Check, value: str, expected: str) -> None:
    self.made.append(check)
    if check.ok:
      print(f'  ok      {check.name}: {value}', file=self._out)
    else:
      print(f'  FAILED  {check.name}: {value}, {expected}', file=self._out)


class Progress:
  """Shows how far a step is: a live line on a terminal, plain lines elsewhere.

  Args:
    out: where to print.
    live: whether `out` is a terminal; None asks it.
    clock: seconds.
  """
  def __init__(
      self,
      out: TextIO,
      live: Optional[bool] = None,
      clock: Callable[[], float] = time.monotonic):
    self._out = out
    self._live = out.isatty() if live is None else live
    self._clock = clock

  @contextlib.contextmanager
  def step(
      self,
      name: str,
      total: Optional[int] = None,
      done: Optional[Callable[[], int]] = None) -> Iterator[None]:
    """Shows `name` while the block runs, and its time when it has ended.

    Args:
      name: what is being done.
      total: how many of the things that `done` counts there are.
      done: read from another thread, ten times a second.
    """
    started = self._clock()
    stop = threading.Event()

    def show_until_stopped():
      interval = TERMINAL_INTERVAL_S if self._live else PLAIN_INTERVAL_S
      while not stop.wait(interval):
        line = self._line(name, total, done, started)
        self._show(line if self._live else line + '\n')

    self._show(f'  {name} ...' if self._live else f'  {name} ...\n')
    shower = threading.Thread(
        target=show_until_stopped, name='demo-progress', daemon=True)
    shower.start()
    try:
      yield
    except BaseException:
      stop.set()
      shower.join()
      self._show(f'  {name}: stopped after {self._seconds(started)}\n')
      raise
    stop.set()
    shower.join()
    self._show(f'  {name}: done in {self._seconds(started)}\n')

  def _seconds(self, started: float) -> str:
    return f'{self._clock() - started:.1f} s'

  def _line(self, name, total, done, started) -> str:
    if not total or done is None:
      return f'  {name}  {self._seconds(started)}'
    try:
      count = min(done(), total)
    except (OSError, RuntimeError, http.client.HTTPException):
      # Only the display is at stake; what is counted may be asked over HTTP.
      return f'  {name}  {self._seconds(started)}'
    counted = f'{count:,} of {total:,}  {self._seconds(started)}'
    if not self._live:
      return f'  {name}: {counted}'
    filled = BAR_WIDTH * count // total
    bar = '#' * filled + '-' * (BAR_WIDTH - filled)
    return f'  {name}  [{bar}]  {counted}'

  def _show(self, text: str) -> None:
    if self._live:
      # Back to the first column, write over, erase what is left of the line. A
      # line that wraps could not be written over.
      width = shutil.get_terminal_size().columns - 1
      ended = text.endswith('\n')
      text = '\r' + text.rstrip('\n')[:width] + '\x1b[K' + '\n' * ended
    self._out.write(text)
    self._out.flush()


def snippet(text: str, width: int = 72) -> str:
  """The beginning of a text on one line."""
  return textwrap.shorten(text, width, placeholder=' ...')


def _plain(value: Any) -> Any:
  if isinstance(value, bool):
    return value
  if isinstance(value, int):
    return f'{value:,}'
  if isinstance(value, float):
    return f'{value:.3g}' if abs(value) < 0.01 else f'{value:.3f}'
  return value
