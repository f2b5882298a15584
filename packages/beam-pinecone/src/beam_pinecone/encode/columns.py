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
"""The columns of a RecordBatch as the parts of many rows at once.

Each function looks at one column and returns what the rows need of it, and the
refusals by row: one bad row costs one row. Checks run over whole columns; only
rows that fail them are looked at one by one, by the same functions that check
single records, so that both paths refuse the same with the same words.
"""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import Optional

import numpy as np
import pyarrow as pa

from beam_pinecone import schema
from beam_pinecone.encode import vectors
from beam_pinecone.encode.vectors import FLOAT32
from beam_pinecone.errors import Refused
from beam_pinecone.schema import IndexSchema
from beam_pinecone.wire.metadata import MAX_INTEGER
from beam_pinecone.wire.metadata import MetadataKey
from beam_pinecone.wire.metadata import encode_numbers
from beam_pinecone.wire.metadata import encode_strings
from beam_pinecone.wire.metadata import list_item
from beam_pinecone.wire.metadata import plain_value
from beam_pinecone.wire.vectors import sparse_messages

__all__ = [
    'Dense',
    'Refusals',
    'dense_column',
    'id_column',
    'metadata_column',
    'sparse_column'
]

Refusals = dict[int, Refused]

types = pa.types


def id_column(column: Any, field: str, bad: Refusals) -> list[Any]:
  """The ids as str; what stands for a refused row is not to be used."""
  if types.is_dictionary(column.type):
    column = column.cast(column.type.value_type)
  ids = column.to_pylist()
  if is_text(column.type) and not column.null_count:
    joined = ''.join(ids)
    if (joined.isascii() and '\0' not in joined and all(ids)
        and len(max(ids, key=len, default='')) <= schema.MAX_ID_LENGTH):
      return ids
  for i, value in enumerate(ids):
    try:
      schema.check_id(value, field)
    except Refused as refused:
      bad.setdefault(i, refused)
  return ids


# ------------------------------------------------------------ dense vectors


@dataclasses.dataclass
class Dense:
  """The dense vectors of a column.

  Attributes:
    data: the values of all rows as bytes, little-endian float32.
    starts: byte at which each row begins.
    widths: bytes of each row; 0 where there is no vector.
  """
  data: memoryview
  starts: np.ndarray
  widths: np.ndarray


def dense_column(
    column: Any, index: IndexSchema, field: str, bad: Refusals) -> Dense:
  """The dense vectors; float32 columns are not copied."""
  n = len(column)
  nothing = np.zeros(n, np.int64)
  if isinstance(column, pa.ExtensionArray):
    column = column.storage
  kind = column.type
  if types.is_null(kind):
    return Dense(memoryview(b''), nothing, nothing)
  lists = _as_lists(column)
  if lists is None or not _is_number(kind.value_type):
    refused = Refused(
        'VectorType',
        f'{field!r} is a column of {kind}: a column of vectors is a list of '
        'float32 (or float64, float16)')
    for i in np.flatnonzero(column.is_valid().to_numpy(False)).tolist():
      bad.setdefault(i, refused)
    return Dense(memoryview(b''), nothing, nothing)
  child, starts, sizes = lists
  if child.null_count:
    _refuse_nulls(child, starts, sizes, bad, vectors.null_value(field))
  # Nulls are NaN here; no row that is written has any.
  numbers = child.to_numpy(zero_copy_only=False)
  if numbers.dtype == np.float16:
    numbers = numbers.astype(FLOAT32)
  _check_rows(numbers, starts, sizes, index, field, bad)
  if numbers.dtype != FLOAT32:
    with np.errstate(over='ignore', invalid='ignore'):
      numbers = numbers.astype(FLOAT32)
  data = np.ascontiguousarray(numbers).view(np.uint8).data
  return Dense(data, starts * 4, sizes * 4)


def _as_lists(column: Any) -> Optional[tuple[Any, np.ndarray, np.ndarray]]:
  """The values of all lists, where each begins and how many it has."""
  n = len(column)
  kind = column.type
  if types.is_fixed_size_list(kind):
    width = kind.list_size
    child = column.values.slice(column.offset * width, n * width)
    starts = np.arange(n, dtype=np.int64) * width
    sizes = np.full(n, width, np.int64)
  elif types.is_list(kind) or types.is_large_list(kind):
    offsets = column.offsets.to_numpy().astype(np.int64)
    first = int(offsets[0]) if len(offsets) else 0
    last = int(offsets[-1]) if len(offsets) else 0
    child = column.values.slice(first, last - first)
    starts = offsets[:-1] - first
    sizes = np.diff(offsets)
  else:
    return None
  if column.null_count:
    sizes = sizes * column.is_valid().to_numpy(False)
  return child, starts, sizes


