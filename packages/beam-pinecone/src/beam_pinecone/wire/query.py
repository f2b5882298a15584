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
"""Queries and fetches as protobuf wire bytes.

A QueryRequest begins with what many queries have in common (namespace, top_k,
filter, flags); `query_head` makes that once, and a query is head and vector.
A FetchRequest is `repeated string ids = 1; string namespace = 2`: rows and a
frame, like an upsert.
"""

from __future__ import annotations

from typing import Any
from typing import Optional

from beam_pinecone.wire.protobuf import length_prefix
from beam_pinecone.wire.protobuf import varint

__all__ = ['fetch_row', 'query_head', 'query_request']

# QueryRequest
_NAMESPACE = 0x0a
_TOP_K = b'\x10'
_FILTER = 0x1a
_INCLUDE_VALUES = b'\x20\x01'
_INCLUDE_METADATA = b'\x28\x01'
_VECTOR = 0x3a
_ID = 0x42
_SPARSE = 0x4a
# FetchRequest
_IDS = 0x0a


def query_head(
    namespace: str,
    top_k: int,
    filter: Optional[bytes],
    include_values: bool,
    include_metadata: bool) -> bytes:
  """The fields of a QueryRequest before the vector.

  Args:
    namespace: ASCII; '' for the default one.
    top_k: how many matches.
    filter: the fields of a Struct; None for none.
    include_values: whether matches carry their vectors.
    include_metadata: whether they carry their metadata.
  """
  parts = []
  if namespace:
    raw = namespace.encode('ascii')
    parts += [length_prefix(_NAMESPACE, len(raw)), raw]
  parts += [_TOP_K, varint(top_k)]
  if filter is not None:
    parts += [length_prefix(_FILTER, len(filter)), filter]
  if include_values:
    parts.append(_INCLUDE_VALUES)
  if include_metadata:
    parts.append(_INCLUDE_METADATA)
  return b''.join(parts)


def query_request(
    head: bytes,
    values: Any = b'',
    values_bytes: int = 0,
    id: bytes = b'',
    sparse: bytes = b'') -> bytes:
  """A whole QueryRequest.

  Args:
    head: of `query_head`.
    values: a contiguous buffer of little-endian float32.
    values_bytes: its size; 0 for a query without dense values.
    id: of the stored vector to search by; empty for none.
    sparse: a SparseValues message; empty for none.
  """
  parts = [head]
  if values_bytes:
    parts += [length_prefix(_VECTOR, values_bytes), values]
  if id:
    parts += [length_prefix(_ID, len(id)), id]
  if sparse:
    parts += [length_prefix(_SPARSE, len(sparse)), sparse]
  return b''.join(parts)


def fetch_row(id: bytes) -> bytes:
  """One entry of FetchRequest.ids."""
  return length_prefix(_IDS, len(id)) + id
