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
"""gRPC on an HTTP/2 connection: one message in, one message out, any method.

Unary methods only, which is all that the services emulated here have.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from collections.abc import Mapping

from beam_harness.emulators.connection import Connection
from beam_harness.emulators.connection import Exchange
from beam_harness.emulators.connection import Serve
from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.core import Answer
from beam_harness.emulators.core import Call
from beam_harness.emulators.frames import header
from beam_harness.emulators.frames import header_block
from beam_harness.emulators.http2 import Http2Protocol
from beam_harness.emulators.http2 import Stream

__all__ = ['GrpcProtocol']

# Before each message: whether it is compressed, and its length.
_MESSAGE = struct.Struct('>BL')

_DECOMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    'gzip': gzip.decompress,
    'deflate': zlib.decompress,
}


class GrpcProtocol(Http2Protocol):
  """Makes a call of each request."""
  def __init__(self, connection: Connection, serve: Serve):
    super().__init__(connection)
    self._serve = serve

  def request(self, stream: Stream, body: bytes) -> None:
    headers = stream.headers
    if not headers.get('content-type', '').startswith('application/grpc'):
      # As the protocol of gRPC wants it for anything else on its port.
      self.send_last(stream, header(':status', '415'))
      return
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
    call = Call('grpc', path, path, [], headers, message)
    stream.exchange = GrpcExchange(call, self.connection, self, stream)
    self._serve(stream.exchange)

  def too_large(self, stream: Stream) -> None:
    self._refuse(stream, 'RESOURCE_EXHAUSTED', 'message too large')

  def _refuse(self, stream: Stream, code: str, message: str) -> None:
    self.send_last(
        stream, _trailers_only(Answer(GRPC_CODES[code], message=message)))


class GrpcExchange(Exchange):
  def __init__(
      self,
      call: Call,
      connection: Connection,
      protocol: GrpcProtocol,
      stream: Stream):
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
          self._stream, _GRPC_HEADERS + header_block(answer.headers))
      self._protocol.flush_unless_receiving()

  def write(self, piece: bytes) -> None:
    if piece:
      self._protocol.send_data(self._stream, piece)
      self._protocol.flush_unless_receiving()

  def finish(self, answer: Answer) -> None:
    self._protocol.send_trailers(
        self._stream,
        _trailers_only(answer) if answer.status else _GRPC_OK +
        header_block(answer.trailers))
    self._protocol.flush_unless_receiving()

  def send(self, answer: Answer) -> None:
    self.start(answer)
    self.write(self.payload(answer))
    self.finish(answer)

  def send_part(self, answer: Answer) -> None:
    self.start(answer)
    payload = self.payload(answer)
    self.write(payload[:len(payload) // 2])
    self._protocol.flush()  # The connection closes next.


_GRPC_HEADERS = header(':status', '200') + header(
    'content-type', 'application/grpc')
_GRPC_OK = header('grpc-status', '0')


def _trailers_only(answer: Answer) -> bytes:
  """An error: everything in the one header block that ends the stream."""
  return (
      _GRPC_HEADERS + header_block(answer.headers) +
      header('grpc-status', str(answer.status)) + (
          header('grpc-message', _percent(answer.message))
          if answer.message else b'') + header_block(answer.trailers))


def _percent(message: str) -> str:
  """Percent-encoding of a status text, as gRPC over HTTP/2 defines it."""
  return ''.join(
      chr(byte) if 0x20 <= byte <= 0x7e and byte != 0x25 else f'%{byte:02X}'
      for byte in message.encode())
