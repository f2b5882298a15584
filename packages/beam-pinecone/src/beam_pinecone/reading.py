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
"""The DoFns of a read: plan the shards, list their ids, fetch the records."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import logging
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import Optional
from typing import Union

import apache_beam as beam
from apache_beam.utils.windowed_value import WindowedValue

from beam_connector_base.bundle import Bundle
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.dofn import DeliverFn
from beam_connector_base.errors import DeliveryError
from beam_connector_base.metrics import DeliveryMetrics
from beam_connector_base.operation import Operation
from beam_connector_base.submission import Failure
from beam_connector_base.submission import Submission
from beam_connector_base.tuning import Tuning
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.decode.exported import block_schema
from beam_pinecone.decode.exported import to_block
from beam_pinecone.decode.exported import to_row
from beam_pinecone.operations.export import FetchVectors
from beam_pinecone.operations.export import Ids
from beam_pinecone.operations.export import ids_per_request
from beam_pinecone.operations.pages import CheckNamespace
from beam_pinecone.operations.pages import FetchMatching
from beam_pinecone.operations.pages import ListIds
from beam_pinecone.operations.pages import ListNamespaces
from beam_pinecone.operations.pages import MatchingRecords
from beam_pinecone.operations.pages import Page
from beam_pinecone.operations.pages import PagesOfIds
from beam_pinecone.wire.answers import Record
from beam_pinecone.wire.listing import DEFAULT_NAMESPACE

__all__ = ['FetchFn', 'ListFn', 'PlanFn', 'Reading', 'Shard']

_LOGGER = logging.getLogger(__name__)

# Shards that a bundle lists at the same time.
_SHARDS_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Reading:
  """What all steps of a read know.

  Args:
    connection: where the indexes are.
    values: whether the vectors are wanted.
    metadata: whether the metadata are wanted.
    as_blocks: whether records are wanted as RecordBatches.
    tuning: the user's settings.
    name: of the transform, for metrics and messages.
  """
  connection: PineconeConnection
  values: bool
  metadata: bool
  as_blocks: bool
  tuning: Tuning
  name: str

  @property
  def ids_only(self) -> bool:
    return not self.values and not self.metadata

  def outputs(self, records: list[Record], namespace: str,
              session: Any) -> list[Any]:
    """Fetched records as elements.

    Args:
      records: of one namespace.
      namespace: its name.
      session: whose `schema` is the index's; None where no vectors are read.
    """
    if not records:
      return []
    if self.as_blocks:
      dimension = session.schema.dimension if self.values else None
      schema = block_schema(dimension, self.values, self.metadata)
      return [to_block(records, namespace, schema)]
    return [to_row(record, namespace) for record in records]


@dataclasses.dataclass(frozen=True)
class Shard:
  """A part of an index that is listed from its beginning to its end.

  Args:
    index: its name.
    namespace: '' for the default one.
    prefix: of the ids; '' for all.
    filter: the fields of a Struct; None to list ids.
  """
  index: str
  namespace: str
  prefix: str = ''
  filter: Optional[bytes] = None


class _Open:
  """A dispatcher and the bundle at work, of one operation."""
  def __init__(self, operation: Operation, tuning: Tuning):
    self.dispatcher = Dispatcher(operation, tuning)
    self.bundle: Optional[Bundle] = None

  def get(self) -> Bundle:
    if self.bundle is None:
      self.bundle = self.dispatcher.bundle()
    return self.bundle


class _AskFn(beam.DoFn):
  """Asks pages of the indexes that its elements name.

  Args:
    reading: what the steps know.
  """
  def __init__(self, reading: Reading):
    self._reading = reading
    self._open: dict[Operation, _Open] = {}
    self._metrics: dict[str, DeliveryMetrics] = {}

  def start_bundle(self) -> None:
    # A runner may use the instance again after a bundle failed.
    self._abandon()

  def teardown(self) -> None:
    self._abandon()
    for opened in self._open.values():
      opened.dispatcher.close()
    self._open.clear()

  def _pages_of_ids(self, index: str) -> PagesOfIds:
    return PagesOfIds(index, self._reading.connection)

  def _get(self, operation: Operation) -> _Open:
    opened = self._open.get(operation)
    if opened is None:
      opened = self._open[operation] = _Open(operation, self._reading.tuning)
    return opened

  def _ask(self, operation: Any, questions: list[Any]) -> list[Page]:
    """The answers to some questions, asked all at once, in their order.

    Raises:
      DeliveryError: one of them could not be answered.
    """
    bundle = self._get(operation).get()
    for ticket, question in enumerate(questions):
      bundle.submit(question, ticket)
    answers: list[Optional[Page]] = [None] * len(questions)
    for submission in bundle.drain():
      answers[submission.ticket] = self._answer(submission, operation)
    self._metrics_of(operation.index).record(bundle.reports())
    return answers  # type: ignore[return-value]

  def _answer(self, submission: Submission, operation: Operation) -> Page:
    if submission.failures:
      failure = submission.failures[0]
      raise DeliveryError(
          f'{self._reading.name}: {operation.target}: the service refuses to '
          f'tell {submission.element}: {failure.message}')
    assert submission.values is not None
    page: Page = submission.values[0]
    return page

  def _metrics_of(self, index: str) -> DeliveryMetrics:
    metrics = self._metrics.get(index)
    if metrics is None:
      metrics = self._metrics[index] = DeliveryMetrics(
          self._reading.name, ('pinecone', index))
    return metrics

  def _abandon(self) -> None:
    for opened in self._open.values():
      if opened.bundle is not None:
        opened.bundle.cancel()
        opened.bundle = None


class PlanFn(_AskFn):
  """From requests to shards: the namespaces there are, by prefix.

  Args:
    reading: what the steps know.
    check: turns an element into a request, or raises.
  """
  def __init__(self, reading: Reading, check: Callable[[Any], Any]):
    super().__init__(reading)
    self._check = check

  def process(self, element: Any) -> Iterator[Shard]:
    request = self._check(element)
    operation = self._pages_of_ids(request.index)
    filter_bytes = request.filter_bytes()
    for namespace in self._namespaces(operation, request.namespaces):
      for prefix in request.prefixes() or ('',):
        yield Shard(request.index, namespace, prefix, filter_bytes)

  def finish_bundle(self) -> None:
    self._abandon()

  def _namespaces(self, operation: PagesOfIds, wanted: Any) -> Iterator[str]:
    if wanted is not None:
      # The default namespace is there before anything is in it.
      named = [CheckNamespace(name) for name in wanted if name]
      self._ask(operation, named)
      yield from wanted
      return
    seen = set()
    token = ''
    while True:
      (page,) = self._ask(operation, [ListNamespaces(token)])
      for shown in page.items:
        name = '' if shown == DEFAULT_NAMESPACE else shown
        if name not in seen:
          seen.add(name)
          yield name
      token = page.token
      if not token:
        return


@dataclasses.dataclass
class _Cursor:
  """How far the reading of a shard has come."""
  shard: Shard
  wv: WindowedValue
  token: str = ''
  done: bool = False
  ids: list[str] = dataclasses.field(default_factory=list)


class _ShardsFn(_AskFn, abc.ABC):
  """Reads the shards of a bundle side by side, each from page to page.

  A page that fails is asked for again; a bundle that fails begins anew.
  """
  def __init__(self, reading: Reading):
    super().__init__(reading)
    self._cursors: list[_Cursor] = []

  def start_bundle(self) -> None:
    super().start_bundle()
    self._cursors = []

  def process(
      self, element: Shard, wv: Any = beam.DoFn.WindowedValueParam) -> Any:
    # All is done at the end, where the bundle's shards are known.
    self._cursors.append(_Cursor(element, wv))

  def finish_bundle(self) -> Iterator[Any]:
    cursors, self._cursors = self._cursors, []
    for index in {cursor.shard.index for cursor in cursors}:
      self._metrics_of(index).source()
    waiting = iter(cursors)
    active: list[_Cursor] = []
    while True:
      active += itertools.islice(waiting, _SHARDS_AT_ONCE - len(active))
      if not active:
        break
      yield from self._round(active)
      active = [cursor for cursor in active if not cursor.done]
    self._abandon()

  def _round(self, cursors: list[_Cursor]) -> Iterator[Any]:
    """One page of each."""
    by_index: dict[str, list[_Cursor]] = {}
    for cursor in cursors:
      by_index.setdefault(cursor.shard.index, []).append(cursor)
    for index, asking in by_index.items():
      operation = self._operation(index)
      questions = [self._question(cursor) for cursor in asking]
      pages = self._ask(operation, questions)
      session = self._get(operation).dispatcher.session
      for cursor, page in zip(asking, pages, strict=True):
        cursor.token = page.token
        cursor.done = not page.token
        for output in self._outputs(cursor, page, session):
          yield cursor.wv.with_value(output)

  @abc.abstractmethod
  def _operation(self, index: str) -> Any:
    """What is asked."""

  @abc.abstractmethod
  def _question(self, cursor: _Cursor) -> Any:
    """The next page of a shard."""

  @abc.abstractmethod
  def _outputs(self, cursor: _Cursor, page: Page,
               session: Any) -> Iterator[Any]:
    """What becomes of a page."""


class ListFn(_ShardsFn):
  """From shards to ids; shards with a filter pass as they are."""
  def process(
      self, element: Shard, wv: Any = beam.DoFn.WindowedValueParam) -> Any:
    if element.filter is not None:
      return (element,)
    return super().process(element, wv)

  def _operation(self, index: str) -> Any:
    return self._pages_of_ids(index)

  def _question(self, cursor: _Cursor) -> ListIds:
    shard = cursor.shard
    return ListIds(shard.namespace, shard.prefix, cursor.token)

  def _outputs(self, cursor: _Cursor, page: Page,
               session: Any) -> Iterator[Ids]:
    shard = cursor.shard
    most = ids_per_request(session.schema)
    cursor.ids += page.items
    while len(cursor.ids) >= most or (cursor.done and cursor.ids):
      ids, cursor.ids = cursor.ids[:most], cursor.ids[most:]
      yield Ids(shard.index, shard.namespace, ids)


class _MatchingFn(_ShardsFn):
  """From shards with a filter to records."""
  def _operation(self, index: str) -> Any:
    reading = self._reading
    return FetchMatching(
        index, reading.connection, reading.values, reading.metadata)

  def _question(self, cursor: _Cursor) -> MatchingRecords:
    shard = cursor.shard
    assert shard.filter is not None
    return MatchingRecords(shard.namespace, shard.filter, cursor.token)

  def _outputs(self, cursor: _Cursor, page: Page,
               session: Any) -> Iterator[Any]:
    shard = cursor.shard
    self._metrics_of(shard.index).looked_up(len(page.items), 0, 0)
    yield from self._reading.outputs(page.items, shard.namespace, session)


class FetchFn(beam.DoFn):
  """From ids, and from shards with a filter, to records.

  One `DeliverFn` for each index does the work.
  """
  def __init__(self, reading: Reading):
    self._reading = reading
    self._matching = _MatchingFn(reading)
    self._of_index: dict[str, _FetchIndexFn] = {}
    self._begun: dict[str, None] = {}

  def start_bundle(self) -> None:
    self._begun = {}
    self._matching.start_bundle()

  def process(
      self,
      element: Union[Ids, Shard],
      wv: Any = beam.DoFn.WindowedValueParam) -> Any:
    if isinstance(element, Shard):
      return self._matching.process(element, wv)
    if self._reading.ids_only:
      records = [Record(id) for id in element.ids]
      return self._reading.outputs(records, element.namespace, None)
    return self._fn(element.index).process(element, wv)

  def finish_bundle(self) -> Iterator[Any]:
    for index in self._begun:
      yield from self._of_index[index].finish_bundle()
    yield from self._matching.finish_bundle()

  def teardown(self) -> None:
    for fn in self._of_index.values():
      fn.teardown()
    self._of_index = {}
    self._matching.teardown()

  def _fn(self, index: str) -> _FetchIndexFn:
    fn = self._of_index.get(index)
    if fn is None:
      fn = self._of_index[index] = _FetchIndexFn(self._reading, index)
      fn.setup()
    if index not in self._begun:
      # It also cancels what a bundle that failed has left.
      fn.start_bundle()
      self._begun[index] = None
    return fn


class _FetchIndexFn(DeliverFn):
  """Fetches the records of one index."""
  def __init__(self, reading: Reading, index: str):
    super().__init__(
        FetchVectors(
            index,
            reading.connection,
            reading.values,
            reading.metadata,
            views=reading.as_blocks),
        reading.tuning,
        fail=True,
        name=reading.name,
        lineage=('pinecone', index))
    self._reading = reading
    self._listed = 0
    self._missing = 0

  def start_bundle(self) -> None:
    super().start_bundle()
    self._listed = self._missing = 0

  def _closing(self) -> list[Any]:
    self._metrics.source()
    if self._missing:
      _LOGGER.warning(
          '%s: %s: %d of %d records were listed and not there when they were '
          'fetched: deleted meanwhile, or not yet to be seen everywhere',
          self._name,
          self._operation.target,
          self._missing,
          self._listed)
    return []

  def _refused(self, failure: Failure) -> Any:
    return DeliveryError(
        f'{self._name}: {self._operation.target}: the service refuses to tell '
        f'record {failure.key!r} of namespace {failure.destination!r}: '
        f'{failure.message}')

  def _emit(self, settled: list[Submission]) -> list[Any]:
    out: list[Any] = []
    assert self._dispatcher is not None
    session = self._dispatcher.session
    for submission in settled:
      self._failed(submission, submission.failures or ())
      found = 0
      wv = submission.ticket
      for records in (submission.values or {}).values():
        found += len(records)
        for output in self._reading.outputs(records,
                                            submission.element.namespace,
                                            session):
          out.append(wv.with_value(output))
      self._listed += submission.rows
      self._missing += submission.rows - found
      self._metrics.looked_up(found, submission.rows - found, 0)
    self._emitted += len(settled)
    return out
