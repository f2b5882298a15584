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
"""HTTP/2 frames and header fields as bytes (RFC 9113, RFC 7541)."""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping

__all__ = [
    'ACK',
    'Code',
    'DEFAULT_WINDOW',
    'END_HEADERS',
    'END_STREAM',
    'HEAD',
    'Kind',
    'LARGEST_WINDOW',
    'LONG',
    'PADDED',
    'PREFACE',
    'ProtocolError',
    'SETTING',
    'SET_INITIAL_WINDOW',
    'SET_MAX_FRAME',
    'WITH_PRIORITY',
    'frame',
    'header',
    'header_block',
    'long',
    'without_padding'
]

PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'

DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = (1 << 31) - 1

HEAD = struct.Struct('>HBBBL')
SETTING = struct.Struct('>HL')
LONG = struct.Struct('>L')

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

SET_INITIAL_WINDOW = 0x4
SET_MAX_FRAME = 0x5


class Kind:
  """Kinds of frames. Plain ints: an enum costs a lookup for each frame."""
  DATA = 0
  HEADERS = 1
  PRIORITY = 2
  RST_STREAM = 3
  SETTINGS = 4
  PUSH = 5
  PING = 6
  GOAWAY = 7
  WINDOW_UPDATE = 8
  CONTINUATION = 9


class Code(enum.IntEnum):
  NO_ERROR = 0
  PROTOCOL_ERROR = 1
  FLOW_CONTROL_ERROR = 3
  FRAME_SIZE_ERROR = 6
  COMPRESSION_ERROR = 9
  ENHANCE_YOUR_CALM = 11


class ProtocolError(Exception):
  """The client broke the protocol: the connection ends."""
  def __init__(self, code: Code, reason: str):
    super().__init__(reason)
    self.code = code


def frame(
    kind: int,
    flags: int,
    number: int,
    payload: bytes | memoryview = b'') -> bytes:
  """One frame of a stream; stream 0 is the connection."""
  length = len(payload)
  return HEAD.pack(length >> 8, length & 0xff, kind, flags, number) + payload


def without_padding(flags: int, payload: bytes) -> bytes:
  """The payload of a frame that may be padded."""
  if not flags & PADDED:
    return payload
  if not payload or payload[0] >= len(payload):
    raise ProtocolError(Code.PROTOCOL_ERROR, 'more padding than frame')
  return payload[1:len(payload) - payload[0]]


def long(payload: bytes) -> int:
  """The payload of a frame that is one number."""
  if len(payload) != 4:
    raise ProtocolError(Code.FRAME_SIZE_ERROR, 'expected four bytes')
  return int(LONG.unpack(payload)[0])


def _string(text: bytes) -> bytes:
  """A string of a header block: length with a 7-bit prefix, no Huffman."""
  length = len(text)
  if length < 127:
    return bytes((length,)) + text
  length -= 127
  prefix = bytearray((127,))
  while length >= 128:
    prefix.append(length & 127 | 128)
    length >>= 7
  prefix.append(length)
  return bytes(prefix) + text


def header(name: str, value: str) -> bytes:
  """A literal header field that no dynamic table remembers."""
  return b'\0' + _string(name.encode('latin-1')) + _string(
      value.encode('latin-1', 'replace'))


def header_block(headers: Mapping[str, str]) -> bytes:
  """Literal header fields, one after the other."""
  return b''.join(
      header(name.lower(), value) for name, value in headers.items())
