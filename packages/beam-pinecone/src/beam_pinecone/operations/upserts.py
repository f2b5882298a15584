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
"""The operations on Pinecone, as the engine of the base drives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any
from typing import Optional
from typing import Union

import pyarrow as pa

from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Rate
from beam_connector_base.operation import Replies
from beam_connector_base.operation import Session
from beam_connector_base.operation import Verdict
from beam_connector_base.schema import Schema
from beam_pinecone.client import PineconeClient
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.encode.blocks import BlockEncoder
from beam_pinecone.encode.layout import Layout
from beam_pinecone.encode.records import Checks
from beam_pinecone.encode.records import RecordEncoder
from beam_pinecone.errors import PineconeError
from beam_pinecone.lock import verify
from beam_pinecone.operations.service import open_index
from beam_pinecone.operations.service import verdict_of
from beam_pinecone.schema import IndexSchema
from beam_pinecone.wire.responses import upserted_count
from beam_pinecone.wire.vectors import namespace_frame
from beam_pinecone.wire.vectors import upsert_request

__all__ = ['UpsertVectors']

# Operation limits page: vectors and bytes of one upsert.
MAX_VECTORS = 1_000
MAX_REQUEST_BYTES = 2_000_000
# Rate limits page: upserts per second and namespace.
UPSERT_RATE = Rate(requests=100, nbytes=50_000_000, scope='destination')


@dataclasses.dataclass(frozen=True)
class UpsertVectors(Operation):
  """Writes vectors; a vector with the id of an older one replaces it.

  Args:
    index: name of the index.
    layout: which field of an element means what.
    connection: where it is.
    lock: what it has to be; None for whatever it is.
  """
  index: str
  layout: Layout
  connection: PineconeConnection
  lock: Optional[Schema] = None

  @property
  def target(self) -> str:
    return f'Pinecone index {self.index!r}'

  async def open(self) -> UpsertSession:
    index = await open_index(self.connection, self.index)
    try:
      verify(self.lock, index.schema)
    except PineconeError:
      await index.client.close()
      raise
    return UpsertSession(
        index.client, index.schema, self.layout, self.connection.timeout)

  def classify(self, error: BaseException) -> Verdict:
    return verdict_of(error, self.index)


class UpsertSession(Session):
  """An open channel to one index, and what the index takes.

  Args:
    client: owned by the session.
    schema: of the index.
    layout: which field of an element means what.
    timeout: seconds for a check.
  """
  def __init__(
      self,
      client: PineconeClient,
      schema: IndexSchema,
      layout: Layout,
      timeout: float):
    self.schema = schema
    self.limits = Limits(
        max_records=MAX_VECTORS,
        max_bytes=MAX_REQUEST_BYTES,
        frame_bytes=_frame_bytes,
        rates=(UPSERT_RATE,),
        # Two requests with one id in flight would leave the older vector where
        # the newer one is overtaken.
        keys='serial' if layout.version is None else 'newest')
    self._client = client
    self._timeout = timeout
    checks = Checks(layout)
    self._encode_record = RecordEncoder(layout, schema, checks).encode
    self._encode_batch = BlockEncoder(layout, schema, checks).encode

  def encode(self, element: Any) -> Iterable[Union[Block, Invalid]]:
    if isinstance(element, pa.RecordBatch):
      return self._encode_batch(element)
    return (self._encode_record(element),)

  async def send(self, batch: Batch) -> Replies:
    answer = await self._client.upsert(
        upsert_request(batch.buffers(), str(batch.destination)))
    try:
      count = upserted_count(answer)
    except ValueError as e:
      raise PineconeError('INTERNAL', f'the answer is unreadable: {e}') from e
    if count != batch.n:
      # It does not say which: all of them again, which changes nothing for
      # those that were written.
      raise PineconeError(
          'INTERNAL', f'{batch.n} vectors were sent, {count} acknowledged')
    return ALL_OK

  async def check(self) -> None:
    await self._client.describe_index_stats(self._timeout)

  async def close(self) -> None:
    await self._client.close()


def _frame_bytes(destination: Any) -> int:
  return len(namespace_frame(destination))
