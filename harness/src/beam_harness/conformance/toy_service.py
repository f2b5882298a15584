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

It keeps records on shelves. `PUT /shelves/NAME` with one JSON object a line
and `authorization: Bearer KEY` puts them there; records of the same id replace
one another. `GET /shelves/NAME` says how many there are.
"""

from __future__ import annotations

import json
from typing import Any

from beam_harness.emulators.core import Answer
from beam_harness.emulators.core import Call
from beam_harness.emulators.core import Refuse
from beam_harness.emulators.core import Transport

__all__ = ['KEY', 'MAX_BYTES', 'MAX_RECORDS', 'ToyService', 'create_service']

#: The credential the service accepts.
KEY = 'toy-key-5f1c0e'
MAX_RECORDS = 200
MAX_BYTES = 100_000


def create_service() -> ToyService:
  return ToyService()


class ToyService:
  """A `beam_harness.emulators.core.Service`."""
  name = 'toy'
  partial_operations = ('put',)

  def __init__(self) -> None:
    self._shelves: dict[str, dict[str, Any]] = {}

  def operation(self, call: Call) -> str:
    return {'PUT': 'put', 'GET': 'describe'}.get(call.method, 'unknown')

  def count(self, call: Call, operation: str) -> int:
    return len(call.body.splitlines())

  def record_ids(self, call: Call, operation: str) -> list[str]:
    try:
      return [record['id'] for record in _records(call)]
    except (ValueError, KeyError, TypeError):
      return []

  def handle(self, call: Call, refuse: Refuse | None = None) -> Answer:
    if call.headers.get('authorization') != f'Bearer {KEY}':
      return self.error('rest', 401, 'this key opens nothing here')
    shelf = call.path.removeprefix('/shelves/')
    if shelf != 'books':
      return self.error('rest', 404, f'there is no shelf {shelf!r}')
    stored = self._shelves.setdefault(shelf, {})
    if call.method == 'GET':
      return Answer.json(200, {'records': len(stored)})
    try:
      records = _records(call)
    except ValueError:
      return self.error('rest', 400, 'a line is no JSON object')
    if len(records) > MAX_RECORDS or len(call.body) > MAX_BYTES:
      return self.error('rest', 413, 'too much at a time')
    busy = []
    for i, record in enumerate(records):
      if refuse is not None and refuse(i, record['id']):
        busy.append(i)
      else:
        stored[record['id']] = record
    return Answer.json(200, {'busy': busy})

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
    self._shelves.clear()

  def seed(self, state: dict[str, Any]) -> None:
    for shelf, records in state.items():
      self._shelves.setdefault(shelf, {}).update(records)

  def snapshot(self) -> dict[str, Any]:
    return self._shelves


def _records(call: Call) -> list[dict[str, Any]]:
  return [json.loads(line) for line in call.body.splitlines()]
