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
"""Operations on namespaces as such."""

from __future__ import annotations

from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.pinecone import limits
from beam_harness.emulators.pinecone import requests
from beam_harness.emulators.pinecone.errors import ServiceError
from beam_harness.emulators.pinecone.errors import invalid
from beam_harness.emulators.pinecone.plane import Plane
from beam_harness.emulators.pinecone.plane import page_after
from beam_harness.emulators.pinecone.plane import page_token
from beam_harness.emulators.pinecone.rules import DEFAULT_NAMESPACE

__all__ = ['Namespaces']


class Namespaces(Plane):
  """Namespaces are made, described and deleted."""
  def _create_namespace(
      self, request: requests.CreateNamespace) -> requests.NamespaceInfo:
    if not request.name or request.name == DEFAULT_NAMESPACE:
      raise invalid('The default namespace cannot be created explicitly')
    name = self._name(request.name)
    if name in self._index.namespaces:
      raise ServiceError(
          GRPC_CODES['ALREADY_EXISTS'], f'Namespace {name} already exists')
    namespace = self._made(name)
    namespace.fields = request.fields
    return self._info(name)

  def _describe_namespace(
      self, request: requests.DescribeNamespace) -> requests.NamespaceInfo:
    name = self._name(request.namespace)
    self._existing(name)
    return self._info(name)

  def _delete_namespace(
      self, request: requests.DeleteNamespace) -> requests.Deleted:
    name = self._name(request.namespace)
    self._existing(name)
    del self._index.namespaces[name]
    return requests.Deleted()

  def _list_namespaces(
      self, request: requests.ListNamespaces) -> requests.Namespaces:
    limit = limits.check_limit(request.limit)
    past = page_after(request.pagination_token)
    shown = {name or DEFAULT_NAMESPACE: name for name in self._index.namespaces}
    names = sorted(name for name in shown if name.startswith(request.prefix))
    rest = [name for name in names if name > past]
    page = rest[:limit]
    return requests.Namespaces(
        [self._info(shown[name]) for name in page],
        len(names),
        page_token(page[-1]) if len(rest) > limit else None)

  def _info(self, name: str) -> requests.NamespaceInfo:
    namespace = self._index.namespaces[name]
    return requests.NamespaceInfo(
        name or DEFAULT_NAMESPACE,
        self._count(name),
        namespace.committed.nbytes,
        namespace.fields)
