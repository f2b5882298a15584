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
"""Metadata as the wire bytes of a google.protobuf.Struct.

A Struct is a map of `Value`s; each map entry starts with bytes that depend on
the key only. `MetadataKey` keeps those, so that an entry costs one lookup and
one concatenation. Keys go out in the order of their UTF-8 bytes, as the
service's own clients do it: equal records are equal bytes.

Pinecone keeps strings, booleans, numbers (as 64 bit floats) and lists of
strings. Everything else is refused here, with its reason; None means that the
record does not have the key.
"""

from __future__ import annotations

import datetime
import json
import math
import struct
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Optional

import numpy as np

from beam_pinecone.errors import Refused
from beam_pinecone.wire.protobuf import varint

__all__ = [
    'MAX_METADATA_BYTES',
    'MetadataKey',
    'check_metadata_bytes',
    'encode_metadata',
    'plain_value',
]

# The service's own error text names this limit. What exactly it counts is not
# documented; we count the metadata as compact JSON in UTF-8.
MAX_METADATA_BYTES = 40_960
# A JSON text is at most six times as long as the bytes of its Struct (a control
# character becomes \u0000), so that what is below this needs no counting.
_SURELY_SMALL_BYTES = MAX_METADATA_BYTES // 6

# Beyond this a 64 bit float does not hold every integer.
MAX_INTEGER = 2**53

_pack_double = struct.Struct('<d').pack
_isfinite = math.isfinite


class MetadataKey:
  """One metadata key and the bytes its entries begin with.

  Args:
    name: the key, as the service will know it.

  Raises:
    Refused: if the service does not take such a key.
  """
  __slots__ = ('name', 'field', 'number', 'true', 'false', '_strings')

  def __init__(self, name: Any):
    if not isinstance(name, str):
      raise Refused(
          'MetadataKey',
          f'metadata key {name!r} is {_a(name)}: keys are strings')
    if name.startswith('$'):
      raise Refused(
          'MetadataKey',
          f'metadata key {name!r} starts with "$", which Pinecone keeps for '
          'the operators of filters: rename it or list it in drop=')
    raw = _utf8(name, 'metadata key')
    self.name = name
    self.field = b'\x0a' + varint(len(raw)) + raw
    self.number = self._head(9) + b'\x11'
    self.true = self._head(2) + b'\x20\x01'
    self.false = self._head(2) + b'\x20\x00'
    self._strings: dict[int, bytes] = {}

  def _head(self, value_bytes: int) -> bytes:
    rest = self.field + b'\x12' + varint(value_bytes)
    return b'\x0a' + varint(len(rest) + value_bytes) + rest

  def string_head(self, nbytes: int) -> bytes:
    """What stands before a string of that many UTF-8 bytes."""
    head = self._strings.get(nbytes)
    if head is None:
      value = b'\x1a' + varint(nbytes)
      head = self._head(len(value) + nbytes) + value
      if len(self._strings) < 1024:
        self._strings[nbytes] = head
    return head

  def string(self, text: str) -> bytes:
    """The entry of a string."""
    raw = _utf8(text, f'metadata {self.name!r}')
    return self.string_head(len(raw)) + raw

  def string_list(self, items: Sequence[bytes]) -> bytes:
    """The entry of a list whose items are already `list_item`s."""
    content = b''.join(items)
    value = b'\x32' + varint(len(content)) + content
    return self._head(len(value)) + value

  def entry(self, value: Any) -> bytes:
    """The entry of a value that is not None.

    Raises:
      Refused: if the service would reject the value or change it.
    """
    kind = type(value)
    if kind is str:
      return self.string(value)
    if kind is float:
      if _isfinite(value):
        return self.number + _pack_double(value)
    elif kind is bool:
      return self.true if value else self.false
    elif kind is int:
      if -MAX_INTEGER <= value <= MAX_INTEGER:
        return self.number + _pack_double(value)
    value = plain_value(self.name, value)
    if isinstance(value, list):
      where = f'metadata {self.name!r}'
      return self.string_list([list_item(_utf8(s, where)) for s in value])
    return self.entry(value)


def list_item(raw: bytes) -> bytes:
  """One string, as an element of a ListValue."""
  value = b'\x1a' + varint(len(raw)) + raw
  return b'\x0a' + varint(len(value)) + value


def encode_metadata(
    keys: Sequence[MetadataKey], metadata: Mapping[str, Any]) -> bytes:
  """A Struct with those of the keys whose value is not None.

  Args:
    keys: which keys to take, in the order of their UTF-8 bytes.
    metadata: holds a value for each of the keys.

  Raises:
    Refused: if the service would reject a value or change it.
  """
  parts = []
  for key in keys:
    value = metadata[key.name]
    # The first three lines of `entry`, here for speed.
    if type(value) is str:
      try:
        raw = value.encode()
      except UnicodeEncodeError:
        raw = _utf8(value, f'metadata {key.name!r}')
      parts.append(key.string_head(len(raw)))
      parts.append(raw)
    elif value is not None:
      parts.append(key.entry(value))
  encoded = b''.join(parts)
  if len(encoded) > _SURELY_SMALL_BYTES:
    check_metadata_bytes({
        key.name: plain_value(key.name, metadata[key.name])
        for key in keys
        if metadata[key.name] is not None
    })
  return encoded


