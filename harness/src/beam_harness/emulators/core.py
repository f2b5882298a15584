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
"""What an emulated service is: the request, the answer, the log entry.

A service is plain Python: bytes in, bytes out, no sockets, no clock, no
faults. The server in front of it speaks HTTP/1.1 and gRPC on one port,
injects faults, keeps the log and answers the admin requests. It calls the
service from one thread only, one call at a time, so a service needs no lock
and must not block.

A module `beam_harness.emulators.<name>` offers its service by a function
`create_service(**options) -> Service`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal
from typing import Protocol
from typing import runtime_checkable

__all__ = [
    'Answer',
    'Call',
    'GRPC_CODES',
    'GRPC_NAMES',
    'LogEntry',
    'Refuse',
    'Service',
    'Transport',
    'create_service',
    'without_secrets',
]

Transport = Literal['rest', 'grpc']

#: Number of each gRPC status, by name.
GRPC_CODES: Mapping[str, int] = {
    name: number for number, name in enumerate((
        'OK',
        'CANCELLED',
        'UNKNOWN',
        'INVALID_ARGUMENT',
        'DEADLINE_EXCEEDED',
        'NOT_FOUND',
        'ALREADY_EXISTS',
        'PERMISSION_DENIED',
        'RESOURCE_EXHAUSTED',
        'FAILED_PRECONDITION',
        'ABORTED',
        'OUT_OF_RANGE',
        'UNIMPLEMENTED',
        'INTERNAL',
        'UNAVAILABLE',
        'DATA_LOSS',
        'UNAUTHENTICATED',))
}

#: Name of each gRPC status, by number.
GRPC_NAMES: Mapping[int, str] = {
    number: name for name, number in GRPC_CODES.items()
}

#: Given a record's position in the request and its id, whether a `partial`
#: fault wants that record refused.
Refuse = Callable[[int, str], bool]


@dataclasses.dataclass
class Call:
  """One complete request, as a service sees it.

  Attributes:
    transport: 'rest' or 'grpc'.
    method: the HTTP method ('POST'), or for gRPC the full method name
      ('/VectorService/Upsert').
    path: the path as sent, still percent-encoded, without the query string.
      For gRPC the same as `method`.
    query: decoded pairs of the query string, in order, repeated names kept.
    headers: lower-case names; of a repeated header the values are joined with
      ', '. 'host' is always there (gRPC: from ':authority').
    body: the request body; for gRPC the message's bytes without the frame.
    decoded: a place where the service keeps its decoded form of the request
      between `operation`, `count`, `record_ids` and `handle`, so that a body
      is decoded once. The server never looks at it.
  """
  transport: Transport
  method: str
  path: str
  query: list[tuple[str, str]] = dataclasses.field(default_factory=list)
  headers: dict[str, str] = dataclasses.field(default_factory=dict)
  body: bytes = b''
  decoded: Any = None


@dataclasses.dataclass
class Answer:
  """What a service says.

  Attributes:
    status: HTTP status, or for gRPC the number of the status (0 is OK).
    body: the response body; for gRPC the message's bytes, sent only when the
      status is OK.
    headers: lower-case names. For REST give 'content-type'; 'content-length'
      is the server's.
    message: gRPC status text. REST ignores it.
    trailers: gRPC trailing metadata. REST ignores it.
  """
  status: int
  body: bytes = b''
  headers: dict[str, str] = dataclasses.field(default_factory=dict)
  message: str = ''
  trailers: dict[str, str] = dataclasses.field(default_factory=dict)

  @classmethod
  def json(
      cls,
      status: int,
      value: Any,
      headers: Mapping[str, str] | None = None) -> Answer:
    """A REST answer with `value` as its JSON body."""
    return cls(
        status,
        json.dumps(value, separators=(',', ':')).encode(), {
            'content-type': 'application/json', **(headers or {})
        })


@dataclasses.dataclass(slots=True)
class LogEntry:
  """One request as the log remembers it.

  Times are seconds of `time.monotonic()`, which on Linux all processes of a
  machine share, so they compare with a test's own clock.

  Attributes:
    number: position in the log since the last reset, from 0.
    operation: the service's name for what was asked ('upsert').
    transport: 'rest' or 'grpc'.
    method: HTTP method, or the gRPC method name.
    path: path without the query string.
    status: HTTP status or gRPC status number of the answer that went out
      whole; None when none did (reset, truncated, hung, client left) or while
      the request is in flight.
    records: records in the request, as the service counts them.
    nbytes: size of the request body (gRPC: of the message).
    started: when the request had arrived completely.
    ended: when the answer was handed to the socket or the connection ended;
      None while in flight.
    connection: number of the connection since the server started.
    peer: address of the client, 'host:port'.
    request_id: the client's 'x-request-id', if it sent one.
    fault: kind of the fault that shaped the answer, or None. A delay alone is
      'latency'.
    applied: whether the service was asked to carry the request out.
    headers: request headers without secrets, when headers are captured.
    body: request body, when bodies are captured.
  """
  number: int
  operation: str
  transport: Transport
  method: str
  path: str
  status: int | None
  records: int
  nbytes: int
  started: float
  ended: float | None
  connection: int
  peer: str
  request_id: str | None
  fault: str | None
  applied: bool
  headers: dict[str, str] | None
  body: bytes | None

  @property
  def ok(self) -> bool:
    """Whether the client got a whole answer that says it worked."""
    if self.status is None:
      return False
    if self.transport == 'grpc':
      return self.status == 0
    return 200 <= self.status < 300


@runtime_checkable
class Service(Protocol):
  """One emulated backend.

  Every method is called from the server's thread, one at a time. An exception
  is a defect of the emulator: the client gets the service's 500, the trace
  goes to the server's standard error and to `stats()`, and the pytest plugin
  fails the test.
  """

  #: The service's name, as in `beam_harness.emulators.<name>`.
  name: str

  #: Operations that can refuse some records of a request and apply the rest.
  #: A fault plan with a `partial` rule for any other operation is refused.
  partial_operations: Collection[str]

  def operation(self, call: Call) -> str:
    """Name of what is asked ('upsert', 'query'), for the log and the faults.

    Cheap: from the path or method. Never raises; an unknown path is
    'unknown'.
    """
    ...

  def count(self, call: Call, operation: str) -> int:
    """Number of records in the request; 0 where it is malformed.

    Called once for each request, before `handle`. Never raises.
    """
    ...

  def record_ids(self, call: Call, operation: str) -> Sequence[str]:
    """Ids of the request's records in order; empty where malformed.

    Called only while a fault plan has record-level rules. Never raises.
    """
    ...

  def handle(self, call: Call, refuse: Refuse | None = None) -> Answer:
    """Carries the request out; credentials and limits are checked here.

    Args:
      call: the request.
      refuse: given for operations in `partial_operations` only, when a fault
        asks for a partial failure: records for which it is true are refused in
        the service's own way, the others are applied.
    """
    ...

  def error(
      self,
      transport: Transport,
      status: int,
      message: str,
      retry_after: float | None = None) -> Answer:
    """The service's own error, for injected faults.

    Args:
      transport: 'rest' or 'grpc'.
      status: HTTP status or gRPC status number.
      message: the text.
      retry_after: seconds. The server adds the 'retry-after' header or trailer
        itself where the service did not.
    """
    ...

  def environment(self, host: str) -> Mapping[str, str]:
    """Environment variables that point the service's own clients here.

    Args:
      host: '127.0.0.1:PORT', the one port of REST and gRPC.
    """
    ...

  def reset(self) -> None:
    """Back to the state of a new service."""
    ...

  def seed(self, state: dict[str, Any]) -> None:
    """Puts JSON-able state in, on top of what is there.

    Raises:
      ValueError: the state is not what this service understands.
    """
    ...

  def snapshot(self) -> dict[str, Any]:
    """All stored state, JSON-able; `seed` accepts it."""
    ...


_SERVICE_MEMBERS = (
    'name',
    'partial_operations',
    'operation',
    'count',
    'record_ids',
    'handle',
    'error',
    'environment',
    'reset',
    'seed',
    'snapshot')

_SECRET_NAME = re.compile(
    r'auth|key|token|secret|cookie|signature|credential|password')


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
  """A copy of request headers in which whatever may be a secret is '***'."""
  return {
      name: '***' if _SECRET_NAME.search(name) else value
      for name, value in headers.items()
  }


def create_service(name: str, **options: Any) -> Service:
  """The service of `beam_harness.emulators.<name>`, or of a module path.

  Args:
    name: 'pinecone', or the dotted path of a module that has a
      `create_service`.
    **options: for the service; JSON-able, so that a process can get them.

  Raises:
    ValueError: there is no such service.
    TypeError: what the module offers is not a `Service`.
  """
  module_name = name if '.' in name else f'beam_harness.emulators.{name}'
  try:
    module = importlib.import_module(module_name)
  except ModuleNotFoundError as e:
    if e.name is None or not f'{module_name}.'.startswith(f'{e.name}.'):
      raise
    raise ValueError(
        f'no emulator named {name!r}: there is no module {module_name}') from e
  try:
    factory = module.create_service
  except AttributeError as e:
    raise ValueError(
        f'no emulator named {name!r}: {module_name} has no create_service'
    ) from e
  service = factory(**options)
  if not isinstance(service, Service):
    missing = [each for each in _SERVICE_MEMBERS if not hasattr(service, each)]
    raise TypeError(f'{module_name} offers no Service: it lacks {missing}')
  return service
