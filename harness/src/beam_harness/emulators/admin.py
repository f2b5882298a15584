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
"""The admin requests of an emulator: `/_harness/...` on its own port.

A test asks in the same way whether the emulator is a thread or a process.
Admin requests meet no fault and are not in the log.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import typing
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from beam_harness.emulators.core import Answer
from beam_harness.emulators.core import Call
from beam_harness.emulators.core import LogEntry
from beam_harness.emulators.requestlog import Capture
from beam_harness.faults import FaultPlan

if typing.TYPE_CHECKING:
  from beam_harness.emulators.server import Server

__all__ = ['Admin', 'PREFIX', 'entry_from_json']

PREFIX = '/_harness/'

_FIELDS = tuple(field.name for field in dataclasses.fields(LogEntry))
_PAGE = 10_000


class Admin:
  """Answers the admin requests of one server."""
  def __init__(self, server: Server):
    self._server = server
    self._routes: Mapping[tuple[str, str], Callable[[Call], Any]] = {
        ('GET', 'ready'):
            self._ready,
        ('GET', 'stats'):
            self._stats,
        ('GET', 'log'):
            self._log,
        ('DELETE', 'log'):
            lambda call: server.log.reset(),
        ('POST', 'capture'):
            self._capture,
        ('POST', 'reset'):
            lambda call: server.reset(),
        ('POST', 'seed'):
            lambda call: server.service.seed(json.loads(call.body)),
        ('GET', 'snapshot'):
            lambda call: server.service.snapshot(),
        ('GET', 'faults'):
            lambda call: server.faults.plan.to_json(),
        ('POST', 'faults'):
            lambda call: server.set_faults(FaultPlan.from_json(call.body)),
    }

  @staticmethod
  def is_admin(call: Call) -> bool:
    return call.transport == 'rest' and call.path.startswith(PREFIX)

  def answer(self, call: Call) -> Answer:
    """Answers with JSON; an error is {"error": text}."""
    name = call.path[len(PREFIX):]
    route = self._routes.get((call.method, name))
    if route is None:
      known = sorted({method for method, each in self._routes if each == name})
      return Answer.json(
          405 if known else 404,
          {'error': f'{call.method} {call.path}: try {known or PREFIX}'})
    try:
      return Answer.json(200, route(call))
    except ValueError as e:  # Bad JSON is one too.
      return Answer.json(400, {'error': str(e)})
    except Exception as e:
      self._server.defect()
      return Answer.json(500, {'error': f'{type(e).__name__}: {e}'})

  def _ready(self, call: Call) -> dict[str, Any]:
    service = self._server.service
    return {
        'service': service.name,
        'pid': os.getpid(),
        'environment': dict(service.environment(self._server.host)),
    }

  def _stats(self, call: Call) -> dict[str, Any]:
    server = self._server
    return {
        'connections': server.connections_opened,
        'open_connections': server.open_connections,
        'max_in_flight': server.log.max_in_flight,
        'counts': {
            operation: dataclasses.asdict(counts)
            for operation, counts in server.log.counts().items()
        },
        'fault_hits': server.faults.hits(),
        'log_dropped': server.log.dropped,
        'defects': server.defects,
    }

  def _log(self, call: Call) -> dict[str, Any]:
    query = dict(call.query)
    log = self._server.log
    if 'last' in query:
      entries = log.last(int(query['last']))
      return {'entries': [_entry_to_json(each) for each in entries]}
    limit = min(int(query.get('limit', _PAGE)), _PAGE)
    entries = log.entries(
        after=int(query.get('after', -1)),
        limit=limit,
        operation=query.get('operation'),
        transport=query.get('transport'),
        fault=query.get('fault'))
    page: dict[str, Any] = {
        'entries': [_entry_to_json(each) for each in entries]
    }
    if len(entries) == limit:
      page['next'] = entries[-1].number
    return page

  def _capture(self, call: Call) -> None:
    value = json.loads(call.body)
    self._server.log.capture = Capture(
        headers=bool(value.get('headers')), bodies=bool(value.get('bodies')))


def _entry_to_json(entry: LogEntry) -> list[Any]:
  """Values in the order of the fields: a log of 100,000 stays small."""
  values = [getattr(entry, name) for name in _FIELDS]
  if entry.body is not None:
    values[-1] = base64.b64encode(entry.body).decode()
  return values


def entry_from_json(values: list[Any]) -> LogEntry:
  """The entry that an element of a log page stands for."""
  entry = LogEntry(*values)
  if entry.body is not None:
    entry.body = base64.b64decode(entry.body)
  return entry
