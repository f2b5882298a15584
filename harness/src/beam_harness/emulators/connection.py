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
"""A client's connection, and one request on it with the way back.

The two wire protocols (`http1`, `http2`) make these; the server answers
through them without knowing which protocol it speaks. All of it lives on the
thread of the server's event loop.
"""

from __future__ import annotations

import abc
import asyncio
import socket
import struct
from collections.abc import Callable

from beam_harness.emulators.core import Answer
from beam_harness.emulators.core import Call

__all__ = ['Connection', 'Exchange', 'MAX_BODY_BYTES', 'Serve']

#: Beyond this a request is refused unread: a guard for the memory of the
#: machine that runs the tests. The limits of a service are the service's own.
MAX_BODY_BYTES = 256 << 20


class Connection:
  """One accepted TCP connection.

  Attributes:
    number: position among the connections the server accepted, from 1.
    peer: address of the client, 'host:port'.
    used: whether a request for the service came on it (not only for admin).
    ended: whether it is closed or about to be; nothing is read or written any
      more.
  """
  def __init__(self, number: int, transport: asyncio.Transport):
    host, port = transport.get_extra_info('peername')[:2]
    self.number = number
    self.peer = f'{host}:{port}'
    self.used = False
    self.ended = False
    self.transport = transport
    #: Requests that have not ended, in order of arrival.
    self.exchanges: dict[Exchange, None] = {}

  def reset(self) -> None:
    """Resets the connection (RST); whatever was not sent yet is dropped."""
    sock = self.transport.get_extra_info('socket')
    # Zero linger turns the close into a reset.
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    self.transport.abort()
    self.lost()

  def close(self) -> None:
    """Closes the connection (FIN) once all that was written is sent.

    Requests that have no answer yet get none.
    """
    self.transport.close()
    self.lost()

  def lost(self) -> None:
    """The connection is gone: no request on it gets its answer any more."""
    self.ended = True
    for exchange in list(self.exchanges):
      exchange.end(whole=False)


class Exchange(abc.ABC):
  """One request, and the way back to its client.

  The answer is `send`; or `start`, then `write` any number of times, then
  `finish`; or `send_part`, after which the connection has to be closed.
  """
  def __init__(self, call: Call, connection: Connection):
    self.call = call
    self.connection = connection
    self._on_end: Callable[[bool], None] | None = None
    self.ended = False
    connection.exchanges[self] = None

  def when_ended(self, callback: Callable[[bool], None]) -> None:
    """Sets what is called, once, when the exchange ends.

    Args:
      callback: gets True when the whole answer was handed to the socket,
        False when the client gave up or the connection ended before.
    """
    self._on_end = callback

  def end(self, whole: bool) -> None:
    """Called by the protocol when the exchange is over."""
    if self.ended:
      return
    self.ended = True
    self.connection.exchanges.pop(self, None)
    if self._on_end is not None:
      self._on_end(whole)

  @abc.abstractmethod
  def payload(self, answer: Answer) -> bytes:
    """The answer's body as it goes over the wire."""

  @abc.abstractmethod
  def start(self, answer: Answer) -> None:
    """Sends what comes before the body."""

  @abc.abstractmethod
  def write(self, piece: bytes) -> None:
    """Sends a piece of the payload."""

  @abc.abstractmethod
  def finish(self, answer: Answer) -> None:
    """Sends what comes after the body and ends the exchange."""

  @abc.abstractmethod
  def send(self, answer: Answer) -> None:
    """Sends the whole answer in one piece and ends the exchange."""

  @abc.abstractmethod
  def send_part(self, answer: Answer) -> None:
    """Sends an answer that breaks off in its middle."""


#: Takes charge of a request that has arrived completely.
Serve = Callable[[Exchange], None]
