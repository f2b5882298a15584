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
"""The server of one service: each request meets the log, the faults, the service.

Everything runs on the thread of one event loop: protocols, service, log and
admin requests. Delays are timers, not waiting threads, so any number of
requests can be in flight at once.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback

from beam_harness.emulators.admin import Admin
from beam_harness.emulators.connection import Connection
from beam_harness.emulators.connection import Exchange
from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.core import Answer
from beam_harness.emulators.core import Service
from beam_harness.emulators.injection import Decision
from beam_harness.emulators.injection import Faults
from beam_harness.emulators.requestlog import Capture
from beam_harness.emulators.requestlog import RequestLog
from beam_harness.emulators.splitter import Splitter
from beam_harness.faults import FaultPlan

__all__ = ['Server']

#: Into how many pieces a 'slow_body' fault cuts an answer.
_PIECES = 8


class Server:
  """Serves one service on one listening socket.

  Attributes:
    service: the service.
    log: the requests since the last reset.
    faults: the plan being carried out.
    connections_opened: connections on which the first request of a client
      came since the last reset.
    defects: stack traces of exceptions the service raised.
  """
  def __init__(
      self,
      service: Service,
      *,
      faults: FaultPlan | None = None,
      capture: Capture | None = None):
    """
    Args:
      service: the service.
      faults: the plan to begin with, and to return to at a reset.
      capture: what the log keeps; the same holds.

    Raises:
      ValueError: the service cannot carry out the plan.
    """
    self.service = service
    self.log = RequestLog()
    self._first_plan = faults or FaultPlan()
    self._first_capture = capture or Capture()
    self.log.capture = self._first_capture
    self.set_faults(self._first_plan)
    self.connections_opened = 0
    self.defects: list[str] = []
    self._accepted = 0
    self._connections: dict[Connection, None] = {}
    self._admin = Admin(self)
    self._listener: asyncio.Server | None = None
    self.host = ''

  async def listen(self, sock: socket.socket) -> None:
    """Begins to answer on a bound socket, which the server then owns."""
    self.host = '{}:{}'.format(*sock.getsockname()[:2])
    loop = asyncio.get_running_loop()
    self._listener = await loop.create_server(
        lambda: Splitter(self._serve, self._accept, self._lost),
        sock=sock,
        backlog=1024)

  async def close(self) -> None:
    """Stops listening and drops what is open."""
    if self._listener is not None:
      self._listener.close()
    for connection in list(self._connections):
      connection.transport.abort()
    # The transports close their sockets in the next turn of the loop.
    await asyncio.sleep(0)
    await asyncio.sleep(0)

  @property
  def open_connections(self) -> int:
    """Connections open now on which a client's request came."""
    return sum(each.used for each in self._connections)

  def set_faults(self, plan: FaultPlan) -> None:
    """Begins a plan from its first request.

    Raises:
      ValueError: the service cannot carry out the plan.
    """
    faults = Faults(plan)
    faults.check(self.service.partial_operations)
    self.faults = faults

  def reset(self) -> None:
    """As new: state, log, faults, capture. Drops requests in flight."""
    for connection in list(self._connections):
      if any(not Admin.is_admin(each.call) for each in connection.exchanges):
        connection.reset()
    self.service.reset()
    self.log.reset()
    self.log.capture = self._first_capture
    self.set_faults(self._first_plan)
    self.connections_opened = 0
    self.defects.clear()

  def defect(self) -> None:
    """Notes the exception being handled: it is the emulator's own."""
    trace = traceback.format_exc()
    self.defects.append(trace)
    print(trace, file=sys.stderr, flush=True)

  def _accept(self, transport: asyncio.Transport) -> Connection:
    self._accepted += 1
    connection = Connection(self._accepted, transport)
    self._connections[connection] = None
    return connection

  def _lost(self, connection: Connection) -> None:
    self._connections.pop(connection, None)

  def _serve(self, exchange: Exchange) -> None:
    if Admin.is_admin(exchange.call):
      exchange.send(self._admin.answer(exchange.call))
      return
    if not exchange.connection.used:
      exchange.connection.used = True
      self.connections_opened += 1
    _Request(self, exchange).begin()


