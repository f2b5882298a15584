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
"""Two connectors for the toy feature store: one awaits, the other one blocks.

They are of another shape than the Pinecone connector on purpose: JSON between
brackets and commas, an answer for each record that must be matched by its
contents, error types instead of statuses; the blocking one hands Python objects
to a client that can not be cancelled.
"""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import math
import threading
from typing import Any
from urllib.parse import urlsplit

import apache_beam as beam
import pyarrow as pa

from beam_connector_base import ALL_OK
from beam_connector_base import PERMANENT
from beam_connector_base import TRANSIENT
from beam_connector_base import Block
from beam_connector_base import Done
from beam_connector_base import EnvSecret
from beam_connector_base import Failed
from beam_connector_base import Invalid
from beam_connector_base import Limits
from beam_connector_base import Operation
from beam_connector_base import Session
from beam_connector_base import Unanswered
from beam_connector_base import WriteRecords
from beam_connector_base import throttled
from beam_connector_base.credentials import check_secret
from beam_connector_base.credentials import resolve
from beam_connector_base.retry import http_verdict
from beam_connector_base.retry import parse_retry_after
from beam_connector_base.retry import transport_verdict
from beam_connector_base.rows import as_mapping

MAX_ENTRIES = 25
MAX_BYTES = 100_000
_FRAME = (b'{"Entries":[', b']}')
_DEFAULT_KEY = EnvSecret('FEATURE_STORE_KEY')


class WriteFeatures(beam.PTransform):
  """Writes records to a feature group; see `WriteRecords`."""
  def __init__(
      self,
      group,
      url,
      *,
      key=_DEFAULT_KEY,
      blocking=False,
      on_error='fail',
      tuning=None):
    super().__init__()
    check_secret(key, 'key')
    operation = (PutBlocking if blocking else PutFeatures)(url, group, key)
    self._write = WriteRecords(
        operation,
        on_error=on_error,
        tuning=tuning,
        namespace='WriteFeatures',
        lineage=('features', group))

  def expand(self, pcoll):
    return pcoll | self._write

  def display_data(self):
    return self._write.display_data()


class StoreError(Exception):
  """An answer that says no to a request as a whole."""
  def __init__(self, status, kind, message, retry_after):
    super().__init__(f'{kind}: {message}')
    self.status = status
    self.kind = kind
    self.retry_after = retry_after


@dataclasses.dataclass(frozen=True)
class PutFeatures(Operation):
  """Writing records with BatchWriteRecord."""
  url: str
  group: str
  key: Any

  @property
  def target(self):
    return f'feature group {self.group!r}'

  async def open(self):
    session = PutSession(self, resolve(self.key))
    await session.call('DescribeFeatureGroup', b'{}')
    return session

  def classify(self, error):
    if isinstance(error, StoreError):
      if error.kind == 'ThrottlingException':
        wait = error.retry_after and parse_retry_after(error.retry_after)
        return throttled(wait, status=error.status, reason=str(error))
      return http_verdict(error.status, error.retry_after, str(error))
    if isinstance(error, http.client.HTTPException):
      return TRANSIENT
    verdict = transport_verdict(error)
    if verdict is None:
      raise error
    if isinstance(error, ConnectionRefusedError):
      return dataclasses.replace(verdict, reason=f'{self.url}: {error}')
    return verdict


