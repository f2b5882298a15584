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
"""REST: the server's side of an HTTP/1.1 connection, on h11."""

from __future__ import annotations

import asyncio
import http
from urllib.parse import parse_qsl

import h11

from beam_harness.emulators.connection import MAX_BODY_BYTES
from beam_harness.emulators.connection import Connection
from beam_harness.emulators.connection import Exchange
from beam_harness.emulators.connection import Serve
from beam_harness.emulators.core import Answer
from beam_harness.emulators.core import Call

__all__ = ['Http1Protocol']

_REASONS = {each.value: each.phrase.encode() for each in http.HTTPStatus}


class Http1Protocol(asyncio.Protocol):
  """Reads requests one after the other; keeps the connection alive."""
  def __init__(self, connection: Connection, serve: Serve):
    self._connection = connection
    self._serve = serve
    self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=64 << 10)
    self._request: h11.Request | None = None
    self._chunks: list[bytes] = []
    self._nbytes = 0
    self._reading = False

  def data_received(self, data: bytes) -> None:
    self._h11.receive_data(data)
    self._read()

  def connection_lost(self, exc: Exception | None) -> None:
    self._connection.lost()

  def encode(self, event: h11.Event) -> bytes:
    """One event of an answer as bytes."""
    return self._h11.send(event) or b''

  def write(self, data: bytes) -> None:
    self._connection.transport.write(data)

  def encode_head(self, answer: Answer) -> bytes:
    """Status line and headers of an answer."""
    headers = [(name, value)
               for name, value in answer.headers.items()
               if name != 'content-length']
    headers.append(('content-length', str(len(answer.body))))
    return self.encode(
        h11.Response(
            status_code=answer.status,
            reason=_REASONS.get(answer.status, b''),
            headers=headers))

  def answered(self) -> None:
    """The answer is complete: on to the next request."""
    self.encode(h11.EndOfMessage())  # Has no bytes: the length is known.
    if self._h11.our_state is h11.MUST_CLOSE:
      self._connection.close()
      return
    self._h11.start_next_cycle()
    if not self._reading:
      self._read()  # What the client sent ahead.

  def _read(self) -> None:
    self._reading = True
    try:
      while not self._connection.ended:
        if self._h11.they_are_waiting_for_100_continue:
          self.write(
              self.encode(
                  h11.InformationalResponse(status_code=100, headers=[])))
        event = self._h11.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED:
          return
        if isinstance(event, h11.Request):
          self._request = event
          self._chunks = []
          self._nbytes = 0
        elif isinstance(event, h11.Data):
          self._nbytes += len(event.data)
          if self._nbytes > MAX_BODY_BYTES:
            self._refuse(413)
            return
          self._chunks.append(event.data)
        elif isinstance(event, h11.EndOfMessage):
          self._serve(Http1Exchange(self._call(), self._connection, self))
        else:  # ConnectionClosed
          self._connection.close()
          return
    except h11.RemoteProtocolError as e:
      self._refuse(e.error_status_hint)
    finally:
      self._reading = False

  def _call(self) -> Call:
    request = self._request
    assert request is not None
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
      name, value = raw_name.decode('latin-1'), raw_value.decode('latin-1')
      headers[name] = (
          f'{headers[name]}, {value}' if name in headers else value)
    path, _, query = request.target.decode('latin-1').partition('?')
    return Call(
        'rest',
        request.method.decode('latin-1'),
        path,
        parse_qsl(query, keep_blank_values=True) if query else [],
        headers,
        b''.join(self._chunks))

  def _refuse(self, status: int) -> None:
    """Ends a connection whose bytes make no sense as HTTP."""
    if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
      self.write(
          self.encode_head(Answer(status, headers={'connection': 'close'})))
    self._connection.close()


class Http1Exchange(Exchange):
  def __init__(
      self, call: Call, connection: Connection, protocol: Http1Protocol):
    super().__init__(call, connection)
    self._protocol = protocol

  def payload(self, answer: Answer) -> bytes:
    return answer.body

  def start(self, answer: Answer) -> None:
    self._protocol.write(self._protocol.encode_head(answer))

  def write(self, piece: bytes) -> None:
    if piece:
      self._protocol.write(self._protocol.encode(h11.Data(data=piece)))

  def finish(self, answer: Answer) -> None:
    self.end(whole=True)
    self._protocol.answered()

  def send(self, answer: Answer) -> None:
    data = self._protocol.encode_head(answer)
    if answer.body:
      data += self._protocol.encode(h11.Data(data=answer.body))
    # Ends before the client can know, so that the log is never behind it.
    self.end(whole=True)
    self._protocol.write(data)
    self._protocol.answered()

  def send_part(self, answer: Answer) -> None:
    data = self._protocol.encode_head(answer)
    if answer.body:
      data += answer.body[:len(answer.body) // 2]
    else:
      data = data[:8]  # Some clients take cut headers for whole ones.
    self._protocol.write(data)