def check_metadata_bytes(metadata: Mapping[str, Any]) -> None:
  """Raises Refused if the metadata, as compact JSON, is over the limit."""
  size = len(
      json.dumps(metadata, ensure_ascii=False,
                 separators=(',', ':')).encode('utf-8'))
  if size > MAX_METADATA_BYTES:
    largest = max(metadata, key=lambda k: len(str(metadata[k])))
    raise Refused(
        'MetadataTooLarge',
        f'metadata has {size} bytes as JSON, the limit is '
        f'{MAX_METADATA_BYTES}: shorten or drop the largest field, '
        f'{largest!r}')


def may_be_too_large(encoded: bytes) -> bool:
  """Whether metadata with this Struct has to be counted."""
  return len(encoded) > _SURELY_SMALL_BYTES


def plain_value(name: str, value: Any) -> Any:
  """The value as str, bool, int, float or list of str; nothing is lost.

  Raises:
    Refused: if that cannot be done.
  """
  if isinstance(value, (np.generic, np.ndarray)):
    value = _from_numpy(name, value)
  if isinstance(value, str):
    return str.__str__(value)
  if isinstance(value, bool):
    return value
  if isinstance(value, int):
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
      raise Refused(
          'MetadataInteger',
          f'metadata {name!r} is an integer beyond 2**53, which Pinecone would '
          'round: store it as text')
    return int(value)
  if isinstance(value, float):
    if not _isfinite(value):
      raise Refused(
          'MetadataNotFinite',
          f'metadata {name!r} is {value}: Pinecone has no such number, leave '
          'it out (None) or store text')
    return float(value)
  if isinstance(value, (list, tuple)):
    for item in value:
      if not isinstance(item, str):
        raise Refused(
            'MetadataType',
            f'metadata {name!r} is a list that holds {_a(item)}: Pinecone '
            'keeps lists of strings only')
    return [str.__str__(item) for item in value]
  raise Refused(
      'MetadataType', f'metadata {name!r} is {_a(value)}: {_remedy(value)}')


def _from_numpy(name: str, value: Any) -> Any:
  if isinstance(value, np.ndarray):
    if value.ndim != 1:
      raise Refused(
          'MetadataType',
          f'metadata {name!r} is a numpy array of {value.ndim} dimensions: '
          'Pinecone keeps lists of strings only')
    return value.tolist()
  if isinstance(value, (np.bool_, np.integer)):
    return value.item()
  if isinstance(value, np.floating):
    exact = float(value)
    if exact == value or exact != exact:
      return exact
    raise Refused(
        'MetadataType',
        f'metadata {name!r} is a {type(value).__name__} that a 64 bit float '
        'does not hold: convert it with float()')
  return value


def _utf8(text: str, where: str) -> bytes:
  try:
    return text.encode('utf-8')
  except UnicodeEncodeError:
    raise Refused(
        'MetadataText',
        f'{where} holds a lone surrogate, which is not text: clean it with '
        "s.encode('utf-8', 'replace').decode()") from None


def _a(value: Any) -> str:
  return 'None' if value is None else f'a {type(value).__name__}'


def _remedy(value: Any) -> str:
  if isinstance(value, Mapping):
    return (
        'Pinecone does not nest metadata, make its entries fields of their own '
        'or store JSON text')
  if isinstance(value, (bytes, bytearray, memoryview)):
    return 'decode it to a string, or list it in drop='
  if isinstance(value,
                (datetime.date, datetime.time, np.datetime64)) or hasattr(
                    value, 'to_utc_datetime'):
    return (
        'store seconds since 1970 as a number, which filters can compare, or '
        'isoformat() text')
  return (
      'Pinecone keeps strings, numbers, booleans and lists of strings; '
      'convert it, or list it in drop=')


def encode_strings(key: MetadataKey,
                   raws: Sequence[Optional[bytes]]) -> list[bytes]:
  """The entries of a column of UTF-8 strings; b'' where it is None."""
  head = key.string_head
  return [b'' if raw is None else head(len(raw)) + raw for raw in raws]


def encode_numbers(key: MetadataKey, values: np.ndarray) -> list[bytes]:
  """The entries of a column of float64, all of them finite."""
  head = key.number
  width = len(head) + 8
  out = np.empty((len(values), width), np.uint8)
  out[:, :len(head)] = np.frombuffer(head, np.uint8)
  out[:, len(head):] = values.astype('<f8').view(np.uint8).reshape(-1, 8)
  blob = out.tobytes()
  return [blob[i:i + width] for i in range(0, len(blob), width)]
