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
"""What nobody can undercut: bytes made before, sent through grpcio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from collections.abc import Sequence

import grpc
import grpc.aio

from beam_harness.bench.place import Place
from beam_pinecone.connection import API_VERSION

__all__ = ['AsyncFloor', 'blocking', 'send_each']

UPSERT = '/VectorService/Upsert'


@contextlib.contextmanager
def blocking(place: Place) -> Iterator[grpc.UnaryUnaryMultiCallable]:
  """The method of a blocking channel."""
  with grpc.insecure_channel(place.address) as channel:
    yield channel.unary_unary(UPSERT)


def send_each(
    method: grpc.UnaryUnaryMultiCallable,
    place: Place,
    requests: Sequence[bytes]) -> None:
  """Sends one request after the other."""
  metadata = _metadata(place)
  for request in requests:
    method(request, metadata=metadata)


class AsyncFloor:
  """A channel on an event loop, as the connector has it.

  Args:
    place: where to send.
    in_flight: requests in flight.
  """
  def __init__(self, place: Place, in_flight: int):
    self._metadata = _metadata(place)
    self._in_flight = in_flight
    self._loop = asyncio.new_event_loop()
    self._channel = self._loop.run_until_complete(self._open(place.address))
    self._method = self._channel.unary_unary(UPSERT)

  def send(self, requests: Sequence[bytes]) -> None:
    self._loop.run_until_complete(self._send(requests))

  def close(self) -> None:
    self._loop.run_until_complete(self._channel.close())
    self._loop.close()

  async def _open(self, address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address)

  async def _send(self, requests: Sequence[bytes]) -> None:
    todo = iter(requests)

    async def work() -> None:
      for request in todo:
        await self._method(request, metadata=self._metadata)

    await asyncio.gather(*(work() for _ in range(self._in_flight)))


def _metadata(place: Place) -> tuple[tuple[str, str], ...]:
  return (('api-key', place.api_key), ('x-pinecone-api-version', API_VERSION))
