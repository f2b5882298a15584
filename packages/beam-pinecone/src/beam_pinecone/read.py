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
"""`ReadFromPinecone`, `ReadAllFromPinecone`: the records of whole indexes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Optional
from typing import Union

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PBegin
from apache_beam.pvalue import PCollection

from beam_connector_base.dofn import hand_on
from beam_connector_base.rows import as_mapping
from beam_connector_base.tuning import Tuning
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.decode.exported import PineconeVector
from beam_pinecone.encode.filters import filter_bytes
from beam_pinecone.errors import Refused
from beam_pinecone.reading import FetchFn
from beam_pinecone.reading import ListFn
from beam_pinecone.reading import PlanFn
from beam_pinecone.reading import Reading
from beam_pinecone.schema import MAX_ID_LENGTH
from beam_pinecone.schema import check_index_name
from beam_pinecone.schema import check_namespace

__all__ = [
    'PineconeReadRequest',
    'PineconeVector',
    'ReadAllFromPinecone',
    'ReadFromPinecone',
]

#: What can be read besides the ids; all of it by default.
COLUMNS = ('values', 'metadata')


@dataclasses.dataclass(frozen=True)
class PineconeReadRequest:
  """What to read of one index; an element of `ReadAllFromPinecone`.

  Args:
    index: name of the index.
    namespaces: names of the namespaces, '' being the default one; None for all
      there are. One that is named has to exist.
    prefix: only records whose ids begin so; a list of prefixes is listed side
      by side. Not together with `filter`.
    filter: only records whose metadata match this filter.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  index: str
  namespaces: Optional[Sequence[str]] = None
  prefix: Union[str, Sequence[str], None] = None
  filter: Optional[Mapping[str, Any]] = None

  def __post_init__(self) -> None:
    check_index_name(self.index)
    if self.namespaces is not None:
      names = _texts('namespaces', self.namespaces)
      try:
        checked = tuple(dict.fromkeys(map(check_namespace, names)))
      except Refused as e:
        raise ValueError(f'namespaces: {e.reason}') from None
      object.__setattr__(self, 'namespaces', checked)
    if self.prefix is not None:
      object.__setattr__(self, 'prefix', _prefixes(self.prefix))
      if self.filter is not None:
        raise ValueError(
            'prefix and filter exclude each other: Pinecone lists ids by prefix '
            'and fetches records by metadata')
    self.filter_bytes()

  def prefixes(self) -> tuple[str, ...]:
    """The prefixes, of which none begins with another; empty for all ids."""
    return self.prefix or ()  # type: ignore[return-value]

  def filter_bytes(self) -> Optional[bytes]:
    """The filter as the fields of a Struct; None for none."""
    if self.filter is None:
      return None
    if not isinstance(self.filter, Mapping):
      raise TypeError(
          f'filter is a {type(self.filter).__name__}: it is a mapping such as '
          "{'lang': 'en'}")
    try:
      encoded = filter_bytes(self.filter)
    except Refused as e:
      raise ValueError(f'filter: {e.reason}') from None
    if not encoded:
      raise ValueError(
          'filter is empty, which Pinecone does not take: pass None to read '
          'all records')
    return encoded


class _Reads(beam.PTransform):
  """What both reads have in common."""
  _name: str

  def __init__(
      self,
      *,
      columns: Iterable[str] = COLUMNS,
      as_blocks: bool = False,
      connection: Union[PineconeConnection, str, None] = None,
      tuning: Optional[Tuning] = None):
    super().__init__()
    wanted = _texts('columns', columns, empty=True)
    for name in wanted:
      if name not in COLUMNS:
        raise ValueError(
            f'columns holds {name!r}: there are {" and ".join(COLUMNS)}')
    if not isinstance(as_blocks, bool):
      raise TypeError('as_blocks is True or False')
    if tuning is not None and not isinstance(tuning, Tuning):
      raise TypeError(f'tuning is a {type(tuning).__name__}, not a Tuning')
    if tuning is not None and tuning.on_outage == 'collect':
      raise ValueError(
          "Tuning(on_outage='collect') is for writes: a read that leaves out "
          'what it did not reach would be wrong')
    self._columns = wanted
    self._as_blocks = as_blocks
    self._connection = PineconeConnection.of(connection)
    self._tuning = tuning or Tuning()

  def _reading(self) -> Reading:
    return Reading(
        self._connection,
        'values' in self._columns,
        'metadata' in self._columns,
        self._as_blocks,
        self._tuning,
        self._name)

  def display_data(self) -> dict[str, Any]:
    data: dict[str, Any] = {
        'columns': ', '.join(self._columns), 'as_blocks': self._as_blocks
    }
    if self._connection.host is not None:
      data['host'] = self._connection.host
    return data


