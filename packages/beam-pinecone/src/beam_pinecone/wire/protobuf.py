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
"""The few pieces of the protobuf wire format that the messages are made of."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import Any
from typing import Union

import numpy as np

__all__ = ['fields', 'length_prefix', 'uint32_varints', 'varint']

# Wire types.
VARINT = 0
FIXED64 = 1
LENGTH = 2
FIXED32 = 5

_ONE_BYTE = tuple(bytes((n,)) for n in range(128))


def varint(n: int) -> bytes:
  """A non-negative integer, seven bits a byte, least significant first."""
  if n < 128:
    return _ONE_BYTE[n]
  if n < 16384:
    return bytes((n & 127 | 128, n >> 7))
  out = bytearray()
  while n > 127:
    out.append(n & 127 | 128)
    n >>= 7
  out.append(n)
  return bytes(out)


@functools.lru_cache(maxsize=65536)
def length_prefix(tag: int, nbytes: int) -> bytes:
  """What stands before a length-delimited field of `nbytes` bytes.

  Cached: the rows of one index have few distinct sizes.
  """
  return _ONE_BYTE[tag] + varint(nbytes)


def uint32_varints(values: np.ndarray) -> tuple[bytes, np.ndarray]:
  """Packed varints of many 32 bit integers.

  Args:
    values: uint32, one dimension.

  Returns:
    The bytes back to back, and how many bytes each value took (int64).
  """
  n = values.shape[0]
  sizes = np.ones(n, np.int64)
  for bits in (7, 14, 21, 28):
    sizes += values >= np.uint32(1 << bits)
  width = int(sizes.max()) if n else 0
  out = np.empty((n, width), np.uint8)
  rest = values
  for i in range(width):
    out[:, i] = (rest & np.uint32(127)) | ((sizes > i + 1) << 7)
    rest = rest >> np.uint32(7)
  taken = np.arange(width) < sizes[:, None]
  return out[taken].tobytes(), sizes


def fields(data: Union[bytes, memoryview]) -> Iterator[tuple[int, int, Any]]:
  """The fields of a message in order: (number, wire type, value).

  Raises:
    ValueError: if the bytes are no complete message.
  """
  view = memoryview(data)
  at, end = 0, len(view)
  while at < end:
    tag, at = _read_varint(view, at)
    number, kind = tag >> 3, tag & 7
    if kind == VARINT:
      value, at = _read_varint(view, at)
      yield number, kind, value
    elif kind == LENGTH:
      size, at = _read_varint(view, at)
      if at + size > end:
        raise ValueError('truncated protobuf message')
      yield number, kind, view[at:at + size]
      at += size
    elif kind in (FIXED32, FIXED64):
      size = 4 if kind == FIXED32 else 8
      if at + size > end:
        raise ValueError('truncated protobuf message')
      code = '<f' if kind == FIXED32 else '<d'
      yield number, kind, struct.unpack(code, view[at:at + size])[0]
      at += size
    else:
      raise ValueError(f'protobuf wire type {kind} is not known')


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
  result = shift = 0
  while True:
    if at >= len(view) or shift > 63:
      raise ValueError('truncated protobuf message')
    byte = view[at]
    at += 1
    result |= (byte & 127) << shift
    if byte < 128:
      return result, at
    shift += 7
