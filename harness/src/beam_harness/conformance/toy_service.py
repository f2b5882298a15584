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
"""A service that is small enough to read at once: the suites' own subject.

It keeps records on shelves. With `authorization: Bearer KEY`:

    GET /shelves                  names of the shelves
    GET /shelves/NAME             how many records there are
    PUT /shelves/NAME             puts records there, one JSON object a line;
                                  records of the same id replace one another
    POST /shelves/NAME            answers with the records of ids, one JSON text
                                  a line; what it does not have it leaves out
    GET /shelves/NAME/ids         ids in order: ?prefix= &after= &limit=
    DELETE /shelves/NAME/ID       takes a record away
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from beam_harness.emulators.core import Answer
from beam_harness.emulators.core import Call
from beam_harness.emulators.core import Refuse
from beam_harness.emulators.core import Transport

__all__ = [
    'KEY', 'MAX_BYTES', 'MAX_RECORDS', 'PAGE', 'ToyService', 'create_service'
]

#: The credential the service accepts.
KEY = 'toy-key-5f1c0e'
MAX_RECORDS = 200
MAX_BYTES = 100_000
#: Ids that the service lists at a time, unless asked for fewer.
PAGE = 50


def create_service() -> ToyService:
  return ToyService()


class ToyService:
  """A `beam_harness.emulators.core.Service`."""
  name = 'toy'
  partial_operations = ('put', 'ask')

  def __init__(self) -> None:
    self._shelves: dict[str, dict[str, Any]] = {}
    self.reset()

  def operation(self, call: Call) -> str:
    depth = len(_path(call))
    if call.method == 'GET':
      return {0: 'shelves', 1: 'describe', 2: 'list'}.get(depth, 'unknown')
    return {
        'PUT': 'put', 'POST': 'ask', 'DELETE': 'delete'
    }.get(call.method, 'unknown')

  def count(self, call: Call, operation: str) -> int:
    return len(call.body.splitlines())

  def record_ids(self, call: Call, operation: str) -> list[str]:
    try:
      lines = _lines(call)
      return lines if operation == 'ask' else [record['id'] for record in lines]
    except (ValueError, KeyError, TypeError):
      return []

  def handle(self, call: Call, refuse: Refuse | None = None) -> Answer:
    if call.headers.get('authorization') != f'Bearer {KEY}':
      return self.error('rest', 401, 'this key opens nothing here')
    operation = self.operation(call)
    if operation == 'shelves':
      return Answer.json(200, {'shelves': sorted(self._shelves)})
    shelf, *rest = _path(call)
    stored = self._shelves.get(shelf)
    if stored is None:
      return self.error('rest', 404, f'there is no shelf {shelf!r}')
    if operation == 'describe':
      return Answer.json(200, {'records': len(stored)})
    if operation == 'list':
      return self._list(stored, dict(call.query))
    if operation == 'delete':
      stored.pop(rest[0], None)
      return Answer.json(200, {})
    try:
      lines = _lines(call)
    except ValueError:
      return self.error('rest', 400, 'a line is no JSON')
    if len(lines) > MAX_RECORDS or len(call.body) > MAX_BYTES:
      return self.error('rest', 413, 'too much at a time')
    ids = self.record_ids(call, operation)
    busy = [
        i for i, key in enumerate(ids) if refuse is not None and refuse(i, key)
    ]
    taken = [i for i in range(len(ids)) if i not in set(busy)]
    if operation == 'put':
      stored.update((ids[i], lines[i]) for i in taken)
      return Answer.json(200, {'busy': busy})
    # In an order of its own, so that answers must be matched by id.
    found = {ids[i]: stored[ids[i]] for i in taken if ids[i] in stored}
    return Answer.json(
        200, {
            'found': dict(sorted(found.items(), reverse=True)), 'busy': busy
        })

  def _list(self, stored: dict[str, Any], query: dict[str, str]) -> Answer:
    after, prefix = query.get('after', ''), query.get('prefix', '')
    limit = min(int(query.get('limit', PAGE)), PAGE)
    ids = sorted(
        key for key in stored if key > after and key.startswith(prefix))
    more = {'after': ids[limit - 1]} if len(ids) > limit else {}
    return Answer.json(200, {'ids': ids[:limit], **more})

  def error(
      self,
      transport: Transport,
      status: int,
      message: str,
      retry_after: float | None = None) -> Answer:
    return Answer.json(status, {'error': message})

  def environment(self, host: str) -> dict[str, str]:
    return {'TOY_URL': f'http://{host}', 'TOY_KEY': KEY}

  def reset(self) -> None:
    self._shelves = {'books': {}}

  def seed(self, state: dict[str, Any]) -> None:
    for shelf, records in state.items():
      self._shelves.setdefault(shelf, {}).update(records)

  def snapshot(self) -> dict[str, Any]:
    return self._shelves


def _path(call: Call) -> list[str]:
  """What follows /shelves, part by part."""
  parts = call.path.strip('/').split('/')
  return [unquote(part) for part in parts[1:]]


def _lines(call: Call) -> list[Any]:
  return [json.loads(line) for line in call.body.splitlines()]
