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
"""The emulated Pinecone: routing, credentials, sizes, headers.

REST paths and gRPC methods lead to the same operations of `data`; the control
plane is REST only.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.core import Answer
from beam_harness.emulators.core import Call
from beam_harness.emulators.core import Refuse
from beam_harness.emulators.core import Transport
from beam_harness.emulators.pinecone import errors
from beam_harness.emulators.pinecone import json_answers
from beam_harness.emulators.pinecone import json_requests
from beam_harness.emulators.pinecone import limits
from beam_harness.emulators.pinecone import protobuf
from beam_harness.emulators.pinecone.addresses import Addresses
from beam_harness.emulators.pinecone.control import ControlPlane
from beam_harness.emulators.pinecone.data import WRITES
from beam_harness.emulators.pinecone.data import DataPlane
from beam_harness.emulators.pinecone.errors import ServiceError
from beam_harness.emulators.pinecone.messages import SERVICE
from beam_harness.emulators.pinecone.rules import Rules
from beam_harness.emulators.pinecone.state import seed
from beam_harness.emulators.pinecone.state import snapshot
from beam_harness.emulators.pinecone.store import Index

__all__ = ['PineconeService']

#: Operation of each REST path; a group is an index or a namespace.
_PATHS: tuple[tuple[str, str, str], ...] = (
    ('POST', '/vectors/upsert', 'upsert'),
    ('POST', '/query', 'query'),
    ('GET', '/vectors/fetch', 'fetch'),
    ('POST', '/vectors/fetch_by_metadata', 'fetch_by_metadata'),
    ('POST', '/vectors/delete', 'delete'),
    ('POST', '/vectors/update', 'update'),
    ('GET', '/vectors/list', 'list'),
    ('POST', '/describe_index_stats', 'describe_index_stats'),
    ('GET', '/describe_index_stats', 'describe_index_stats'),
    ('GET', '/namespaces', 'list_namespaces'),
    ('POST', '/namespaces', 'create_namespace'),
    ('GET', '/namespaces/([^/]+)', 'describe_namespace'),
    ('DELETE', '/namespaces/([^/]+)', 'delete_namespace'),
    ('GET', '/indexes', 'list_indexes'),
    ('POST', '/indexes', 'create_index'),
    ('GET', '/indexes/([^/]+)', 'describe_index'),
    ('PATCH', '/indexes/([^/]+)', 'configure_index'),
    ('DELETE', '/indexes/([^/]+)', 'delete_index'),
)
_ROUTES = tuple(
    (method, re.compile(path), operation) for method, path, operation in _PATHS)
_FIXED = {(method, path): operation
          for method, path, operation in _PATHS
          if '(' not in path}

#: Parts of the API that exist and are not emulated.
_ELSEWHERE = re.compile(
    r'/(namespaces/[^/]+/documents|records|bulk|namespace-aliases|collections|'
    r'backups|backup-schedules|restore-jobs|embed|rerank|models)(/.*)?'
    r'|/indexes/(create-for-model|[^/]+/.+)')

_CONTROL = frozenset({
    'list_indexes',
    'create_index',
    'describe_index',
    'configure_index',
    'delete_index',
})

#: The last version that knew no '__default__' is older than this one.
_DEFAULT_NAMESPACE_VERSION = '2025-04'


@dataclasses.dataclass(slots=True)
class _Decoded:
  """What became of a request's body: a request or a refusal."""
  request: Any = None
  error: ServiceError | None = None


