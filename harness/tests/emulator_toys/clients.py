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
"""Clients of the toy: plain HTTP, and grpcio with bytes for messages."""

from __future__ import annotations

import http.client
import socket
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor

import grpc
from emulator_toys.keyvalue import KEY


class Rest:
  """One connection at a time; opens another when it was closed."""
  def __init__(self, emulator, timeout=20.0):
    self._connection = http.client.HTTPConnection(
        emulator.host, timeout=timeout)

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    self._connection.close()

  def call(self, path, body=b'', method='POST', headers=None):
    """Returns status, headers, body."""
    try:
      self._connection.request(
          method, path, body, {
              'api-key': KEY, **(headers or {})
          })
      response = self._connection.getresponse()
      return response.status, response.headers, response.read()
    except (OSError, http.client.HTTPException):
      self._connection.close()
      raise


class Grpc:
  """One channel, that is one connection."""
  def __init__(self, emulator, **options):
    self.channel = grpc.insecure_channel(
        emulator.host,
        # A channel of its own, whatever others are open.
        options=[('grpc.use_local_subchannel_pool', 1),
                 ('grpc.max_receive_message_length', -1),
                 ('grpc.enable_retries', 0),
                 *options.items()])

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    self.channel.close()

  def call(self, method, body=b'', timeout=20.0, key=KEY, **options):
    """Returns the call when it is done; raises grpc.RpcError."""
    future = self.start(method, body, timeout, key, **options)
    future.result()
    return future

  def start(self, method, body=b'', timeout=20.0, key=KEY, **options):
    return self.channel.unary_unary(method).future(
        body, timeout=timeout, metadata=[('api-key', key)], **options)


def in_background(function, *args) -> Future:
  """Runs a call that may not return soon on a thread of its own."""
  executor = ThreadPoolExecutor(1)
  try:
    return executor.submit(function, *args)
  finally:
    executor.shutdown(wait=False)


def raw(emulator, *pieces: bytes, timeout=20.0) -> bytes:
  """Sends pieces of bytes; returns all that comes until the server closes."""
  host, _, port = emulator.host.rpartition(':')
  with socket.create_connection((host, int(port)), timeout) as sock:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
      sock.sendall(piece)
    answer = b''
    while piece := sock.recv(65_536):
      answer += piece
    return answer
