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
"""The server's side of an HTTP/2 connection without TLS: streams and windows.

Written here rather than taken from grpcio for three reasons. A fault must be
able to end one answer in its middle, which a gRPC server library has no call
for. The client under test is grpcio: an emulator built on the same C core
would share its poller, its fork handlers and its mistakes. And big frames
(`MAX_FRAME_BYTES`) make a request of 600 KB two or three events instead of
forty, which is what lets one Python thread keep up with a benchmark.
"""

from __future__ import annotations

import abc
import asyncio

import hpack

from beam_harness.emulators.connection import MAX_BODY_BYTES
from beam_harness.emulators.connection import Connection
from beam_harness.emulators.connection import Exchange
from beam_harness.emulators.frames import ACK
from beam_harness.emulators.frames import DEFAULT_WINDOW
from beam_harness.emulators.frames import END_HEADERS
from beam_harness.emulators.frames import END_STREAM
from beam_harness.emulators.frames import HEAD
from beam_harness.emulators.frames import LARGEST_WINDOW
from beam_harness.emulators.frames import LONG
from beam_harness.emulators.frames import PADDED
from beam_harness.emulators.frames import SET_INITIAL_WINDOW
from beam_harness.emulators.frames import SET_MAX_FRAME
from beam_harness.emulators.frames import SETTING
from beam_harness.emulators.frames import WITH_PRIORITY
from beam_harness.emulators.frames import Code
from beam_harness.emulators.frames import Kind
from beam_harness.emulators.frames import ProtocolError
from beam_harness.emulators.frames import frame
from beam_harness.emulators.frames import long
from beam_harness.emulators.frames import without_padding

__all__ = ['Http2Protocol', 'Stream']

#: What a client may put in one frame. The protocol's own default is 16 KiB.
MAX_FRAME_BYTES = 1 << 20
#: What a client may send ahead on a stream, and on the connection.
STREAM_WINDOW = 64 << 20
CONNECTION_WINDOW = 1 << 30
MAX_HEADER_BYTES = 64 << 10


class Stream:
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
      'trailers',
      'complete')

  def __init__(self, number: int, headers: dict[str, str], window: int):
    self.number = number
    self.headers = headers
    self.chunks: list[bytes] = []
    self.nbytes = 0
    self.unacknowledged = 0
    self.exchange: Exchange | None = None
    self.window = window
    self.pending = memoryview(b'')
    self.trailers: bytes | None = None
    self.complete = False