def _refuse_nulls(
    child: Any,
    starts: np.ndarray,
    sizes: np.ndarray,
    bad: Refusals,
    refused: Refused) -> None:
  nulls = np.zeros(len(child) + 1, np.int64)
  np.cumsum(child.is_null().to_numpy(False), out=nulls[1:])
  held = nulls[starts + sizes] - nulls[starts]
  for i in np.flatnonzero(held).tolist():
    bad.setdefault(i, refused)


def _check_rows(
    numbers: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    index: IndexSchema,
    field: str,
    bad: Refusals) -> None:
  n = len(sizes)
  if not n:
    return
  width = int(sizes[0])
  if width and width == (index.dimension
                         or width) and numbers.dtype.kind == 'f' and (
                             sizes
                             == width).all() and len(numbers) == n * width:
    # The sums of squares prove most vectors right at the price of one pass.
    matrix = numbers.reshape(n, width)
    with np.errstate(over='ignore'):
      squares = np.matmul(matrix[:, None, :], matrix[:, :, None]).reshape(n)
    largest = np.inf if numbers.dtype == FLOAT32 else vectors.SAFE_SQUARES
    fine = (squares > vectors.NONZERO_SQUARES) & (squares < largest)
    suspects = np.flatnonzero(~fine).tolist()
  else:
    suspects = np.flatnonzero(sizes).tolist()
  for i in suspects:
    if i in bad:
      continue
    try:
      vectors.dense_values(
          numbers[starts[i]:starts[i] + sizes[i]], field, index)
    except Refused as refused:
      bad[i] = refused


# ----------------------------------------------------------- sparse vectors


def sparse_column(column: Any, field: str, bad: Refusals) -> list[bytes]:
  """A SparseValues message per row; b'' where there is none."""
  n = len(column)
  if types.is_null(column.type):
    return [b''] * n
  messages = _sparse_struct(column) if types.is_struct(column.type) else None
  if messages is not None:
    return messages
  # Not all of it is well-formed: row by row, to say what is wrong with which.
  out = []
  for i, value in enumerate(column.to_pylist()):
    message = b''
    if value is not None:
      try:
        indices, values = vectors.sparse_values(value, field)
        message = sparse_messages(indices, values, np.array([0,
                                                             len(indices)]))[0]
      except Refused as refused:
        bad.setdefault(i, refused)
    out.append(message)
  return out


def _sparse_struct(column: Any) -> Optional[list[bytes]]:
  """All rows at once, or None if a row is not as it has to be."""
  kind = column.type
  if kind.get_field_index('indices') < 0 or kind.get_field_index('values') < 0:
    return None
  parts = dict(zip([f.name for f in kind], column.flatten(), strict=True))
  indices, values = _as_lists(parts['indices']), _as_lists(parts['values'])
  if indices is None or values is None:
    return None
  present = column.is_valid().to_numpy(False)
  sizes = indices[2]
  if ((sizes != values[2]).any() or (sizes > vectors.MAX_SPARSE_VALUES).any()
      or (present & (sizes == 0)).any()):
    return None
  keys, weights = (_gather(*indices), _gather(*values))
  if (keys is None or weights is None or keys.dtype.kind not in 'iu'
      or weights.dtype.kind != 'f'):
    return None
  if keys.size and (keys.min() < 0 or keys.max() > 0xffffffff):
    return None
  with np.errstate(over='ignore', invalid='ignore'):
    weights = weights.astype(FLOAT32)
  if not np.isfinite(weights).all():
    return None
  keys = keys.astype(np.uint32)
  row = np.repeat(np.arange(len(column), dtype=np.uint64), sizes)
  ordered = np.sort(row << np.uint64(32) | keys)
  if (ordered[1:] == ordered[:-1]).any():
    return None
  bounds = np.zeros(len(column) + 1, np.int64)
  np.cumsum(sizes, out=bounds[1:])
  return sparse_messages(keys, weights, bounds)