class PutSession(Session):
  def __init__(self, operation, key):
    self.operation = operation
    self.key = key
    self.limits = Limits(
        max_records=MAX_ENTRIES,
        max_bytes=MAX_BYTES,
        frame_bytes=lambda destination: sum(map(len, _FRAME)),
        separator_bytes=1,
        # Failures are matched by their records: two of one key could not be.
        keys='unique')

  def encode(self, element):
    if isinstance(element, pa.RecordBatch):
      rows = [
          _entry(self.operation.group, record, i)
          for i, record in enumerate(element.to_pylist())
      ]
    else:
      rows = [_entry(self.operation.group, as_mapping(element), 0)]
    good = [row for row in rows if not isinstance(row, Invalid)]
    yield from (row for row in rows if isinstance(row, Invalid))
    if good:
      lines = [_line(entry) for _, _, entry in good]
      ends = [0]
      for line in lines:
        ends.append(ends[-1] + len(line))
      yield Block(
          self.operation.group,
          self.wire([entry for _, _, entry in good], lines),
          ends,
          keys=[key for _, key, _ in good],
          row_ids=[number for number, _, _ in good])

  def wire(self, entries, lines):
    """How a block holds its rows."""
    return lines

  async def send(self, batch):
    body = b''.join((_FRAME[0], b','.join(batch.buffers()), _FRAME[1]))
    return replies(await self.call('BatchWriteRecord', body), batch)

  async def call(self, name, body):
    url = urlsplit(self.operation.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
      writer.write(
          f'POST /{name} HTTP/1.1\r\nhost: {url.netloc}\r\n'
          f'authorization: {self.key}\r\nconnection: close\r\n'
          f'content-length: {len(body)}\r\n\r\n'.encode() + body)
      head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1')
      first, *lines = head.rstrip().split('\r\n')
      headers = {
          name.lower(): value.strip()
          for name, _, value in (line.partition(':') for line in lines)
      }
      data = await reader.readexactly(int(headers['content-length']))
    finally:
      writer.close()
    return answer(int(first.split()[1]), headers, data)


@dataclasses.dataclass(frozen=True)
class PutBlocking(PutFeatures):
  """The same, with a client that blocks."""
  async def open(self):
    session = BlockingSession(self, resolve(self.key))
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(
        None, session.call_blocking, 'DescribeFeatureGroup', {})
    return session


class BlockingSession(PutSession):
  """As around an SDK: objects in, objects out, a connection per thread."""
  def __init__(self, operation, key):
    super().__init__(operation, key)
    self._local = threading.local()
    self._connections = []

  def wire(self, entries, lines):
    return entries

  def send_blocking(self, batch):
    answered = self.call_blocking(
        'BatchWriteRecord', {'Entries': list(batch.rows())})
    return replies(answered, batch)

  def call_blocking(self, name, request):
    connection = getattr(self._local, 'connection', None)
    if connection is None:
      url = urlsplit(self.operation.url)
      connection = http.client.HTTPConnection(url.hostname, url.port, timeout=2)
      self._local.connection = connection
      self._connections.append(connection)
    try:
      connection.request(
          'POST', f'/{name}', _dumps(request), {'authorization': self.key})
      response = connection.getresponse()
      data = response.read()
    except BaseException:
      connection.close()  # Opened again by the next request.
      raise
    headers = {name.lower(): value for name, value in response.getheaders()}
    return answer(response.status, headers, data)

  async def close(self):
    for connection in self._connections:
      connection.close()


def answer(status, headers, data):
  """The parsed answer; raises StoreError where the request failed."""
  parsed = json.loads(data)
  if status >= 300:
    raise StoreError(
        status,
        headers.get('x-amzn-errortype', ''),
        parsed['message'],
        headers.get('retry-after'))
  return parsed


def replies(answered, batch):
  """One reply per row: what failed is found by its key."""
  if not answered['Errors'] and not answered['UnprocessedEntries']:
    return ALL_OK
  failed = {}
  for entry in answered['UnprocessedEntries']:
    failed[_key(entry)] = Unanswered()
  for error in answered['Errors']:
    code = error['ErrorCode']
    verdict = {
        'ThrottlingException': throttled(), 'InternalFailure': TRANSIENT
    }.get(code, PERMANENT)
    failed[_key(error['Entry'])] = Failed(
        verdict, f'{code}: {error["ErrorMessage"]}', code)
  return [failed.get(key, _DONE) for key in batch.keys()]


_DONE = Done(None)


def _entry(group, record, number):
  """`(number, key, entry)` of a record, or why there is none."""
  key = record.get('id')
  if not isinstance(key, str) or not key:
    return Invalid(number, 'a record needs an id, a text that is not empty')
  features = []
  for name, value in record.items():
    if isinstance(value, float) and not math.isfinite(value):
      return Invalid(number, f'{name!r} is {value!r}: no such number', key)
    if value is not None:
      features.append({'FeatureName': name, 'ValueAsString': str(value)})
  return number, key, {'FeatureGroupName': group, 'Record': features}


def _key(entry):
  return next(
      feature['ValueAsString']
      for feature in entry['Record']
      if feature['FeatureName'] == 'id')


def _dumps(value):
  return json.dumps(value, separators=(',', ':')).encode()


def _line(entry):
  return _dumps(entry)
