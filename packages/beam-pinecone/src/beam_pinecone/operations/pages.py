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
"""Operations that answer a page at a time: namespaces, ids, matching records.

A question is one request. Who asks keeps the token of the next page, so that a
failed request costs one page and not the listing.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable
from typing import Any
from typing import NamedTuple
from typing import Union

from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Rate
from beam_connector_base.operation import Replies
from beam_connector_base.operation import Session
from beam_connector_base.operation import Verdict
from beam_pinecone.client import PineconeClient
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.errors import PineconeError
from beam_pinecone.operations.service import open_vectors
from beam_pinecone.operations.service import read_stats
from beam_pinecone.operations.service import verdict_of
from beam_pinecone.schema import IndexSchema
from beam_pinecone.wire import listing
from beam_pinecone.wire.answers import fetch_answer

__all__ = [
    'CheckNamespace',
    'FetchMatching',
    'ListIds',
    'ListNamespaces',
    'MatchingRecords',
    'Page',
    'PagesOfIds',
    'is_no_namespace',
]

# Rate limits page: lists per second and index; fetches by metadata per second
# and namespace.
LIST_RATE = Rate(requests=200)
FETCH_BY_METADATA_RATE = Rate(requests=5, scope='destination')
# Operation limits page: ids of a page; it is also what the service gives by
# default.
MAX_IDS = 100
# Records asked for in a page of a fetch by metadata. The answer's 4 MB end it
# earlier where the vectors are not short.
MAX_MATCHING = 1_000


class ListNamespaces(NamedTuple):
  """Asks for a page of the names of namespaces."""
  token: str = ''

  def __str__(self) -> str:
    return 'the namespaces'


class CheckNamespace(NamedTuple):
  """Asks whether a namespace exists; an answer means that it does."""
  namespace: str

  def __str__(self) -> str:
    return f'of namespace {self.namespace!r}'


class ListIds(NamedTuple):
  """Asks for a page of the ids of a namespace."""
  namespace: str
  prefix: str = ''
  token: str = ''

  def __str__(self) -> str:
    return f'the ids of namespace {self.namespace!r}'


class MatchingRecords(NamedTuple):
  """Asks for a page of the records that match a filter."""
  namespace: str
  filter: bytes
  token: str = ''

  def __str__(self) -> str:
    # The filter may hold what is nobody's business.
    return f'the records of namespace {self.namespace!r} that match the filter'


class Page(NamedTuple):
  """What came of a question.

  Args:
    items: names, ids or `Record`s.
    token: of the next page; '' if this is the last one.
  """
  items: list[Any]
  token: str = ''


def is_no_namespace(error: BaseException) -> bool:
  """Whether the service said that there is no such namespace."""
  return (
      isinstance(error, PineconeError) and error.code == 'NOT_FOUND'
      and 'namespace' in error.message.lower())


@dataclasses.dataclass(frozen=True)
class _Pages(Operation):
  """What both operations have in common.

  Args:
    index: name of the index.
    connection: where it is.
  """
  index: str
  connection: PineconeConnection

  @property
  def target(self) -> str:
    return f'Pinecone index {self.index!r}'

  def classify(self, error: BaseException) -> Verdict:
    return verdict_of(error, self.index)


@dataclasses.dataclass(frozen=True)
class PagesOfIds(_Pages):
  """Lists namespaces and ids: `ListNamespaces`, `CheckNamespace`, `ListIds`."""
  async def open(self) -> Session:
    opened = await open_vectors(self.connection, self.index)
    return _IdsSession(
        opened.client,
        opened.schema,
        self.connection.timeout,
        Limits(max_records=1, rates=(LIST_RATE,)))


@dataclasses.dataclass(frozen=True)
class FetchMatching(_Pages):
  """Fetches records by their metadata: `MatchingRecords`.

  Args:
    values: whether the vectors are wanted.
    metadata: whether the metadata are wanted.
  """
  values: bool = True
  metadata: bool = True

  async def open(self) -> Session:
    opened = await open_vectors(self.connection, self.index)
    return _MatchingSession(
        opened.client,
        opened.schema,
        self.connection.timeout,
        Limits(max_records=1, rates=(FETCH_BY_METADATA_RATE,)),
        self.values,
        self.metadata)


class _PagesSession(Session):
  """An open channel to one index.

  Args:
    client: owned by the session.
    schema: of the index.
    timeout: seconds for a check.
    limits: of the requests.
  """
  def __init__(
      self,
      client: PineconeClient,
      schema: IndexSchema,
      timeout: float,
      limits: Limits):
    self.schema = schema
    self.limits = limits
    self._client = client
    self._timeout = timeout

  def encode(self, element: Any) -> Iterable[Union[Block, Invalid]]:
    namespace = getattr(element, 'namespace', '')
    # One request, whatever its size.
    return (Block(namespace, [element], (0, 1)),)

  async def send(self, batch: Batch) -> Replies:
    (question,) = batch.rows()
    try:
      return [Done(await self._ask(question))]
    except ValueError as e:
      raise PineconeError('INTERNAL', f'the answer is unreadable: {e}') from e

  @abc.abstractmethod
  async def _ask(self, question: Any) -> Page:
    """One request; raises ValueError if its answer is unreadable."""

  async def check(self) -> None:
    await read_stats(self._client, self._timeout)

  async def close(self) -> None:
    await self._client.close()


class _IdsSession(_PagesSession):
  async def _ask(self, question: Any) -> Page:
    if isinstance(question, ListIds):
      return await self._ids(question)
    if isinstance(question, CheckNamespace):
      return await self._check(question.namespace)
    return await self._namespaces(question.token)

  async def _ids(self, question: ListIds) -> Page:
    request = listing.list_request(
        question.namespace, question.prefix, question.token, MAX_IDS)
    try:
      answer = await self._client.call('List', request)
    except PineconeError as e:
      if is_no_namespace(e):  # The last of its records was deleted.
        return Page([])
      raise
    return Page(*listing.list_answer(answer))

  async def _namespaces(self, token: str) -> Page:
    request = listing.list_namespaces_request(token, MAX_IDS)
    try:
      answer = await self._client.call('ListNamespaces', request)
    except PineconeError as e:
      if e.code != 'UNIMPLEMENTED':
        raise
      # Servers older than the method know their namespaces all the same.
      stats = await read_stats(self._client, self._timeout)
      return Page(sorted(stats.namespaces))
    return Page(*listing.list_namespaces_answer(answer))

  async def _check(self, namespace: str) -> Page:
    try:
      await self._client.call(
          'DescribeNamespace', listing.namespace_request(namespace))
      return Page([namespace])
    except PineconeError as e:
      if e.code == 'UNIMPLEMENTED':
        stats = await read_stats(self._client, self._timeout)
        if namespace in stats.namespaces:
          return Page([namespace])
      elif not is_no_namespace(e):
        raise
    raise PineconeError(
        'FAILED_PRECONDITION',
        f'index {self.schema.index!r} has no namespace {namespace!r}: check '
        'the name, or read all namespaces (namespaces=None)')


class _MatchingSession(_PagesSession):
  def __init__(
      self,
      client: PineconeClient,
      schema: IndexSchema,
      timeout: float,
      limits: Limits,
      values: bool,
      metadata: bool):
    super().__init__(client, schema, timeout, limits)
    self._values = values
    self._metadata = metadata

  async def _ask(self, question: MatchingRecords) -> Page:
    request = listing.fetch_by_metadata_request(
        question.namespace, question.filter, question.token, MAX_MATCHING)
    try:
      answer = await self._client.call('FetchByMetadata', request)
    except PineconeError as e:
      if is_no_namespace(e):
        return Page([])
      raise
    records = fetch_answer(answer, self._values, self._metadata)
    return Page(list(records.values()), listing.next_page(answer))
