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
"""What an index takes: parts of a vector, dimension, ids and namespaces.

Every check stands for something the service rejects (one bad vector then costs
the whole request) or silently changes.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any
from typing import Optional

from beam_pinecone.errors import Refused
from beam_pinecone.wire.responses import IndexStats

__all__ = [
    'IndexSchema',
    'check_id',
    'check_index_name',
    'check_namespace',
]

MAX_ID_LENGTH = 512  # ASCII characters; the service's operation limits
MAX_NAMESPACE_LENGTH = 512  # ASCII characters
# The control plane's rule for names of indexes.
_INDEX_NAME = re.compile('[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?')


@dataclasses.dataclass(frozen=True)
class IndexSchema:
  """What one index takes.

  Args:
    index: its name or host, for messages.
    dimension: of dense vectors; None if unknown or if it takes none.
    metric: 'cosine', 'dotproduct', 'euclidean', or None if unknown.
    vector_type: 'dense' or 'sparse', or None if unknown.
  """
  index: str
  dimension: Optional[int] = None
  metric: Optional[str] = None
  vector_type: Optional[str] = None

  @classmethod
  def from_stats(cls, index: str, stats: IndexStats) -> IndexSchema:
    """The schema as DescribeIndexStats tells it."""
    return cls(index, stats.dimension, stats.metric, stats.vector_type)

  @property
  def takes_dense(self) -> bool:
    """Whether vectors may have dense values."""
    return self.vector_type != 'sparse'

  @property
  def takes_sparse(self) -> bool:
    """Whether sparse values can be written and searched."""
    return self.vector_type == 'sparse' or self.metric in (None, 'dotproduct')

  def check_parts(
      self,
      dense: bool,
      sparse: bool,
      values: Optional[str],
      sparse_values: Optional[str]) -> None:
    """Checks that a vector has what the index needs and nothing else.

    Args:
      dense: whether it has dense values.
      sparse: whether it has sparse values.
      values: the record's field of dense values, for messages.
      sparse_values: the record's field of sparse values, for messages.

    Raises:
      Refused: if it has not.
    """
    if not dense and not sparse:
      fields = ' and '.join(repr(f) for f in (values, sparse_values) if f)
      raise Refused(
          'MissingVector',
          f'no vector: {fields} are missing or empty; set values_field= or '
          'sparse_field= to the fields that hold it')
    if dense and not self.takes_dense:
      raise Refused(
          'DenseOnSparseIndex',
          f'{values!r} holds dense values but index {self.index!r} is sparse: '
          f'write {sparse_values!r} only (values_field=None), or use a dense '
          'index')
    if sparse and not self.takes_sparse:
      raise Refused(
          'SparseNotSupported',
          f'{sparse_values!r} holds sparse values but index {self.index!r} has '
          f'metric {self.metric!r}, which cannot search them: use an index '
          'with metric dotproduct, or set sparse_field=None')
    if not dense and self.vector_type == 'dense':
      raise Refused(
          'MissingValues',
          f'{values!r} is missing: index {self.index!r} is dense, every vector '
          'needs dense values; use a sparse index for sparse values alone')

  def check_dimension(self, found: int, field: Optional[str]) -> None:
    """Raises Refused if a dense vector has another length than the index."""
    if self.dimension is not None and found != self.dimension:
      raise Refused(
          'WrongDimension',
          f'{field!r} has {found} values, index {self.index!r} has dimension '
          f'{self.dimension}: use the embedding model the index was made for, '
          'or another index')


# --------------------------------------------------------------- ids, names


def check_index_name(index: Any) -> str:
  """The argument of a transform, checked.

  Raises:
    TypeError, ValueError: no index can have this name.
  """
  if not isinstance(index, str):
    raise TypeError(
        f'index is a {type(index).__name__}: it is the name of an index')
  if not _INDEX_NAME.fullmatch(index):
    raise ValueError(
        f'index is {index!r}: names of indexes have 1 to 45 lower-case '
        'letters, digits and hyphens')
  return index


def check_id(value: Any, field: str) -> bytes:
  """The id as bytes.

  Raises:
    Refused: if the service would not take it.
  """
  if not isinstance(value, str):
    if value is None:
      raise Refused(
          'MissingId',
          f'{field!r} is missing: every vector needs an id; set id_field= to '
          'the field that holds it')
    raise Refused(
        'IdType',
        f'{field!r} is a {type(value).__name__}: ids are strings, convert it '
        'with str()')
  return _ascii(value, repr(field), 'Id', MAX_ID_LENGTH, 'a hash of it')


def check_namespace(value: Any) -> str:
  """The namespace as the request names it; '' is the default one.

  Raises:
    Refused: if the service would not take it.
  """
  if not isinstance(value, str):
    raise Refused(
        'NamespaceType',
        f'the namespace is {value!r}: a namespace is a string, "" for the '
        'default one')
  if value == '__default__':
    # Another spelling of the default namespace; two spellings of one place
    # would escape the rule of one write per id at a time.
    return ''
  if value:
    _ascii(
        value,
        'the namespace',
        'Namespace',
        MAX_NAMESPACE_LENGTH,
        'another namespace=')
  return value


def _ascii(text: str, what: str, kind: str, limit: int, instead: str) -> bytes:
  if not text:
    raise Refused(
        f'{kind}Empty', f'{what} is empty: give it at least one character')
  if not text.isascii():
    raise Refused(
        f'{kind}NotAscii',
        f'{what} has characters outside ASCII: encode them (percent-encoding, '
        f'base64) or use {instead}')
  if '\0' in text:
    raise Refused(
        f'{kind}HasNul', f'{what} holds a NUL character: use {instead}')
  if len(text) > limit:
    raise Refused(
        f'{kind}TooLong',
        f'{what} has {len(text)} characters, the limit is {limit}: use '
        f'{instead}')
  return text.encode('ascii')
