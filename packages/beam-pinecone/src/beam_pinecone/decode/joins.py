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
"""How an answer is put to the element that asked, and as Arrow columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Optional

import numpy as np
import pyarrow as pa
from apache_beam import coders
from apache_beam.pvalue import Row
from apache_beam.typehints import Any as AnyType
from apache_beam.typehints import row_type

from beam_connector_base.lookup import Join
from beam_connector_base.operation import MISSING
from beam_connector_base.rows import as_mapping
from beam_pinecone.decode.exported import metadata_column
from beam_pinecone.decode.exported import sparse_column
from beam_pinecone.encode.questions import Question
from beam_pinecone.encode.questions import row_key
from beam_pinecone.encode.records import is_embeddable
from beam_pinecone.encode.records import key_text
from beam_pinecone.operations.fetches import RecordKeys
from beam_pinecone.wire.answers import Match
from beam_pinecone.wire.answers import Record

__all__ = ['JoinMatches', 'JoinRecord', 'with_field']

VALUES = pa.list_(pa.float32())


@dataclasses.dataclass(frozen=True)
class JoinMatches(Join):
  """Adds the matches of a search.

  Args:
    question: what was asked.
  """
  question: Question

  def row(self, element: Any, answer: Any) -> Any:
    # A list of its own: the answer may be another element's, too.
    matches = [] if answer is MISSING else answer[:]
    return with_field(element, self.question.output, matches)

  def block(self, batch: pa.RecordBatch, answers: list[Any]) -> pa.RecordBatch:
    question = self.question
    found = [() if answer is MISSING else answer for answer in answers]
    matches = [match for each in found for match in each]
    columns = {
        'id': pa.array([m.id for m in matches], pa.string()),
        'score': pa.array([m.score for m in matches], pa.float32()),
    }
    if question.include_metadata:
      columns['metadata'] = metadata_column([m.metadata for m in matches])
    if question.include_values:
      columns['values'] = _values_column([m.values for m in matches])
      columns['sparse_values'] = sparse_column(
          [m.sparse_values for m in matches])
    structs = pa.StructArray.from_arrays(
        list(columns.values()), list(columns), None)
    offsets = _offsets(list(map(len, found)))
    return _with_column(
        batch, question.output, pa.ListArray.from_arrays(offsets, structs))

  def key(self, element: Any, row: int) -> str:
    if isinstance(element, pa.RecordBatch):
      return row_key(self.question, _RowOf(element, row))
    if is_embeddable(element):
      return key_text(element.id)
    return row_key(self.question, as_mapping(element))

  def output_type(self, input_type: Any) -> Any:
    return joined_type(input_type, self.question.output, Sequence[Match])


@dataclasses.dataclass(frozen=True)
class JoinRecord(Join):
  """Adds the record that was fetched.

  Args:
    keys: which record was asked for, and the field it goes to.
    include_values: whether it has its vector.
    include_metadata: whether it has its metadata.
  """
  keys: RecordKeys
  include_values: bool
  include_metadata: bool

  def row(self, element: Any, answer: Any) -> Any:
    return with_field(
        element, self.keys.output, None if answer is MISSING else answer)

  def block(self, batch: pa.RecordBatch, answers: list[Any]) -> pa.RecordBatch:
    missing = np.array([answer is MISSING for answer in answers], bool)
    records = [Record('') if a is MISSING else a for a in answers]
    columns = {'id': pa.array([r.id for r in records], pa.string())}
    if self.include_values:
      columns['values'] = _values_column([r.values for r in records])
      columns['sparse_values'] = sparse_column(
          [r.sparse_values for r in records])
    if self.include_metadata:
      columns['metadata'] = metadata_column([r.metadata for r in records])
    structs = pa.StructArray.from_arrays(
        list(columns.values()), list(columns), mask=pa.array(missing))
    return _with_column(batch, self.keys.output, structs)

  def key(self, element: Any, row: int) -> str:
    if isinstance(element, pa.RecordBatch):
      element = _RowOf(element, row)
    return key_text(self.keys.id_of(element))

  def output_type(self, input_type: Any) -> Any:
    return joined_type(input_type, self.keys.output, Optional[Record])


# ---------------------------------------------------------------- elements


def with_field(element: Any, name: str, value: Any) -> Any:
  """A copy of the element with one more field.

  A dict stays a dict, an `EmbeddableItem` gets the field in its metadata, and
  everything else becomes a `beam.Row`.
  """
  if type(element) is dict:
    return {**element, name: value}
  if is_embeddable(element):
    metadata = {**(element.metadata or {}), name: value}
    return dataclasses.replace(element, metadata=metadata)
  fields = as_mapping(element)
  if isinstance(element, Mapping):
    return {**fields, name: value}
  return Row(**fields, **{name: value})


def joined_type(input_type: Any, name: str, value_type: Any) -> Any:
  """The type of elements with one more field, where theirs has a schema."""
  if isinstance(input_type, type) and issubclass(input_type, pa.RecordBatch):
    return input_type
  if not isinstance(input_type, row_type.RowTypeConstraint):
    if not isinstance(coders.registry.get_coder(input_type), coders.RowCoder):
      return AnyType
    input_type = row_type.RowTypeConstraint.from_user_type(input_type)
    if input_type is None:
      return AnyType
  fields = [pair for pair in input_type._fields if pair[0] != name]
  return row_type.RowTypeConstraint.from_fields([*fields, (name, value_type)])


class _RowOf(Mapping[str, Any]):
  """One row of a RecordBatch; converts only what is asked for."""
  def __init__(self, batch: pa.RecordBatch, row: int):
    self._batch = batch
    self._row = row

  def __getitem__(self, name: str) -> Any:
    if name not in self._batch.schema.names:
      raise KeyError(name)
    return self._batch.column(name)[self._row].as_py()

  def __iter__(self) -> Any:
    return iter(self._batch.schema.names)

  def __len__(self) -> int:
    return int(self._batch.num_columns)


# ----------------------------------------------------------- Arrow columns


def _with_column(
    batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
  return pa.RecordBatch.from_arrays([*batch.columns, column],
                                    schema=batch.schema.append(
                                        pa.field(name, column.type)))


def _offsets(
    sizes: list[int], present: Optional[list[bool]] = None) -> pa.Array:
  """Where each list begins, and where the last one ends; null where absent."""
  ends = np.zeros(len(sizes) + 1, np.int64)
  np.cumsum(sizes, out=ends[1:])
  if len(ends) and ends[-1] > 0x7fffffff:
    raise OverflowError(
        'the answers to one RecordBatch have more values than Arrow holds in a '
        'list column: use smaller batches')
  mask = None if present is None else np.array([not p for p in present] +
                                               [False])
  return pa.array(ends, pa.int32(), mask=mask)


def _values_column(vectors: list[Optional[np.ndarray]]) -> pa.Array:
  """list<float32>; null where there is no vector."""
  present = [vector is not None for vector in vectors]
  held = [vector for vector in vectors if vector is not None]
  flat = np.concatenate(held) if held else np.zeros(0, np.float32)
  sizes = [0 if vector is None else len(vector) for vector in vectors]
  offsets = _offsets(sizes, None if all(present) else present)
  return pa.ListArray.from_arrays(offsets, pa.array(flat, pa.float32()))