class PineconeService:
  """A Pinecone project with its indexes.

  Args:
    clock: seconds, for writes that become visible late.
    **options: see `limits.Rules`.

  Raises:
    ValueError: an option is unknown or has no such value.
  """
  name = 'pinecone'
  #: An upsert is applied whole or not at all.
  partial_operations = ()

  def __init__(
      self, *, clock: Callable[[], float] = time.monotonic, **options: Any):
    self._clock = clock
    self._first_rules = Rules().changed(options)
    self._addresses = Addresses()
    self._own_host = ''
    self._start()

  def _start(self) -> None:
    self.rules = self._first_rules
    self._addresses.close()
    if self._own_host:
      self._addresses.learn(self._own_host)
    self.control = ControlPlane(self._addresses)
    self._request_ids = itertools.count(1)

  def operation(self, call: Call) -> str:
    if call.transport == 'grpc':
      service, _, method = call.method.strip('/').rpartition('/')
      if service != SERVICE or method not in protobuf.OPERATIONS:
        return 'unknown'
      return protobuf.OPERATIONS[method][0]
    return _route(call)[0]

  def count(self, call: Call, operation: str) -> int:
    if operation == 'upsert':
      request = self._decoded(call, operation).request
      return 0 if request is None else len(request.vectors)
    if operation == 'update':
      request = self._decoded(call, operation).request
      return 1 if request is not None and request.id else 0
    if operation == 'query':
      return 0 if self._decoded(call, operation).request is None else 1
    return len(self.record_ids(call, operation))

  def record_ids(self, call: Call, operation: str) -> Sequence[str]:
    if operation not in ('upsert', 'fetch', 'delete', 'update', 'query'):
      return ()
    request = self._decoded(call, operation).request
    if request is None:
      return ()
    if operation == 'upsert':
      return [vector.id for vector in request.vectors]
    if operation in ('update', 'query'):
      return [request.id] if request.id else ()
    return request.ids

  def handle(self, call: Call, refuse: Refuse | None = None) -> Answer:
    if call.transport == 'grpc':
      answer = self._grpc(call)
      answer.headers['x-pinecone-request-id'] = str(next(self._request_ids))
      return answer
    answer = self._rest(call)
    answer.headers['x-pinecone-request-id'] = str(next(self._request_ids))
    return answer

  def _grpc(self, call: Call) -> Answer:
    if not self._admitted(call):
      return errors.grpc_error(GRPC_CODES['UNAUTHENTICATED'], 'Unauthorized')
    operation = self.operation(call)
    if operation == 'unknown':
      return errors.grpc_error(GRPC_CODES['UNIMPLEMENTED'], '')
    try:
      answer, headers = self._data(call, operation)
    except ServiceError as e:
      return errors.grpc_error(e.code, e.message)
    return Answer(0, protobuf.encode(answer), headers)

  def _rest(self, call: Call) -> Answer:
    operation, name = _route(call)
    if operation in _CONTROL:
      if not self._admitted(call):
        return errors.control_error(401, 'Invalid API key.')
      return self._control(call, operation, name)
    if not self._admitted(call):
      return errors.unauthorized()
    if operation == 'unknown':
      if _ELSEWHERE.fullmatch(call.path):
        return errors.data_error(
            501, f'{call.method} {call.path} is not emulated')
      return errors.data_error(404, 'Not Found')
    try:
      answer, headers = self._data(call, operation)
    except ServiceError as e:
      return errors.data_error(e.http, e.message, e.code)
    status = 201 if operation == 'create_namespace' else 200
    headers['content-type'] = 'application/json'
    return Answer(status, json_answers.encode(answer), headers)

  def _admitted(self, call: Call) -> bool:
    return call.headers.get('api-key') in self.rules.api_keys

  def _control(self, call: Call, operation: str, name: str) -> Answer:
    try:
      body = json_requests.parse(call.body)
    except ServiceError as e:
      return errors.control_error(400, e.message)
    return self.control.answer(
        operation,
        name,
        body,
        _version(call),
        call.headers.get('host', ''),
        self.rules)

  def _data(self, call: Call, operation: str) -> tuple[Any, dict[str, str]]:
    decoded = self._decoded(call, operation)
    if decoded.error is not None:
      raise decoded.error
    index = self._index(call)
    if index is None:
      raise errors.not_found('Index not found')
    version = _version(call)
    plane = DataPlane(
        index,
        self.rules,
        self._clock,
        old_api=version is not None and version < _DEFAULT_NAMESPACE_VERSION)
    answer = plane.run(operation, decoded.request)
    headers = {}
    if plane.lsn is not None and self.rules.lsn_headers:
      name = 'request-lsn' if operation in WRITES else 'max-indexed-lsn'
      headers[f'x-pinecone-{name}'] = str(plane.lsn)
    return answer, headers

  def _index(self, call: Call) -> Index | None:
    entries = self.control.entries
    name = self._addresses.index_of(
        call.headers.get('host', ''), entries, self.rules)
    entry = entries.get(name or '')
    return None if entry is None else entry.index

  def _decoded(self, call: Call, operation: str) -> _Decoded:
    """The request's decoded form, from the call if it is already there."""
    if call.decoded is None:
      try:
        limits.check_request_size(self.rules, operation, len(call.body))
        call.decoded = _Decoded(self._decode(call, operation))
      except ServiceError as e:
        call.decoded = _Decoded(error=e)
    return call.decoded

  def _decode(self, call: Call, operation: str) -> Any:
    if call.transport == 'rest':
      return json_requests.decode(
          operation, call.body, call.query, _route(call)[1])
    index = self._index(call)
    method = call.method.rpartition('/')[2]
    return protobuf.decode(
        method, call.body, None if index is None else index.dimension)

  def error(
      self,
      transport: Transport,
      status: int,
      message: str,
      retry_after: float | None = None) -> Answer:
    if transport == 'grpc':
      return errors.grpc_error(status, message)
    return errors.data_error(status, message)

  def environment(self, host: str) -> Mapping[str, str]:
    self._own_host = host
    self._addresses.learn(host)
    return {
        'PINECONE_CONTROLLER_HOST': f'http://{host}',
        'PINECONE_API_KEY': next(iter(self.rules.api_keys), ''),
        'PINECONE_GRPC_SCHEME': 'http',
    }

  def reset(self) -> None:
    self._start()

  def seed(self, state: dict[str, Any]) -> None:
    """Puts indexes and records in, or changes options; see `state.seed`."""
    options = state.get('$options')
    if options is not None:
      self.rules = self.rules.changed(options)
    seed(
        self.control, {
            name: value for name, value in state.items() if name != '$options'
        },
        self.rules,
        self._clock)

  def snapshot(self) -> dict[str, Any]:
    """{index: {namespace: ...}}; see `state.snapshot`."""
    return snapshot(self.control, self.rules)


def _version(call: Call) -> str | None:
  return call.headers.get('x-pinecone-api-version')


def _route(call: Call) -> tuple[str, str]:
  """Operation of a REST request, and the name in its path."""
  operation = _FIXED.get((call.method, call.path))
  if operation is not None:
    return operation, ''
  for method, path, operation in _ROUTES:
    if method == call.method:
      found = path.fullmatch(call.path)
      if found:
        return operation, unquote(found[1]) if found.groups() else ''
  return 'unknown', ''
