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
"""The report as one HTML file: a table, and plots drawn as inline SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from beam_harness.bench.measure import median
from beam_harness.bench.report import number
from beam_harness.bench.results import Result

__all__ = ['page', 'write']

_WIDTH = 640
_LABELS = 190  # pixels of a plot that are for the names of its sides
_ROW = 24
_MARGIN = 16
# A plot whose values differ more than so many times has a logarithmic axis.
_LOGARITHMIC = 20

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; padding: 0 1em;
  max-width: 60em; color: #1c2733; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
h3 { font-size: 1em; margin: 1.6em 0 .1em; }
table { border-collapse: collapse; width: 100%; font-size: .92em; }
th, td { padding: .3em .6em; text-align: right; border-bottom: 1px solid #dde3e9; }
th:first-child, td:first-child { text-align: left; }
td { font-variant-numeric: tabular-nums; }
.ok { color: #17693a; } .miss { color: #b3261e; font-weight: 600; }
.unit, .note, dl { color: #566472; font-size: .92em; } .note { margin: 0; }
dt { float: left; clear: left; width: 9em; } dd { margin-left: 9em; }
svg { max-width: 100%; height: auto; } svg text { font-size: 12px; fill: #1c2733; }
@media (prefers-color-scheme: dark) {
  body { color: #dfe6ee; background: #12181f; } svg text { fill: #dfe6ee; }
  th, td { border-color: #2b3641; } .unit, .note, dl { color: #94a3b2; }
  .ok { color: #6fcf97; } .miss { color: #ff8a80; }
}
"""


def write(
    path: str, results: Sequence[Result], about: Mapping[str, Any]) -> None:
  """Writes the report to a file."""
  with open(path, 'w', encoding='utf-8') as file:
    file.write(page(results, about))


def page(results: Sequence[Result], about: Mapping[str, Any]) -> str:
  """The report as a page without anything from elsewhere."""
  groups = list(dict.fromkeys(result.group for result in results))
  tables = ''.join(
      _table(group, [r
                     for r in results
                     if r.group == group])
      for group in groups)
  plots = ''.join(_details(result) for result in results)
  return (
      '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
      '<meta name="viewport" content="width=device-width">'
      f'<title>Benchmarks</title><style>{_STYLE}</style></head><body>'
      '<h1>Benchmarks</h1>'
      '<p>The sides of a comparison ran in turn, in one process; the service '
      'ran in a process of its own. A ratio is the median of the ratios of the '
      'rounds, with the lowest and the highest of them.</p>'
      f'{tables}<h2>Measurements</h2>'
      '<p class="note">Each dot is one measurement, each line a median.</p>'
      f'{plots}<h2>Environment</h2>{_environment(about)}</body></html>\n')


def _table(group: str, results: Iterable[Result]) -> str:
  rows = []
  for result in results:
    ratio = result.ratio
    spread = '-' if ratio is None else (
        f'{number(ratio.median)} <span class="unit">'
        f'({number(ratio.low)} .. {number(ratio.high)})</span>')
    target = '-' if result.target is None else _text(result.target.text)
    verdict = (
        '<td class="ok">ok</td>' if result.ok else '<td class="miss">miss</td>')
    rows.append(
        f'<tr><td>{_text(result.name)} '
        f'<span class="unit">{_text(result.unit)}</span></td>'
        f'<td>{number(result.ours)}</td><td>{number(result.peer)}</td>'
        f'<td>{number(result.floor)}</td><td>{spread}</td><td>{target}</td>'
        f'{verdict}</tr>')
  return (
      f'<h2>{_text(group)}</h2><table><thead><tr><th></th><th>ours</th>'
      '<th>peer</th><th>floor</th><th>ratio</th><th>target</th><th></th></tr>'
      f'</thead><tbody>{"".join(rows)}</tbody></table>')


def _details(result: Result) -> str:
  text = f'<h3>{_text(result.name)}</h3><p class="note">{_text(result.note)}</p>'
  if any(result.samples.values()):
    text += _plot(result.samples, result.unit, result.name)
  return text


def _plot(samples: Mapping[str, Sequence[float]], unit: str, title: str) -> str:
  """A line per side, its measurements on one axis."""
  axis = _Axis([value for values in samples.values() for value in values])
  height = _ROW * len(samples) + 2 * _MARGIN + 8
  parts = []
  for row, (name, values) in enumerate(samples.items()):
    y = _MARGIN + row * _ROW
    colour = '#2f6fb3' if row == 0 else '#8a97a5'
    middle = axis.x(median(values))
    parts.append(
        f'<text x="0" y="{y + 4}">{_text(name)}</text>'
        f'<line x1="{_LABELS}" x2="{_WIDTH - _MARGIN}" y1="{y}" y2="{y}" '
        'stroke="#8a97a5" stroke-opacity=".3"/>'
        f'<line x1="{middle}" x2="{middle}" y1="{y - 8}" y2="{y + 8}" '
        f'stroke="{colour}" stroke-width="3"/>')
    parts.extend(
        f'<circle cx="{axis.x(value)}" cy="{y}" r="4" fill="{colour}" '
        f'fill-opacity=".5"><title>{number(value)} {_text(unit)}</title>'
        '</circle>' for value in values)
  y = height - 6
  parts.extend(
      f'<text x="{axis.x(value)}" y="{y}" text-anchor="middle">'
      f'{number(value)}</text>' for value in axis.marks())
  return (
      f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" '
      f'aria-label="{_text(title)}, {_text(unit)}">{"".join(parts)}</svg>')


class _Axis:
  """From values to pixels; linear from zero, or logarithmic.

  Args:
    values: what has to fit; at least one.
  """
  def __init__(self, values: Sequence[float]):
    self._low, self._high = min(values), max(values)
    self._logarithmic = self._low > 0 and (
        self._high / self._low > _LOGARITHMIC)
    if not self._logarithmic:
      self._low = min(0.0, self._low)
    if self._high <= self._low:
      self._high = self._low + 1.0

  def x(self, value: float) -> float:
    if self._logarithmic:
      share = math.log(value / self._low) / math.log(self._high / self._low)
    else:
      share = (value - self._low) / (self._high - self._low)
    return round(_LABELS + share * (_WIDTH - _LABELS - 2 * _MARGIN), 1)

  def marks(self) -> list[float]:
    if self._logarithmic:
      return [self._low, math.sqrt(self._low * self._high), self._high]
    return [self._low, (self._low + self._high) / 2, self._high]


def _environment(about: Mapping[str, Any]) -> str:
  items = [
      f'<dt>{_text(name)}</dt><dd>{_text(_listed(value))}</dd>'
      for name, value in about.items()
  ]
  return f'<dl>{"".join(items)}</dl>'


def _listed(value: Any) -> str:
  if isinstance(value, Mapping):
    return ', '.join(f'{key} {each}' for key, each in value.items())
  if isinstance(value, (list, tuple)):
    return ', '.join(map(str, value))
  return str(value)


def _text(text: str) -> str:
  return html.escape(text)
