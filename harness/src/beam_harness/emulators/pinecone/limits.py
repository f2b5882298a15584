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
"""What the service accepts: the checks, and its words of refusal.

Limits are those of the operation-limits page unless a comment says otherwise.
Where a message was seen in a public report it is the service's own; elsewhere
it is in its manner.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_harness.emulators.pinecone.errors import ServiceError
from beam_harness.emulators.pinecone.errors import invalid
from beam_harness.emulators.pinecone.errors import shown
from beam_harness.emulators.pinecone.requests import Metadata
from beam_harness.emulators.pinecone.requests import Sparse
from beam_harness.emulators.pinecone.requests import Vector
from beam_harness.emulators.pinecone.rules import DEFAULT_NAMESPACE
from beam_harness.emulators.pinecone.rules import Rules

__all__ = [
    'check_dense',
    'check_filter_given',
    'check_id',
    'check_ids',
    'check_limit',
    'check_metadata',
    'check_namespace',
    'check_request_size',
    'check_result_size',
    'check_sparse',
    'check_top_k',
    'check_vectors',
]

MAX_ID_CHARS = 512
MAX_NAMESPACE_CHARS = 512
MAX_DIMENSION = 20_000
#: A dense vector must have a value at least this far from zero.
MIN_DENSE_VALUE = 1e-8
MAX_SPARSE_VALUES = 2_048
MAX_SPARSE_INDEX = 2**32 - 1
MAX_PAGE = 100


def check_request_size(rules: Rules, operation: str, nbytes: int) -> None:
  """Refuses a body that is too large for its operation."""
  limit = (
      rules.max_upsert_bytes
      if operation == 'upsert' else rules.max_request_bytes)
  if nbytes > limit:
    raise _too_large(rules, nbytes, limit)


def check_result_size(rules: Rules, nbytes: int) -> None:
  """Refuses to answer with more than the service sends."""
  if nbytes > rules.max_result_bytes:
    raise _too_large(rules, nbytes, rules.max_result_bytes)


def _too_large(rules: Rules, nbytes: int, limit: int) -> ServiceError:
  message = (
      f'Error, message length too large: found {nbytes} bytes, the limit is: '
      f'{limit} bytes')
  if rules.too_large == '413':
    return ServiceError(8, message, http=413)
  return ServiceError(11 if rules.too_large == 'out_of_range' else 3, message)


def check_namespace(name: str, *, old_api: bool = False) -> str:
  """The namespace a request means, '' for the default one.

  Args:
    name: as sent.
    old_api: whether the request names an API version before 2025-04.
  """
  if name == DEFAULT_NAMESPACE:
    if old_api:
      raise invalid(
          "Use of namespace='__default__' is not allowed in API versions prior "
          'to 2025-04')
    return ''
  if len(name) > MAX_NAMESPACE_CHARS:
    raise invalid(
        f'Namespace must be at most {MAX_NAMESPACE_CHARS} characters, but got '
        f'{len(name)}')
  if not name.isascii() or '\0' in name:
    raise invalid(f"Namespace must be ASCII, but got '{name}'")
  return name


def check_id(record_id: str) -> None:
  """Refuses an id the service does not store."""
  if not record_id:
    raise invalid('Vector ID must not be empty')
  if not record_id.isascii() or '\0' in record_id:
    raise invalid(f"Vector ID must be ASCII, but got '{record_id}'")
  if len(record_id) > MAX_ID_CHARS:
    raise invalid(
        f'Vector ID must be at most {MAX_ID_CHARS} characters, but got '
        f'{len(record_id)}')


def check_ids(ids: Sequence[str], limit: int) -> None:
  """Refuses a list of ids that is empty, too long or holds a bad one."""
  if not ids:
    raise invalid('At least one ID must be given')
  if len(ids) > limit:
    raise invalid(f'Number of IDs must be at most {limit}, but got {len(ids)}')
  for record_id in ids:
    check_id(record_id)


def check_dense(
    values: np.ndarray, dimension: int | None, record_id: str | None) -> None:
  """Refuses a dense part that does not fit the index.

  Args:
    values: float32; empty where none was sent.
    dimension: of the index; None for a sparse index.
    record_id: of the record; None for a query, which may be all zeros.
  """
  if dimension is None:
    if len(values):
      raise invalid('Index configuration does not support dense values')
    return
  if len(values) != dimension:
    raise invalid(
        f'Vector dimension {len(values)} does not match the dimension of the '
        f'index {dimension}')
  if not np.isfinite(values).all():
    raise invalid(_not_finite(record_id))
  if record_id is not None and not (np.abs(values) >= MIN_DENSE_VALUE).any():
    raise invalid(_only_zeros(record_id))


def check_vectors(
    rules: Rules,
    vectors: Sequence[Vector],
    dimension: int | None,
    takes_sparse: bool) -> np.ndarray | None:
  """Checks the vectors of an upsert; one bad one refuses the request.

  Nulls in the metadata are dropped in place where the rules say so.

  Returns:
    The dense parts as one float32 array (n, dimension); None for a sparse
    index.
  """
  if not vectors:
    raise invalid('At least one vector must be given')
  if len(vectors) > rules.max_upsert_vectors:
    raise invalid(
        f'Number of vectors must be at most {rules.max_upsert_vectors}, but '
        f'got {len(vectors)}')
  seen = set()
  for vector in vectors:
    check_id(vector.id)
    if vector.id in seen and rules.duplicate_ids == 'refuse':
      raise invalid(f"Vector ID '{vector.id}' appears more than once")
    seen.add(vector.id)
    if len(vector.values) != (dimension or 0):
      check_dense(vector.values, dimension, vector.id)
    if dimension is None and vector.sparse is None:
      raise invalid(
          f"Sparse vector must contain at least one value. Vector ID "
          f"'{vector.id}' contains none")
    check_sparse(vector.sparse, takes_sparse)
    if vector.metadata is not None:
      # Empty metadata is stored, and comes back, as none.
      vector.metadata = check_metadata(rules, vector.metadata) or None
  if dimension is None:
    return None
  dense = np.concatenate([v.values for v in vectors]).reshape(-1, dimension)
  finite = np.isfinite(dense).all(axis=1)
  if not finite.all():
    raise invalid(_not_finite(vectors[int(finite.argmin())].id))
  used = (np.abs(dense) >= MIN_DENSE_VALUE).any(axis=1)
  if not used.all():
    raise invalid(_only_zeros(vectors[int(used.argmin())].id))
  return dense


def _not_finite(record_id: str | None) -> str:
  whose = 'The query' if record_id is None else f"Vector ID '{record_id}'"
  return f'Dense vectors must contain finite values. {whose} contains others'


def _only_zeros(record_id: str) -> str:
  return (
      'Dense vectors must contain at least one non-zero value. Vector ID '
      f"'{record_id}' contains only zeros")


def check_sparse(sparse: Sparse | None, takes_sparse: bool) -> None:
  """Refuses a sparse part the index or the service does not take."""
  if sparse is None:
    return
  if not takes_sparse:
    raise invalid('Index configuration does not support sparse values')
  count = len(sparse.indices)
  if count != len(sparse.values):
    raise invalid(
        'Sparse vector must have as many indices as values, but got '
        f'{count} and {len(sparse.values)}')
  if not count:
    raise invalid('Sparse vector must contain at least one value')
  if count > MAX_SPARSE_VALUES:
    raise invalid(
        f'Sparse vector must have at most {MAX_SPARSE_VALUES} values, but got '
        f'{count}')
  if not np.isfinite(sparse.values).all():
    raise invalid('Sparse vector must contain finite values')
  if len(np.unique(sparse.indices)) != count:
    raise invalid('Sparse vector must not contain duplicate indices')


def check_metadata(rules: Rules, metadata: Metadata) -> Metadata:
  """The metadata as it is stored: numbers as doubles.

  Raises:
    ServiceError: a value is of no legal type, or all are too large together.
  """
  stored: Metadata = {}
  for key, value in metadata.items():
    if key.startswith('$'):
      raise invalid(f"Metadata key must not start with '$', but got '{key}'")
    if value is None and rules.null_metadata == 'strip':
      continue
    if isinstance(value, (bool, str)):
      stored[key] = value
    elif isinstance(value, (int, float)):
      try:
        number = float(value)
      except OverflowError:
        number = math.inf
      if not math.isfinite(number):
        raise _illegal_metadata(key, value)
      stored[key] = number
    elif isinstance(value, list) and all(type(x) is str for x in value):
      stored[key] = value
    else:
      raise _illegal_metadata(key, value)
  size = metadata_bytes(stored)
  if size > rules.max_metadata_bytes:
    raise invalid(
        f'metadata size is {size} bytes, which exceeds the limit of '
        f'{rules.max_metadata_bytes} bytes per vector')
  return stored


def metadata_bytes(metadata: Metadata | None) -> int:
  """Size of metadata as the service counts it: compact JSON in UTF-8."""
  if not metadata:
    return 0
  return len(
      json.dumps(metadata, ensure_ascii=False,
                 separators=(',', ':')).encode('utf-8', 'surrogatepass'))


def _illegal_metadata(key: str, value: Any) -> ServiceError:
  return invalid(
      'Metadata value must be a string, number, boolean or list of strings, '
      f"got '{shown(_as_doubles(value))}' for field '{key}'")


def _as_doubles(value: Any) -> Any:
  if isinstance(value, list):
    return [_as_doubles(item) for item in value]
  if isinstance(value, int) and not isinstance(value, bool):
    return float(value) if abs(value) < 2**1000 else math.inf
  return value


def check_top_k(rules: Rules, top_k: int) -> None:
  if not 1 <= top_k <= rules.max_top_k:
    raise invalid(
        f'top_k must be between 1 and {rules.max_top_k}, but got {top_k}')


def check_limit(limit: int | None, largest: int = MAX_PAGE) -> int:
  """The page size: 100 unless a legal one is asked for."""
  if limit is None:
    return MAX_PAGE
  if not 1 <= limit <= largest:
    raise invalid(f'limit must be between 1 and {largest}, but got {limit}')
  return limit


def check_filter_given(expression: Mapping[str, Any] | None) -> None:
  """Refuses `{}` where it would mean everything."""
  if expression is not None and not expression:
    raise invalid('filter must not be empty')
