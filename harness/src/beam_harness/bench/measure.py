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
"""How a benchmark measures: sides taken in turn, processor time, medians.

A machine that is shared, throttled or merely warm makes any single time
worthless, and shifts two times taken a minute apart by more than the
difference that matters. So the sides of a comparison run one after the other,
round after round, in one process; a ratio is taken within each round, and the
median of the rounds counts. Where it is work that is compared and not waiting,
what is measured is the processor time of the client's process, all of its
threads included; the service runs in a process of its own.
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

__all__ = [
    'Ratio', 'Sample', 'Side', 'best_of', 'interleave', 'median', 'ratio'
]


@dataclasses.dataclass(frozen=True)
class Side:
  """One of the things compared.

  Args:
    run: does the work once.
    work: records, queries ... done by one `run`.
    repeat: runs per measurement, for sides that are over too soon.
    before: makes ready what a run uses up; not measured.
  """
  run: Callable[[], object]
  work: int
  repeat: int = 1
  before: Callable[[], object] | None = None


@dataclasses.dataclass(frozen=True)
class Sample:
  """One measurement of a side.

  Args:
    wall: seconds.
    cpu: seconds of processor time of this process.
    work: records, queries ... done.
  """
  wall: float
  cpu: float
  work: int

  @property
  def cpu_us(self) -> float:
    """Processor time per record, in microseconds."""
    return self.cpu / self.work * 1e6

  @property
  def rate(self) -> float:
    """Records per second."""
    return self.work / self.wall

  @property
  def rate_per_core(self) -> float:
    """Records per second of processor time."""
    return self.work / self.cpu


def interleave(sides: Mapping[str, Side],
               rounds: int,
               *,
               warmups: int = 1) -> dict[str, list[Sample]]:
  """Measures all sides in turn, A B C A B C, garbage collected in between.

  Args:
    sides: by name.
    rounds: measurements per side.
    warmups: rounds before that which do not count.

  Returns:
    The samples of each side; those of one round have the same position.
  """
  samples: dict[str, list[Sample]] = {name: [] for name in sides}
  # The data all sides share stays out of the collector's sight: no stream of
  # records keeps so much alive, and whoever allocates most would pay for it.
  gc.collect()
  gc.freeze()
  try:
    for number in range(warmups + rounds):
      for name, side in sides.items():
        sample = measure(side)
        if number >= warmups:
          samples[name].append(sample)
  finally:
    gc.unfreeze()
  return samples


def measure(side: Side) -> Sample:
  """Measures a side once."""
  wall = cpu = 0.0
  for _ in range(side.repeat):
    if side.before is not None:
      side.before()
    gc.collect()
    began, began_cpu = time.perf_counter(), time.process_time()
    side.run()
    cpu += time.process_time() - began_cpu
    wall += time.perf_counter() - began
  # The clock of a coarse system may not have moved.
  tiny = time.get_clock_info('process_time').resolution
  return Sample(max(wall, tiny), max(cpu, tiny), side.work * side.repeat)


@dataclasses.dataclass(frozen=True)
class Ratio:
  """A ratio over several rounds.

  Args:
    median: of the ratios within each round.
    low, high: the smallest and the largest of them.
  """
  median: float
  low: float
  high: float


def ratio(over: Sequence[float], under: Sequence[float]) -> Ratio:
  """The ratio of two series whose values were measured in turn.

  Raises:
    ValueError: they are empty or not as long as each other.
  """
  if not over:
    raise ValueError('nothing was measured')
  each = [a / b for a, b in zip(over, under, strict=True)]
  return Ratio(statistics.median(each), min(each), max(each))


def median(values: Sequence[float]) -> float:
  """The median of a series."""
  return statistics.median(values)


def best_of(
    samples: Mapping[str, Sequence[Sample]],
    names: Sequence[str],
    cost: Callable[[Sample], float]) -> str:
  """The side with the least median cost."""
  return min(names, key=lambda name: median([cost(s) for s in samples[name]]))
