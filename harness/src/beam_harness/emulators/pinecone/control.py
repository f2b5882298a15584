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
"""The control plane: indexes are created, described, changed and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_harness.emulators.core import Answer
from beam_harness.emulators.pinecone.addresses import Addresses
from beam_harness.emulators.pinecone.errors import control_error
from beam_harness.emulators.pinecone.rules import Rules
from beam_harness.emulators.pinecone.shapes import SCHEMA_VERSION
from beam_harness.emulators.pinecone.shapes import Entry
from beam_harness.emulators.pinecone.shapes import Refused
from beam_harness.emulators.pinecone.shapes import configure
from beam_harness.emulators.pinecone.shapes import make
from beam_harness.emulators.pinecone.shapes import model

__all__ = ['ControlPlane']


class ControlPlane:
  """The indexes of one emulated project."""
  def __init__(self, addresses: Addresses):
    self._addresses = addresses
    self.entries: dict[str, Entry] = {}

  def answer(
      self,
      operation: str,
      name: str,
      body: Mapping[str, Any],
      version: str | None,
      host: str,
      rules: Rules) -> Answer:
    """Answers a request.

    Args:
      operation: 'create_index' and so on.
      name: of the index, from the path.
      body: the JSON body.
      version: API version the request names, or None.
      host: its Host header.
      rules: switches.
    """
    def shown(entry: Entry) -> dict[str, Any]:
      url = self._addresses.url(entry.index.name, host, rules)
      return model(entry, url, version is None or version >= SCHEMA_VERSION)

    try:
      if operation == 'list_indexes':
        return Answer.json(
            200, {'indexes': [shown(each) for each in self.entries.values()]})
      if operation == 'create_index':
        created = self.create(body, version)
        created.describes_left = rules.describes_until_ready
        return Answer.json(201, shown(created))
      if name not in self.entries:
        raise Refused(404, f'Index {name} not found.')
      entry = self.entries[name]
      if operation == 'describe_index':
        answer = Answer.json(200, shown(entry))
        entry.describes_left = max(0, entry.describes_left - 1)
        return answer
      if operation == 'configure_index':
        configure(entry, body)
        return Answer.json(200, shown(entry))
      self._delete(entry)
      return Answer(202, b'')
    except Refused as e:
      return control_error(e.status, e.message)

  def create(self, body: Mapping[str, Any], version: str | None) -> Entry:
    """Makes an index from the body of a create request.

    Args:
      body: in the shape of the version, or where that is None in either.
      version: API version.

    Raises:
      Refused: the body is not acceptable.
    """
    entry = make(body, version)
    name = entry.index.name
    if name in self.entries:
      raise Refused(409, 'Resource already exists.')
    self.entries[name] = entry
    return entry

  def _delete(self, entry: Entry) -> None:
    if entry.deletion_protection == 'enabled':
      raise Refused(
          403,
          'Deletion protection is enabled for this index. Disable deletion '
          'protection before retrying.')
    del self.entries[entry.index.name]
    self._addresses.forget(entry.index.name)
