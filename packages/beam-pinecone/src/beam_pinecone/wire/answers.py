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
"""Answers to queries and fetches, from protobuf bytes to plain data.

Read without protobuf objects: a vector becomes a numpy array of the bytes it
came in, once copied, so that no answer is kept alive by what it held. Unknown
fields are skipped; bytes that are no complete message are a ValueError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any
from typing import NamedTuple
from typing import Optional

import numpy as np

from beam_pinecone.wire.protobuf import fields
from beam_pinecone.wire.structs import read_long
from beam_pinecone.wire.structs import read_struct
from beam_pinecone.wire.structs import skip_field
from beam_pinecone.wire.structs import truncated

__all__ = [
    'Match',
    'Record',
    'SparseValues',
    'fetch_answer',
    'metadata_of',
    'query_answer',
]

_float = struct.Struct('<f').unpack_from


class SparseValues(NamedTuple):
  """A sparse vector.

  Args:
    indices: uint32, one dimension.
    values: float32, as many.
  """
  indices: np.ndarray
  values: np.ndarray


class Match(NamedTuple):
  """One record that a search found.

  Args:
    id: of the record.
    score: as the index's metric has it: greater is better for 'cosine' and
      'dotproduct', less is better for 'euclidean' (the squared distance).
    metadata: of the record, numbers as float; None if it has none, or none was
      asked for.
    values: float32 of shape (dimension,), read-only; None if there are none, or
      none were asked for.
    sparse_values: likewise.
  """
  id: str
  score: float
  metadata: Optional[dict[str, Any]] = None
  values: Optional[np.ndarray] = None
  sparse_values: Optional[SparseValues] = None


class Record(NamedTuple):
  """One record that was fetched.

  Args:
    id: of the record.
    values: float32 of shape (dimension,), read-only; None if it has none, or
      none were asked for.
    sparse_values: likewise.
    metadata: of the record, numbers as float; None if it has none, or none was
      asked for.
  """
  id: str
  values: Optional[np.ndarray] = None
  sparse_values: Optional[SparseValues] = None
  metadata: Optional[dict[str, Any]] = None


_NO_RECORD = Record('')
_Floats = Callable[[bytes, int, int], Optional[np.ndarray]]


def query_answer(data: bytes) -> list[Match]:
  """Reads a QueryResponse: its matches, in the order they came in.

  Raises:
    ValueError: the bytes are no complete QueryResponse.
  """
  return _read(_matches, data)


def fetch_answer(
    data: bytes,
    values: bool = True,
    metadata: bool = True,
    views: bool = False) -> dict[str, Record]:
  """Reads a FetchResponse: its records by their ids.

  Args:
    data: the message.
    values: whether to read the vectors.
    metadata: whether to read the metadata.
    views: whether dense values may be views of the message, which they then
      keep alive: for who copies them all into one array.

  Raises:
    ValueError: the bytes are no complete FetchResponse.
  """
  floats = _view if views else _floats
  return _read(lambda whole: _records(whole, values, metadata, floats), data)


def metadata_of(data: bytes) -> dict[str, Any]:
  """Reads a Struct.

  Raises:
    ValueError: the bytes are no complete Struct.
  """
  return _read(lambda whole: read_struct(whole, 0, len(whole), 0), data)


def _read(reader: Callable[[bytes], Any], data: bytes) -> Any:
  try:
    return reader(data)
  except (IndexError, struct.error):
    raise truncated() from None


def _matches(data: bytes) -> list[Match]:
  matches = []
  at, end = 0, len(data)
  while at < end:
    if data[at] != 0x12:
      at = skip_field(data, at, end)
      continue
    size = data[at + 1]
    at += 2
    if size > 127:
      size, at = read_long(data, at - 1)
    stop = at + size
    if stop > end:
      raise truncated()
    matches.append(_match(data, at, stop))
    at = stop
  return matches


def _match(data: bytes, at: int, stop: int) -> Match:
  """A ScoredVector."""
  name = ''
  score = 0.0
  metadata = values = sparse = None
  while at < stop:
    tag = data[at]
    if tag == 0x15:
      if at + 5 > stop:
        raise truncated()
      score = _float(data, at + 1)[0]
      at += 5
      continue
    if tag not in (0x0a, 0x1a, 0x22, 0x2a):
      if tag == 0x1d:
        values = _add_float(data, at, values)
      at = skip_field(data, at, stop)
      continue
    size = data[at + 1]
    at += 2
    if size > 127:
      size, at = read_long(data, at - 1)
    end = at + size
    if end > stop:
      raise truncated()
    if tag == 0x0a:
      name = data[at:end].decode()
    elif tag == 0x22:
      entries = read_struct(data, at, end, 0)
      metadata = entries if metadata is None else {**metadata, **entries}
    elif tag == 0x1a:
      values = _add(values, _floats(data, at, end))
    else:
      sparse = _sparse(data, at, end, sparse)
    at = end
  return Match(name, score, metadata, values, sparse)


def _records(
    data: bytes, with_values: bool, with_metadata: bool,
    floats: _Floats) -> dict[str, Record]:
  records = {}
  at, end = 0, len(data)
  while at < end:
    if data[at] != 0x0a:
      at = skip_field(data, at, end)
      continue
    size, at = read_long(data, at + 1)
    stop = at + size
    if stop > end:
      raise truncated()
    # An entry of a map: the id, which the vector repeats, and the vector.
    key = ''
    record = _NO_RECORD
    while at < stop:
      tag = data[at]
      if tag not in (0x0a, 0x12):
        at = skip_field(data, at, stop)
        continue
      size, at = read_long(data, at + 1)
      if at + size > stop:
        raise truncated()
      if tag == 0x0a:
        key = data[at:at + size].decode()
      else:
        record = _record(
            data, at, at + size, with_values, with_metadata, floats)
      at += size
    records[key] = record if record.id == key else record._replace(id=key)
  return records


def _record(
    data: bytes,
    at: int,
    stop: int,
    with_values: bool,
    with_metadata: bool,
    floats: _Floats) -> Record:
  """A Vector."""
  name = ''
  metadata = values = sparse = None
  while at < stop:
    tag = data[at]
    if tag not in (0x0a, 0x12, 0x1a, 0x22):
      if tag == 0x15 and with_values:
        values = _add_float(data, at, values)
      at = skip_field(data, at, stop)
      continue
    size, at = read_long(data, at + 1)
    end = at + size
    if end > stop:
      raise truncated()
    if tag == 0x0a:
      name = data[at:end].decode()
    elif tag == 0x12:
      if with_values:
        values = _add(values, floats(data, at, end))
    elif tag == 0x1a:
      if with_metadata:
        entries = read_struct(data, at, end, 0)
        metadata = entries if metadata is None else {**metadata, **entries}
    elif with_values:
      sparse = _sparse(data, at, end, sparse)
    at = end
  return Record(name, values, sparse, metadata)


# ----------------------------------------------------------------- vectors


def _floats(data: bytes, at: int, stop: int) -> Optional[np.ndarray]:
  """Packed floats; None for none at all."""
  if (stop - at) & 3:
    raise truncated()
  if at == stop:
    return None
  # A slice of bytes is the one copy, and what it holds can not be changed.
  return np.frombuffer(data[at:stop], '<f4')


def _view(data: bytes, at: int, stop: int) -> Optional[np.ndarray]:
  """As `_floats`, where they are."""
  if (stop - at) & 3:
    raise truncated()
  if at == stop:
    return None
  return np.frombuffer(data, '<f4', (stop - at) >> 2, at)


def _add(known: Optional[np.ndarray],
         more: Optional[np.ndarray]) -> Optional[np.ndarray]:
  if known is None or more is None:
    return more if known is None else known
  joined = np.concatenate((known, more))
  joined.flags.writeable = False
  return joined


def _add_float(data: bytes, at: int,
               known: Optional[np.ndarray]) -> Optional[np.ndarray]:
  """One float that did not come packed; a reader must take both."""
  return _add(known, _floats(data, at + 1, at + 5))


def _sparse(data: bytes, at: int, stop: int,
            known: Optional[SparseValues]) -> Optional[SparseValues]:
  indices: list[int] = []
  values: Optional[np.ndarray] = None
  if known is not None:
    indices, values = known.indices.tolist(), known.values
  for number, kind, value in fields(memoryview(data)[at:stop]):
    if number == 1:
      if kind == 2:
        indices += _varints(value)
      elif kind == 0:
        indices.append(value)
    elif number == 2:
      if kind == 2:
        values = _add(values, _floats(bytes(value), 0, len(value)))
      elif kind == 5:
        values = _add(values, np.array([value], '<f4'))
  n = 0 if values is None else len(values)
  if len(indices) != n:
    raise ValueError(
        f'a sparse vector has {len(indices)} indices and {n} values')
  if values is None:
    return None
  if max(indices) > 0xffffffff:
    raise ValueError('an index of a sparse vector is beyond 32 bits')
  positions = np.array(indices, np.uint32)
  positions.flags.writeable = False
  return SparseValues(positions, values)


def _varints(view: memoryview) -> list[int]:
  data = bytes(view)
  out = []
  at, end = 0, len(data)
  while at < end:
    value, at = read_long(data, at)
    out.append(value)
  return out
