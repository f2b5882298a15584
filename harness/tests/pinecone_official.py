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
"""The official Pinecone client in front of an emulator, for tests."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import pinecone
from pinecone import AsyncPinecone
from pinecone import Pinecone
from pinecone._internal.bulk import get_registry
from pinecone._internal.http_client import get_budget_registry
from pinecone.grpc import GrpcIndex

__all__ = ['KEY', 'CLIENTS', 'create', 'forget_past_failures', 'open_index']

KEY = 'test-key'
CLIENTS = ('rest', 'grpc', 'asyncio')


def forget_past_failures() -> None:
  """Client 10.2.0 keeps retry budgets by host name for the whole process."""
  get_registry()._reset()
  get_budget_registry()._reset()


def create(emulator, name: str = 'one', **body: Any) -> str:
  """Makes a vector index the way clients of before 2026-07 do.

  Returns:
    The index's host.
  """
  body = {'dimension': 3, **body} if 'vector_type' not in body else body
  request = urllib.request.Request(
      f'{emulator.url}/indexes',
      json.dumps({
          'name': name,
          'spec': {
              'serverless': {
                  'cloud': 'aws', 'region': 'us-east-1'
              }
          },
          **body
      }).encode(), {
          'Api-Key': KEY, 'X-Pinecone-Api-Version': '2026-04'
      })
  with urllib.request.urlopen(request) as response:
    return json.load(response)['host']


class _Blocking:
  """An asyncio index whose methods wait for their result."""
  def __init__(self, host: str):
    self._loop = asyncio.new_event_loop()
    self._client = AsyncPinecone(api_key=KEY, host=host)
    self._index = self._loop.run_until_complete(self._client.index(host=host))

  def __getattr__(self, name: str):
    method = getattr(self._index, name)
    return lambda **fields: self._loop.run_until_complete(method(**fields))

  def close(self) -> None:
    self._loop.run_until_complete(self._index.close())
    self._loop.run_until_complete(self._client.close())
    self._loop.close()


def open_index(kind: str, host: str):
  """A handle of the official client; `close` it.

  Args:
    kind: one of `CLIENTS`.
    host: the index's, with its scheme.
  """
  if kind == 'rest':
    return Pinecone(api_key=KEY).index(host=host)
  if kind == 'asyncio':
    return _Blocking(host)
  return GrpcIndex(
      host=host,
      api_key=KEY,
      grpc_scheme='http',
      retry_config=pinecone.RetryConfig(max_retries=0))
