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
"""Vectors and upsert requests as protobuf wire bytes.

A request is `repeated Vector vectors = 1; string namespace = 2`: the rows back
to back, then the namespace. A row here is one entry of `vectors`, its tag and
length included, so that a batch is a concatenation of rows and a frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from beam_pinecone.wire.protobuf import length_prefix
from beam_pinecone.wire.protobuf import uint32_varints

__all__ = [
    'namespace_frame',
    'sparse_message',
    'sparse_messages',
    'upsert_request',
    'vector_row',
]

# UpsertRequest
_VECTORS = 0x0a
_NAMESPACE = 0x12
# Vector
_ID = 0x0a
_VALUES = 0x12
_METADATA = 0x1a
_SPARSE = 0x22
# SparseValues
_INDICES = 0x0a
_SPARSE_VALUES = 0x12


def vector_row(
    id: bytes, values: Any, values_bytes: int, metadata: bytes,
    sparse: bytes) -> bytes:
  """One entry of UpsertRequest.vectors.

  Args:
    id: the id's bytes.
    values: a contiguous buffer of little-endian float32.
    values_bytes: its size; 0 for a vector without dense values.
    metadata: the fields of a Struct; empty for none.
    sparse: a SparseValues message; empty for none.
  """
  parts = [b'', length_prefix(_ID, len(id)), id]
  if values_bytes:
    parts.append(length_prefix(_VALUES, values_bytes))
    parts.append(values)
  if metadata:
    parts.append(length_prefix(_METADATA, len(metadata)))
    parts.append(metadata)
  if sparse:
    parts.append(length_prefix(_SPARSE, len(sparse)))
    parts.append(sparse)
  size = sum(map(len, parts))
  if values_bytes:
    # The length of a memoryview counts its items, which are four bytes each.
    size += values_bytes - len(values)
  parts[0] = length_prefix(_VECTORS, size)
  return b''.join(parts)


def sparse_message(indices: np.ndarray, values: np.ndarray) -> bytes:
  """A SparseValues message.

  Args:
    indices: uint32.
    values: float32, as many.
  """
  packed, _ = uint32_varints(indices)
  data = values.astype('<f4', copy=False).tobytes()
  return b''.join((
      length_prefix(_INDICES, len(packed)),
      packed,
      length_prefix(_SPARSE_VALUES, len(data)),
      data))


def sparse_messages(
    indices: np.ndarray, values: np.ndarray, bounds: np.ndarray) -> list[bytes]:
  """Many SparseValues messages at once; b'' for an empty one.

  Args:
    indices: uint32 of all messages back to back.
    values: float32, as many.
    bounds: where each message begins, and where the last one ends.
  """
  packed, sizes = uint32_varints(indices)
  ends = np.zeros(len(indices) + 1, np.int64)
  np.cumsum(sizes, out=ends[1:])
  cuts = ends[bounds].tolist()
  data = values.astype('<f4', copy=False).tobytes()
  marks = (np.asarray(bounds) * 4).tolist()
  out = []
  for i in range(len(cuts) - 1):
    a, b, c, d = cuts[i], cuts[i + 1], marks[i], marks[i + 1]
    out.append(
        b'' if c == d else b''.join((
            length_prefix(_INDICES, b - a),
            packed[a:b],
            length_prefix(_SPARSE_VALUES, d - c),
            data[c:d])))
  return out


def namespace_frame(namespace: str) -> bytes:
  """UpsertRequest.namespace; empty for the default namespace."""
  if not namespace:
    return b''
  raw = namespace.encode('ascii')
  return length_prefix(_NAMESPACE, len(raw)) + raw


def upsert_request(rows: Iterable[Any], namespace: str) -> bytes:
  """A whole UpsertRequest.

  Args:
    rows: each is a buffer (of one row or of several), or a tuple of buffers
      that make a row together.
    namespace: of all vectors.
  """
  parts: list[Any] = []
  for row in rows:
    if type(row) is tuple:
      parts.extend(row)
    else:
      parts.append(row)
  parts.append(namespace_frame(namespace))
  return b''.join(parts)
