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
"""One port for two protocols: tells gRPC from REST by the first bytes.

Clients of these services dial one host and port for both. A gRPC connection
without TLS begins with the preface of HTTP/2, which no HTTP/1.1 request can.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from beam_harness.emulators.connection import Connection
from beam_harness.emulators.connection import Serve
from beam_harness.emulators.frames import PREFACE
from beam_harness.emulators.grpcwire import GrpcProtocol
from beam_harness.emulators.http1 import Http1Protocol

__all__ = ['Splitter']


class Splitter(asyncio.Protocol):
  """The first protocol of a connection; it steps aside when it has seen enough.
  """
  def __init__(
      self,
      serve: Serve,
      accept: Callable[[asyncio.Transport], Connection],
      lost: Callable[[Connection], None]):
    """
    Args:
      serve: takes charge of each request.
      accept: makes the connection of a transport.
      lost: called when a connection is gone.
    """
    self._serve = serve
    self._accept = accept
    self._lost = lost
    self._head = b''
    self._inner: Http1Protocol | GrpcProtocol | None = None

  def connection_made(self, transport: asyncio.BaseTransport) -> None:
    assert isinstance(transport, asyncio.Transport)
    transport.get_extra_info('socket').setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    self._connection = self._accept(transport)

  def data_received(self, data: bytes) -> None:
    if self._inner is not None:
      self._inner.data_received(data)
      return
    self._head += data
    if self._head.startswith(PREFACE):
      self._inner = GrpcProtocol(self._connection, self._serve)
      rest = self._head[len(PREFACE):]
    elif PREFACE.startswith(self._head):
      return  # Not enough yet to tell.
    else:
      self._inner = Http1Protocol(self._connection, self._serve)
      rest = self._head
    self._head = b''
    self._inner.data_received(rest)

  def eof_received(self) -> bool:
    # A client that shuts down its side has no use for an answer: close.
    return False

  def connection_lost(self, exc: Exception | None) -> None:
    if self._inner is not None:
      self._inner.connection_lost(exc)
    self._lost(self._connection)