class _Request:
  """One request on its way through faults and service to its answer."""
  __slots__ = (
      '_server',
      '_exchange',
      '_entry',
      '_decision',
      '_answer',
      '_pieces',
      '_pause',
      '_timer')

  def __init__(self, server: Server, exchange: Exchange):
    self._server = server
    self._exchange = exchange
    self._decision = Decision()
    self._answer = Answer(500)
    self._pieces: list[bytes] = []
    self._pause = 0.0
    self._timer: asyncio.TimerHandle | None = None

  def begin(self) -> None:
    server, exchange = self._server, self._exchange
    service, call = server.service, exchange.call
    broken = False
    operation, records = 'unknown', 0
    try:
      operation = service.operation(call)
      records = service.count(call, operation)
    except Exception:
      server.defect()
      broken = True
    self._entry = server.log.begin(
        call,
        operation,
        records,
        exchange.connection.number,
        exchange.connection.peer)
    exchange.when_ended(self._ended)
    try:
      self._decision = server.faults.decide(
          operation,
          call.transport, lambda: service.record_ids(call, operation),
          operation in service.partial_operations)
    except Exception:
      server.defect()
      broken = True
    self._entry.fault = self._decision.kind
    if broken:
      self._answer = self._internal_error()
      self._conclude()
    else:
      self._after(self._decision.delay, self._apply)

  def _after(self, seconds: float, step) -> None:
    if seconds:
      self._timer = asyncio.get_running_loop().call_later(seconds, step)
    else:
      step()

  def _apply(self) -> None:
    """The service does its work, unless the fault takes its place."""
    decision = self._decision
    if decision.applies:
      self._entry.applied = True
      try:
        self._answer = self._server.service.handle(
            self._exchange.call, decision.refuse)
      except Exception:
        self._server.defect()
        self._answer = self._internal_error()
    if decision.is_error:
      self._answer = self._injected_error()
    self._after(decision.late, self._conclude)

  def _conclude(self) -> None:
    """The answer goes out, or what the fault makes of it."""
    exchange, answer = self._exchange, self._answer
    kind = self._decision.kind
    if kind == 'reset':
      exchange.connection.reset()
    elif kind == 'hang':
      pass  # The client's giving up ends the exchange.
    elif kind == 'truncate':
      exchange.send_part(answer)
      exchange.connection.close()
    elif kind == 'slow_body':
      payload = exchange.payload(answer)
      size = max(1, -(-len(payload) // _PIECES))
      self._pieces = [
          payload[at:at + size] for at in range(0, len(payload), size)
      ]
      rule = self._decision.rule
      assert rule is not None
      self._pause = rule.seconds / max(1, len(self._pieces))
      exchange.start(answer)
      self._after(self._pause, self._trickle)
    else:
      exchange.send(answer)

  def _trickle(self) -> None:
    if self._pieces:
      self._exchange.write(self._pieces.pop(0))
    if self._pieces:
      self._after(self._pause, self._trickle)
    else:
      self._exchange.finish(self._answer)

  def _ended(self, whole: bool) -> None:
    if self._timer is not None:
      self._timer.cancel()
    self._server.log.end(self._entry, self._answer.status if whole else None)

  def _internal_error(self) -> Answer:
    rest = self._exchange.call.transport == 'rest'
    return self._server.service.error(
        self._exchange.call.transport,
        500 if rest else GRPC_CODES['INTERNAL'],
        'a defect of the emulator; its log has the trace')

  def _injected_error(self) -> Answer:
    rule = self._decision.rule
    assert rule is not None
    transport = self._exchange.call.transport
    rest = transport == 'rest'
    answer = self._server.service.error(
        transport,
        rule.http_status() if rest else rule.grpc_status(),
        self._decision.message,
        rule.retry_after)
    if rule.retry_after is not None:
      where = answer.headers if rest else answer.trailers
      where.setdefault('retry-after', f'{rule.retry_after:g}')
    return answer
