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
"""A source that reads the toy service: shelves, pages of ids, then records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import Optional
from urllib.parse import quote

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection

from beam_connector_base import Batch
from beam_connector_base import Block
from beam_connector_base import DeliveryError
from beam_connector_base import Done
from beam_connector_base import EnvSecret
from beam_connector_base import Limits
from beam_connector_base import Operation
from beam_connector_base import Session
from beam_connector_base import Tuning
from beam_connector_base import Verdict
from beam_connector_base.credentials import check_secret
from beam_connector_base.credentials import resolve
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.metrics import DeliveryMetrics
from beam_connector_base.operation import MISSING
from beam_harness.conformance.toy_lookup import AskBooks
from beam_harness.conformance.toy_sink import classify
from beam_harness.conformance.toy_sink import exchange

__all__ = [
    'FetchFn',
    'ListFn',
    'ListIds',
    'ListShelves',
    'ReadAllFromToy',
    'ReadFromToy',
    'ToyReadRequest'
]

_DEFAULT_KEY = EnvSecret('TOY_KEY')
_COLUMNS = ('pages', 'text')
_TYPES = {'pages': pa.float64(), 'text': pa.string()}


class ToyReadRequest(NamedTuple):
  """What to read: named shelves or all, ids that begin with a prefix."""
  shelves: Optional[Sequence[str]] = None
  prefix: str = ''


class ReadAllFromToy(beam.PTransform):
  """Reads what the requests of a PCollection ask for.

  Args:
    url: of the service.
    columns: of 'pages' and 'text'.
    as_blocks: RecordBatches instead of dicts.
    key, tuning: as for all transforms.
    steps: the DoFns that list and fetch, for tests of the suites.
  """
  _name = 'ReadAllFromToy'

  def __init__(
      self,
      url: str,
      *,
      columns: Iterable[str] = _COLUMNS,
      as_blocks: bool = False,
      key: Any = _DEFAULT_KEY,
      tuning: Optional[Tuning] = None,
      steps: Optional[tuple[type[ListFn], type[FetchFn]]] = None):
    super().__init__()
    check_secret(key, 'key')
    self._url = url
    self._reading = Reading(
        url, key, tuple(columns), as_blocks, tuning or Tuning(), self._name)
    self._steps = steps or (ListFn, FetchFn)

  def expand(self, requests: PCollection) -> PCollection:
    lists, fetches = self._steps
    kind = pa.RecordBatch if self._reading.as_blocks else dict[str, Any]
    return (
        requests
        | 'Plan' >> beam.ParDo(PlanFn(self._reading))
        | 'Shelves' >> beam.Reshuffle()
        | 'List' >> beam.ParDo(lists(self._reading))
        | 'Ids' >> beam.Reshuffle()
        | 'Fetch' >> beam.ParDo(fetches(self._reading)).with_output_types(kind))

  def display_data(self) -> dict[str, Any]:
    return {'target': f'the shelves at {self._url}'}


class ReadFromToy(ReadAllFromToy):
  """Reads shelves: those that are named, or all.

  Args:
    url: of the service.
    shelves: names; None for all there are.
    prefix: only records whose ids begin so.
    **options: those of `ReadAllFromToy`.
  """
  _name = 'ReadFromToy'

  def __init__(
      self,
      url: str,
      shelves: Optional[Sequence[str]] = None,
      *,
      prefix: str = '',
      **options: Any):
    super().__init__(url, **options)
    self._request = ToyReadRequest(shelves, prefix)

  def expand(self, pbegin: Any) -> PCollection:
    return super().expand(pbegin | 'Request' >> beam.Create([self._request]))


@dataclasses.dataclass(frozen=True)
class Reading:
  """What all steps of a read know."""
  url: str
  key: EnvSecret
  columns: tuple[str, ...]
  as_blocks: bool
  tuning: Tuning
  name: str


@dataclasses.dataclass(frozen=True)
class ListShelves(Operation):
  """Asks for the names of the shelves: elements are None."""
  url: str
  key: EnvSecret

  @property
  def target(self) -> str:
    return f'the shelves at {self.url}'

  async def open(self) -> Session:
    return _PagesSession(self.url, resolve(self.key), self.path)

  def path(self, element: Any) -> str:
    return '/shelves'

  def classify(self, error: BaseException) -> Verdict:
    return classify(error)


@dataclasses.dataclass(frozen=True)
class ListIds(ListShelves):
  """Asks for pages of ids: elements are shelf, prefix and the last id."""
  def path(self, element: Any) -> str:
    shelf, prefix, after = element
    return (
        f'/shelves/{quote(shelf)}/ids?prefix={quote(prefix)}'
        f'&after={quote(after)}')


class _PagesSession(Session):
  limits = Limits(max_records=1)

  def __init__(self, url: str, key: str, path: Any):
    self._url = url
    self._key = key
    self._path = path

  def encode(self, element: Any) -> Iterable[Block]:
    yield Block('', [element], (0, 1))

  async def send(self, batch: Batch) -> Any:
    (element,) = batch.rows()
    return [
        Done(await exchange(self._url, self._key, 'GET', self._path(element)))
    ]


class _AskFn(beam.DoFn):
  """Asks through the engine, and waits for the answers."""
  def __init__(self, reading: Reading):
    self._reading = reading
    self._metrics = DeliveryMetrics(reading.name, ('toy', 'books'))
    self._dispatchers: dict[Operation, Dispatcher] = {}

  def teardown(self) -> None:
    for dispatcher in self._dispatchers.values():
      dispatcher.close()
    self._dispatchers.clear()

  def ask(self, operation: Operation, elements: Sequence[Any]) -> list[Any]:
    """The answers to the elements, in their order.

    Raises:
      DeliveryError: one of them was refused or could not be had.
    """
    dispatcher = self._dispatchers.get(operation)
    if dispatcher is None:
      dispatcher = Dispatcher(operation, self._reading.tuning)
      self._dispatchers[operation] = dispatcher
    bundle = dispatcher.bundle()
    try:
      for number, element in enumerate(elements):
        bundle.submit(element, number)
      settled = sorted(bundle.drain(), key=lambda each: each.ticket)
    except BaseException:
      bundle.cancel()
      raise
    self._metrics.record(bundle.reports())
    for submission in settled:
      if submission.failures:
        raise DeliveryError(
            f'{operation.target}: {submission.failures[0].message}')
    return [(submission.values or {})[0] for submission in settled]


class PlanFn(_AskFn):
  """From requests to shelves."""
  def process(self, request: ToyReadRequest) -> Iterator[tuple[str, str]]:
    shelves = request.shelves
    if shelves is None:
      reading = self._reading
      (answer,) = self.ask(ListShelves(reading.url, reading.key), [None])
      shelves = answer['shelves']
    for shelf in shelves:
      yield shelf, request.prefix


class ListFn(_AskFn):
  """From shelves to pages of ids."""
  def process(self, element: tuple[str,
                                   str]) -> Iterator[tuple[str, list[str]]]:
    shelf, prefix = element
    after = ''
    while True:
      page = self.page(shelf, prefix, after)
      if page['ids']:
        yield shelf, page['ids']
      if 'after' not in page:
        return
      after = page['after']

  def page(self, shelf: str, prefix: str, after: str) -> dict[str, Any]:
    reading = self._reading
    (page,) = self.ask(
        ListIds(reading.url, reading.key), [(shelf, prefix, after)])
    return page


class FetchFn(_AskFn):
  """From pages of ids to records."""
  def process(self, element: tuple[str, list[str]]) -> Iterator[Any]:
    shelf, ids = element
    reading = self._reading
    operation = AskBooks(reading.url, shelf, reading.key)
    answers = self.ask(operation, [{'id': key} for key in ids])
    # What is missing was taken away after it was listed.
    rows = [{
        'id': key,
        'shelf': shelf,
        **{
            name: answer[name]
            for name in reading.columns
        }
    }
            for key, answer in zip(ids, answers, strict=True)
            if answer is not MISSING]
    self._metrics.source()
    self._metrics.looked_up(len(rows), len(ids) - len(rows), 0)
    if not reading.as_blocks:
      yield from rows
    elif rows:
      yield self.block(rows)

  def block(self, rows: list[dict[str, Any]]) -> pa.RecordBatch:
    fields = [('id', pa.string()), ('shelf', pa.string())]
    fields += [(name, _TYPES[name]) for name in self._reading.columns]
    return pa.RecordBatch.from_pylist(rows, pa.schema(fields))
