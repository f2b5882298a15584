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
"""What a benchmark says: one result per claim, with its target and spread."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from beam_harness.bench.measure import Ratio
from beam_harness.bench.measure import Sample
from beam_harness.bench.measure import median
from beam_harness.bench.measure import ratio

__all__ = ['Result', 'Target', 'compare', 'not_measured']


@dataclasses.dataclass(frozen=True)
class Target:
  """A bound on a ratio, or on our own value.

  Args:
    least: whether the bound is the least; else it is the most.
    bound: the number.
  """
  least: bool
  bound: float

  @classmethod
  def at_least(cls, bound: float) -> Target:
    return cls(True, bound)

  @classmethod
  def at_most(cls, bound: float) -> Target:
    return cls(False, bound)

  def __str__(self) -> str:
    """With the bound as a decimal number, to be parsed."""
    return f'{">=" if self.least else "<="} {self.bound:.4g}'

  @property
  def text(self) -> str:
    """For people: as a fraction where that is what was meant."""
    exact = abs(self.bound - round(self.bound, 2)) < 1e-9
    bound = f'{self.bound:g}' if exact else f'1/{1 / self.bound:.3g}'
    return f'{">=" if self.least else "<="} {bound}'

  def holds(self, value: float) -> bool:
    return value >= self.bound if self.least else value <= self.bound


@dataclasses.dataclass(frozen=True)
class Result:
  """One claim and what was measured.

  Args:
    name: what is compared with what.
    unit: of `ours`, `peer` and `floor`.
    ours: median of our side; None where it could not be measured.
    peer: median of whoever we compare with.
    floor: median of the least that anybody could need.
    ratio: of what the target speaks of; None where it speaks of `ours` itself.
    target: None where there is none and the figures are the message.
    group: 'engine' or 'pinecone'.
    better: 'lower' or 'higher': which values of `ours` are good.
    note: how it was measured, what the peer is.
    samples: all values by side, for plots.
  """
  name: str
  unit: str
  ours: float | None
  peer: float | None = None
  floor: float | None = None
  ratio: Ratio | None = None
  target: Target | None = None
  group: str = ''
  better: str = 'lower'
  note: str = ''
  samples: Mapping[str,
                   Sequence[float]] = dataclasses.field(default_factory=dict)

  @property
  def ok(self) -> bool:
    """Whether it was measured and meets its target, if it has one."""
    if self.ours is None:
      return False
    if self.target is None:
      return True
    return self.target.holds(
        self.ours if self.ratio is None else self.ratio.median)

  def to_json(self) -> dict[str, Any]:
    """As in `--json`; numbers are rounded to four digits."""
    return {
        'name':
            self.name,
        'unit':
            self.unit,
        'ours':
            _rounded(self.ours),
        'peer':
            _rounded(self.peer),
        'floor':
            _rounded(self.floor),
        'ratio':
            None if self.ratio is None else _rounded(self.ratio.median),
        'target':
            None if self.target is None else str(self.target),
        'ok':
            self.ok,
        'spread':
            None if self.ratio is None else
            [_rounded(self.ratio.low), _rounded(self.ratio.high)],
        'group':
            self.group,
        'better':
            self.better,
        'note':
            self.note,
        'samples': {
            name: [_rounded(value) for value in values]
            for name, values in self.samples.items()
        },
    }


def compare(
    name: str,
    samples: Mapping[str, Sequence[Sample]],
    ours: str,
    other: str,
    *,
    group: str,
    unit: str,
    by: Callable[[Sample], float],
    better: str = 'lower',
    target: Target | None = None,
    note: str = '',
    floor: bool = False) -> Result:
  """The result of comparing two sides that were measured in turn.

  Args:
    samples: of all sides.
    ours, other: the two.
    by: what of a sample counts.
    floor: whether the other side is the floor; else it is the peer.
    name, group, unit, better, target, note: of the result.
  """
  mine = [by(sample) for sample in samples[ours]]
  theirs = [by(sample) for sample in samples[other]]
  of_other = median(theirs)
  return Result(
      name,
      unit,
      median(mine),
      None if floor else of_other,
      of_other if floor else None,
      ratio(mine, theirs),
      target,
      group,
      better,
      note, {
          ours: mine, other: theirs
      })


def not_measured(
    name: str, unit: str, target: Target | None, group: str,
    why: str) -> Result:
  """The result of a claim that could not be measured, which is not ok."""
  return Result(
      name, unit, None, target=target, group=group, note=f'not measured: {why}')


def _rounded(value: float | None) -> float | None:
  return None if value is None else float(f'{value:.4g}')
