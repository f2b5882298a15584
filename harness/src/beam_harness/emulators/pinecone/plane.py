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
"""What all data-plane operations on an index share."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable

from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.pinecone import limits
from beam_harness.emulators.pinecone import requests
from beam_harness.emulators.pinecone.errors import ServiceError
from beam_harness.emulators.pinecone.errors import invalid
from beam_harness.emulators.pinecone.errors import not_found
from beam_harness.emulators.pinecone.filters import compile_filter
from beam_harness.emulators.pinecone.rules import Rules
from beam_harness.emulators.pinecone.store import Index
from beam_harness.emulators.pinecone.store import Namespace
from beam_harness.emulators.pinecone.store import Rows

__all__ = ['Plane', 'fetch_units', 'page_after', 'page_token', 'wire_bytes']

_NO_ROWS = Rows(None)


class Plane:
  """One request on one index.

  Attributes:
    lsn: after a write its log sequence number, after a read that of the last
      write it could see; None where there is none.
  """
  def __init__(
      self,
      index: Index,
      rules: Rules,
      clock: Callable[[], float],
      *,
      old_api: bool = False):
    """
    Args:
      index: the index.
      rules: limits and switches.
      clock: seconds, for writes that become visible late.
      old_api: whether the request names an API version before 2025-04.
    """
    self._index = index
    self._rules = rules
    self._clock = clock
    self._old_api = old_api
    self.lsn: int | None = None

  def _name(self, sent: str) -> str:
    return limits.check_namespace(sent, old_api=self._old_api)

  def _predicate(self, expression):
    if expression is None:
      return None
    return compile_filter(
        expression, negation_matches_missing=self._rules.ne_missing == 'match')

  def _writes_sparse(self) -> bool:
    return self._index.queries_sparse or self._rules.sparse_on_any_metric

  def _existing(self, name: str) -> Namespace:
    namespace = self._index.namespaces.get(name)
    if namespace is None:
      raise not_found('Namespace not found')
    return namespace

  def _made(self, name: str) -> Namespace:
    namespace = self._index.namespaces.get(name)
    if namespace is None:
      if len(self._index.namespaces) >= self._rules.max_namespaces:
        raise ServiceError(
            GRPC_CODES['FAILED_PRECONDITION'],
            f'An index has at most {self._rules.max_namespaces} namespaces')
      namespace = Namespace(self._index.dimension, self._rules, self._clock)
      self._index.namespaces[name] = namespace
    return namespace

  def _points(self, name: str) -> Rows:
    namespace = self._index.namespaces.get(name)
    if namespace is None or self._index.documents:
      return _NO_ROWS
    rows, self.lsn = namespace.points()
    return rows

  def _scans(self, name: str) -> Rows:
    namespace = self._index.namespaces.get(name)
    if namespace is None or self._index.documents:
      return _NO_ROWS
    rows, self.lsn = namespace.scans()
    return rows

  def _count(self, name: str) -> int:
    namespace = self._index.namespaces[name]
    return len(namespace.scans()[0]) + namespace.discarded


def wire_bytes(item: requests.Record | requests.Match) -> int:
  """About what a record takes in an answer, on either transport."""
  size = len(item.id) + 16
  if item.values is not None:
    size += 4 * len(item.values)
  if item.sparse is not None:
    size += 9 * len(item.sparse.indices)
  return size + limits.metadata_bytes(item.metadata)


def fetch_units(records: int) -> int:
  """Read units of a fetch: one for ten records, at least one."""
  return max(1, -(-records // 10))


def page_token(last: str) -> str:
  """A page's token: where the next one begins, hidden from clients."""
  return base64.urlsafe_b64encode(json.dumps({
      'skip_past': last
  }).encode()).decode()


def page_after(token: str | None) -> str:
  if not token:
    return ''
  try:
    last = json.loads(base64.urlsafe_b64decode(token))['skip_past']
    if not isinstance(last, str):
      raise ValueError
    return last
  except (ValueError, KeyError, TypeError, binascii.Error) as e:
    raise invalid('Invalid pagination token') from e
