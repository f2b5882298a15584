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
"""Checks of an index and of a sample before a pipeline runs; writes nothing."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any
from typing import Optional

import pyarrow as pa

from beam_connector_base.batching import Batcher
from beam_connector_base.credentials import redact
from beam_connector_base.operation import Block
from beam_connector_base.operation import Invalid
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.encode.layout import Layout
from beam_pinecone.operations.service import OpenIndex
from beam_pinecone.operations.service import open_vectors
from beam_pinecone.operations.service import verdict_of
from beam_pinecone.operations.upserts import UPSERT_RATE
from beam_pinecone.operations.upserts import UpsertSession
from beam_pinecone.schema import IndexSchema
from beam_pinecone.wire.listing import DEFAULT_NAMESPACE

__all__ = ['Finding', 'check', 'describe', 'reason_of']

# Rejects of each kind to show.
_SHOWN = 3
# Namespaces to name.
_NAMESPACES = 10


@dataclasses.dataclass(frozen=True)
class Finding:
  """What one check found.

  Args:
    name: 'index', 'namespace' or 'sample'.
    ok: whether it is fine.
    message: for people; holds no credential.
    details: JSON values.
  """
  name: str
  ok: bool
  message: str
  details: dict[str, Any] = dataclasses.field(default_factory=dict)


def check(
    index: str,
    connection: PineconeConnection,
    layout: Layout,
    sample: Optional[str] = None,
    rows: Optional[int] = None) -> Iterator[Finding]:
  """Looks at an index, and at what would be written to it.

  Args:
    index: its name.
    connection: where it is.
    layout: which field of a record means what, and its namespace.
    sample: path of records, `.jsonl` or `.parquet`; None for none.
    rows: how many of them to look at; None for all.
  """
  try:
    found = describe(index, connection)
  except Exception as e:  # pylint: disable=broad-except
    yield Finding('index', False, reason_of(e, index))
    return
  schema, stats = found.schema, found.stats
  details = {
      'dimension': schema.dimension,
      'metric': schema.metric,
      'vector_type': schema.vector_type,
      'vectors': stats.total_vector_count,
      'namespaces': len(stats.namespaces),
  }
  what = (
      'sparse' if schema.vector_type == 'sparse' else
      f'dense, {schema.dimension} dimensions, {schema.metric}')
  yield Finding(
      'index',
      True,
      f'reached, and the key may read it: {what}; '
      f'{stats.total_vector_count} vectors in {len(stats.namespaces)} '
      'namespaces (whether the key may write is not tried)',
      details)
  if layout.namespace.is_constant:
    yield _namespace(layout.namespace.constant, found)
  if sample is not None:
    yield _sample(schema, layout, sample, rows)


def describe(index: str, connection: PineconeConnection) -> OpenIndex:
  """Opens an index, asks it what it is, and leaves it.

  Raises:
    Exception: what `open_vectors` raises.
  """
  async def look() -> OpenIndex:
    opened = await open_vectors(connection, index)
    await opened.client.close()
    return opened

  return asyncio.run(asyncio.wait_for(look(), 2 * connection.timeout))


def reason_of(error: BaseException, index: str) -> str:
  if isinstance(error, asyncio.TimeoutError):
    return 'no answer in time: check the host and the network'
  verdict = verdict_of(error, index)
  return redact(verdict.reason or f'{type(error).__name__}: {error}')


def _namespace(name: str, found: OpenIndex) -> Finding:
  counts = found.stats.namespaces
  count = counts.get(name)
  if not name and count is None:
    count = counts.get(DEFAULT_NAMESPACE)
  shown = repr(name) if name else 'the default namespace'
  if count is None:
    message = f'{shown} does not exist yet; the first write makes it'
  else:
    message = f'{shown} holds {count} vectors'
  return Finding(
      'namespace', True, message, {
          'namespace': name, 'vectors': count or 0
      })


# --------------------------------------------------------------------- sample


class _Tally:
  """Records encoded as a write would, and the requests they would make."""
  def __init__(self, schema: IndexSchema, layout: Layout):
    # It only encodes: nothing is sent, so that it needs no client.
    self._session = UpsertSession(
        None,  # type: ignore[arg-type]
        schema,
        layout,
        0.0)
    self._batcher = Batcher(self._session.limits, 1 << 62)
    self._ready: list[Any] = []
    self.records = 0
    self.rejects: dict[str, list[str]] = {}
    self.rejected: collections.Counter[str] = collections.Counter()
    self.namespaces: collections.Counter[str] = collections.Counter()
    self.requests: collections.Counter[str] = collections.Counter()
    self.nbytes: collections.Counter[str] = collections.Counter()

  def add(self, element: Any, first: int) -> None:
    """One element, whose first row has that number in the sample."""
    for item in self._session.encode(element):
      if isinstance(item, Invalid):
        self.records += 1
        self.reject(first + item.row, item.key, item.error_type, item.reason)
      else:
        self._take(item, first)

  def _take(self, block: Block, first: int) -> None:
    self.records += block.n
    oversized = self._batcher.add(None, block, self._ready)
    for i in oversized:
      self.reject(
          first + block.row_id(i),
          str(block.key(i)),
          'RecordTooLarge',
          'the record alone is larger than a request may be')
    self.namespaces[str(block.destination)] += block.n - len(oversized)
    self._count()

  def reject(self, row: int, key: str, error_type: str, reason: str) -> None:
    self.rejected[error_type] += 1
    shown = self.rejects.setdefault(error_type, [])
    if len(shown) < _SHOWN:
      shown.append(redact(f'record {row} ({key!r}): {reason}'))

  def finish(self) -> None:
    self._batcher.flush(self._ready)
    self._count()

  def _count(self) -> None:
    for batch, _ in self._ready:
      self.requests[str(batch.destination)] += 1
      self.nbytes[str(batch.destination)] += int(batch.nbytes)
    self._ready.clear()

  def seconds(self) -> float:
    """The least time that the documented rates leave for it."""
    assert UPSERT_RATE.requests and UPSERT_RATE.nbytes
    return max((
        max(
            self.requests[name] / UPSERT_RATE.requests,
            self.nbytes[name] / UPSERT_RATE.nbytes) for name in self.requests),
               default=0.0)


def _sample(
    schema: IndexSchema, layout: Layout, path: str,
    rows: Optional[int]) -> Finding:
  tally = _Tally(schema, layout)
  try:
    for element, first in _elements(path, rows):
      if isinstance(element, _BadLine):
        tally.records += 1
        tally.reject(first, '', 'JSON', element.reason)
      else:
        tally.add(element, first)
  except (OSError, ValueError, pa.ArrowException) as e:
    return Finding('sample', False, f'{path} cannot be read: {e}')
  tally.finish()
  refused = sum(tally.rejected.values())
  requests = sum(tally.requests.values())
  nbytes = sum(tally.nbytes.values())
  message = (
      f'{tally.records} records: {tally.records - refused} would be written to '
      f'{len(tally.requests)} namespaces in {requests} requests of {nbytes} '
      f'bytes together, in {tally.seconds():.1f} s at least; {refused} would '
      'be refused')
  if not tally.records:
    message = f'{path} holds no record'
  details = {
      'records': tally.records,
      'requests': requests,
      'bytes': nbytes,
      'seconds_at_least': round(tally.seconds(), 3),
      'namespaces': dict(tally.namespaces.most_common(_NAMESPACES)),
      'refused': dict(tally.rejected),
      'examples': tally.rejects,
  }
  return Finding(
      'sample', bool(tally.records) and not refused, message, details)


@dataclasses.dataclass(frozen=True)
class _BadLine:
  reason: str


def _elements(path: str, rows: Optional[int]) -> Iterator[tuple[Any, int]]:
  """Elements of a file, each with the number of its first row, from 0."""
  kind = pathlib.Path(path).suffix.lower()
  if kind == '.parquet':
    yield from _parquet(path, rows)
  elif kind in ('.jsonl', '.ndjson'):
    with open(path, encoding='utf-8') as file:
      lines = (line for line in file if line.strip())
      for number, line in enumerate(itertools.islice(lines, rows)):
        yield _parsed(line), number
  else:
    raise ValueError('a sample is a file of .jsonl or .parquet')


def _parsed(line: str) -> Any:
  try:
    element = json.loads(line)
  except ValueError as e:
    return _BadLine(f'the line is no JSON: {e}')
  if not isinstance(element, dict):
    return _BadLine('the line is no JSON object')
  return element


def _parquet(path: str, rows: Optional[int]) -> Iterator[tuple[Any, int]]:
  import pyarrow.parquet

  first = 0
  with pyarrow.parquet.ParquetFile(path) as file:
    for read in file.iter_batches():
      batch = read if rows is None else read.slice(0, rows - first)
      if batch.num_rows:
        yield batch, first
      first += batch.num_rows
      if rows is not None and first >= rows:
        return
