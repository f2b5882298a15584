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
"""The operation of a lookup: records by their ids, many ids a request."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import Optional
from typing import Union

import numpy as np
import pyarrow as pa

from beam_connector_base.operation import MISSING
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
from beam_connector_base.values import Chosen
from beam_pinecone.client import PineconeClient
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.encode import columns
from beam_pinecone.encode.columns import Refusals
from beam_pinecone.encode.elements import NamespaceReader
from beam_pinecone.encode.elements import block_refusal
from beam_pinecone.encode.elements import fields_of
from beam_pinecone.encode.elements import output_taken
from beam_pinecone.encode.records import key_text
from beam_pinecone.errors import PineconeError
from beam_pinecone.errors import Refused
from beam_pinecone.operations.namespaces import NamespaceNotFound
from beam_pinecone.operations.namespaces import Namespaces
from beam_pinecone.operations.service import open_vectors
from beam_pinecone.operations.service import verdict_of
from beam_pinecone.schema import IndexSchema
from beam_pinecone.schema import check_id
from beam_pinecone.wire.answers import fetch_answer
from beam_pinecone.wire.query import fetch_row
from beam_pinecone.wire.vectors import namespace_frame

__all__ = ['FetchRecords', 'RecordKeys']

# Operation limits page.
MAX_IDS = 1_000
MAX_ANSWER_BYTES = 4_000_000
MAX_REQUEST_BYTES = 2_000_000
# Rate limits page: fetches per second and index.
FETCHES_PER_SECOND = 100.0

# What a record is taken to have besides its dense values: id, tags, and
# metadata as most have it. Where it has more the service refuses to answer,
# and the engine asks for half as many.
_RECORD_BYTES = 600
# Answers are large, and take longer to read than to wait for.
_IN_FLIGHT = 4
_MAX_IN_FLIGHT = 16


@dataclasses.dataclass(frozen=True)
class RecordKeys:
  """Which record is looked up for an element.

  Attributes:
    namespace: how its namespace is chosen.
    id: field of its id.
    output: field of the answer, which must be free.
  """
  namespace: Chosen
  id: str = 'id'
  output: str = 'record'

  def id_of(self, element: Any) -> Any:
    return fields_of(element).get(self.id)


@dataclasses.dataclass(frozen=True)
class FetchRecords(Operation):
  """Fetches records by their ids.

  Args:
    index: name of the index.
    keys: which record each element asks for.
    connection: where the index is.
    include_values: whether the vectors are read.
    include_metadata: whether the metadata are read.
    on_missing_namespace: 'fail' or 'empty'.
    requests_per_second: at most; None for as many as are taken.
  """
  index: str
  keys: RecordKeys
  connection: PineconeConnection
  include_values: bool = True
  include_metadata: bool = True
  on_missing_namespace: str = 'fail'
  requests_per_second: Optional[float] = FETCHES_PER_SECOND

  @property
  def target(self) -> str:
    return f'Pinecone index {self.index!r}'

  async def open(self) -> FetchSession:
    index = await open_vectors(self.connection, self.index)
    return FetchSession(self, index.client, index.schema)

  def classify(self, error: BaseException) -> Verdict:
    if isinstance(error, NamespaceNotFound):
      return error.verdict
    return verdict_of(error, self.index)


class FetchSession(Session):
  """An open channel to one index that is looked up.

  Args:
    operation: whose session it is.
    client: owned by the session.
    schema: of the index.
  """
  def __init__(
      self,
      operation: FetchRecords,
      client: PineconeClient,
      schema: IndexSchema):
    self.schema = schema
    self._operation = operation
    self._client = client
    self._timeout = operation.connection.timeout
    self._keys = operation.keys
    self._namespace = NamespaceReader(operation.keys.namespace)
    self._namespaces = Namespaces(
        client,
        schema,
        self._timeout,
        for_all=self._namespace.constant is not None,
        on_missing=operation.on_missing_namespace)
    rate = operation.requests_per_second
    record = 4 * (schema.dimension or 0) + _RECORD_BYTES
    self.limits = Limits(
        max_records=max(1, min(MAX_IDS, MAX_ANSWER_BYTES // record)),
        max_bytes=MAX_REQUEST_BYTES,
        frame_bytes=_frame_bytes,
        in_flight=_IN_FLIGHT,
        max_in_flight=_MAX_IN_FLIGHT,
        rates=() if rate is None else (Rate(requests=rate),),
        answers=True)

  # ---------------------------------------------------------------- encoding

  def encode(self, element: Any) -> Iterable[Union[Block, Invalid]]:
    if isinstance(element, pa.RecordBatch):
      return self._encode_batch(element)
    return (self._encode_record(element),)

  def _encode_record(self, element: Any) -> Union[Block, Invalid]:
    keys = self._keys
    value: Any = None
    namespace = self._namespace.constant
    try:
      fields = fields_of(element)
      value = fields.get(keys.id)
      if keys.output in fields:
        raise output_taken(keys.output)
      if namespace is None:
        namespace = self._namespace.of(fields)
      row = fetch_row(check_key(value, keys.id))
    except Refused as refused:
      return Invalid(
          0,
          refused.reason,
          key_text(value),
          refused.error_type,
          namespace or '')
    return Block(namespace, row, None, (value,))

  def _encode_batch(self,
                    batch: pa.RecordBatch) -> Iterator[Union[Block, Invalid]]:
    keys = self._keys
    n = batch.num_rows
    names = batch.schema.names
    refused = block_refusal(names, keys.output)
    if refused is not None:
      for i in range(n):
        yield Invalid(i, refused.reason, '', refused.error_type)
      return
    bad: Refusals = {}
    column = batch.column(keys.id) if keys.id in names else pa.nulls(n)
    ids = columns.id_column(column, keys.id, bad)
    for i, value in enumerate(ids):
      if value is None:
        bad[i] = _no_key(keys.id)
    namespaces = self._namespace.column(batch, bad)
    groups: dict[str, list[int]] = {}
    for i in range(n):
      if i in bad:
        yield Invalid(
            i,
            bad[i].reason,
            key_text(ids[i]),
            bad[i].error_type,
            namespaces[i] or '')
      else:
        groups.setdefault(namespaces[i], []).append(i)
    for namespace, chosen in groups.items():
      rows = [fetch_row(ids[i].encode()) for i in chosen]
      offsets: Any = np.zeros(len(rows) + 1, np.int64)
      np.cumsum([len(row) for row in rows], out=offsets[1:])
      yield Block(
          namespace, rows, offsets, [ids[i] for i in chosen], None, chosen)

  # ----------------------------------------------------------------- sending

  async def send(self, batch: Batch) -> Replies:
    namespace = str(batch.destination)
    operation = self._operation
    answer = await self._client.call(
        'Fetch', b''.join((*batch.buffers(), namespace_frame(namespace))))
    try:
      records = fetch_answer(
          answer, operation.include_values, operation.include_metadata)
    except ValueError as e:
      raise PineconeError('INTERNAL', f'the answer is unreadable: {e}') from e
    if records:
      self._namespaces.found(namespace)
    else:
      missing = await self._namespaces.missing(namespace)
      if missing is not None:
        raise missing
    keys: Iterator[Any] = batch.keys()
    return [Done(records.get(key, MISSING)) for key in keys]

  async def check(self) -> None:
    await self._client.describe_index_stats(self._timeout)

  async def close(self) -> None:
    await self._client.close()


def _frame_bytes(destination: Any) -> int:
  return len(namespace_frame(destination))


def check_key(value: Any, field: str) -> bytes:
  """The id to look up as bytes.

  Raises:
    Refused: no record can have it.
  """
  if value is None:
    raise _no_key(field)
  return check_id(value, field)


def _no_key(field: str) -> Refused:
  return Refused(
      'MissingId',
      f'{field!r} is missing: there is nothing to look up; set id_field= to the '
      'field that holds the id')
