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
"""From an element, or a block of rows, to the bytes of queries.

A query is a whole request: the service takes one at a time. What many have in
common stands before the vector and is made once per namespace and filter.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

import numpy as np
import pyarrow as pa

from beam_connector_base.operation import Block
from beam_connector_base.operation import Invalid
from beam_connector_base.values import Chosen
from beam_pinecone.encode import columns
from beam_pinecone.encode.columns import Refusals
from beam_pinecone.encode.elements import NamespaceReader
from beam_pinecone.encode.elements import block_refusal
from beam_pinecone.encode.elements import fields_of
from beam_pinecone.encode.elements import output_taken
from beam_pinecone.encode.filters import Filter
from beam_pinecone.encode.filters import FilterReader
from beam_pinecone.encode.records import is_embeddable
from beam_pinecone.encode.records import key_text
from beam_pinecone.encode.vectors import dense_values
from beam_pinecone.encode.vectors import sparse_values
from beam_pinecone.errors import Refused
from beam_pinecone.schema import IndexSchema
from beam_pinecone.schema import check_id
from beam_pinecone.wire.query import query_head
from beam_pinecone.wire.query import query_request
from beam_pinecone.wire.vectors import sparse_message

__all__ = ['Question', 'QuestionEncoder', 'row_key']

# Heads to remember; each is one namespace and filter.
_MAX_HEADS = 4_096
# Rows of a block to look at together.
_ROWS_AT_ONCE = 1_024


@dataclasses.dataclass(frozen=True)
class Question:
  """What a search asks for each element.

  Attributes:
    namespace: how the namespace is chosen.
    vector: field of the dense vector, or None.
    id: field of the id of a stored vector to search by, or None.
    sparse: field of the sparse vector, or None.
    filter: how the filter is chosen.
    top_k: how many matches.
    include_values: whether matches carry their vectors.
    include_metadata: whether they carry their metadata.
    output: field of the matches.
  """
  namespace: Chosen
  vector: Optional[str] = 'vector'
  id: Optional[str] = None
  sparse: Optional[str] = None
  filter: Filter = Filter()
  top_k: int = 10
  include_values: bool = False
  include_metadata: bool = True
  output: str = 'matches'


class QueryKey(bytes):
  """The digest of a request, by which equal queries are known.

  Its text is the key of the record that asks, for messages.
  """
  label: str

  def __str__(self) -> str:
    return self.label


def _key(request: bytes, label: str) -> QueryKey:
  key = QueryKey(hashlib.sha256(request).digest())
  key.label = label
  return key


class QuestionEncoder:
  """Encodes elements as queries of one index.

  Args:
    question: what is asked.
    schema: of the index.
  """
  def __init__(self, question: Question, schema: IndexSchema):
    self._question = question
    self._schema = schema
    self._filters = FilterReader(question.filter)
    self._namespace = NamespaceReader(question.namespace)
    self._heads: dict[tuple[str, Optional[bytes]], bytes] = {}

  def encode(self, element: Any) -> Union[Block, Invalid]:
    """The query of one record, or why there is none."""
    question = self._question
    label = ''
    namespace = self._namespace.constant
    try:
      fields = fields_of(element)
      row = self._row(element) if is_embeddable(element) else fields
      label = row_key(question, row)
      if question.output in fields:
        raise output_taken(question.output)
      if namespace is None:
        namespace = self._namespace.of(fields)
      head = self._head(namespace, self._filters.of(fields))
      request = self._request(head, row)
    except Refused as refused:
      return Invalid(
          0, refused.reason, label, refused.error_type, namespace or '')
    return Block(namespace, request, None, (_key(request, label),))

  # ------------------------------------------------------------------- parts

  def _row(self, item: Any) -> Mapping[str, Any]:
    """The vectors of a chunk, under the names of their fields."""
    question = self._question
    row = {'id': item.id}
    if question.id is not None:
      row[question.id] = item.id
    embedding = item.embedding
    if embedding is not None:
      if question.vector is not None:
        row[question.vector] = embedding.dense_embedding
      if question.sparse is not None:
        row[question.sparse] = embedding.sparse_embedding
    return row

  def _head(self, namespace: str, filter: Optional[bytes]) -> bytes:
    head = self._heads.get((namespace, filter))
    if head is None:
      question = self._question
      head = query_head(
          namespace,
          question.top_k,
          filter,
          question.include_values,
          question.include_metadata)
      if len(self._heads) >= _MAX_HEADS:
        self._heads.clear()
      self._heads[namespace, filter] = head
    return head

  def _request(self, head: bytes, row: Mapping[str, Any]) -> bytes:
    question, schema = self._question, self._schema
    if question.id is not None:
      value = row.get(question.id)
      if value is not None:
        return query_request(head, id=check_id(value, question.id))
    values: Any = b''
    n = 0
    sparse = b''
    if question.vector is not None:
      value = row.get(question.vector)
      if value is not None:
        values, n = dense_values(value, question.vector, schema, zero=True)
    if question.sparse is not None:
      value = row.get(question.sparse)
      if value is not None:
        sparse = sparse_message(*sparse_values(value, question.sparse))
    check_parts(question, schema, n > 0, bool(sparse))
    return query_request(head, values, 4 * n, b'', sparse)

  # ------------------------------------------------------------------ blocks

  def encode_batch(self,
                   batch: pa.RecordBatch) -> Iterator[Union[Block, Invalid]]:
    """The queries of a RecordBatch, and one Invalid per row that is none."""
    refused = block_refusal(batch.schema.names, self._question.output)
    if refused is not None:
      for i in range(batch.num_rows):
        yield Invalid(i, refused.reason, '', refused.error_type)
      return
    for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
      yield from self._encode_rows(batch.slice(start, _ROWS_AT_ONCE), start)

  def _encode_rows(self, batch: pa.RecordBatch,
                   first: int) -> Iterator[Union[Block, Invalid]]:
    question = self._question
    n = batch.num_rows
    bad: Refusals = {}
    names = set(batch.schema.names)
    namespaces = self._namespace.column(batch, bad)
    filters = self._filter_column(batch, bad)
    ids: list[Any] = [None] * n
    if question.id is not None and question.id in names:
      ids = _ids(batch.column(question.id), question.id, bad)
    # What is wrong with a vector counts where it is searched by.
    bad_vectors: Refusals = {}
    dense = None
    if question.vector is not None and question.vector in names:
      dense = _dense(
          batch.column(question.vector),
          self._schema,
          question.vector,
          bad_vectors)
    sparse = None
    if question.sparse is not None and question.sparse in names:
      sparse = columns.sparse_column(
          batch.column(question.sparse), question.sparse, bad_vectors)
    labels = _labels(question, batch)
    groups: dict[str, list[int]] = {}
    requests: list[bytes] = []
    keys: list[Any] = []
    for i in range(n):
      request = b''
      if i not in bad:
        try:
          head = self._head(namespaces[i], filters[i])
          if ids[i] is not None:
            request = query_request(head, id=ids[i])
          else:
            if i in bad_vectors:
              raise bad_vectors[i]
            request = self._of_columns(head, dense, sparse, i)
          groups.setdefault(namespaces[i], []).append(i)
        except Refused as refused:
          bad[i] = refused
      requests.append(request)
      keys.append(_key(request, labels[i]) if request else None)
    for i in sorted(bad):
      yield Invalid(
          first + i,
          bad[i].reason,
          labels[i],
          bad[i].error_type,
          namespaces[i] or '')
    for namespace, chosen in groups.items():
      yield _block(namespace, chosen, requests, keys, first)

  def _of_columns(self, head: bytes, dense: Any, sparse: Any, i: int) -> bytes:
    width = 0 if dense is None else int(dense.widths[i])
    weights = b'' if sparse is None else sparse[i]
    check_parts(self._question, self._schema, width > 0, bool(weights))
    values: Any = b''
    if width:
      start = int(dense.starts[i])
      values = dense.data[start:start + width]
    return query_request(head, values, width, b'', weights)

  def _filter_column(self, batch: pa.RecordBatch,
                     bad: Refusals) -> list[Optional[bytes]]:
    """One filter per row; None for none, or where it is refused."""
    reader = self._filters
    n = batch.num_rows
    if reader.is_constant:
      return [reader.constant] * n
    if reader.called is not None:
      rows = reader.called.column(batch, n)
      make: Callable[[Any], Optional[bytes]] = reader.encode
    else:
      held = [
          batch.column(field).to_pylist()
          if field in batch.schema.names else [None] * n
          for field in reader.fields
      ]
      rows = [
          dict(zip(reader.fields, row, strict=True))
          for row in zip(*held, strict=True)
      ]
      make = reader.of
    out: list[Optional[bytes]] = []
    for i, row in enumerate(rows):
      try:
        out.append(make(row))
      except Refused as refused:
        bad.setdefault(i, refused)
        out.append(None)
    return out


def row_key(question: Question, row: Mapping[str, Any]) -> str:
  """The key of a record, for messages: the id searched by, or its own."""
  if question.id is not None:
    value = row.get(question.id)
    if value is not None:
      return key_text(value)
  return key_text(row.get('id'))


def check_parts(
    question: Question, schema: IndexSchema, dense: bool, sparse: bool) -> None:
  """Checks that a query has what the index can search with.

  Args:
    question: whose fields are named in messages.
    schema: of the index.
    dense: whether it has a dense vector.
    sparse: whether it has a sparse one.

  Raises:
    Refused: the service would refuse it.
  """
  if not dense and not sparse:
    fields = [
        repr(f) for f in (question.vector, question.id, question.sparse) if f
    ]
    raise Refused(
        'MissingVector',
        f'nothing to search by: {" and ".join(fields)} are missing or empty; '
        'set vector_field=, sparse_field= or id_field= to the fields that hold '
        'it')
  if dense and not schema.takes_dense:
    raise Refused(
        'DenseOnSparseIndex',
        f'{question.vector!r} holds a dense vector but index '
        f'{schema.index!r} is sparse: search it with sparse_field= only '
        '(vector_field=None)')
  if sparse and not schema.takes_sparse:
    raise Refused(
        'SparseNotSupported',
        f'a sparse vector was given but index {schema.index!r} has metric '
        f'{schema.metric!r}, which cannot search with it: use an index with '
        'metric dotproduct, or set sparse_field=None')
  if sparse and not dense and schema.vector_type != 'sparse':
    raise Refused(
        'MissingVector',
        f'{question.vector!r} is missing: index {schema.index!r} is dense, it '
        'can not be searched by a sparse vector alone')


def _ids(column: Any, field: str, bad: Refusals) -> list[Optional[bytes]]:
  """The ids to search by; None where there is none."""
  out: list[Optional[bytes]] = []
  for i, value in enumerate(column.to_pylist()):
    try:
      out.append(None if value is None else check_id(value, field))
    except Refused as refused:
      bad.setdefault(i, refused)
      out.append(None)
  return out


def _dense(column: Any, schema: IndexSchema, field: str, bad: Refusals) -> Any:
  """The dense vectors of a column, which may be all zero in a query."""
  refused: Refusals = {}
  dense = columns.dense_column(column, schema, field, refused)
  for i, reason in refused.items():
    if reason.error_type != 'ZeroVector':
      bad.setdefault(i, reason)
  return dense


def _labels(question: Question, batch: pa.RecordBatch) -> list[str]:
  names = batch.schema.names
  out = [''] * batch.num_rows
  for field in ('id', question.id):
    if field in names:
      for i, value in enumerate(batch.column(field).to_pylist()):
        if value is not None:
          out[i] = key_text(value)
  return out


def _block(
    namespace: str,
    chosen: list[int],
    requests: list[bytes],
    keys: list[Any],
    first: int) -> Block:
  rows = [requests[i] for i in chosen]
  offsets: Any = np.zeros(len(rows) + 1, np.int64)
  np.cumsum([len(row) for row in rows], out=offsets[1:])
  return Block(
      namespace,
      rows,
      offsets, [keys[i] for i in chosen],
      None, [first + i for i in chosen])