class ReadAllFromPinecone(_Reads):
  """Reads the records that a PCollection of `PineconeReadRequest`s asks for.

  Elements may also be dicts, rows or dataclasses with the fields of a
  `PineconeReadRequest`. Records come with the windows and timestamps of their
  request. Everything else is as with `ReadFromPinecone`, whose arguments these
  are.

  Example::

    import apache_beam as beam
    from beam_pinecone import PineconeReadRequest, ReadAllFromPinecone

    with beam.Pipeline() as p:
      (p | beam.Create([PineconeReadRequest('docs', namespaces=['demo']),
                        PineconeReadRequest('more', prefix='2024-')])
         | ReadAllFromPinecone()
         | beam.Map(print))

  Args:
    columns: what to read besides ids, see `ReadFromPinecone`.
    as_blocks: whether to emit RecordBatches, see `ReadFromPinecone`.
    connection: a `PineconeConnection`, or the host of the one index; by default
      everything comes from the environment variables of Pinecone's own client.
    tuning: `Tuning`.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  _name = 'ReadAllFromPinecone'

  def expand(self, requests: PCollection) -> PCollection:
    return requests | 'Read' >> _Read(self._reading(), _request)


class ReadFromPinecone(_Reads):
  """Reads the records of a Pinecone index: all, by prefix, or by metadata.

  Output: a `PineconeVector` for each record, whose values are numpy arrays of
  float32; or, with `as_blocks`, `pyarrow.RecordBatch`es with the columns `id`,
  `namespace`, `values` (fixed size list of float32), `sparse_values` (struct of
  `indices` and `values`) and `metadata` (JSON text, as in the files that
  Pinecone itself imports). All blocks of an index have one schema, with nulls
  where a record has no such part. `WriteToPinecone(..., namespace='{namespace}')`
  writes either of them again as it was. Blocks are many times cheaper.

  A bounded source; records are in the global window and have its earliest
  timestamp. It is no snapshot: records that are written meanwhile may or may
  not be read, those deleted between being listed and fetched are left out and
  counted as `records_missing`, and what was written a moment ago may not yet be
  listed. Each record that the service lists and still has is read once; a
  bundle that fails is read anew, from its first page, while single requests
  that fail are tried again.

  Parallelism: namespaces, and within them the prefixes given, are listed side
  by side by one worker, from page to page of 100 ids (200 pages per second and
  index is all the service allows). All ids together are then fetched by as many
  workers as the runner wants, several hundred a request and several requests at
  a time; the documented 100 fetches per second and index hold per worker
  process, see `Tuning(quota_share=...)`. With a filter, namespaces are spread
  over workers, and pages of their records are fetched, at most 5 per second and
  namespace. For `Tuning`, the bytes of a request are those of its answer.

  Errors: a namespace that is named and does not exist, an index that does not
  exist or holds documents, a wrong key, a filter that the service rejects and
  an unreachable host fail the pipeline. An empty index gives no elements.

  Example::

    import apache_beam as beam
    from beam_pinecone import ReadFromPinecone

    with beam.Pipeline() as p:
      (p | ReadFromPinecone('docs', namespaces=['demo'])
         | beam.Map(lambda v: (v.id, len(v.values), v.metadata))
         | beam.Map(print))

  Pinecone's own pages on listing and fetching:
  https://docs.pinecone.io/guides/manage-data/list-record-ids
  https://docs.pinecone.io/guides/manage-data/fetch-data

  Args:
    index: name of the index. Where `connection` names a host, it is only used
      in messages.
    namespaces: names of namespaces to read; None for all there are.
    prefix: only records whose ids begin so. A list of prefixes is listed in
      parallel. Not together with `filter`.
    filter: only records whose metadata match, in Pinecone's filter language.
    columns: what to read besides id and namespace: 'values' (dense and sparse
      ones) and 'metadata'. None of them: ids are listed and nothing is fetched.
    as_blocks: whether to emit RecordBatches.
    connection: a `PineconeConnection`, or the host of the index; by default
      everything comes from the environment variables of Pinecone's own client.
    tuning: `Tuning`; see there for what can be set.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  _name = 'ReadFromPinecone'

  def __init__(
      self,
      index: str,
      *,
      namespaces: Optional[Sequence[str]] = None,
      prefix: Union[str, Sequence[str], None] = None,
      filter: Optional[Mapping[str, Any]] = None,
      columns: Iterable[str] = COLUMNS,
      as_blocks: bool = False,
      connection: Union[PineconeConnection, str, None] = None,
      tuning: Optional[Tuning] = None):
    super().__init__(
        columns=columns,
        as_blocks=as_blocks,
        connection=connection,
        tuning=tuning)
    self._request = PineconeReadRequest(index, namespaces, prefix, filter)

  def expand(self, pbegin: PBegin) -> PCollection:
    return (
        pbegin
        | beam.Impulse()
        | 'Read' >> _Read(self._reading(), _Always(self._request)))

  def display_data(self) -> dict[str, Any]:
    data = {'index': self._request.index, **super().display_data()}
    if self._request.namespaces is not None:
      data['namespaces'] = ', '.join(map(repr, self._request.namespaces))
    if self._request.prefix is not None:
      data['prefix'] = ', '.join(map(repr, self._request.prefix))
    return data


