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
"""A sink for the toy service: the least that a connector consists of.

It shows how little a connector adds to the engine, and it is what the suites
are tested on, as it is and broken on purpose.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union
from urllib.parse import urlsplit

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection

from beam_connector_base import ALL_OK
from beam_connector_base import TRANSIENT
from beam_connector_base import Batch
from beam_connector_base import Block
from beam_connector_base import Done
from beam_connector_base import EnvSecret
from beam_connector_base import Failed
from beam_connector_base import Invalid
from beam_connector_base import Limits
from beam_connector_base import Operation
from beam_connector_base import Session
from beam_connector_base import Tuning
from beam_connector_base import Verdict
from beam_connector_base import WriteRecords
from beam_connector_base import WriteResult
from beam_connector_base.credentials import check_secret
from beam_connector_base.credentials import resolve
from beam_connector_base.retry import http_verdict
from beam_connector_base.retry import transport_verdict
from beam_connector_base.rows import as_mapping
from beam_harness.conformance.toy_service import MAX_BYTES
from beam_harness.conformance.toy_service import MAX_RECORDS

__all__ = [
    'PutBooks', 'ToyAnswer', 'ToySession', 'WriteToToy', 'classify', 'exchange'
]


class WriteToToy(beam.PTransform):
  """Puts records on a shelf; a record of the same id is replaced.

  Args:
    url: of the service.
    shelf: where they go.
    key: reference to the credential.
    on_error, tuning: as for all sinks.
    operation: the class of the operation, for tests of the suites.
  """
  def __init__(
      self,
      url: str,
      shelf: str = 'books',
      *,
      key: Any = EnvSecret('TOY_KEY'),  # noqa: B008
      on_error: Any = 'fail',
      tuning: Optional[Tuning] = None,
      operation: Optional[type[PutBooks]] = None):
    super().__init__()
    check_secret(key, 'key')
    self._write = WriteRecords((operation or PutBooks)(url, shelf, key),
                               on_error=on_error,
                               tuning=tuning,
                               namespace='WriteToToy',
                               lineage=('toy', shelf))

  def expand(self, pcoll: PCollection) -> WriteResult:
    return pcoll | self._write

  def display_data(self) -> dict[str, Any]:
    return self._write.display_data()


class ToyAnswer(Exception):
  """An answer that says no."""
  def __init__(self, status: int, message: str, retry_after: Optional[str]):
    super().__init__(message)
    self.status = status
    self.message = message
    self.retry_after = retry_after


@dataclasses.dataclass(frozen=True)
class PutBooks(Operation):
  """Putting records on a shelf of the toy service."""
  url: str
  shelf: str
  key: EnvSecret

  @property
  def target(self) -> str:
    return f'shelf {self.shelf} at {self.url}'

  async def open(self) -> ToySession:
    session = self.session(resolve(self.key))
    await session.request('GET', b'')
    return session

  def session(self, key: str) -> ToySession:
    return ToySession(self, key)

  def classify(self, error: BaseException) -> Verdict:
    return classify(error)


class ToySession(Session):
  """One request, one connection; nothing to close."""
  def __init__(self, operation: PutBooks, key: str):
    self._operation = operation
    self._key = key
    self.limits = Limits(
        max_records=MAX_RECORDS, max_bytes=MAX_BYTES, separator_bytes=1)

  def encode(self, element: Any) -> Iterator[Union[Block, Invalid]]:
    if isinstance(element, pa.RecordBatch):
      for row, record in enumerate(element.to_pylist()):
        yield _encode(record, row)
    else:
      yield _encode(as_mapping(element), 0)

  async def send(self, batch: Batch) -> Any:
    answer = await self.request('PUT', b'\n'.join(batch.buffers()))
    busy = set(answer['busy'])
    if not busy:
      return ALL_OK
    return [
        Failed(TRANSIENT, 'busy') if i in busy else Done(None)
        for i in range(batch.n)
    ]

  async def request(self, method: str, body: bytes) -> dict[str, Any]:
    return await exchange(
        self._operation.url,
        self._key,
        method,
        f'/shelves/{self._operation.shelf}',
        body)


async def exchange(
    url: str, key: str, method: str, path: str, body: bytes = b'') -> Any:
  """One exchange of HTTP/1.1; the connection never outlives it.

  Raises:
    ToyAnswer: the service said no.
    OSError, EOFError: it said nothing, or not all.
  """
  parts = urlsplit(url)
  reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
  try:
    writer.write(
        f'{method} {path} HTTP/1.1\r\n'
        f'host: {parts.netloc}\r\nauthorization: Bearer {key}\r\n'
        f'connection: close\r\ncontent-length: {len(body)}\r\n\r\n'.encode() +
        body)
    head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1')
    status_line, *lines = head.rstrip().split('\r\n')
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(':') for line in lines)
    }
    answer = json.loads(
        await reader.readexactly(int(headers['content-length'])))
  finally:
    writer.close()
  status = int(status_line.split()[1])
  if status >= 300:
    raise ToyAnswer(status, answer['error'], headers.get('retry-after'))
  return answer


def classify(error: BaseException) -> Verdict:
  """What an error of `exchange` means."""
  if isinstance(error, ToyAnswer):
    return http_verdict(error.status, error.retry_after, error.message)
  verdict = transport_verdict(error)
  if verdict is None:
    raise error
  return verdict


def _encode(record: Mapping[str, Any], row: int) -> Union[Block, Invalid]:
  key = record.get('id')
  if not isinstance(key, str) or not key:
    return Invalid(row, 'a record needs an id, a text that is not empty')
  pages = record.get('pages')
  if not isinstance(pages, (int, float)) or not math.isfinite(pages):
    return Invalid(
        row, f'pages must be a finite number, not {pages!r}', key, 'BadPages')
  line = json.dumps({
      'id': key, 'pages': pages, 'text': record['text']
  }).encode()
  return Block('books', line, keys=(key,), row_ids=(row,))
