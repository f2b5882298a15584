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
"""A google.protobuf.Struct back to plain values, and how bytes are stepped
through on the way.

By hand, position by position: a generator of fields costs three times as much,
and metadata are most of what an answer takes to read.
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = ['read_long', 'read_struct', 'skip_field', 'truncated']

# What a Struct may nest; metadata has one list at most.
_MAX_DEPTH = 32

_double = struct.Struct('<d').unpack_from


def truncated() -> ValueError:
  """The error of bytes that end too early."""
  return ValueError('truncated protobuf message')


def read_long(data: bytes, at: int) -> tuple[int, int]:
  """A varint, and where it ends."""
  result = shift = 0
  while True:
    byte = data[at]
    at += 1
    result |= (byte & 127) << shift
    if byte < 128:
      return result, at
    shift += 7
    if shift > 63:
      raise ValueError('a varint has no end')


def skip_field(data: bytes, at: int, stop: int) -> int:
  """Where the field that begins here ends."""
  tag, at = read_long(data, at)
  kind = tag & 7
  if kind == 0:
    at = read_long(data, at)[1]
  elif kind == 1:
    at += 8
  elif kind == 2:
    size, at = read_long(data, at)
    at += size
  elif kind == 5:
    at += 4
  else:
    raise ValueError(f'protobuf wire type {kind} is not known')
  if at > stop:
    raise truncated()
  return at


def read_struct(data: bytes, at: int, stop: int, depth: int) -> dict[str, Any]:
  """The entries of a Struct."""
  out: dict[str, Any] = {}
  known = _known
  while at < stop:
    if data[at] != 0x0a:
      at = skip_field(data, at, stop)
      continue
    size = data[at + 1]
    at += 2
    if size > 127:
      size, at = read_long(data, at - 1)
    end = at + size
    if end > stop:
      raise truncated()
    raw = data[at:end]
    entry = known.get(raw)
    if entry is None:
      entry = _entry(raw, 0, size, depth)
      if size <= _MAX_KNOWN_BYTES:
        _remember(raw, entry)
    key, value = entry
    # Lists are not shared: the next record gets one of its own.
    out[key] = value[:] if type(value) is list else value
    at = end
  return out


# Entries that were read before, by their bytes. Most metadata are names of few
# things, and what is found once is found again: to look one up is five times
# as fast as to read it.
_known: dict[bytes, tuple[str, Any]] = {}
_MAX_KNOWN = 8_192
_MAX_KNOWN_BYTES = 96


def _remember(raw: bytes, entry: tuple[str, Any]) -> None:
  value = entry[1]
  if type(value) is dict or (type(value) is list
                             and not all(type(x) is str for x in value)):
    return  # Not what metadata are made of, and not to be shared.
  if len(_known) >= _MAX_KNOWN:
    _known.clear()
  _known[raw] = entry


def _entry(data: bytes, at: int, stop: int, depth: int) -> tuple[str, Any]:
  key, value = '', None
  # As everybody writes it: the key, then the value, which ends the entry.
  if stop > 6 and data[0] == 0x0a and data[1] < 128:
    middle = 2 + data[1]
    if middle + 3 < stop and data[middle] == 0x12:
      length = data[middle + 1]
      start = middle + 2
      if length < 128 and start + length == stop:
        kind = data[start]
        if kind == 0x1a and data[start + 1] == length - 2:
          return data[2:middle].decode(), data[start + 2:stop].decode()
        if kind == 0x11 and length == 9:
          return data[2:middle].decode(), _double(data, start + 1)[0]
  while at < stop:
    tag = data[at]
    if tag not in (0x0a, 0x12):
      at = skip_field(data, at, stop)
      continue
    size, at = read_long(data, at + 1)
    end = at + size
    if end > stop:
      raise truncated()
    if tag == 0x0a:
      key = data[at:end].decode()
    else:
      value = _value(data, at, end, depth)
    at = end
  return key, value


def _value(data: bytes, at: int, stop: int, depth: int) -> Any:
  """A Value; None where none is set."""
  if depth > _MAX_DEPTH:
    raise ValueError('metadata is nested too deeply')
  value: Any = None
  while at < stop:
    tag = data[at]
    if tag == 0x11:
      if at + 9 > stop:
        raise truncated()
      value = _double(data, at + 1)[0]
      at += 9
    elif tag == 0x20:
      number, at = read_long(data, at + 1)
      value = number != 0
    elif tag in (0x1a, 0x2a, 0x32):
      size, at = read_long(data, at + 1)
      end = at + size
      if end > stop:
        raise truncated()
      if tag == 0x1a:
        value = data[at:end].decode()
      elif tag == 0x2a:
        value = read_struct(data, at, end, depth + 1)
      else:
        value = _list(data, at, end, depth + 1)
      at = end
    else:
      if tag == 0x08:
        value = None
      at = skip_field(data, at, stop)
  if at > stop:
    raise truncated()
  return value


def _list(data: bytes, at: int, stop: int, depth: int) -> list[Any]:
  out = []
  while at < stop:
    if data[at] != 0x0a:
      at = skip_field(data, at, stop)
      continue
    size, at = read_long(data, at + 1)
    if at + size > stop:
      raise truncated()
    out.append(_value(data, at, at + size, depth))
    at += size
  return out
