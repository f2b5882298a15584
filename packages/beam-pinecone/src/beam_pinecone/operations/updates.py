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
"""The operations of updates: one record, or all that match, a request."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

import pyarrow as pa

from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Rate
from beam_connector_base.operation import Replies
from beam_connector_base.operation import Session
from beam_connector_base.operation import Verdict
from beam_connector_base.values import ByValue
from beam_pinecone.client import PineconeClient
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.encode.elements import NamespaceReader
from beam_pinecone.encode.filters import Filter
from beam_pinecone.encode.filters import FilterReader
from beam_pinecone.encode.layout import Layout
from beam_pinecone.encode.records import Checks
from beam_pinecone.encode.records import RecordEncoder
from beam_pinecone.encode.rowwise import any_fields
from beam_pinecone.encode.rowwise import encode_rows
from beam_pinecone.errors import PineconeError
from beam_pinecone.errors import Refused
from beam_pinecone.operations.pages import is_no_namespace
from beam_pinecone.operations.service import open_vectors
from beam_pinecone.operations.service import read_stats
from beam_pinecone.operations.service import verdict_of
from beam_pinecone.schema import IndexSchema
from beam_pinecone.wire import changes
from beam_pinecone.wire.metadata import MetadataKey
from beam_pinecone.wire.metadata import encode_metadata

__all__ = ['UpdateMatching', 'UpdateVectors']

MAX_REQUEST_BYTES = 2_000_000
# Rate limits page: updates per second and namespace; updates by metadata per
# second and namespace, and per second and index.
UPDATE_RATE = Rate(requests=100, records=100, scope='destination')
UPDATE_MATCHING_RATES = (
    Rate(requests=5, scope='destination'), Rate(requests=500))


@dataclasses.dataclass(frozen=True)
class _Update(Operation):
  """What both operations have in common.

  Args:
    index: name of the index.
    layout: which field of an element means what.
    connection: where it is.
  """
  index: str
  layout: Layout
  connection: PineconeConnection

  @property
  def target(self) -> str:
    return f'Pinecone index {self.index!r}'

  def classify(self, error: BaseException) -> Verdict:
    if is_no_namespace(error):
      return Verdict(
          Kind.PERMANENT,
          None,
          404,
          f'{error}: there is no such namespace, so that nothing was updated')
    return verdict_of(error, self.index)


@dataclasses.dataclass(frozen=True)
class UpdateVectors(_Update):
  """Changes records by their ids: their values, and some of their metadata."""
  async def open(self) -> Session:
    opened = await open_vectors(self.connection, self.index)
    return _UpdateSession(
        opened.client,
        Limits(
            max_records=1,
            max_bytes=MAX_REQUEST_BYTES,
            frame_bytes=_frame_bytes,
            rates=(UPDATE_RATE,),
            # The later of two updates of one record has to win.
            keys='serial'),
        self.connection.timeout,
        _UpdateEncoder(self.layout, opened.schema))


@dataclasses.dataclass(frozen=True)
class UpdateMatching(_Update):
  """Sets metadata of all records that match a filter.

  The answer for an element is the number of records that matched.

  Args:
    filter: which records.
    set_metadata: makes the metadata of an element; None: of its fields.
    constant: the same metadata for all elements, as the fields of a Struct.
    dry_run: whether to count only.
  """
  filter: Filter = Filter()
  set_metadata: Optional[ByValue] = None
  constant: Optional[bytes] = None
  dry_run: bool = False

  async def open(self) -> Session:
    opened = await open_vectors(self.connection, self.index)
    return _UpdateSession(
        opened.client,
        Limits(
            max_records=1,
            max_bytes=MAX_REQUEST_BYTES,
            frame_bytes=_frame_bytes,
            rates=UPDATE_MATCHING_RATES),
        self.connection.timeout,
        _MatchingEncoder(self, opened.schema))


class _UpdateSession(Session):
  """An open channel to one index.

  Args:
    client: owned by the session.
    limits: of the requests.
    timeout: seconds for a check.
    encoder: makes rows of elements.
  """
  def __init__(
      self,
      client: PineconeClient,
      limits: Limits,
      timeout: float,
      encoder: RecordEncoder):
    self.limits = limits
    self._client = client
    self._timeout = timeout
    self._encode = encoder.encode

  def encode(self, element: Any) -> Iterable[Union[Block, Invalid]]:
    if isinstance(element, pa.RecordBatch):
      return encode_rows(element, self._encode)
    return (self._encode(element),)

  async def send(self, batch: Batch) -> Replies:
    frame = changes.update_frame(str(batch.destination))
    answer = await self._client.call(
        'Update', b''.join((*batch.buffers(), frame)))
    try:
      matched = changes.matched_records(answer)
    except ValueError as e:
      raise PineconeError('INTERNAL', f'the answer is unreadable: {e}') from e
    return ALL_OK if matched is None else [Done(matched)]

  async def check(self) -> None:
    await read_stats(self._client, self._timeout)

  async def close(self) -> None:
    await self._client.close()


class _UpdateEncoder(RecordEncoder):
  """Encodes records as updates by id."""
  def __init__(self, layout: Layout, schema: IndexSchema):
    super().__init__(layout, schema, Checks(layout))

  def _check_parts(self, dense: bool, sparse: bool) -> None:
    layout, schema = self._layout, self._schema
    if sparse or (dense and not schema.takes_dense):
      # As if the part that stays as it is were given, too.
      schema.check_parts(
          dense or schema.vector_type == 'dense',
          sparse,
          layout.values,
          layout.sparse)

  def _data(
      self,
      id: bytes,
      values: Any,
      values_bytes: int,
      metadata: bytes,
      sparse: bytes) -> bytes:
    if not values_bytes and not metadata and not sparse:
      raise Refused(
          'NothingToUpdate',
          'the record has an id and nothing to update: no values, and no '
          'metadata that is not None (Pinecone cannot take a key away)')
    return changes.update_by_id(id, values, values_bytes, metadata, sparse)


class _MatchingEncoder(RecordEncoder):
  """Encodes records as updates by filter."""
  def __init__(self, operation: UpdateMatching, schema: IndexSchema):
    super().__init__(operation.layout, schema, Checks(operation.layout))
    self._operation = operation
    self._names = NamespaceReader(operation.layout.namespace)
    self._filters = FilterReader(operation.filter)

  def encode(self, element: Any) -> Union[Block, Invalid]:
    operation = self._operation
    namespace = self._names.constant
    try:
      # Where all is constant an element only says when.
      fields = any_fields(element)
      if namespace is None:
        namespace = self._names.of(fields)
      filter = self._filters.of(fields)
      if not filter:
        raise Refused(
            'FilterEmpty',
            'the filter is empty or None, which Pinecone does not take: it '
            'would mean every record')
      metadata = self._set_metadata(fields)
    except Refused as refused:
      return Invalid(0, refused.reason, '', refused.error_type, namespace or '')
    return Block(
        namespace,
        changes.update_by_filter(filter, metadata, operation.dry_run))

  def _set_metadata(self, fields: Mapping[str, Any]) -> bytes:
    operation = self._operation
    if operation.constant is not None:
      return operation.constant
    if operation.set_metadata is not None:
      made = operation.set_metadata(fields)
      if not isinstance(made, Mapping):
        raise Refused(
            'MetadataType',
            f'set_metadata returned a {type(made).__name__}: it is a mapping '
            'from names to values')
      metadata = metadata_bytes(made)
    else:
      layout = operation.layout
      for field in (layout.id, layout.values, layout.sparse):
        if field is not None and fields.get(field) is not None:
          raise Refused(
              'UpdateByFilter',
              f'{field!r} is given, but an update by filter can only set '
              'metadata: leave it out, or update by id (filter=None)')
      metadata = self._metadata(fields)
    if not metadata:
      raise Refused(
          'NothingToUpdate', 'the record has no metadata that is not None')
    return metadata


def metadata_bytes(metadata: Mapping[str, Any]) -> bytes:
  """Any mapping as the fields of a Struct.

  Raises:
    Refused: the service would reject it or change it.
  """
  keys = sorted(map(MetadataKey, metadata), key=lambda key: key.name)
  return encode_metadata(keys, metadata)


def _frame_bytes(destination: Any) -> int:
  return len(changes.update_frame(destination))
