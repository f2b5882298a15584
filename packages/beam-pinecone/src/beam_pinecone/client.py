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
"""Pinecone's gRPC data plane on asyncio: bytes in, bytes or typed errors out.

Requests and responses pass as bytes: `wire` makes and reads them. gRPC's own
retries are off, since the engine above counts and spaces every attempt.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

import grpc
import grpc.aio

from beam_connector_base.retry import parse_retry_after
from beam_pinecone.connection import Endpoint
from beam_pinecone.errors import PineconeError

__all__ = ['PineconeClient']

# As the service's own clients set it.
MAX_MESSAGE_BYTES = 128 << 20

_OPTIONS = (
    ('grpc.max_send_message_length', MAX_MESSAGE_BYTES),
    ('grpc.max_receive_message_length', MAX_MESSAGE_BYTES),
    # Notices a dead peer while requests are under way, and only then: a server
    # may count pings on an idle connection as abuse.
    ('grpc.keepalive_time_ms', 60_000),
    ('grpc.keepalive_timeout_ms', 20_000),
    ('grpc.keepalive_permit_without_calls', 0),
    ('grpc.enable_retries', 0),
    ('grpc.service_config_disable_resolution', 1),
    # By default gRPC waits up to two minutes before it dials again; the engine
    # above decides when it is time to try.
    ('grpc.initial_reconnect_backoff_ms', 200),
    ('grpc.min_reconnect_backoff_ms', 5_000),
    ('grpc.max_reconnect_backoff_ms', 2_000),
    # Sessions share neither connections nor their backoff.
    ('grpc.use_local_subchannel_pool', 1),
)


class PineconeClient:
  """A channel to one index; made on the event loop that uses it.

  Args:
    endpoint: where the index is.
    headers: sent with each request; they hold the credential.
    user_agent: how we introduce ourselves.
    ca_certs: path of PEM certificates to trust instead of gRPC's own.
  """
  def __init__(
      self,
      endpoint: Endpoint,
      headers: Mapping[str, str],
      user_agent: str,
      ca_certs: Optional[str] = None):
    self.endpoint = endpoint
    self._headers = tuple(headers.items())
    options: list[tuple[str, Any]] = [
        *_OPTIONS, ('grpc.primary_user_agent', user_agent)
    ]
    if endpoint.is_loopback:
      options.append(('grpc.enable_http_proxy', 0))
    if endpoint.tls:
      roots = None
      if ca_certs is not None:
        with open(ca_certs, 'rb') as file:
          roots = file.read()
      self._channel = grpc.aio.secure_channel(
          endpoint.address, grpc.ssl_channel_credentials(roots), options)
    else:
      self._channel = grpc.aio.insecure_channel(endpoint.address, options)
    self._upsert = self._channel.unary_unary('/VectorService/Upsert')
    self._stats = self._channel.unary_unary('/VectorService/DescribeIndexStats')
    self._methods: dict[str, Any] = {}
    self._random_bits = random.Random().getrandbits

  async def upsert(self, request: bytes) -> bytes:
    """Sends an UpsertRequest and returns the UpsertResponse.

    Cancelling it closes the stream, so that no answer can arrive later.

    Raises:
      PineconeError: what the service, or the way to it, answered.
    """
    return await self._call(self._upsert, request)

  async def describe_index_stats(self, timeout: float) -> bytes:
    """Returns the DescribeIndexStatsResponse.

    Args:
      timeout: seconds.

    Raises:
      PineconeError: what the service, or the way to it, answered.
    """
    return await self._call(self._stats, b'', timeout)

  async def call(
      self,
      method: str,
      request: bytes,
      timeout: Optional[float] = None) -> bytes:
    """Sends a request of any other method and returns its response.

    Args:
      method: its name in the service's own definition, such as 'List'.
      request: the message.
      timeout: seconds; None for as long as it is not cancelled.

    Raises:
      PineconeError: what the service, or the way to it, answered.
    """
    return await self._call(self._method(method), request, timeout)

  async def call_each(
      self, method: str,
      requests: Iterable[bytes]) -> list[Union[bytes, PineconeError]]:
    """Sends requests side by side; costs less than a task for each.

    Cancelling it closes all their streams.

    Args:
      method: its name in the service's own definition, such as 'Query'.
      requests: the messages.

    Returns:
      One response per request, in order, or what was answered instead.
    """
    known = self._method(method)
    calls = [known(request, metadata=self._metadata()) for request in requests]
    answers: list[Union[bytes, PineconeError]] = []
    try:
      for call in calls:
        try:
          answers.append(await call)
        except grpc.aio.AioRpcError as e:
          answers.append(_typed(e))
    finally:
      if len(answers) < len(calls):
        for call in calls:
          call.cancel()
    return answers

  async def close(self) -> None:
    """Closes the channel; calls under way are cancelled."""
    await self._channel.close()

  async def _call(
      self,
      method: Any,
      request: bytes,
      timeout: Optional[float] = None) -> bytes:
    try:
      return await method(request, metadata=self._metadata(), timeout=timeout)
    except grpc.aio.AioRpcError as e:
      raise _typed(e) from None

  def _method(self, name: str) -> Any:
    known = self._methods.get(name)
    if known is None:
      known = self._channel.unary_unary(f'/VectorService/{name}')
      self._methods[name] = known
    return known

  def _metadata(self) -> tuple[tuple[str, str], ...]:
    return (*self._headers, ('x-request-id', self._request_id()))

  def _request_id(self) -> str:
    # A UUID of version 4, at a quarter of what the uuid module takes.
    text = f'{self._random_bits(128):032x}'
    return (
        f'{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}')


def _typed(error: grpc.aio.AioRpcError) -> PineconeError:
  """The error as plain data: gRPC's own holds its request's metadata."""
  trailers = {
      key: value
      for part in (error.initial_metadata(), error.trailing_metadata())
      for key, value in part or ()
      if isinstance(value, str)
  }
  return PineconeError(
      error.code().name,
      error.details() or '',
      _retry_after(trailers),
      trailers.get('x-pinecone-request-id') or trailers.get('x-request-id'))


def _retry_after(trailers: Mapping[str, str]) -> Optional[float]:
  pushback = trailers.get('grpc-retry-pushback-ms')
  if pushback is not None:
    try:
      milliseconds = float(pushback)
    except ValueError:
      milliseconds = -1.0
    # A negative one asks not to try again at once: the engine's own pace holds.
    if milliseconds >= 0:
      return milliseconds / 1000
  return parse_retry_after(trailers.get('retry-after'))
