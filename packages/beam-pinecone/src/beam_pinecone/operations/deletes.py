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
"""The operations of deletes: by ids, by filter, and of whole namespaces."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Union

import numpy as np
import pyarrow as pa

from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Kind
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
from beam_pinecone.encode.blocks import arrow_flaw
from beam_pinecone.encode.columns import Refusals
from beam_pinecone.encode.elements import NamespaceReader
from beam_pinecone.encode.elements import fields_of
from beam_pinecone.encode.filters import Filter
from beam_pinecone.encode.filters import FilterReader
from beam_pinecone.encode.records import key_text
from beam_pinecone.encode.rowwise import any_fields
from beam_pinecone.encode.rowwise import encode_rows
from beam_pinecone.errors import PineconeError
from beam_pinecone.errors import Refused
from beam_pinecone.operations.pages import is_no_namespace
from beam_pinecone.operations.service import open_vectors
from beam_pinecone.operations.service import read_stats
from beam_pinecone.operations.service import verdict_of
from beam_pinecone.schema import check_id
from beam_pinecone.wire import changes
from beam_pinecone.wire.listing import namespace_request

__all__ = ['DeleteByIds', 'DeleteMatching', 'DeleteNamespaces']

# Operation limits page.
MAX_IDS = 1_000
MAX_REQUEST_BYTES = 2_000_000
# Rate limits page: deletes per second and namespace, records per second and
# namespace and per second and index; deletes by metadata per second and
# namespace, and per second and index.
DELETE_RATES = (
    Rate(requests=100, records=5_000, scope='destination'), Rate(records=5_000))
DELETE_MATCHING_RATES = (
    Rate(requests=5, scope='destination'), Rate(requests=500))
DELETE_NAMESPACE_RATE = Rate(requests=100)


@dataclasses.dataclass(frozen=True)
class _Delete(Operation, abc.ABC):
  """What all deletes have in common.

  Args:
    index: name of the index.
    connection: where it is.
    namespace: how the namespace is chosen.
    missing_ok: whether a namespace that does not exist is deleted already.
  """
  index: str
  connection: PineconeConnection
  namespace: Chosen
  missing_ok: bool = True

  @property
  def target(self) -> str:
    return f'Pinecone index {self.index!r}'

  async def open(self) -> Session:
    opened = await open_vectors(self.connection, self.index)
    return self._session(opened.client)

  def classify(self, error: BaseException) -> Verdict:
    if is_no_namespace(error):
      return Verdict(
          Kind.PERMANENT,
          None,
          404,
          f'{error}: nothing can be deleted there; pass '
          'missing_namespace=\'ok\' if that is as good')
    return verdict_of(error, self.index)

  @abc.abstractmethod
  def _session(self, client: PineconeClient) -> Session:
    """The session, which owns the client."""


@dataclasses.dataclass(frozen=True)
class DeleteByIds(_Delete):
  """Deletes records by their ids, many a request.

  Args:
    id_field: field of the id.
  """
  id_field: str = 'id'

  def _session(self, client: PineconeClient) -> Session:
    return _IdsSession(self, client)


@dataclasses.dataclass(frozen=True)
class DeleteMatching(_Delete):
  """Deletes the records that match the filter of an element.

  Args:
    filter: how it is chosen.
  """
  filter: Filter = Filter()

  def _session(self, client: PineconeClient) -> Session:
    return _MatchingSession(self, client)


@dataclasses.dataclass(frozen=True)
class DeleteNamespaces(_Delete):
  """Deletes all records of a namespace, or the namespace with them.

  Args:
    whole: whether the namespace goes, too.
  """
  whole: bool = False

  def _session(self, client: PineconeClient) -> Session:
    return _NamespacesSession(self, client)


class _DeleteSession(Session):
  """An open channel to one index.

  Args:
    operation: whose session it is.
    client: owned by the session.
  """
  def __init__(self, operation: Any, client: PineconeClient):
    self._operation = operation
    self._client = client
    self._namespaces = NamespaceReader(operation.namespace)

  def encode(self, element: Any) -> Iterable[Union[Block, Invalid]]:
    if isinstance(element, pa.RecordBatch):
      return self._encode_batch(element)
    return (self._encode_record(element),)

  def _encode_batch(self,
                    batch: pa.RecordBatch) -> Iterator[Union[Block, Invalid]]:
    return encode_rows(batch, self._encode_record)

  @abc.abstractmethod
  def _encode_record(self, element: Any) -> Union[Block, Invalid]:
    """The row of one element, or why there is none."""

  def _namespace(self, fields: Mapping[str, Any]) -> str:
    name = self._namespaces.constant
    return self._namespaces.of(fields) if name is None else name

  async def send(self, batch: Batch) -> Replies:
    try:
      await self._delete(batch, str(batch.destination))
    except PineconeError as e:
      if not (self._operation.missing_ok and is_no_namespace(e)):
        raise
    return ALL_OK

  @abc.abstractmethod
  async def _delete(self, batch: Batch, namespace: str) -> None:
    """One request."""

  async def check(self) -> None:
    await read_stats(self._client, self._operation.connection.timeout)

  async def close(self) -> None:
    await self._client.close()


class _IdsSession(_DeleteSession):
  limits = Limits(
      max_records=MAX_IDS,
      max_bytes=MAX_REQUEST_BYTES,
      frame_bytes=lambda namespace: len(changes.delete_frame(str(namespace))),
      rates=DELETE_RATES)

  def _encode_record(self, element: Any) -> Union[Block, Invalid]:
    field = self._operation.id_field
    value: Any = element
    namespace = ''
    try:
      fields = {
          field: element
      } if isinstance(element, str) else fields_of(element)
      value = fields.get(field)
      namespace = self._namespace(fields)
      row = changes.delete_row(check_id(value, field))
    except Refused as refused:
      return Invalid(
          0, refused.reason, key_text(value), refused.error_type, namespace)
    return Block(namespace, row, None, (value,))

  def _encode_batch(self,
                    batch: pa.RecordBatch) -> Iterator[Union[Block, Invalid]]:
    field = self._operation.id_field
    n = batch.num_rows
    if batch.schema.names.count(field) != 1 or arrow_flaw(batch) is not None:
      yield from super()._encode_batch(batch)
      return
    bad: Refusals = {}
    ids = columns.id_column(batch.column(field), field, bad)
    namespaces = self._namespaces.column(batch, bad)
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
      rows = [changes.delete_row(ids[i].encode()) for i in chosen]
      offsets: Any = np.zeros(len(rows) + 1, np.int64)
      np.cumsum([len(row) for row in rows], out=offsets[1:])
      yield Block(
          namespace, rows, offsets, [ids[i] for i in chosen], None, chosen)

  async def _delete(self, batch: Batch, namespace: str) -> None:
    await self._client.call(
        'Delete', changes.delete_request(batch.buffers(), namespace))


class _MatchingSession(_DeleteSession):
  limits = Limits(
      max_records=1, max_bytes=MAX_REQUEST_BYTES, rates=DELETE_MATCHING_RATES)

  def __init__(self, operation: DeleteMatching, client: PineconeClient):
    super().__init__(operation, client)
    self._filters = FilterReader(operation.filter)

  def _encode_record(self, element: Any) -> Union[Block, Invalid]:
    namespace = ''
    try:
      fields = any_fields(element)
      namespace = self._namespace(fields)
      filter = self._filters.of(fields)
      if not filter:
        raise Refused(
            'FilterEmpty',
            'the filter is empty or None, which would delete every record: use '
            'delete_all=True if that is meant')
    except Refused as refused:
      return Invalid(0, refused.reason, '', refused.error_type, namespace)
    return Block(namespace, changes.delete_by_filter_request(filter, namespace))

  async def _delete(self, batch: Batch, namespace: str) -> None:
    await self._client.call('Delete', b''.join(batch.buffers()))


class _NamespacesSession(_DeleteSession):
  limits = Limits(max_records=1, rates=(DELETE_NAMESPACE_RATE,))

  def _encode_record(self, element: Any) -> Union[Block, Invalid]:
    try:
      namespace = self._namespace(any_fields(element))
    except Refused as refused:
      return Invalid(0, refused.reason, '', refused.error_type)
    if self._operation.whole:
      request = namespace_request(namespace)
    else:
      request = changes.delete_all_request(namespace)
    return Block(namespace, request, None, (namespace,))

  async def _delete(self, batch: Batch, namespace: str) -> None:
    method = 'DeleteNamespace' if self._operation.whole else 'Delete'
    await self._client.call(method, b''.join(batch.buffers()))
