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
"""The data plane's operations on one index, whatever the transport."""

from __future__ import annotations

from typing import Any

from beam_harness.emulators.pinecone.errors import invalid
from beam_harness.emulators.pinecone.namespaces import Namespaces
from beam_harness.emulators.pinecone.reads import Reads
from beam_harness.emulators.pinecone.writes import Writes

__all__ = ['DataPlane', 'READS', 'WRITES']

WRITES = frozenset({
    'upsert',
    'delete',
    'update',
    'create_namespace',
    'delete_namespace',
})
READS = frozenset({
    'query',
    'fetch',
    'fetch_by_metadata',
    'list',
    'describe_index_stats',
    'list_namespaces',
    'describe_namespace',
})


class DataPlane(Writes, Reads, Namespaces):
  """Carries out one request of any operation."""
  def run(self, operation: str, request: Any) -> Any:
    """The answer to a request.

    Raises:
      ServiceError: the service refuses it.
    """
    if self._index.documents and operation in ('upsert', 'update', 'delete'):
      raise invalid(
          f'Index {self._index.name} was created with a schema of its own and '
          'does not take vector operations. Use the documents API: POST '
          '/namespaces/{namespace}/documents/upsert')
    return getattr(self, '_' + operation)(request)