class Http2Protocol(asyncio.Protocol, abc.ABC):
  """Reads frames, hands complete requests over, keeps the windows.

  What a request means is for the subclass: `request` and `too_large`.
  """
  def __init__(self, connection: Connection):
    self.connection = connection
    self._decoder = hpack.Decoder(max_header_list_size=MAX_HEADER_BYTES)
    self._streams: dict[int, Stream] = {}
    self._last_stream = 0
    self._tail = b''
    # Inside a DATA frame: its stream, flags, and bytes yet to come.
    self._left = 0
    self._data_stream: Stream | None = None
    self._data_flags = 0
    # A header block in several frames: stream, flags, what came so far.
    self._block: tuple[int, int, bytearray] | None = None
    self._unacknowledged = 0
    self._window = DEFAULT_WINDOW
    self._initial_window = DEFAULT_WINDOW
    self._max_frame = 16_384
    self._out: list[bytes] = [
        frame(
            Kind.SETTINGS,
            0,
            0,
            SETTING.pack(SET_INITIAL_WINDOW, STREAM_WINDOW) +
            SETTING.pack(SET_MAX_FRAME, MAX_FRAME_BYTES)),
        frame(
            Kind.WINDOW_UPDATE,
            0,
            0,
            LONG.pack(CONNECTION_WINDOW - DEFAULT_WINDOW)),
    ]
    self._receiving = False

  @abc.abstractmethod
  def request(self, stream: Stream, body: bytes) -> None:
    """A request has arrived completely."""

  @abc.abstractmethod
  def too_large(self, stream: Stream) -> None:
    """A request is larger than `MAX_BODY_BYTES`: answer without its body."""

  # ------------------------------------------------------------- coming in

  def data_received(self, data: bytes) -> None:
    """Bytes after the preface."""
    self._receiving = True
    try:
      self._receive(data)
    except ProtocolError as e:
      self._out.append(
          frame(
              Kind.GOAWAY,
              0,
              0,
              LONG.pack(self._last_stream) + LONG.pack(e.code) +
              str(e).encode()))
      self.flush()
      self.connection.close()
    finally:
      self._receiving = False
    self.flush()

  def connection_lost(self, exc: Exception | None) -> None:
    self._streams.clear()
    self.connection.lost()

  def _receive(self, data: bytes) -> None:
    if self._tail:
      data = self._tail + data
      self._tail = b''
    at, end = 0, len(data)
    while not self.connection.ended:
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
      if end - at < HEAD.size:
        break
      high, low, kind, flags, number = HEAD.unpack_from(data, at)
      length = high << 8 | low
      number &= LARGEST_WINDOW
      if length > MAX_FRAME_BYTES:
        raise ProtocolError(Code.FRAME_SIZE_ERROR, 'frame too large')
      if self._block is not None and (kind != Kind.CONTINUATION
                                      or number != self._block[0]):
        raise ProtocolError(Code.PROTOCOL_ERROR, 'header block interrupted')
      if kind == Kind.DATA and not flags & PADDED:
        at += HEAD.size
        self._data_began(number, flags, length)
        self._left = length
        if not length:
          self._data_ended()
        continue
      if end - at < HEAD.size + length:
        break
      at += HEAD.size
      self._on_frame(kind, flags, number, data[at:at + length])
      at += length
    self._tail = data[at:]

  def _on_frame(
      self, kind: int, flags: int, number: int, payload: bytes) -> None:
    if kind == Kind.HEADERS:
      payload = without_padding(flags, payload)
      if flags & WITH_PRIORITY:
        payload = payload[5:]
      self._header_block(number, flags, bytearray(payload))
    elif kind == Kind.CONTINUATION:
      if self._block is None:
        raise ProtocolError(Code.PROTOCOL_ERROR, 'nothing to continue')
      number, first_flags, block = self._block
      block += payload
      self._header_block(number, first_flags | flags & END_HEADERS, block)
    elif kind == Kind.WINDOW_UPDATE:
      self._window_update(number, long(payload) & LARGEST_WINDOW)
    elif kind == Kind.DATA:
      self._data_began(number, flags, len(payload))
      self._receive_data(without_padding(flags, payload))
      self._data_ended()
    elif kind == Kind.RST_STREAM:
      stream = self._streams.pop(number, None)
      if stream is not None and stream.exchange is not None:
        stream.exchange.end(whole=False)
    elif kind == Kind.SETTINGS:
      if not flags & ACK:
        self._settings(payload)
    elif kind == Kind.PING:
      if not flags & ACK:
        self._out.append(frame(Kind.PING, ACK, 0, payload))
    elif kind == Kind.PUSH:
      raise ProtocolError(Code.PROTOCOL_ERROR, 'a client cannot push')
    # PRIORITY, GOAWAY and kinds we do not know ask nothing of us.

  def _header_block(self, number: int, flags: int, block: bytearray) -> None:
    if len(block) > MAX_HEADER_BYTES:
      raise ProtocolError(Code.ENHANCE_YOUR_CALM, 'headers too large')
    if not flags & END_HEADERS:
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
      raise ProtocolError(Code.COMPRESSION_ERROR, 'bad headers') from e
    stream = self._streams.get(number)
    if stream is None:
      if number <= self._last_stream:
        return  # Trailers of a stream that we have answered already.
      if not number % 2:
        raise ProtocolError(Code.PROTOCOL_ERROR, 'stream number is even')
      self._last_stream = number
      stream = Stream(number, headers, self._initial_window)
      self._streams[number] = stream
    if flags & END_STREAM:
      self._ended(stream)

  def _data_began(self, number: int, flags: int, length: int) -> None:
    self._data_stream = self._streams.get(number)
    self._data_flags = flags
    if self._data_stream is None and number > self._last_stream:
      raise ProtocolError(Code.PROTOCOL_ERROR, 'data before headers')
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
      self.too_large(stream)
      self._data_stream = None
      return
    stream.chunks.append(piece)

  def _data_ended(self) -> None:
    stream = self._data_stream
    self._data_stream = None
    if stream is not None and self._data_flags & END_STREAM:
      self._ended(stream)

  def _ended(self, stream: Stream) -> None:
    stream.complete = True
    chunks = stream.chunks
    body = chunks[0] if len(chunks) == 1 else b''.join(chunks)
    stream.chunks = []
    self.request(stream, body)

  def _grant(self, number: int, nbytes: int) -> None:
    self._out.append(frame(Kind.WINDOW_UPDATE, 0, number, LONG.pack(nbytes)))

  def _settings(self, payload: bytes) -> None:
    for at in range(0, len(payload) - 5, 6):
      setting, value = SETTING.unpack_from(payload, at)
      if setting == SET_INITIAL_WINDOW:
        if value > LARGEST_WINDOW:
          raise ProtocolError(Code.FLOW_CONTROL_ERROR, 'window too large')
        change = value - self._initial_window
        self._initial_window = value
        for stream in self._streams.values():
          stream.window += change
      elif setting == SET_MAX_FRAME:
        self._max_frame = value
    self._out.append(frame(Kind.SETTINGS, ACK, 0))
    self._pump_all()

  def _window_update(self, number: int, more: int) -> None:
    if not number:
      self._window += more
      self._pump_all()
    elif number in self._streams:
      stream = self._streams[number]
      stream.window += more
      self._pump(stream)

  # --------------------------------------------------------------- going out

  def flush(self) -> None:
    """Hands what has gathered to the socket in one write."""
    if self._out and not self.connection.ended:
      data = b''.join(self._out)
      self._out.clear()
      self.connection.transport.write(data)

  def flush_unless_receiving(self) -> None:
    """Flushes, except while more may gather: `data_received` ends with it."""
    if not self._receiving:
      self.flush()

  def send_headers(self, stream: Stream, block: bytes) -> None:
    """Sends headers that do not end the stream."""
    self._out.append(frame(Kind.HEADERS, END_HEADERS, stream.number, block))

  def send_data(self, stream: Stream, piece: bytes) -> None:
    """Sends data as far as the windows allow, the rest when they do."""
    stream.pending = memoryview(
        bytes(stream.pending) + piece if stream.pending else piece)
    self._pump(stream)

  def send_trailers(self, stream: Stream, block: bytes) -> None:
    """Ends the stream, once its data is sent, and with it the exchange."""
    stream.trailers = block
    self._pump(stream)

  def _pump_all(self) -> None:
    for stream in list(self._streams.values()):
      if stream.pending or stream.trailers is not None:
        self._pump(stream)

  def _pump(self, stream: Stream) -> None:
    """Sends as much of a stream as its and the connection's window allow."""
    while stream.pending:
      n = min(len(stream.pending), stream.window, self._window, self._max_frame)
      if n <= 0:
        return
      piece = stream.pending[:n]
      stream.pending = stream.pending[n:]
      stream.window -= n
      self._window -= n
      self._out.append(frame(Kind.DATA, 0, stream.number, piece))
    if stream.trailers is not None:
      self.send_last(stream, stream.trailers)
      if stream.exchange is not None:
        stream.exchange.end(whole=True)

  def send_last(self, stream: Stream, block: bytes) -> None:
    """Sends headers that end the stream."""
    self._streams.pop(stream.number, None)
    self._out.append(
        frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream.number, block))
    if not stream.complete:
      # The client need not send the rest.
      self._out.append(
          frame(Kind.RST_STREAM, 0, stream.number, LONG.pack(Code.NO_ERROR)))
