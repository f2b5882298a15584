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
"""gRPC: the server's side of an HTTP/2 connection without TLS (RFC 9113).

Written here rather than taken from grpcio for three reasons. A fault must be
able to end one answer in its middle, which a gRPC server library has no call
for. The client under test is grpcio: an emulator built on the same C core
would share its poller, its fork handlers and its mistakes. And big frames
(`MAX_FRAME_BYTES`) make a request of 600 KB two or three events instead of
forty, which is what lets one Python thread keep up with a benchmark.

Unary methods only: one message in, one message out, any method name.
"""

from __future__ import annotations

import asyncio
import enum
import gzip
import struct
import zlib

import hpack

from beam_harness.emulators.connection import MAX_BODY_BYTES
from beam_harness.emulators.connection import Connection
from beam_harness.emulators.connection import Exchange
from beam_harness.emulators.connection import Serve
from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.core import Answer
from beam_harness.emulators.core import Call

__all__ = ['Http2Protocol', 'PREFACE']

PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'

#: What a client may put in one frame. The protocol's own default is 16 KiB.
MAX_FRAME_BYTES = 1 << 20
#: What a client may send ahead on a stream, and on the connection.
STREAM_WINDOW = 64 << 20
CONNECTION_WINDOW = 1 << 30
_DEFAULT_WINDOW = 65_535
_LARGEST_WINDOW = (1 << 31) - 1
_HEADER_BLOCK_BYTES = 64 << 10

_FRAME = struct.Struct('>HBBBL')
_SETTING = struct.Struct('>HL')
_LONG = struct.Struct('>L')
_MESSAGE = struct.Struct('>BL')

_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PUSH, _PING, _GOAWAY, \
  _WINDOW_UPDATE, _CONTINUATION = range(10)

_END_STREAM = _ACK = 0x1
_END_HEADERS = 0x4
_PADDED = 0x8
_WITH_PRIORITY = 0x20

_SET_INITIAL_WINDOW = 0x4
_SET_MAX_FRAME = 0x5


class _Code(enum.IntEnum):
  NO_ERROR = 0
  PROTOCOL_ERROR = 1
  FLOW_CONTROL_ERROR = 3
  FRAME_SIZE_ERROR = 6
  COMPRESSION_ERROR = 9
  ENHANCE_YOUR_CALM = 11


class _ProtocolError(Exception):
  """The client broke the protocol: the connection ends."""
  def __init__(self, code: _Code, reason: str):
    super().__init__(reason)
    self.code = code


class _Stream:
  """One stream: what came in, and what waits to go out."""
  __slots__ = (
      'number',
      'headers',
      'chunks',
      'nbytes',
      'unacknowledged',
      'exchange',
      'window',
      'pending',
      'trailers')

  def __init__(self, number: int, headers: dict[str, str], window: int):
    self.number = number
    self.headers = headers
    self.chunks: list[bytes] = []
    self.nbytes = 0
    self.unacknowledged = 0
    self.exchange: Http2Exchange | None = None
    self.window = window
    self.pending = memoryview(b'')
    self.trailers: bytes | None = None


