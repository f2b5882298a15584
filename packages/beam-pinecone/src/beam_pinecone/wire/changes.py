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
"""Updates and deletes as protobuf wire bytes.

A DeleteRequest by ids is `repeated string ids = 1; string namespace = 3`: rows
and a frame, like an upsert.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from typing import Optional

from beam_pinecone.wire.protobuf import VARINT
from beam_pinecone.wire.protobuf import fields
from beam_pinecone.wire.protobuf import length_prefix

__all__ = [
    'delete_all_request',
    'delete_by_filter_request',
    'delete_frame',
    'delete_request',
    'delete_row',
    'matched_records',
    'update_by_filter',
    'update_by_id',
    'update_frame',
]

# DeleteRequest
_DELETE_ID = 0x0a
_DELETE_ALL = b'\x10\x01'
_DELETE_NAMESPACE = 0x1a
_DELETE_FILTER = 0x22
# UpdateRequest
_ID = 0x0a
_VALUES = 0x12
_SET_METADATA = 0x1a
_UPDATE_NAMESPACE = 0x22
_SPARSE = 0x2a
_UPDATE_FILTER = 0x32
_DRY_RUN = b'\x38\x01'


def delete_row(id: bytes) -> bytes:
  """One entry of DeleteRequest.ids."""
  return length_prefix(_DELETE_ID, len(id)) + id


def delete_frame(namespace: str) -> bytes:
  """DeleteRequest.namespace; empty for the default namespace."""
  return _namespace(_DELETE_NAMESPACE, namespace)


def delete_request(rows: Iterable[Any], namespace: str) -> bytes:
  """A DeleteRequest of rows made by `delete_row`."""
  return b''.join((*rows, delete_frame(namespace)))


def delete_by_filter_request(filter: Any, namespace: str) -> bytes:
  """A DeleteRequest by the fields of a Struct."""
  return b''.join((
      delete_frame(namespace),
      length_prefix(_DELETE_FILTER, len(filter)),
      filter))


def delete_all_request(namespace: str) -> bytes:
  """A DeleteRequest of all records of a namespace."""
  return _DELETE_ALL + delete_frame(namespace)


def update_by_id(
    id: bytes, values: Any, values_bytes: int, metadata: bytes,
    sparse: bytes) -> bytes:
  """An UpdateRequest without its namespace.

  Args:
    id: the id's bytes.
    values: a contiguous buffer of little-endian float32.
    values_bytes: its size; 0 to keep the values there are.
    metadata: the fields of a Struct to merge into the metadata; may be empty.
    sparse: a SparseValues message; empty to keep what there is.
  """
  parts: list[Any] = [length_prefix(_ID, len(id)), id]
  if values_bytes:
    parts += [length_prefix(_VALUES, values_bytes), values]
  if metadata:
    parts += [length_prefix(_SET_METADATA, len(metadata)), metadata]
  if sparse:
    parts += [length_prefix(_SPARSE, len(sparse)), sparse]
  return b''.join(parts)


def update_by_filter(filter: bytes, metadata: bytes, dry_run: bool) -> bytes:
  """An UpdateRequest without its namespace.

  Args:
    filter: the fields of a Struct.
    metadata: the fields of a Struct to merge into the metadata.
    dry_run: whether to count only.
  """
  return b''.join((
      length_prefix(_SET_METADATA, len(metadata)),
      metadata,
      length_prefix(_UPDATE_FILTER, len(filter)),
      filter,
      _DRY_RUN if dry_run else b''))


def update_frame(namespace: str) -> bytes:
  """UpdateRequest.namespace; empty for the default namespace."""
  return _namespace(_UPDATE_NAMESPACE, namespace)


def matched_records(message: bytes) -> Optional[int]:
  """Reads an UpdateResponse; None where it does not tell.

  Raises:
    ValueError: the bytes are no complete message.
  """
  for number, kind, value in fields(message):
    if number == 1 and kind == VARINT:
      return int(value)
  return None


def _namespace(tag: int, namespace: str) -> bytes:
  if not namespace:
    return b''
  raw = namespace.encode('ascii')
  return length_prefix(tag, len(raw)) + raw