class _Read(beam.PTransform):
  """Requests -> shards -> ids, and after a shuffle -> records.

  Listing is not spread over workers: the service allows one index so few lists
  per second that one process makes them all. Shards with a filter are not
  listed: they pass by, and their pages are read where others are fetched.

  Args:
    reading: what the steps know.
    check: turns an element into a request, or raises.
  """
  def __init__(self, reading: Reading, check: Callable[[Any], Any]):
    super().__init__()
    self._reading = reading
    self._check = check

  def expand(self, elements: PCollection) -> PCollection:
    reading = self._reading
    kind = pa.RecordBatch if reading.as_blocks else PineconeVector
    records = (
        elements
        | 'Plan' >> beam.ParDo(PlanFn(reading, self._check))
        | 'List' >> beam.ParDo(ListFn(reading))
        | beam.Reshuffle()
        | 'Fetch' >> beam.ParDo(FetchFn(reading)).with_output_types(kind))
    return hand_on(records, kind, 'Records')


@dataclasses.dataclass(frozen=True)
class _Always:
  """Turns any element into one request."""
  request: PineconeReadRequest

  def __call__(self, element: Any) -> PineconeReadRequest:
    return self.request


def _request(element: Any) -> PineconeReadRequest:
  if isinstance(element, PineconeReadRequest):
    return element
  fields = dict(as_mapping(element))
  names = [field.name for field in dataclasses.fields(PineconeReadRequest)]
  unknown = sorted(set(fields) - set(names))
  if unknown or 'index' not in fields:
    raise ValueError(
        f'a read request has the fields {", ".join(names)}, of which index is '
        f'required; this one has {", ".join(sorted(fields))}')
  return PineconeReadRequest(**fields)


def _texts(parameter: str,
           value: Any,
           *,
           empty: bool = False) -> tuple[str, ...]:
  if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
    raise TypeError(f'{parameter} is {value!r}: give a list of strings')
  texts = tuple(value)
  for text in texts:
    if not isinstance(text, str):
      raise TypeError(f'{parameter} holds {text!r}, which is no string')
  if not texts and not empty:
    raise ValueError(
        f'{parameter} is an empty list, which would read nothing; pass None '
        'for all')
  return texts


def _prefixes(value: Any) -> tuple[str, ...]:
  """The prefixes, without those that others cover already."""
  given = (value,) if isinstance(value, str) else _texts('prefix', value)
  kept: list[str] = []
  for prefix in sorted(set(given)):
    if not prefix:
      raise ValueError('prefix is empty: pass None for all ids')
    if not prefix.isascii() or '\0' in prefix or len(prefix) > MAX_ID_LENGTH:
      raise ValueError(
          f'prefix is {prefix[:80]!r}: ids are up to {MAX_ID_LENGTH} ASCII '
          'characters')
    if not kept or not prefix.startswith(kept[-1]):
      kept.append(prefix)
  return tuple(kept)