class Http2Protocol(asyncio.Protocol):
  """Reads frames, hands complete requests over, keeps the windows."""
  def __init__(self, connection: Connection, serve: Serve):
    self._connection = connection
    self._serve = serve
    self._decoder = hpack.Decoder(max_header_list_size=_HEADER_BLOCK_BYTES)
    self._streams: dict[int, _Stream] = {}
    self._last_stream = 0
    self._tail = b''
    # Inside a DATA frame: its stream, flags, and bytes yet to come.
    self._left = 0
    self._data_stream: _Stream | None = None
    self._data_flags = 0
    # A header block in several frames: stream, flags, what came so far.
    self._block: tuple[int, int, bytearray] | None = None
    self._unacknowledged = 0
    self._window = _DEFAULT_WINDOW
    self._initial_window = _DEFAULT_WINDOW
    self._max_frame = 16_384
    self._out: list[bytes] = [
        _frame(
            _SETTINGS,
            0,
            0,
            _SETTING.pack(_SET_INITIAL_WINDOW, STREAM_WINDOW) +
            _SETTING.pack(_SET_MAX_FRAME, MAX_FRAME_BYTES)),
        _frame(
            _WINDOW_UPDATE,
            0,
            0,
            _LONG.pack(CONNECTION_WINDOW - _DEFAULT_WINDOW)),
    ]
    self._receiving = False

  # ------------------------------------------------------------- coming in

  def data_received(self, data: bytes) -> None:
    """Bytes after the preface."""
    self._receiving = True
    try:
      self._receive(data)
    except _ProtocolError as e:
      self._out.append(
          _frame(
              _GOAWAY,
              0,
              0,
              _LONG.pack(self._last_stream) + _LONG.pack(e.code) +
              str(e).encode()))
      self.flush()
      self._connection.close()
    finally:
      self._receiving = False
    self.flush()

  def connection_lost(self, exc: Exception | None) -> None:
    self._streams.clear()
    self._connection.lost()

  def _receive(self, data: bytes) -> None:
    if self._tail:
      data = self._tail + data
      self._tail = b''
    at, end = 0, len(data)
    while True:
      if self._left:
        piece = data[at:at + self._left]
        if not piece:
          return
        at += len(piece)
        self._left -= len(piece)
        self._receive_data(piece)
        if not self._left:
          self._data_ended()
        continue
      if end - at < _FRAME.size:
        break
      high, low, kind, flags, number = _FRAME.unpack_from(data, at)
      length = high << 8 | low
      number &= _LARGEST_WINDOW
      if length > MAX_FRAME_BYTES:
        raise _ProtocolError(_Code.FRAME_SIZE_ERROR, 'frame too large')
      if self._block is not None and (kind != _CONTINUATION
                                      or number != self._block[0]):
        raise _ProtocolError(_Code.PROTOCOL_ERROR, 'header block interrupted')
      if kind == _DATA and not flags & _PADDED:
        at += _FRAME.size
        self._data_began(number, flags, length)
        self._left = length
        if not length:
          self._data_ended()
        continue
      if end - at < _FRAME.size + length:
        break
      at += _FRAME.size
      self._frame(kind, flags, number, data[at:at + length])
      at += length
    self._tail = data[at:]

  def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
    if kind == _HEADERS:
      payload = _without_padding(flags, payload)
      if flags & _WITH_PRIORITY:
        payload = payload[5:]
      self._header_block(number, flags, bytearray(payload))
    elif kind == _CONTINUATION:
      if self._block is None:
        raise _ProtocolError(_Code.PROTOCOL_ERROR, 'nothing to continue')
      number, first_flags, block = self._block
      block += payload
      self._header_block(number, first_flags | flags & _END_HEADERS, block)
    elif kind == _WINDOW_UPDATE:
      self._window_update(number, _long(payload) & _LARGEST_WINDOW)
    elif kind == _DATA:
      self._data_began(number, flags, len(payload))
      self._receive_data(_without_padding(flags, payload))
      self._data_ended()
    elif kind == _RST_STREAM:
      stream = self._streams.pop(number, None)
      if stream is not None and stream.exchange is not None:
        stream.exchange.end(whole=False)
    elif kind == _SETTINGS:
      if not flags & _ACK:
        self._settings(payload)
    elif kind == _PING:
      if not flags & _ACK:
        self._out.append(_frame(_PING, _ACK, 0, payload))
    elif kind == _PUSH:
      raise _ProtocolError(_Code.PROTOCOL_ERROR, 'a client cannot push')
    # PRIORITY, GOAWAY and kinds we do not know ask nothing of us.

  def _header_block(self, number: int, flags: int, block: bytearray) -> None:
    if len(block) > _HEADER_BLOCK_BYTES:
      raise _ProtocolError(_Code.ENHANCE_YOUR_CALM, 'headers too large')
    if not flags & _END_HEADERS:
      self._block = (number, flags, block)
      return
    self._block = None
    headers: dict[str, str] = {}
    try:
      for raw_name, raw_value in self._decoder.decode(bytes(block), raw=True):
        name, value = raw_name.decode('latin-1'), raw_value.decode('latin-1')
        headers[name] = (
            f'{headers[name]}, {value}' if name in headers else value)
    except hpack.HPACKError as e:
      raise _ProtocolError(_Code.COMPRESSION_ERROR, 'bad headers') from e
    stream = self._streams.get(number)
    if stream is None:
      if number <= self._last_stream:
        return  # Trailers of a stream that we have answered already.
      if not number % 2:
        raise _ProtocolError(_Code.PROTOCOL_ERROR, 'stream number is even')
      self._last_stream = number
      stream = _Stream(number, headers, self._initial_window)
      self._streams[number] = stream
    if flags & _END_STREAM:
      self._request_ended(stream)

  def _data_began(self, number: int, flags: int, length: int) -> None:
    self._data_stream = self._streams.get(number)
    self._data_flags = flags
    if self._data_stream is None and number > self._last_stream:
      raise _ProtocolError(_Code.PROTOCOL_ERROR, 'data before headers')
    self._unacknowledged += length
    if self._unacknowledged > CONNECTION_WINDOW // 2:
      self._grant(0, self._unacknowledged)
      self._unacknowledged = 0
    stream = self._data_stream
    if stream is not None:
      stream.unacknowledged += length
      if stream.unacknowledged > STREAM_WINDOW // 2:
        self._grant(stream.number, stream.unacknowledged)
        stream.unacknowledged = 0

  def _receive_data(self, piece: bytes) -> None:
    stream = self._data_stream
    if stream is None or stream.exchange is not None:
      return  # Of a stream that is over.
    stream.nbytes += len(piece)
    if stream.nbytes > MAX_BODY_BYTES:
      stream.chunks.clear()
      self._refuse(stream, 'RESOURCE_EXHAUSTED', 'message too large')
      self._data_stream = None
      return
    stream.chunks.append(piece)

  def _data_ended(self) -> None:
    stream = self._data_stream
    self._data_stream = None
    if stream is not None and self._data_flags & _END_STREAM:
      self._request_ended(stream)

  def _grant(self, number: int, nbytes: int) -> None:
    self._out.append(_frame(_WINDOW_UPDATE, 0, number, _LONG.pack(nbytes)))

  def _settings(self, payload: bytes) -> None:
    for at in range(0, len(payload) - 5, 6):
      setting, value = _SETTING.unpack_from(payload, at)
      if setting == _SET_INITIAL_WINDOW:
        if value > _LARGEST_WINDOW:
          raise _ProtocolError(_Code.FLOW_CONTROL_ERROR, 'window too large')
        change = value - self._initial_window
        self._initial_window = value
        for stream in self._streams.values():
          stream.window += change
      elif setting == _SET_MAX_FRAME:
        self._max_frame = value
    self._out.append(_frame(_SETTINGS, _ACK, 0))
    self._pump_all()

  def _window_update(self, number: int, more: int) -> None:
    if not number:
      self._window += more
      self._pump_all()
    elif number in self._streams:
      stream = self._streams[number]
      stream.window += more
      self._pump(stream)

  # --------------------------------------------------------------- a request

  def _request_ended(self, stream: _Stream) -> None:
    headers = stream.headers
    content_type = headers.get('content-type', '')
    if not content_type.startswith('application/grpc'):
      # As the protocol of gRPC wants it for anything else on its port.
      self._last_frame(stream, _header(':status', '415'))
      return
    body = (
        stream.chunks[0] if len(stream.chunks) == 1 else b''.join(
            stream.chunks))
    stream.chunks = []
    if len(body) < 5 or len(body) != 5 + _MESSAGE.unpack_from(body)[1]:
      self._refuse(stream, 'INTERNAL', 'expected exactly one message')
      return
    message = body[5:]
    if body[0]:
      try:
        message = _DECOMPRESS[headers.get('grpc-encoding', '')](message)
      except KeyError:
        self._refuse(stream, 'UNIMPLEMENTED', 'unknown grpc-encoding')
        return
      except (OSError, EOFError, zlib.error):
        self._refuse(stream, 'INTERNAL', 'cannot decompress the message')
        return
    path = headers.pop(':path', '')
    headers['host'] = headers.pop(':authority', headers.get('host', ''))
    for pseudo in (':method', ':scheme'):
      headers.pop(pseudo, None)
    exchange = Http2Exchange(
        Call('grpc', path, path, [], headers, message),
        self._connection,
        self,
        stream)
    stream.exchange = exchange
    self._serve(exchange)

  def _refuse(self, stream: _Stream, code: str, message: str) -> None:
    self._last_frame(
        stream, _trailers_only(Answer(GRPC_CODES[code], message=message)))

  # --------------------------------------------------------------- going out

  def flush(self) -> None:
    """Hands what has gathered to the socket in one write."""
    if self._out:
      data = b''.join(self._out)
      self._out.clear()
      self._connection.transport.write(data)

  def flush_unless_receiving(self) -> None:
    """Flushes, except while more may gather: `data_received` ends with it."""
    if not self._receiving:
      self.flush()

  def send_headers(self, stream: _Stream, block: bytes) -> None:
    self._out.append(_frame(_HEADERS, _END_HEADERS, stream.number, block))

  def send_data(self, stream: _Stream, piece: bytes) -> None:
    stream.pending = memoryview(
        bytes(stream.pending) + piece if stream.pending else piece)
    self._pump(stream)

  def send_trailers(self, stream: _Stream, block: bytes) -> None:
    stream.trailers = block
    self._pump(stream)

  def _pump_all(self) -> None:
    for stream in list(self._streams.values()):
      if stream.pending or stream.trailers is not None:
        self._pump(stream)

  def _pump(self, stream: _Stream) -> None:
    """Sends as much of a stream as its and the connection's window allow."""
    while stream.pending:
      n = min(len(stream.pending), stream.window, self._window, self._max_frame)
      if n <= 0:
        return
      piece = stream.pending[:n]
      stream.pending = stream.pending[n:]
      stream.window -= n
      self._window -= n
      self._out.append(_frame(_DATA, 0, stream.number, piece))
    if stream.trailers is not None:
      self._last_frame(stream, stream.trailers)
      if stream.exchange is not None:
        stream.exchange.end(whole=True)

  def _last_frame(self, stream: _Stream, block: bytes) -> None:
    self._streams.pop(stream.number, None)
    self._out.append(
        _frame(_HEADERS, _END_HEADERS | _END_STREAM, stream.number, block))


