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
"""Dense and sparse vectors as the numbers that go over the wire, checked.

A dense vector is looked at once, by a sum of squares that proves most of them
right; only what it does not prove is looked at number by number.
"""

from __future__ import annotations

import array
import functools
import math
import struct
from collections.abc import Mapping
from typing import Any
from typing import Optional

import numpy as np

from beam_connector_base.rows import nested
from beam_pinecone.errors import Refused
from beam_pinecone.schema import IndexSchema

__all__ = [
    'check_sparse',
    'check_vector',
    'dense_values',
    'sparse_values',
]

MAX_SPARSE_VALUES = 2_048  # per vector; the service's operation limits
MAX_DIMENSION = 20_000  # of dense vectors

FLOAT32 = np.dtype('<f4')
FLOAT32_MAX = float(np.finfo(np.float32).max)
# Unlike the other ways to a sum of squares this one never warns (numpy 2.4).
_squares = np.vdot
# A dense vector needs one value at least this far from zero.
SMALLEST_VALUE = 1e-8

# Sums of squares between these prove that a vector is finite and not zero:
# MAX_DIMENSION values below SMALLEST_VALUE add up to 2e-12, and a NaN or an
# infinity makes the sum one. What lies outside is looked at closely.
NONZERO_SQUARES = 1e-11
SAFE_SQUARES = FLOAT32_MAX**2 * 0.99

# ------------------------------------------------------------ dense vectors


def dense_values(
    value: Any,
    field: Optional[str],
    index: Optional[IndexSchema] = None,
    zero: bool = False) -> tuple[Any, int]:
  """A dense vector as little-endian float32.

  Args:
    value: list, tuple, `array.array`, numpy array or Arrow list of numbers.
    field: the record's field, for messages.
    index: whose dimension it has to have; None for any.
    zero: whether it may be all zero, as the vector of a query may.

  Returns:
    A contiguous buffer and the number of values in it.

  Raises:
    Refused: if it is no vector, or one the service would reject or change.
  """
  kind = type(value)
  if kind is list or kind is tuple:
    n = len(value)
    if not n:
      return b'', 0
    try:
      data = _packer(n)(*value)
    except (struct.error, OverflowError, TypeError, ValueError) as e:
      raise _explain_list(value, field) from e
    if index is not None and n != index.dimension:
      index.check_dimension(n, field)
    vector = np.frombuffer(data, FLOAT32)
    if not NONZERO_SQUARES < _squares(vector, vector) < math.inf:
      check_vector(vector, field, zero)
    return data, n
  if kind is not np.ndarray:
    value = _as_array(value, field)
  if value.dtype != FLOAT32 or not value.flags.c_contiguous:
    value = to_float32(value, field)
  if value.ndim != 1:
    raise Refused(
        'VectorType',
        f'{field!r} is an array of {value.ndim} dimensions: a vector has one')
  n = value.shape[0]
  if not n:
    return b'', 0
  if index is not None and n != index.dimension:
    index.check_dimension(n, field)
  if not NONZERO_SQUARES < _squares(value, value) < math.inf:
    check_vector(value, field, zero)
  return value.data, n


@functools.lru_cache(maxsize=256)
def _packer(n: int) -> Any:
  # Twice as fast as numpy or array on a list of Python floats, and unlike them
  # it raises where a number does not fit.
  return struct.Struct(f'<{n}f').pack


def to_float32(vector: np.ndarray, field: Optional[str]) -> np.ndarray:
  """Numbers of another width as float32; raises Refused on overflow."""
  if vector.dtype.kind not in 'fiu':
    raise Refused(
        'VectorType',
        f'{field!r} is an array of {vector.dtype}: a vector holds numbers')
  with np.errstate(over='ignore'):
    out = vector.astype(FLOAT32, order='C')
  if vector.dtype.itemsize > 4 and not np.isfinite(out).all():
    too_large = np.isfinite(vector) & ~np.isfinite(out)
    if too_large.any():
      raise overflow(int(too_large.argmax()), field)
  return out


def overflow(position: int, field: Optional[str]) -> Refused:
  """The refusal of a number that float32 does not hold."""
  return Refused(
      'VectorOverflow',
      f'{field!r}[{position}] is beyond the range of float32, which is what '
      'Pinecone keeps: scale the vector')


def null_value(field: Optional[str]) -> Refused:
  """The refusal of a vector that lacks a number."""
  return Refused(
      'VectorType', f'{field!r} holds a null: a vector holds numbers')


def check_vector(
    vector: np.ndarray, field: Optional[str], zero: bool = False) -> None:
  """Raises Refused if a vector is not finite or, unless `zero`, all zero."""
  finite = np.isfinite(vector)
  if not finite.all():
    at = int(finite.argmin())
    raise Refused(
        'VectorNotFinite',
        f'{field!r}[{at}] is {vector[at]}: Pinecone takes finite numbers only; '
        'mend the embedding or drop the record')
  if not zero and (np.abs(vector) < SMALLEST_VALUE).all():
    raise Refused(
        'ZeroVector',
        f'{field!r} is all zero: Pinecone needs one value of at least '
        f'{SMALLEST_VALUE}; drop the record or embed it again')


def _explain_list(value: Any, field: Optional[str]) -> Refused:
  for i, number in enumerate(value):
    try:
      struct.pack('<f', number)
    except (OverflowError, ValueError):
      return overflow(i, field)
    except (struct.error, TypeError):
      if number is None:
        return null_value(field)
      if isinstance(number, int):  # too large for any float
        return overflow(i, field)
      return Refused(
          'VectorType',
          f'{field!r}[{i}] is {_named(number)}: a vector holds numbers')
  return Refused('VectorType', f'{field!r} is not a list of numbers')


