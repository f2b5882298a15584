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
"""The transforms of this package as Beam YAML has them; see `providers.yaml`.

Elements are rows. Namespaces and filters may be templates in which `{field}`
stands for a field of the row. Results with numpy arrays come as plain lists.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import Optional
from typing import Union

import apache_beam as beam
from apache_beam.pvalue import PBegin
from apache_beam.pvalue import PCollection
from apache_beam.typehints.row_type import RowTypeConstraint

from beam_connector_base.cache import Cache
from beam_connector_base.rows import as_mapping
from beam_connector_base.yaml import ErrorHandling
from beam_connector_base.yaml import fields_of_type
from beam_connector_base.yaml import read_settings
from beam_connector_base.yaml import secret_of
from beam_connector_base.yaml import tuning_of
from beam_pinecone import delete
from beam_pinecone import lookup
from beam_pinecone import read
from beam_pinecone import search
from beam_pinecone import update
from beam_pinecone import write
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.wire.answers import Match
from beam_pinecone.wire.answers import Record
from beam_pinecone.wire.answers import SparseValues

__all__ = [
    'DeleteFromPinecone',
    'LookupPinecone',
    'PROVIDERS',
    'ReadFromPinecone',
    'SearchPinecone',
    'UpdatePinecone',
    'WriteToPinecone',
]

#: Path of the file to include under `providers`.
PROVIDERS = str(pathlib.Path(__file__).with_name('providers.yaml'))

# What may be said in YAML where Python takes a mapping or a string.
Settings = Optional[Mapping[str, Any]]


class SparseRow(NamedTuple):
  """A sparse vector.

  Args:
    indices: between 0 and 2**32 - 1.
    values: as many.
  """
  indices: Sequence[int]
  values: Sequence[float]


class VectorRow(NamedTuple):
  """A record that was read; see `beam_pinecone.PineconeVector`."""
  id: str
  namespace: str
  values: Optional[Sequence[float]]
  sparse_values: Optional[SparseRow]
  metadata: Optional[Mapping[str, Any]]


class MatchRow(NamedTuple):
  """A record that a search found; see `beam_pinecone.Match`."""
  id: str
  score: float
  metadata: Optional[Mapping[str, Any]]
  values: Optional[Sequence[float]]
  sparse_values: Optional[SparseRow]


class RecordRow(NamedTuple):
  """A record that was looked up; see `beam_pinecone.Record`."""
  id: str
  values: Optional[Sequence[float]]
  sparse_values: Optional[SparseRow]
  metadata: Optional[Mapping[str, Any]]


class WriteToPinecone(beam.PTransform):
  """Upserts rows into a Pinecone index and returns those that were written.

  A row has an id, a vector, and metadata: all its other fields.

  Args:
    index: Name of the index.
    namespace: Name of the namespace, or a template such as '{tenant}'; the
      default namespace if left out.
    id_field: Field of the id.
    values_field: Field of the dense values; null if there are none.
    sparse_field: Field of the sparse values, a row of indices and values; null
      if there are none.
    metadata_field: Field whose entries are merged into the metadata.
    keep: The only metadata to write, as a list of fields.
    drop: Metadata not to write, as a list of fields.
    version_field: Field by which rows with one id are put in order.
    schema: Path of a schema lock to compare the index with.
    connection: Host of the index; or a mapping of host, api_key_env,
      api_key_file, control_host, tls, source_tag, ca_certs and timeout.
    tuning: A mapping of max_records, in_flight, deadline, quota_share and the
      other fields of Tuning.
    error_handling: Whether and where to output rows that Pinecone would not
      take.
  """
  def __init__(
      self,
      index: str,
      namespace: str = '',
      id_field: str = 'id',
      values_field: Optional[str] = 'values',
      sparse_field: Optional[str] = 'sparse_values',
      metadata_field: Optional[str] = 'metadata',
      keep: Optional[Sequence[str]] = None,
      drop: Optional[Sequence[str]] = None,
      version_field: Optional[str] = None,
      schema: Optional[str] = None,
      connection: Any = None,
      tuning: Settings = None,
      error_handling: Settings = None):
    super().__init__()
    self._errors = ErrorHandling.of(error_handling)
    self._write = write.WriteToPinecone(
        index,
        namespace=namespace,
        id_field=id_field,
        values_field=values_field,
        sparse_field=sparse_field,
        metadata_field=metadata_field,
        keep=keep,
        drop=drop,
        version_field=version_field,
        schema=schema,
        connection=_connection(connection),
        on_error=self._errors.on_error,
        tuning=tuning_of(tuning))

  def expand(self,
             rows: PCollection) -> Union[PCollection, dict[str, PCollection]]:
    result = rows | self._write
    return self._errors.outputs(
        result.written, result.failed, rows.element_type)


class UpdatePinecone(beam.PTransform):
  """Changes records of a Pinecone index, by id or by filter.

  By id it returns the rows that were acknowledged. By filter it returns rows of
  element, the row itself, and matched_records, the number of records that
  matched.

  Args:
    index: Name of the index.
    namespace: Name of the namespace, or a template such as '{tenant}'.
    id_field: Field of the id.
    values_field: Field of the dense values; null if there are none.
    sparse_field: Field of the sparse values; null if there are none.
    metadata_field: Field whose entries are merged into the metadata.
    keep: The only metadata to set, as a list of fields.
    drop: Metadata not to set, as a list of fields.
    filter: Metadata filter of the records to change, such as
      {lang: '{old_lang}'}; changes records by id if left out.
    set_metadata: The metadata to set by filter; the row's other fields if left
      out.
    dry_run: Whether to count the records that match a filter, and no more.
    connection: Host of the index, or a mapping as for WriteToPinecone.
    tuning: A mapping of the fields of Tuning.
    error_handling: Whether and where to output rows that Pinecone would not
      take.
  """
  def __init__(
      self,
      index: str,
      namespace: str = '',
      id_field: str = 'id',
      values_field: Optional[str] = 'values',
      sparse_field: Optional[str] = 'sparse_values',
      metadata_field: Optional[str] = 'metadata',
      keep: Optional[Sequence[str]] = None,
      drop: Optional[Sequence[str]] = None,
      filter: Settings = None,
      set_metadata: Settings = None,
      dry_run: bool = False,
      connection: Any = None,
      tuning: Settings = None,
      error_handling: Settings = None):
    super().__init__()
    self._errors = ErrorHandling.of(error_handling)
    self._by_filter = filter is not None
    self._update = update.UpdatePinecone(
        index,
        namespace=namespace,
        id_field=id_field,
        values_field=values_field,
        sparse_field=sparse_field,
        metadata_field=metadata_field,
        keep=keep,
        drop=drop,
        filter=filter,
        set_metadata=set_metadata,
        dry_run=dry_run,
        connection=_connection(connection),
        on_error=self._errors.on_error,
        tuning=tuning_of(tuning))

  def expand(self,
             rows: PCollection) -> Union[PCollection, dict[str, PCollection]]:
    result = rows | self._update
    good = result.written
    if self._by_filter:
      element_type: Any = rows.element_type
      kind = RowTypeConstraint.from_fields([('element', element_type),
                                            ('matched_records', int)])
      good = result.answers | 'Matched' >> beam.MapTuple(
          _matched).with_output_types(kind)
    return self._errors.outputs(good, result.failed, rows.element_type)


class DeleteFromPinecone(beam.PTransform):
  """Deletes records of a Pinecone index and returns the rows that said which.

  Args:
    index: Name of the index.
    namespace: Name of the namespace, or a template such as '{tenant}'; must be
      given with delete_all and delete_namespace.
    id_field: Field of the id.
    filter: Metadata filter of the records to delete, such as
      {tenant: '{tenant}'}; deletes records by id if left out.
    delete_all: Whether to delete all records of the namespace.
    delete_namespace: Whether to delete the namespace itself.
    missing_namespace: 'ok' if a namespace that does not exist counts as
      deleted, 'fail' if it is an error.
    connection: Host of the index, or a mapping as for WriteToPinecone.
    tuning: A mapping of the fields of Tuning.
    error_handling: Whether and where to output rows that Pinecone would not
      take.
  """
  def __init__(
      self,
      index: str,
      namespace: Optional[str] = None,
      id_field: str = 'id',
      filter: Settings = None,
      delete_all: bool = False,
      delete_namespace: bool = False,
      missing_namespace: str = 'ok',
      connection: Any = None,
      tuning: Settings = None,
      error_handling: Settings = None):
    super().__init__()
    self._errors = ErrorHandling.of(error_handling)
    self._delete = delete.DeleteFromPinecone(
        index,
        namespace=namespace,
        id_field=id_field,
        filter=filter,
        delete_all=delete_all,
        delete_namespace=delete_namespace,
        missing_namespace=missing_namespace,
        connection=_connection(connection),
        on_error=self._errors.on_error,
        tuning=tuning_of(tuning))

  def expand(self,
             rows: PCollection) -> Union[PCollection, dict[str, PCollection]]:
    result = rows | self._delete
    return self._errors.outputs(
        result.written, result.failed, rows.element_type)


class ReadFromPinecone(beam.PTransform):
  """Reads the records of a Pinecone index.

  Returns rows of id, namespace, values, sparse_values (a row of indices and
  values) and metadata (a map), with nulls for what a record does not have.

  Args:
    index: Name of the index.
    namespaces: Names of the namespaces to read; all if left out.
    prefix: Only records whose ids begin so; one prefix or a list.
    filter: Only records whose metadata match this filter.
    columns: What to read besides the ids, values and metadata by default.
    connection: Host of the index, or a mapping as for WriteToPinecone.
    tuning: A mapping of the fields of Tuning.
  """
  def __init__(
      self,
      index: str,
      namespaces: Optional[Sequence[str]] = None,
      prefix: Any = None,
      filter: Settings = None,
      columns: Optional[Sequence[str]] = None,
      connection: Any = None,
      tuning: Settings = None):
    super().__init__()
    self._read = read.ReadFromPinecone(
        index,
        namespaces=namespaces,
        prefix=prefix,
        filter=filter,
        columns=read.COLUMNS if columns is None else columns,
        connection=_connection(connection),
        tuning=tuning_of(tuning))

  def expand(self, pbegin: PBegin) -> PCollection:
    return (
        pbegin | self._read
        | 'Rows' >> beam.Map(_vector_row).with_output_types(VectorRow))


class SearchPinecone(beam.PTransform):
  """Finds, for each row, the records of an index that are nearest to it.

  Returns the rows with one more field, the list of matches: rows of id, score,
  metadata, values and sparse_values, best first.

  Args:
    index: Name of the index.
    top_k: Matches per row.
    namespace: Name of the namespace, or a template such as '{tenant}'.
    vector_field: Field of the dense vector; null if there is none.
    id_field: Field of the id of a stored record to search by.
    sparse_field: Field of the sparse vector, a row of indices and values.
    filter: Metadata filter, such as {lang: '{lang}'}.
    include_values: Whether matches have their vectors.
    include_metadata: Whether matches have their metadata.
    output_field: Field of the matches.
    cache: For how long answers are used again, a mapping of ttl (seconds),
      max_entries and missing_ttl (seconds); not at all if left out.
    on_missing_namespace: 'fail', or 'empty' to find nothing there.
    queries_per_second: At most, per namespace and process; null for as many as
      are answered.
    connection: Host of the index, or a mapping as for WriteToPinecone.
    tuning: A mapping of the fields of Tuning.
    error_handling: Whether and where to output rows that Pinecone would not
      take.
  """
  def __init__(
      self,
      index: str,
      top_k: int = 10,
      namespace: str = '',
      vector_field: Optional[str] = 'vector',
      id_field: Optional[str] = None,
      sparse_field: Optional[str] = None,
      filter: Settings = None,
      include_values: bool = False,
      include_metadata: bool = True,
      output_field: str = 'matches',
      cache: Settings = None,
      on_missing_namespace: str = 'fail',
      queries_per_second: Optional[float] = search.QUERIES_PER_SECOND,
      connection: Any = None,
      tuning: Settings = None,
      error_handling: Settings = None):
    super().__init__()
    self._errors = ErrorHandling.of(error_handling)
    self._field = output_field
    self._search = search.SearchPinecone(
        index,
        top_k,
        namespace=namespace,
        vector_field=vector_field,
        id_field=id_field,
        sparse_field=sparse_field,
        filter=filter,
        include_values=include_values,
        include_metadata=include_metadata,
        output_field=output_field,
        cache=_cache(cache),
        on_missing_namespace=on_missing_namespace,
        queries_per_second=queries_per_second,
        connection=_connection(connection),
        on_error=self._errors.on_error,
        tuning=tuning_of(tuning))

  def expand(self,
             rows: PCollection) -> Union[PCollection, dict[str, PCollection]]:
    result = rows | self._search
    good = _with_answer(
        result, rows.element_type, self._field, Sequence[MatchRow], _match_rows)
    return self._errors.outputs(good, result.failed, rows.element_type)


class LookupPinecone(beam.PTransform):
  """Adds to each row the record that has its id.

  Returns the rows with one more field, the record: a row of id, values,
  sparse_values and metadata; null where the index has no such record.

  Args:
    index: Name of the index.
    id_field: Field of the id.
    namespace: Name of the namespace, or a template such as '{tenant}'.
    include_values: Whether records have their vectors.
    include_metadata: Whether records have their metadata.
    output_field: Field of the record.
    cache: For how long answers are used again, as for SearchPinecone.
    on_missing_namespace: 'fail', or 'empty' to find nothing there.
    connection: Host of the index, or a mapping as for WriteToPinecone.
    tuning: A mapping of the fields of Tuning.
    error_handling: Whether and where to output rows that Pinecone would not
      take.
  """
  def __init__(
      self,
      index: str,
      id_field: str = 'id',
      namespace: str = '',
      include_values: bool = True,
      include_metadata: bool = True,
      output_field: str = 'record',
      cache: Settings = None,
      on_missing_namespace: str = 'fail',
      connection: Any = None,
      tuning: Settings = None,
      error_handling: Settings = None):
    super().__init__()
    self._errors = ErrorHandling.of(error_handling)
    self._field = output_field
    self._lookup = lookup.LookupPinecone(
        index,
        id_field=id_field,
        namespace=namespace,
        include_values=include_values,
        include_metadata=include_metadata,
        output_field=output_field,
        cache=_cache(cache),
        on_missing_namespace=on_missing_namespace,
        connection=_connection(connection),
        on_error=self._errors.on_error,
        tuning=tuning_of(tuning))

  def expand(self,
             rows: PCollection) -> Union[PCollection, dict[str, PCollection]]:
    result = rows | self._lookup
    good = _with_answer(
        result,
        rows.element_type,
        self._field,
        Optional[RecordRow],
        _record_row)
    return self._errors.outputs(good, result.failed, rows.element_type)


# ------------------------------------------------------------------- settings

_CONNECTION = (
    'host',
    'api_key_env',
    'api_key_file',
    'control_host',
    'tls',
    'source_tag',
    'ca_certs',
    'timeout')


def _connection(spec: Any) -> Union[PineconeConnection, str, None]:
  if spec is None or isinstance(spec, str):
    return spec
  settings = read_settings('connection', spec, _CONNECTION)
  settings['api_key'] = secret_of(
      settings.pop('api_key_env', None),
      settings.pop('api_key_file', None),
      PineconeConnection().api_key,
      'api_key')
  return PineconeConnection(**settings)


def _cache(spec: Settings) -> Optional[Cache]:
  if spec is None:
    return None
  names = tuple(field.name for field in dataclasses.fields(Cache))
  return Cache(**read_settings('cache', spec, names))


# ----------------------------------------------------------------------- rows


def _with_answer(
    joined: PCollection, input_type: Any, field: str, kind: Any,
    convert: Any) -> PCollection:
  """Rows whose answer is plain data, with a schema."""
  fields = fields_of_type(input_type)
  output_type = None
  if fields is not None:
    output_type = RowTypeConstraint.from_fields([*fields, (field, kind)])
  rows = beam.Map(_convert, field, convert)
  if output_type is not None:
    rows = rows.with_output_types(output_type)
  return joined | 'Rows' >> rows


def _convert(element: Any, field: str, convert: Any) -> beam.Row:
  values = dict(as_mapping(element))
  values[field] = convert(values[field])
  return beam.Row(**values)


def _matched(element: Any, matched: int) -> beam.Row:
  return beam.Row(element=element, matched_records=matched)


def _vector_row(vector: read.PineconeVector) -> VectorRow:
  return VectorRow(
      vector.id,
      vector.namespace,
      _floats(vector.values),
      _sparse_row(vector.sparse_values),
      vector.metadata)


def _match_rows(matches: Sequence[Match]) -> list[MatchRow]:
  return [
      MatchRow(
          match.id,
          match.score,
          match.metadata,
          _floats(match.values),
          _sparse_row(match.sparse_values)) for match in matches
  ]


def _record_row(record: Optional[Record]) -> Optional[RecordRow]:
  if record is None:
    return None
  return RecordRow(
      record.id,
      _floats(record.values),
      _sparse_row(record.sparse_values),
      record.metadata)


def _floats(vector: Any) -> Optional[list[float]]:
  return None if vector is None else vector.tolist()


def _sparse_row(vector: Optional[SparseValues]) -> Optional[SparseRow]:
  if vector is None:
    return None
  return SparseRow(vector.indices.tolist(), vector.values.tolist())