def _gather(child: Any, starts: np.ndarray,
            sizes: np.ndarray) -> Optional[np.ndarray]:
  """The values of all rows back to back, without what lies under nulls."""
  if child.null_count or not _is_number(child.type):
    return None
  numbers = child.to_numpy(zero_copy_only=False)
  total = int(sizes.sum())
  if total == len(numbers):
    return numbers
  ends = np.cumsum(sizes)
  return numbers[np.arange(total) + np.repeat(starts - ends + sizes, sizes)]


# ----------------------------------------------------------------- metadata


def metadata_column(key: MetadataKey, column: Any,
                    bad: Refusals) -> list[bytes]:
  """The entry of each row; b'' where the value is null or refused."""
  kind = column.type
  n = len(column)
  if isinstance(column, pa.ExtensionArray):
    return metadata_column(key, column.storage, bad)
  if types.is_null(kind) or column.null_count == n:
    return [b''] * n
  if types.is_dictionary(kind):
    return _dictionary(key, column, bad)
  if is_text(kind):
    if n >= 64:
      # Most columns of text are names of few things.
      coded = column.dictionary_encode() if types.is_string(kind) else column
      if coded is not column and len(coded.dictionary) <= n // 2:
        return _dictionary(key, coded, bad)
    binary = pa.large_binary() if types.is_large_string(kind) else pa.binary()
    return encode_strings(key, _raws(column, binary))
  if types.is_boolean(kind):
    booleans = {True: key.true, False: key.false, None: b''}
    return [booleans[value] for value in column.to_pylist()]
  if types.is_integer(kind) or types.is_floating(kind):
    return _numbers(key, column, bad)
  if (types.is_list(kind) or types.is_large_list(kind)) and is_text(
      kind.value_type):
    entries = _string_lists(key, column)
    if entries is not None:
      return entries
  out = []
  for i, value in enumerate(column.to_pylist()):
    entry = b''
    if value is not None:
      try:
        entry = key.entry(value)
      except Refused as refused:
        bad.setdefault(i, refused)
    out.append(entry)
  return out


def is_text(kind: Any) -> bool:
  """Whether an Arrow type is text."""
  return (
      types.is_string(kind) or types.is_large_string(kind)
      or (hasattr(types, 'is_string_view') and types.is_string_view(kind)))


def _is_number(kind: Any) -> bool:
  return types.is_floating(kind) or types.is_integer(kind)


def _raws(column: Any, binary: Any) -> list[Optional[bytes]]:
  if types.is_string(column.type) or types.is_large_string(column.type):
    return column.cast(binary).to_pylist()
  return [None if v is None else v.encode() for v in column.to_pylist()]


def _dictionary(key: MetadataKey, column: Any, bad: Refusals) -> list[bytes]:
  if len(column.dictionary) > 4 * len(column):
    # A slice keeps the words of the whole column.
    return metadata_column(key, column.cast(column.type.value_type), bad)
  refused: Refusals = {}
  words = metadata_column(key, column.dictionary, refused)
  words.append(b'')
  codes = column.indices.to_pylist()
  if column.null_count:
    codes = [-1 if code is None else code for code in codes]
  if refused:
    for i, code in enumerate(codes):
      if code in refused:
        bad.setdefault(i, refused[code])
  return [words[code] for code in codes]


def _numbers(key: MetadataKey, column: Any, bad: Refusals) -> list[bytes]:
  if types.is_integer(column.type):
    whole = column.fill_null(0).to_numpy(zero_copy_only=False)
    wrong = (whole > MAX_INTEGER) | (whole < -MAX_INTEGER)
    values = whole.astype(np.float64)
  else:
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    wrong = ~np.isfinite(values)
    if column.null_count:
      wrong &= column.is_valid().to_numpy(False)
  entries = encode_numbers(key, values)
  for i in np.flatnonzero(wrong).tolist():
    try:
      plain_value(key.name, column[i].as_py())
    except Refused as refused:
      bad.setdefault(i, refused)
  if column.null_count:
    for i in np.flatnonzero(column.is_null().to_numpy(False)).tolist():
      entries[i] = b''
  return entries


def _string_lists(key: MetadataKey, column: Any) -> Optional[list[bytes]]:
  child, starts, sizes = _as_lists(column)  # type: ignore[misc]
  if child.null_count:
    return None
  binary = (
      pa.large_binary() if types.is_large_string(child.type) else pa.binary())
  items = [list_item(raw) for raw in _raws(child, binary)]  # type: ignore
  entries = [
      key.string_list(items[start:start + size])
      for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
  ]
  if column.null_count:
    for i in np.flatnonzero(column.is_null().to_numpy(False)).tolist():
      entries[i] = b''
  return entries
