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
"""Runs a transform on an engine and brings back everything it emitted.

Outputs come back through files: a DoFn is pickled even where it runs in this
process, and on some engines it runs in another one.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import pickle
import tempfile
import uuid
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Optional

import apache_beam as beam
from apache_beam.metrics.cells import DistributionResult
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindows
from apache_beam.transforms.window import TimestampedValue

from beam_harness.engines import engine

__all__ = [
    'Applied', 'Outcome', 'Output', 'Trail', 'apply', 'gather', 'load', 'write'
]


@dataclasses.dataclass(frozen=True)
class Output:
  """One emitted element.

  Attributes:
    value: the element.
    timestamp: its event time in microseconds.
    windows: start and end of its windows in microseconds.
    pane: what made it fire: first, last, timing, index.
  """
  value: Any
  timestamp: int
  windows: tuple[tuple[int, int], ...]
  pane: tuple[Any, ...] = ()


@dataclasses.dataclass
class Applied:
  """What a pipeline left behind.

  Attributes:
    outputs: what the transform emitted, by name of the output.
    result: the result of the pipeline.
  """
  outputs: dict[str, list[Output]]
  result: Any

  def counters(self, namespace: str) -> dict[str, int]:
    """Totals of all steps by name."""
    totals: dict[str, int] = {}
    for name, metric in self._metrics(namespace, 'counters'):
      totals[name] = totals.get(name, 0) + metric.committed
    return totals

  def distributions(self, namespace: str) -> dict[str, Any]:
    """Distributions over all steps by name."""
    totals: dict[str, Any] = {}
    for name, metric in self._metrics(namespace, 'distributions'):
      data = metric.committed.data
      if name in totals:
        data = totals[name].data.combine(data)
      totals[name] = DistributionResult(data)
    return totals

  def _metrics(self, namespace: str, kind: str) -> Iterable[tuple[str, Any]]:
    found = self.result.metrics().query(
        MetricsFilter().with_namespace(namespace))
    for metric in found[kind]:
      yield metric.key.metric.name, metric


class Outcome(Applied):
  """What a pipeline that wrote left behind."""
  @property
  def written(self) -> list[Output]:
    return self.outputs['written']

  @property
  def failed(self) -> list[Output]:
    return self.outputs['failed']

  @property
  def ledger(self) -> list[Output]:
    """Only when asked for."""
    return self.outputs['ledger']


def write(
    transform: beam.PTransform,
    elements: Sequence[Any],
    folder: pathlib.Path,
    *,
    ledger: bool = False,
    **how: Any) -> Outcome:
  """Writes elements and gathers what the sink emitted.

  Args:
    transform: the sink; returns a result with `written` and `failed`.
    elements, folder: see `apply`.
    ledger: also gather the ledger.
    **how: for `apply`.

  Raises:
    Exception: what the pipeline raised.
  """
  def outputs(result: Any) -> dict[str, PCollection]:
    found = {'written': result.written, 'failed': result.failed}
    if ledger:
      found['ledger'] = result.ledger
    return found

  applied = apply(transform, elements, folder, outputs, **how)
  return Outcome(applied.outputs, applied.result)


def apply(
    transform: beam.PTransform,
    elements: Optional[Sequence[Any]],
    folder: pathlib.Path,
    outputs: Callable[[Any], Mapping[str, PCollection]],
    *,
    on: str = 'fnapi',
    options: Sequence[str] = (),
    window: Any = None,
    before: Optional[beam.PTransform] = None,
    trails: bool = False) -> Applied:
  """Applies a transform to elements and gathers what it emitted.

  Args:
    transform: what is tested.
    elements: what it is applied to; `TimestampedValue`s give their event
      times. None applies it to the pipeline itself: a source.
    folder: where the outputs are kept.
    outputs: the PCollections of the transform's result, by name.
    on: name of the engine.
    options: more options for the pipeline.
    window: a WindowFn for the elements.
    before: applied to the elements first.
    trails: also leave a `Trail` of each output, in `folder`, that is there when
      the pipeline fails: a file of the output's name.

  Raises:
    Exception: what the pipeline raised.
  """
  place = pathlib.Path(tempfile.mkdtemp(dir=folder))
  chosen = engine(on)
  pipeline = chosen.pipeline(*options)
  source = pipeline
  if elements is not None:
    source = pipeline | 'Elements' >> beam.Create(elements)
    if any(isinstance(element, TimestampedValue) for element in elements):
      source |= 'Stamp' >> beam.Map(_as_it_is)
    if window is not None:
      source |= 'Window' >> beam.WindowInto(window)
    if before is not None:
      source |= 'Before' >> before
  found = outputs(source | 'Connector' >> transform)
  for name, pcoll in found.items():
    if trails:
      pcoll | f'Trail {name}' >> beam.ParDo(Trail(folder / name))  # pylint: disable=expression-not-assigned
    gather(pcoll, place / name, f'Gather {name}')
  done = chosen.run(pipeline)
  return Applied({name: load(place / name) for name in found}, done)


def gather(pcoll: PCollection, path: pathlib.Path, label: str) -> None:
  """Keeps a PCollection in a file, once and whole, if the pipeline succeeds.

  A bundle that is executed again writes the same file again.
  """
  _ = (
      pcoll
      | f'{label}: reify' >> beam.ParDo(_Reify()).with_output_types(bytes)
      | f'{label}: one window' >> beam.WindowInto(GlobalWindows())
      | f'{label}: all' >> beam.combiners.ToList()
      | f'{label}: store' >> beam.ParDo(_Store(path)))


def load(path: pathlib.Path) -> list[Output]:
  """What `gather` kept."""
  return pickle.loads(path.read_bytes())


class Trail(beam.DoFn):
  """Notes each element at once, also in a pipeline that fails later.

  Args:
    path: of a file; `Trail.read` returns what is in it.
  """
  def __init__(self, path: pathlib.Path):
    self._path = str(path)

  def process(self, element: Any) -> None:
    with open(self._path, 'ab') as f:
      f.write(pickle.dumps(element))

  @staticmethod
  def read(path: pathlib.Path) -> list[Any]:
    if not path.exists():
      return []
    elements = []
    with open(path, 'rb') as f:
      size = os.fstat(f.fileno()).st_size
      while f.tell() < size:
        elements.append(pickle.load(f))
    return elements


class _Reify(beam.DoFn):
  """Pickled `Output`s: their own coder is not what is tested here."""
  def process(self,
              element: Any,
              wv: Any = beam.DoFn.WindowedValueParam) -> Iterable[bytes]:
    windows = tuple((w.start.micros, w.end.micros) for w in wv.windows)
    pane = wv.pane_info
    output = Output(
        element,
        wv.timestamp.micros,
        windows, (pane.is_first, pane.is_last, pane.timing, pane.index))
    # WindowInto makes of an element one for each of its windows.
    yield pickle.dumps((uuid.uuid4().bytes, output))


class _Store(beam.DoFn):
  def __init__(self, path: pathlib.Path):
    self._path = str(path)

  def process(self, outputs: list[bytes]) -> None:
    temporary = f'{self._path}.{os.getpid()}'
    with open(temporary, 'wb') as f:
      pickle.dump(list(dict(map(pickle.loads, outputs)).values()), f)
    os.replace(temporary, self._path)


def _as_it_is(element: Any) -> Any:
  return element