class Http2Exchange(Exchange):
  def __init__(
      self,
      call: Call,
      connection: Connection,
      protocol: Http2Protocol,
      stream: _Stream):
    super().__init__(call, connection)
    self._protocol = protocol
    self._stream = stream

  def payload(self, answer: Answer) -> bytes:
    if answer.status:
      return b''
    return _MESSAGE.pack(0, len(answer.body)) + answer.body

  def start(self, answer: Answer) -> None:
    # An error has no message: all it says is in one frame, see `finish`.
    if not answer.status:
      self._protocol.send_headers(
          self._stream, _GRPC_HEADERS + _headers(answer.headers))
      self._protocol.flush_unless_receiving()

  def write(self, piece: bytes) -> None:
    if piece:
      self._protocol.send_data(self._stream, piece)
      self._protocol.flush_unless_receiving()

  def write_part(self, payload: bytes) -> None:
    super().write_part(payload)
    self._protocol.flush()  # The connection closes next.

  def finish(self, answer: Answer) -> None:
    self._protocol.send_trailers(
        self._stream,
        _trailers_only(answer) if answer.status else _GRPC_OK +
        _headers(answer.trailers))
    self._protocol.flush_unless_receiving()


# ------------------------------------------------------------------ encoding


def _frame(
    kind: int,
    flags: int,
    number: int,
    payload: bytes | memoryview = b'') -> bytes:
  length = len(payload)
  return _FRAME.pack(length >> 8, length & 0xff, kind, flags, number) + payload


