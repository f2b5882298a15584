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
"""From a RecordBatch to blocks of rows, without Python objects per number.

A row is a tuple of buffers: what stands before the vector, the vector where
Arrow has it, and what comes after. Nothing is copied before a request is put
together from its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from typing import Optional
from typing import Union

import numpy as np
import pyarrow as pa

from beam_connector_base.operation import Block
from beam_connector_base.operation import Invalid
from beam_pinecone.decode.exported import holds_json
from beam_pinecone.decode.exported import json_mapping
from beam_pinecone.encode import columns
from beam_pinecone.encode.columns import Refusals
from beam_pinecone.encode.layout import Layout
from beam_pinecone.encode.records import Checks
from beam_pinecone.encode.records import conflict
from beam_pinecone.encode.records import key_text
from beam_pinecone.errors import Refused
from beam_pinecone.schema import IndexSchema
from beam_pinecone.wire.metadata import MetadataKey
from beam_pinecone.wire.metadata import check_metadata_bytes
from beam_pinecone.wire.metadata import encode_metadata
from beam_pinecone.wire.metadata import may_be_too_large
from beam_pinecone.wire.metadata import plain_value
from beam_pinecone.wire.protobuf import length_prefix

__all__ = ['BlockEncoder', 'arrow_flaw']

# Rows to look at together: enough for the columns to pay, few enough for the
# parts to stay small beside the batch itself.
_ROWS_AT_ONCE = 4096


class BlockEncoder:
  """Encodes RecordBatches for one index.

  Args:
    layout: which field means what.
    schema: what the index takes.
    checks: of the session.
  """
  def __init__(self, layout: Layout, schema: IndexSchema, checks: Checks):
    self._layout = layout
    self._schema = schema
    self._checks = checks

  def encode(self, batch: pa.RecordBatch) -> Iterator[Union[Block, Invalid]]:
    """The rows of the batch, and one Invalid per row that is none."""
    names = batch.schema.names
    if len(set(names)) < len(names):
      twice = next(name for name in names if names.count(name) > 1)
      for i in range(batch.num_rows):
        yield Invalid(
            i,
            f'the RecordBatch has two columns {twice!r}: rename one',
            '',
            'DuplicateColumn')
      return
    for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
      yield from self._encode_checked(batch.slice(start, _ROWS_AT_ONCE), start)

  def _encode_checked(self, batch: pa.RecordBatch,
                      first: int) -> Iterator[Union[Block, Invalid]]:
    """Encodes rows whose buffers may not be what their types say.

    Arrow takes buffers as they come. Text that is not UTF-8 would go out as it
    is, and the service could not read any of the request.
    """
    if arrow_flaw(batch) is None:
      yield from self._encode_rows(batch, first)
      return
    for i in range(batch.num_rows):
      row = batch.slice(i, 1)
      flaw = arrow_flaw(row)
      if flaw is None:
        yield from self._encode_rows(row, first + i)
        continue
      ids = _column(row, self._layout.id)
      yield Invalid(
          first + i,
          f'the row is not valid Arrow data: {flaw}; clean it where the '
          'RecordBatch is made',
          key_text(ids[0].as_py()) if arrow_flaw(ids) is None else '',
          'InvalidArrow')

  def _encode_rows(self, batch: pa.RecordBatch,
                   first: int) -> Iterator[Union[Block, Invalid]]:
    layout = self._layout
    n = batch.num_rows
    bad: Refusals = {}
    namespaces = self._namespaces(batch, bad)
    ids = columns.id_column(_column(batch, layout.id), layout.id, bad)
    versions = None if layout.version is None else self._versions(batch, bad)
    dense = None
    if layout.values is not None and layout.values in batch.schema.names:
      dense = columns.dense_column(
          batch.column(layout.values), self._schema, layout.values, bad)
    sparse = None
    if layout.sparse is not None and layout.sparse in batch.schema.names:
      sparse = columns.sparse_column(
          batch.column(layout.sparse), layout.sparse, bad)
      if not any(sparse):
        sparse = None
    self._check_parts(n, dense, sparse, bad)
    metadata = self._metadata(batch, bad)
    for i in sorted(bad):
      name = namespaces if isinstance(namespaces, str) else namespaces[i]
      yield Invalid(
          first + i,
          bad[i].reason,
          key_text(ids[i]),
          bad[i].error_type,
          name or '')
    if len(bad) == n:
      return
    rows, sizes = _rows(ids, dense, metadata, sparse, bad)
    good = [i for i in range(n) if i not in bad] if bad else range(n)
    for namespace, chosen in _groups(namespaces, good):
      yield _block(namespace, chosen, rows, sizes, ids, versions, first)

  # ------------------------------------------------------------- the columns

  def _namespaces(self, batch: pa.RecordBatch, bad: Refusals) -> Any:
    """The one namespace, or one per row; None where a row is refused."""
    chosen = self._layout.namespace
    if chosen.is_constant:
      return chosen.constant
    out: list[Any] = []
    for i, name in enumerate(chosen.column(batch, batch.num_rows)):
      try:
        out.append(self._checks.namespace(name))
      except Refused as refused:
        bad.setdefault(i, refused)
        out.append(None)
    return out

  def _versions(self, batch: pa.RecordBatch, bad: Refusals) -> list[Any]:
    out = []
    for i, value in enumerate(_column(batch, self._layout.version).to_pylist()):
      try:
        out.append(self._checks.version(value))
      except Refused as refused:
        bad.setdefault(i, refused)
        out.append(None)
    return out

  def _check_parts(
      self, n: int, dense: Any, sparse: Any, bad: Refusals) -> None:
    layout, schema = self._layout, self._schema
    if (dense is not None and sparse is None and schema.takes_dense
        and dense.widths.all()):
      return
    widths = [0] * n if dense is None else dense.widths.tolist()
    for i in range(n):
      if i not in bad:
        try:
          schema.check_parts(
              widths[i] > 0,
              sparse is not None and bool(sparse[i]),
              layout.values,
              layout.sparse)
        except Refused as refused:
          bad[i] = refused

  def _metadata(self, batch: pa.RecordBatch, bad: Refusals) -> Any:
    """The Struct of each row, without its tag; None if no row has any."""
    layout = self._layout
    names = batch.schema.names
    named = {name: batch.column(name) for name in layout.metadata_fields(names)}
    merged: dict[str, Any] = {}
    field = layout.metadata
    if field is not None and field in names:
      column = batch.column(field)
      if pa.types.is_struct(column.type):
        children = dict(
            zip([f.name for f in column.type], column.flatten(), strict=True))
        merged = {n: children[n] for n in layout.merged_fields(list(children))}
      elif pa.types.is_map(column.type):
        merged = _map_columns(column, layout)
      elif holds_json(batch.schema.field(field)):
        # Of a read: keys have different types in different rows.
        return self._of_json(named, column, bad)
      elif layout.takes_scalar_metadata:
        named[field] = column
    keyed = []
    for name, column in (*named.items(), *merged.items()):
      try:
        keyed.append((MetadataKey(name), column))
      except Refused as refused:
        for i in range(batch.num_rows):
          bad.setdefault(i, refused)
    if not keyed:
      return None
    entries: dict[str, list[bytes]] = {}
    for key, column in sorted(keyed, key=lambda pair: pair[0].name):
      encoded = columns.metadata_column(key, column, bad)
      if key.name in entries:
        encoded = _both(key.name, field, entries[key.name], encoded, bad)
      entries[key.name] = encoded
    ordered = list(entries.values())
    structs = (
        ordered[0] if len(ordered) == 1 else
        [b''.join(row) for row in zip(*ordered, strict=True)])
    if may_be_too_large(max(structs, key=len)):
      for i, struct in enumerate(structs):
        if may_be_too_large(struct) and i not in bad:
          self._check_size(i, [named, merged], bad)
    return structs

  def _of_json(self, named: dict[str, Any], column: Any,
               bad: Refusals) -> list[bytes]:
    """The Struct of each row whose metadata are JSON text, row by row."""
    structs = []
    for i, text in enumerate(column.to_pylist()):
      struct = b''
      try:
        own = {} if text is None else json_mapping(text, self._layout.metadata)
        row = {name: own[name] for name in self._layout.merged_fields(list(own))}
        for name, values in named.items():
          value = values[i].as_py()
          if value is not None:
            if row.get(name) is not None:
              raise conflict(name, self._layout.metadata)
            row[name] = value
        struct = encode_metadata([MetadataKey(name) for name in sorted(row)],
                                 row)
      except Refused as refused:
        bad.setdefault(i, refused)
      structs.append(struct)
    return structs

  def _check_size(
      self, i: int, sources: list[dict[str, Any]], bad: Refusals) -> None:
    plain = {}
    for source in sources:
      for name, column in source.items():
        value = column[i].as_py()
        if value is not None:
          plain[name] = plain_value(name, value)
    try:
      check_metadata_bytes(plain)
    except Refused as refused:
      bad[i] = refused


# ------------------------------------------------------------------- blocks


def _groups(namespaces: Any, good: Any) -> Iterator[tuple[str, Any]]:
  """The rows of each namespace."""
  if isinstance(namespaces, str):
    yield namespaces, good
    return
  groups: dict[str, list[int]] = {}
  for i in good:
    groups.setdefault(namespaces[i], []).append(i)
  yield from groups.items()


def _block(
    namespace: str,
    chosen: Any,
    rows: list[Any],
    sizes: list[int],
    ids: list[str],
    versions: Any,
    first: int) -> Block:
  """A block of the chosen rows."""
  if len(chosen) == len(rows):
    numbers: Any = range(first, first + len(rows))
  else:
    rows = [rows[i] for i in chosen]
    sizes = [sizes[i] for i in chosen]
    ids = [ids[i] for i in chosen]
    versions = versions and [versions[i] for i in chosen]
    numbers = [first + i for i in chosen]
  offsets: Any = np.zeros(len(rows) + 1, np.int64)
  np.cumsum(sizes, out=offsets[1:])
  return Block(namespace, rows, offsets, ids, versions, numbers)


def _rows(
    ids: list[str], dense: Any, metadata: Any, sparse: Any,
    bad: Refusals) -> tuple[list[Any], list[int]]:
  """The buffers of each row, and its size; nothing is copied yet."""
  n = len(ids)
  data = memoryview(b'') if dense is None else dense.data
  starts = [0] * n if dense is None else dense.starts.tolist()
  widths = [0] * n if dense is None else dense.widths.tolist()
  rows: list[Any] = []
  sizes = []
  prefix = length_prefix
  for i in range(n):
    if i in bad:
      rows.append(())
      sizes.append(0)
      continue
    id_bytes = ids[i].encode()
    head = prefix(0x0a, len(id_bytes)) + id_bytes
    width = widths[i]
    if width:
      head += prefix(0x12, width)
    tail = b''
    if metadata is not None and metadata[i]:
      struct = metadata[i]
      tail = prefix(0x1a, len(struct)) + struct
    if sparse is not None and sparse[i]:
      message = sparse[i]
      tail += prefix(0x22, len(message)) + message
    size = len(head) + width + len(tail)
    head = prefix(0x0a, size) + head
    sizes.append(len(head) + width + len(tail))
    start = starts[i]
    rows.append((head, data[start:start + width], tail))
  return rows, sizes


def arrow_flaw(data: Any) -> Optional[str]:
  """What is wrong with an array or batch, if anything."""
  try:
    data.validate(full=True)
  except pa.ArrowInvalid as e:
    return str(e)
  return None


def _column(batch: pa.RecordBatch, name: Optional[str]) -> Any:
  if name in batch.schema.names:
    return batch.column(name)
  return pa.nulls(batch.num_rows)


def _both(
    name: str,
    field: Optional[str],
    one: list[bytes],
    other: list[bytes],
    bad: Refusals) -> list[bytes]:
  for i, (a, b) in enumerate(zip(one, other, strict=True)):
    if a and b:
      bad.setdefault(i, conflict(name, field))
  return [a or b for a, b in zip(one, other, strict=True)]


def _map_columns(column: Any, layout: Layout) -> dict[str, Any]:
  """The entries of a map column as a column per key."""
  rows = [dict(row or ()) for row in column.to_pylist()]
  names = dict.fromkeys(name for row in rows for name in row)
  kind = column.type.item_type
  return {
      name: pa.array([row.get(name) for row in rows], kind)
      for name in layout.merged_fields(list(names))
  }
