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
"""Fetching many vectors by id, in as few requests as their answers allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import Union

import numpy as np

from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Rate
from beam_connector_base.operation import Replies
from beam_connector_base.operation import Reply
from beam_connector_base.operation import Session
from beam_connector_base.operation import Unanswered
from beam_connector_base.operation import Verdict
from beam_pinecone.client import PineconeClient
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.errors import PineconeError
from beam_pinecone.operations.fetches import FETCHES_PER_SECOND
from beam_pinecone.operations.fetches import MAX_ANSWER_BYTES
from beam_pinecone.operations.fetches import MAX_IDS
from beam_pinecone.operations.pages import is_no_namespace
from beam_pinecone.operations.service import open_vectors
from beam_pinecone.operations.service import read_stats
from beam_pinecone.operations.service import verdict_of
from beam_pinecone.schema import IndexSchema
from beam_pinecone.wire.answers import Record
from beam_pinecone.wire.answers import fetch_answer
from beam_pinecone.wire.query import fetch_row
from beam_pinecone.wire.vectors import upsert_request

__all__ = ['FetchVectors', 'Ids', 'answer_bytes', 'ids_per_request']

# Of the bytes that an answer may have, a part is left for what is not foreseen.
_ANSWER_BYTES = MAX_ANSWER_BYTES * 7 // 8
# What a record of the answer takes besides its dense values, before any was
# seen: two copies of the id, some metadata, and the lengths of all that.
_FIRST_GUESS_BYTES = 256
_LEAST_BYTES = 32

_FETCHED = Done(None)


@dataclasses.dataclass(frozen=True)
class Ids:
  """Records to fetch.

  Args:
    index: they are in.
    namespace: they are in.
    ids: at most 1,000 of them.
  """
  index: str
  namespace: str
  ids: list[str]


def answer_bytes(schema: IndexSchema) -> int:
  """A first guess of the bytes that one record takes in an answer."""
  return 4 * (schema.dimension or 0) + _FIRST_GUESS_BYTES


def ids_per_request(schema: IndexSchema) -> int:
  """How many ids to fetch at once, as a first guess."""
  return max(1, min(MAX_IDS, _ANSWER_BYTES // answer_bytes(schema)))


@dataclasses.dataclass(frozen=True)
class FetchVectors(Operation):
  """Fetches the records of `Ids`; those that are gone by then are left out.

  An element's answer is a list of `Record`s under one row or several.

  Args:
    index: name of the index.
    connection: where it is.
    values: whether the vectors are wanted.
    metadata: whether the metadata are wanted.
    views: whether dense values may be views of the answer; see `fetch_answer`.
  """
  index: str
  connection: PineconeConnection
  values: bool = True
  metadata: bool = True
  views: bool = False

  @property
  def target(self) -> str:
    return f'Pinecone index {self.index!r}'

  async def open(self) -> Session:
    opened = await open_vectors(self.connection, self.index)
    return _FetchSession(opened.client, opened.schema, self)

  def classify(self, error: BaseException) -> Verdict:
    return verdict_of(error, self.index)


class _FetchSession(Session):
  """An open channel to one index.

  The bytes that the engine counts are those of the answers: they are what the
  service limits, and what the memory of this process holds.

  Args:
    client: owned by the session.
    schema: of the index.
    operation: what is wanted.
  """
  def __init__(
      self,
      client: PineconeClient,
      schema: IndexSchema,
      operation: FetchVectors):
    self.schema = schema
    self.limits = Limits(
        max_records=MAX_IDS,
        max_bytes=_ANSWER_BYTES,
        rates=(Rate(requests=FETCHES_PER_SECOND),))
    self._client = client
    self._timeout = operation.connection.timeout
    self._values = operation.values
    self._metadata = operation.metadata
    self._views = operation.views
    self._least = 4 * (schema.dimension or 0) + _LEAST_BYTES
    self._expected = answer_bytes(schema)

  def encode(self, element: Any) -> Iterable[Union[Block, Invalid]]:
    ids: Sequence[str] = element.ids
    if not ids:
      return ()
    rows = [fetch_row(id.encode()) for id in ids]
    # One record larger than all that is allowed still is asked for alone.
    size = min(self._expected, _ANSWER_BYTES)
    offsets: Any = np.arange(len(ids) + 1, dtype=np.int64) * size
    return (Block(element.namespace, rows, offsets, ids),)

  async def send(self, batch: Batch) -> Replies:
    # The same fields as an upsert: rows, and the namespace.
    request = upsert_request(batch.buffers(), str(batch.destination))
    try:
      answer = await self._client.call('Fetch', request)
    except PineconeError as e:
      if is_no_namespace(e):
        return [_FETCHED] * batch.n
      raise
    try:
      found = fetch_answer(answer, self._values, self._metadata, self._views)
    except ValueError as e:
      raise PineconeError('INTERNAL', f'the answer is unreadable: {e}') from e
    if found:
      self._learn(len(answer) // len(found))
    return _replies(batch, found, len(answer))

  def _learn(self, record_bytes: int) -> None:
    """Adapts what is expected of the next answers, up at once, down slowly."""
    if record_bytes < self._expected:
      record_bytes = (3 * self._expected + record_bytes) // 4
    self._expected = max(self._least, record_bytes)

  async def check(self) -> None:
    await read_stats(self._client, self._timeout)

  async def close(self) -> None:
    await self._client.close()


def _replies(batch: Batch, found: dict[str, Record],
             nbytes: int) -> list[Reply]:
  """Hands each element its records, all of them with one of its rows.

  What is missing from a large answer may have been cut off rather than
  deleted: the service does not say what it does at the limit. It is asked for
  again, alone.
  """
  missing: Reply = _FETCHED
  if nbytes > MAX_ANSWER_BYTES // 2:
    missing = Unanswered('the answer was large and may have been cut off')
  replies: list[Reply] = []
  for _, block, start, stop in batch.pieces:
    records: list[Record] = []
    first = 0
    for i, key in enumerate(block.keys[start:stop]):
      record = found.get(key)
      if record is None:
        replies.append(missing)
      else:
        if not records:
          first = i
        records.append(record)
        replies.append(_FETCHED)
    if records:
      replies[len(replies) - (stop - start) + first] = Done(records)
  return replies