def _without_padding(flags: int, payload: bytes) -> bytes:
  if not flags & _PADDED:
    return payload
  if not payload or payload[0] >= len(payload):
    raise _ProtocolError(_Code.PROTOCOL_ERROR, 'more padding than frame')
  return payload[1:len(payload) - payload[0]]


def _long(payload: bytes) -> int:
  if len(payload) != 4:
    raise _ProtocolError(_Code.FRAME_SIZE_ERROR, 'expected four bytes')
  return int(_LONG.unpack(payload)[0])


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


def _header(name: str, value: str) -> bytes:
  """A literal header field that no dynamic table remembers."""
  return b'\0' + _string(name.encode('latin-1')) + _string(
      value.encode('latin-1', 'replace'))


def _headers(headers: dict[str, str]) -> bytes:
  return b''.join(
      _header(name.lower(), value) for name, value in headers.items())


_GRPC_HEADERS = _header(':status', '200') + _header(
    'content-type', 'application/grpc')
_GRPC_OK = _header('grpc-status', '0')


def _trailers_only(answer: Answer) -> bytes:
  """An error: everything in the one header block that ends the stream."""
  return (
      _GRPC_HEADERS + _headers(answer.headers) +
      _header('grpc-status', str(answer.status)) + (
          _header('grpc-message', _percent(answer.message))
          if answer.message else b'') + _headers(answer.trailers))


def _percent(message: str) -> str:
  """Percent-encoding of a status text, as gRPC over HTTP/2 defines it."""
  return ''.join(
      chr(byte) if 0x20 <= byte <= 0x7e and byte != 0x25 else f'%{byte:02X}'
      for byte in message.encode())


_DECOMPRESS = {'gzip': gzip.decompress, 'deflate': zlib.decompress}
