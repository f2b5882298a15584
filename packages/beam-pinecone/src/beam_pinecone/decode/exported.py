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
"""Fetched records as rows, or as RecordBatches; both can be written again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import Optional

import numpy as np
import pyarrow as pa

from beam_pinecone.errors import Refused
from beam_pinecone.wire.answers import Record
from beam_pinecone.wire.answers import SparseValues

__all__ = [
    'PineconeVector',
    'block_schema',
    'holds_json',
    'json_mapping',
    'metadata_column',
    'sparse_column',
    'to_block',
    'to_row',
]

# Says of a text column that it holds the metadata as JSON, so that a write puts
# it back as what it was.
_JSON = {b'beam_pinecone.metadata': b'json'}

_SPARSE = pa.struct([
    pa.field('indices', pa.list_(pa.uint32())),
    pa.field('values', pa.list_(pa.float32())),
])


class PineconeVector(NamedTuple):
  """One record of an index.

  `WriteToPinecone(..., namespace='{namespace}')` writes it as it is.

  Args:
    id: of the record.
    namespace: it is in; '' is the default one.
    values: the dense values, a numpy array of float32 of shape (dimension,);
      None if it has none or they were not asked for.
    sparse_values: the sparse values, `indices` (uint32) and `values` (float32);
      None likewise.
    metadata: strings, floats, booleans and lists of strings by name; None
      likewise. Pinecone keeps all numbers as 64 bit floats.
  """
  id: str
  namespace: str = ''
  values: Optional[Sequence[np.float32]] = None
  sparse_values: Optional[SparseValues] = None
  metadata: Optional[Mapping[str, Any]] = None


def to_row(record: Record, namespace: str) -> PineconeVector:
  """A fetched record as an element."""
  return PineconeVector(
      record.id,
      namespace,
      record.values,  # type: ignore[arg-type]
      record.sparse_values,
      record.metadata)


def block_schema(
    dimension: Optional[int], values: bool, metadata: bool) -> pa.Schema:
  """The schema of all blocks of an index.

  Args:
    dimension: of the dense values; None for a sparse index.
    values: whether the vectors are wanted.
    metadata: whether the metadata are wanted.
  """
  columns = [
      pa.field('id', pa.string(), nullable=False),
      pa.field('namespace', pa.string(), nullable=False),
  ]
  if values:
    width = -1 if dimension is None else dimension
    columns.append(pa.field('values', pa.list_(pa.float32(), width)))
    columns.append(pa.field('sparse_values', _SPARSE))
  if metadata:
    columns.append(pa.field('metadata', pa.string(), metadata=_JSON))
  return pa.schema(columns)


def holds_json(field: pa.Field) -> bool:
  """Whether a column holds the metadata as JSON, made here."""
  return all((field.metadata or {}).get(k) == v for k, v in _JSON.items())


def json_mapping(text: str, field: Optional[str]) -> dict[str, Any]:
  """The metadata of a text made by `to_block`.

  Raises:
    Refused: it was changed into something else.
  """
  try:
    metadata = json.loads(text)
  except ValueError:
    metadata = None
  if not isinstance(metadata, dict):
    raise Refused(
        'MetadataJson',
        f'{field!r} is marked as metadata in JSON and holds something else: '
        'mend the text, or take the mark off the column')
  return metadata


def to_block(
    records: Sequence[Record], namespace: str,
    schema: pa.Schema) -> pa.RecordBatch:
  """Fetched records as a RecordBatch.

  Args:
    records: at least one.
    namespace: of all of them.
    schema: of `block_schema`.
  """
  n = len(records)
  arrays = [
      pa.array([record.id for record in records], pa.string()),
      pa.repeat(pa.scalar(namespace, pa.string()), n),
  ]
  for field in schema:
    if field.name == 'values':
      arrays.append(_dense([r.values for r in records], field.type))
    elif field.name == 'sparse_values':
      arrays.append(sparse_column([r.sparse_values for r in records]))
    elif field.name == 'metadata':
      arrays.append(metadata_column([r.metadata for r in records]))
  return pa.RecordBatch.from_arrays(arrays, schema=schema)


def metadata_column(
    metadata: Sequence[Optional[Mapping[str, Any]]]) -> pa.Array:
  """JSON text, as in the files of Pinecone's own import; null for none.

  It is compact and the keys are in order: equal metadata are equal texts.
  """
  return pa.array(
      [None if each is None else _encode(each) for each in metadata],
      pa.string())


_encode = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(',', ':')).encode


def _dense(vectors: Sequence[Optional[np.ndarray]], kind: Any) -> pa.Array:
  n = len(vectors)
  if not pa.types.is_fixed_size_list(kind):
    return pa.array(vectors, kind)
  width = kind.list_size
  missing = None
  held: Sequence[Any] = vectors
  if any(vector is None for vector in vectors):
    missing = pa.array([vector is None for vector in vectors])
    nothing = np.zeros(width, np.float32)
    held = [nothing if vector is None else vector for vector in vectors]
  # The one copy: from the answers' bytes to the column.
  numbers = np.concatenate(held)
  if len(numbers) != n * width:
    raise ValueError(
        f'a vector of the answer has another length than the {width} of the '
        'index')
  return pa.FixedSizeListArray.from_arrays(
      pa.array(numbers), type=kind, mask=missing)


def sparse_column(vectors: Sequence[Optional[SparseValues]]) -> pa.Array:
  """struct<indices, values>; null where there is no sparse vector."""
  n = len(vectors)
  present = [vector for vector in vectors if vector is not None]
  if not present:
    return pa.nulls(n, _SPARSE)
  offsets = np.zeros(n + 1, np.int32)
  np.cumsum([0 if v is None else len(v.indices) for v in vectors],
            out=offsets[1:])
  lists = [
      pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(parts)))
      for parts in ([v.indices for v in present], [v.values for v in present])
  ]
  missing = None
  if len(present) < n:
    missing = pa.array([vector is None for vector in vectors])
  return pa.StructArray.from_arrays(lists, fields=list(_SPARSE), mask=missing)
