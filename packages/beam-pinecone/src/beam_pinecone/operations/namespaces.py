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
"""What a read has to know besides its answer: an empty one may mean anything.

The service answers a query or fetch of a namespace that does not exist as if
nothing had been found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Optional

from beam_connector_base.operation import Kind
from beam_connector_base.operation import Verdict
from beam_pinecone.client import PineconeClient
from beam_pinecone.errors import PineconeError
from beam_pinecone.operations.service import read_stats
from beam_pinecone.schema import IndexSchema

__all__ = [
    'Namespaces',
    'NamespaceNotFound',
    'ON_MISSING_NAMESPACE',
    'check_on_missing_namespace',
]

#: What becomes of a read of a namespace that does not exist.
ON_MISSING_NAMESPACE = ('fail', 'empty')
# How long one look at the namespaces serves all who ask.
_FRESH_SECONDS = 1.0


def check_on_missing_namespace(value: str) -> str:
  """The argument of a transform, checked."""
  if value not in ON_MISSING_NAMESPACE:
    raise ValueError(
        f'on_missing_namespace must be one of {ON_MISSING_NAMESPACE}, not '
        f'{value!r}')
  return value


class NamespaceNotFound(PineconeError):
  """A read of a namespace that does not exist.

  Args:
    namespace: its name.
    index: name of the index.
    for_all: whether all records are looked up there.
  """
  def __init__(self, namespace: str, index: str, for_all: bool):
    super().__init__(
        'NOT_FOUND',
        f'index {index!r} has no namespace {namespace!r}: check its name, or '
        "pass on_missing_namespace='empty' if it may be missing")
    self.args = (namespace, index, for_all)
    self.for_all = for_all

  @property
  def verdict(self) -> Verdict:
    """FATAL where no record could be answered, else PERMANENT."""
    kind = Kind.FATAL if self.for_all else Kind.PERMANENT
    return Verdict(kind, None, 404, self.message)


class Namespaces:
  """Which namespaces of an index exist; used on the event loop.

  Only asked where an answer was empty. What exists is remembered; what does
  not is looked for again, since it may be made at any time.

  Args:
    client: of the index.
    schema: of the index.
    timeout: seconds for one look.
    for_all: whether one namespace serves all records.
    on_missing: 'fail' or 'empty'.
  """
  def __init__(
      self,
      client: PineconeClient,
      schema: IndexSchema,
      timeout: float,
      *,
      for_all: bool,
      on_missing: str):
    self._client = client
    self._index = schema.index
    self._timeout = timeout
    self._for_all = for_all
    self._indifferent = on_missing == 'empty'
    # The default namespace is always there.
    self._exist = {''}
    self._seen: frozenset[str] = frozenset()
    self._seen_at: Optional[float] = None
    self._look = asyncio.Lock()

  def found(self, namespace: str) -> None:
    """Something was found in it, so that it exists."""
    self._exist.add(namespace)

  async def missing(self, namespace: str) -> Optional[NamespaceNotFound]:
    """The error of an empty answer, or None where it is fine.

    Raises:
      PineconeError: it could not be found out.
    """
    if self._indifferent or namespace in self._exist:
      return None
    loop = asyncio.get_running_loop()
    async with self._look:
      if namespace in self._exist:
        return None
      at = self._seen_at
      if at is None or loop.time() - at > _FRESH_SECONDS:
        at = loop.time()
        stats = await read_stats(self._client, self._timeout)
        self._see(stats.namespaces)
        self._seen_at = at
    if namespace in self._seen:
      self._exist.add(namespace)
      return None
    return NamespaceNotFound(namespace, self._index, self._for_all)

  def _see(self, names: Iterable[str]) -> None:
    self._seen = frozenset(names)
