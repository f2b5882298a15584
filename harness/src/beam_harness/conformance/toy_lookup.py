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
"""A lookup in the toy service, and the same behind Beam's Enrichment."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection

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
from beam_connector_base.cache import Cache
from beam_connector_base.credentials import check_secret
from beam_connector_base.credentials import resolve
from beam_connector_base.enrichment import LookupHandler
from beam_connector_base.lookup import Join
from beam_connector_base.lookup import LookupRecords
from beam_connector_base.lookup import LookupResult
from beam_connector_base.operation import MISSING
from beam_connector_base.rows import as_mapping
from beam_harness.conformance.toy_service import MAX_BYTES
from beam_harness.conformance.toy_service import MAX_RECORDS
from beam_harness.conformance.toy_sink import classify
from beam_harness.conformance.toy_sink import exchange

__all__ = [
    'AddBook', 'AskBooks', 'AskingSession', 'LookupToy', 'ToyEnrichmentHandler'
]

_DEFAULT_KEY = EnvSecret('TOY_KEY')


class LookupToy(beam.PTransform):
  """Joins elements with the records that a shelf has under their `id`.

  Args:
    url: of the service.
    shelf: where it looks.
    key: reference to the credential.
    on_missing, on_error, cache, tuning: as for all lookups.
    operation, join: for tests of the suites.
  """
  def __init__(
      self,
      url: str,
      shelf: str = 'books',
      *,
      key: Any = _DEFAULT_KEY,
      on_missing: str = 'null',
      on_error: Any = 'fail',
      cache: Optional[Cache] = None,
      tuning: Optional[Tuning] = None,
      operation: Optional[type[AskBooks]] = None,
      join: Optional[Join] = None):
    super().__init__()
    check_secret(key, 'key')
    self._lookup = LookupRecords((operation or AskBooks)(url, shelf, key),
                                 join or AddBook(),
                                 on_missing=on_missing,
                                 on_error=on_error,
                                 cache=cache,
                                 tuning=tuning,
                                 namespace='LookupToy',
                                 lineage=('toy', shelf))

  def expand(self, pcoll: PCollection) -> LookupResult:
    return pcoll | self._lookup

  def display_data(self) -> dict[str, Any]:
    return self._lookup.display_data()


class ToyEnrichmentHandler(LookupHandler):
  """The same lookup for `Enrichment`."""
  def __init__(
      self,
      url: str,
      shelf: str = 'books',
      *,
      key: Any = _DEFAULT_KEY,
      operation: Optional[type[AskBooks]] = None,
      **options: Any):
    check_secret(key, 'key')
    super().__init__((operation or AskBooks)(url, shelf, key),
                     name='ToyEnrichmentHandler',
                     **options)

  def response(self, request: Any, answer: Any) -> dict[str, Any]:
    return _fields(answer)

  def key(self, request: Any) -> str:
    return str(as_mapping(request).get('id'))


class AddBook(Join):
  """Puts `pages` and `text` to the element; null where there is no book."""
  def row(self, element: Any, answer: Any) -> Any:
    joined = {**as_mapping(element), **_fields(answer)}
    return joined if isinstance(element, Mapping) else beam.Row(**joined)

  def block(self, batch: pa.RecordBatch, answers: list[Any]) -> pa.RecordBatch:
    fields = list(map(_fields, answers))
    for name, kind in (('pages', pa.float64()), ('text', pa.string())):
      batch = batch.append_column(
          name, pa.array([each[name] for each in fields], kind))
    return batch

  def key(self, element: Any, row: int) -> str:
    if isinstance(element, pa.RecordBatch):
      return str(element.column('id')[row].as_py())
    return str(as_mapping(element).get('id'))


def _fields(answer: Any) -> dict[str, Any]:
  if answer is MISSING:
    return {'pages': None, 'text': None}
  return {'pages': answer['pages'], 'text': answer['text']}


@dataclasses.dataclass(frozen=True)
class AskBooks(Operation):
  """Asking a shelf of the toy service for records by their ids."""
  url: str
  shelf: str
  key: EnvSecret

  @property
  def target(self) -> str:
    return f'shelf {self.shelf} at {self.url}'

  async def open(self) -> AskingSession:
    session = self.session(resolve(self.key))
    await session.request('GET', b'')
    return session

  def session(self, key: str) -> AskingSession:
    return AskingSession(self, key)

  def classify(self, error: BaseException) -> Verdict:
    return classify(error)


class AskingSession(Session):
  """One request, one connection; nothing to close."""
  def __init__(self, operation: AskBooks, key: str):
    self._operation = operation
    self._key = key
    self.limits = Limits(
        max_records=MAX_RECORDS,
        max_bytes=MAX_BYTES,
        separator_bytes=1,
        answers=True)

  def encode(self, element: Any) -> Iterator[Union[Block, Invalid]]:
    if isinstance(element, pa.RecordBatch):
      keys = element.column('id').to_pylist()
    else:
      keys = [as_mapping(element).get('id')]
    good = []
    for row, key in enumerate(keys):
      if isinstance(key, str) and key:
        good.append(row)
      else:
        yield Invalid(
            row, f'an id must be text that is not empty, not {key!r}', str(key))
    if good:
      asked = [keys[row] for row in good]
      lines = [json.dumps(key).encode() for key in asked]
      ends = [0, *itertools.accumulate(map(len, lines))]
      yield Block(self._operation.shelf, lines, ends, keys=asked, row_ids=good)

  async def send(self, batch: Batch) -> Any:
    answer = await self.request('POST', b'\n'.join(batch.buffers()))
    busy, found = set(answer['busy']), answer['found']
    return [
        Failed(TRANSIENT, 'busy') if i in busy else Done(
            found.get(key, MISSING)) for i, key in enumerate(batch.keys())
    ]

  async def request(self, method: str, body: bytes) -> dict[str, Any]:
    return await exchange(
        self._operation.url,
        self._key,
        method,
        f'/shelves/{self._operation.shelf}',
        body)