def _as_array(value: Any, field: Optional[str]) -> np.ndarray:
  if isinstance(value, np.ma.MaskedArray):
    if np.ma.is_masked(value):
      raise Refused(
          'VectorType',
          f'{field!r} has masked values: fill them, or drop the record')
    return value.data
  if isinstance(value, np.ndarray):
    return np.asarray(value)
  if isinstance(value, (array.array, memoryview)):
    try:
      return np.asarray(value)
    except (TypeError, ValueError, BufferError):
      pass
  elif isinstance(value, (list, tuple)):
    return np.frombuffer(dense_values(list(value), field)[0], FLOAT32)
  else:
    numbers = _arrow_numbers(value, field)
    if numbers is not None:
      return numbers
  raise Refused(
      'VectorType',
      f'{field!r} is {_named(value)}: a vector is a list, tuple, array, numpy '
      'array or Arrow list of numbers')


def _arrow_numbers(value: Any, field: Optional[str]) -> Optional[np.ndarray]:
  # Arrow scalars and arrays, recognised without importing Arrow here: an
  # element can only hold one where it has been imported.
  if not type(value).__module__.startswith('pyarrow'):
    return None
  numbers = getattr(value, 'values', value)
  if numbers is None or not hasattr(numbers, 'null_count'):
    return None
  if numbers.null_count:
    raise null_value(field)
  return numbers.to_numpy(zero_copy_only=False)


# ----------------------------------------------------------- sparse vectors


def sparse_values(value: Any,
                  field: Optional[str]) -> tuple[np.ndarray, np.ndarray]:
  """A sparse vector as its indices (uint32) and values (float32).

  Args:
    value: a mapping with `indices` and `values`, or a pair of them.
    field: the record's field, for messages.

  Raises:
    Refused: if it is no sparse vector, or one the service would reject.
  """
  value = nested(value)
  if isinstance(value, Mapping):
    if 'indices' not in value or 'values' not in value:
      raise _no_sparse(value, field)
    indices, values = value['indices'], value['values']
  elif isinstance(value, (tuple, list)) and len(value) == 2:
    indices, values = value
  else:
    raise _no_sparse(value, field)
  indices = _numbers(indices, f'{field}.indices')
  values = _numbers(values, f'{field}.values')
  check_sparse(indices, values, field)
  if values.dtype != FLOAT32:
    values = to_float32(values, f'{field}.values')
  return indices.astype(np.uint32, copy=False), values


def check_sparse(
    indices: np.ndarray, values: np.ndarray, field: Optional[str]) -> None:
  """Raises Refused unless the service takes this sparse vector.

  Args:
    indices: of any integer type.
    values: of any number type.
    field: the record's field, for messages.
  """
  n = indices.shape[0]
  if n != values.shape[0]:
    raise Refused(
        'SparseLengthMismatch',
        f'{field!r} has {n} indices and {values.shape[0]} values: one value '
        'belongs to each index')
  if not n:
    raise Refused(
        'SparseEmpty',
        f'{field!r} has no indices: set it to None where a record has no '
        'sparse values')
  if n > MAX_SPARSE_VALUES:
    raise Refused(
        'SparseTooMany',
        f'{field!r} has {n} values, the limit is {MAX_SPARSE_VALUES}: keep '
        'those that weigh most')
  if indices.dtype.kind not in 'iu':
    raise Refused(
        'SparseIndex', f'{field!r}.indices are not integers of 32 bits')
  ordered = np.sort(indices)
  if ordered[0] < 0 or ordered[-1] > 0xffffffff:
    raise Refused(
        'SparseIndex',
        f'{field!r}.indices holds '
        f'{ordered[0] if ordered[0] < 0 else ordered[-1]}: indices are between '
        '0 and 2**32 - 1')
  repeated = ordered[1:] == ordered[:-1]
  if repeated.any():
    raise Refused(
        'SparseDuplicate',
        f'{field!r}.indices holds {ordered[1:][repeated][0]} twice: add up '
        'the values of equal indices')
  finite = np.isfinite(values)
  if not finite.all():
    at = int(finite.argmin())
    raise Refused(
        'VectorNotFinite',
        f'{field!r}.values[{at}] is {values[at]}: Pinecone takes finite '
        'numbers only')


def _numbers(value: Any, field: str) -> np.ndarray:
  if not isinstance(value, np.ndarray):
    numbers = _arrow_numbers(value, field)
    if numbers is None:
      if not isinstance(value, (list, tuple, array.array)):
        raise Refused(
            'SparseType',
            f'{field} is {_named(value)}: it is a list, tuple, array or numpy '
            'array of numbers')
      try:
        numbers = np.asarray(value)
      except ValueError as e:
        raise Refused('SparseType', f'{field} is not a list of numbers') from e
    value = numbers
  if value.ndim != 1 or (value.size and value.dtype.kind not in 'fiu'):
    raise Refused(
        'SparseType', f'{field} is not a list of numbers ({value.dtype})')
  return value


def _no_sparse(value: Any, field: Optional[str]) -> Refused:
  return Refused(
      'SparseType',
      f'{field!r} is {_named(value)}: sparse values are a mapping with '
      "'indices' and 'values', or a pair (indices, values)")


def _named(value: Any) -> str:
  return 'None' if value is None else f'a {type(value).__name__}'
