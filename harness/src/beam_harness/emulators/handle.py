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
"""What a test holds of a running emulator: its address, its log, its faults."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from beam_harness.emulators.admin import PREFIX
from beam_harness.emulators.admin import entry_from_json
from beam_harness.emulators.core import GRPC_NAMES
from beam_harness.emulators.core import LogEntry
from beam_harness.emulators.requestlog import Counts
from beam_harness.faults import FaultPlan
from beam_harness.faults import FaultRule

__all__ = ['Emulator', 'EmulatorError', 'describe']

#: How often `wait_for` looks.
_POLL_SECONDS = 0.005


class EmulatorError(RuntimeError):
  """The emulator refused an admin request, or it is gone."""


class Emulator:
  """A running emulator, in this process or in another one.

  Use as a context manager, or call `close`. Everything goes through the admin
  requests of the emulator's port, so any thread may use it, and a process
  that knows the host may attach to it too: `Emulator('127.0.0.1:PORT')`.
  """
  def __init__(
      self,
      host: str,
      *,
      close: Callable[[], None] | None = None,
      obituary: Callable[[], str | None] | None = None):
    """
    Args:
      host: '127.0.0.1:PORT'.
      close: stops the emulator.
      obituary: what there is to say if it died; None while it lives.
    """
    self.host = host
    self._close = close
    self._obituary = obituary

  def __enter__(self) -> Emulator:
    return self

  def __exit__(self, *exc: object) -> None:
    self.close()

  def __repr__(self) -> str:
    return f'Emulator({self.host!r})'

  @property
  def url(self) -> str:
    return f'http://{self.host}'

  @property
  def port(self) -> int:
    return int(self.host.rpartition(':')[2])

  @property
  def pid(self) -> int:
    """The process that serves: this one, for an emulator in a thread."""
    return self._get('ready')['pid']

  def close(self) -> None:
    """Stops the emulator; a second call does nothing."""
    close, self._close = self._close, None
    if close is not None:
      close()

  # ------------------------------------------------------------ what happened

  def log(
      self,
      operation: str | None = None,
      *,
      transport: str | None = None,
      fault: str | None = None,
      after: int = -1) -> list[LogEntry]:
    """Requests since the last reset, in order of arrival.

    Args:
      operation, transport, fault: only entries that have this value.
      after: only entries with a greater number.
    """
    query: dict[str, Any] = {'after': after}
    for name, value in (
        ('operation', operation), ('transport', transport), ('fault', fault)):
      if value is not None:
        query[name] = value
    entries: list[LogEntry] = []
    while True:
      page = self._get('log', query)
      entries.extend(map(entry_from_json, page['entries']))
      if 'next' not in page:
        return entries
      query['after'] = page['next']

  def last(self, n: int) -> list[LogEntry]:
    """The last `n` requests, in order of arrival."""
    return [
        entry_from_json(each)
        for each in self._get('log', {'last': n})['entries']
    ]

  def describe_last(self, n: int) -> str:
    """The last `n` requests, one line each, for a person to read."""
    return '\n'.join(map(describe, self.last(n)))

  def stats(self) -> dict[str, Any]:
    """Totals as the emulator keeps them; see the properties for most."""
    return self._get('stats')

  def counts(self) -> dict[str, Counts]:
    """Totals since the last reset, by operation."""
    return {
        operation: Counts(**counts)
        for operation, counts in self.stats()['counts'].items()
    }

  def count(self, operation: str) -> Counts:
    """Totals of one operation; all zero if it was never asked for."""
    return self.counts().get(operation, Counts())

  def max_in_flight(self, operation: str | None = None) -> int:
    """The most requests in flight at one time since the last reset.

    A service that answers at once has one at a time: to see how many a client
    sends together, delay the answers with a 'latency' rule.

    Args:
      operation: only requests of this one; None is all together.
    """
    if operation is None:
      return self.stats()['max_in_flight']
    return self.count(operation).max_in_flight

  @property
  def connections(self) -> int:
    """Connections on which a first request came since the last reset."""
    return self.stats()['connections']

  @property
  def open_connections(self) -> int:
    """Connections open now on which a request came."""
    return self.stats()['open_connections']

  @property
  def defects(self) -> list[str]:
    """Stack traces of exceptions of the emulator itself."""
    return self.stats()['defects']

  def wait_for(
      self,
      condition: Callable[[Mapping[str, Counts]], bool],
      timeout: float = 10.0) -> dict[str, Counts]:
    """Waits until the totals satisfy a condition and returns them.

    Args:
      condition: gets `counts()`, as a mapping in which every operation is.
      timeout: seconds.

    Raises:
      TimeoutError: with the totals as they are then.
    """
    deadline = time.monotonic() + timeout
    while True:
      counts = self.counts()
      if condition(_AllOperations(counts)):
        return counts
      if time.monotonic() > deadline:
        raise TimeoutError(f'after {timeout} s the emulator saw {counts}')
      time.sleep(_POLL_SECONDS)

  # ---------------------------------------------------------- what it is told

  def reset(self) -> None:
    """As just started: state, log, faults, capture.

    Requests in flight are dropped with their connections; idle connections
    stay open.
    """
    self._request('POST', 'reset')

  def clear_log(self) -> None:
    """Forgets the requests so far; the state and the faults stay."""
    self._request('DELETE', 'log')

  def seed(self, state: Mapping[str, Any]) -> None:
    """Puts state in, as `snapshot` returns it.

    Raises:
      EmulatorError: the service does not understand the state.
    """
    self._request('POST', 'seed', state)

  def snapshot(self) -> dict[str, Any]:
    """All stored state; for its form see the service."""
    return self._get('snapshot')

  def faults(self, plan: FaultPlan | Iterable[FaultRule] | None) -> None:
    """Begins a fault plan; None ends all faults.

    Raises:
      EmulatorError: the service cannot carry out the plan.
    """
    if not isinstance(plan, FaultPlan):
      plan = FaultPlan(plan or ())
    self._request('POST', 'faults', plan.to_json())

  @property
  def fault_hits(self) -> list[int]:
    """How often each rule of the plan hit."""
    return self.stats()['fault_hits']

  def capture(self, *, headers: bool = False, bodies: bool = False) -> None:
    """What entries of the log keep from now on, until the next reset."""
    self._request('POST', 'capture', {'headers': headers, 'bodies': bodies})

  def environment(self) -> dict[str, str]:
    """Environment variables that point the service's clients here."""
    return self._get('ready')['environment']

  def wait_until_ready(self, timeout: float) -> None:
    """Returns when the emulator answers.

    Raises:
      EmulatorError: it did not within `timeout` seconds, or it is gone.
    """
    self._request('GET', 'ready', timeout=timeout)

  def _get(self, name: str, query: Mapping[str, Any] | None = None) -> Any:
    return self._request('GET', f'{name}?{urlencode(query)}' if query else name)

  def _request(
      self,
      method: str,
      name: str,
      body: Any = None,
      timeout: float = 60.0) -> Any:
    connection = http.client.HTTPConnection(self.host, timeout=timeout)
    try:
      connection.request(
          method,
          PREFIX + name,
          None if body is None else json.dumps(body), {'connection': 'close'})
      response = connection.getresponse()
      answer = json.loads(response.read())
    except (OSError, http.client.HTTPException) as e:
      why = self._obituary() if self._obituary else None
      raise EmulatorError(
          f'the emulator at {self.host} does not answer: '
          f'{why or f"{type(e).__name__}: {e}"}') from e
    finally:
      connection.close()
    if response.status != 200:
      raise EmulatorError(answer['error'])
    return answer


class _AllOperations(dict):
  """Totals in which an operation that nobody asked for is all zero."""
  def __missing__(self, operation: str) -> Counts:
    return Counts()


def describe(entry: LogEntry) -> str:
  """One line of the log for a person; holds no header and no body."""
  if entry.ended is None:
    outcome, took = 'in flight', ''
  else:
    took = f' {(entry.ended - entry.started) * 1000:.1f} ms'
    if entry.status is None:
      outcome = 'no whole answer'
    elif entry.transport == 'grpc':
      outcome = GRPC_NAMES.get(entry.status, str(entry.status))
    else:
      outcome = str(entry.status)
  return (
      f'#{entry.number} {entry.transport} {entry.operation}: '
      f'{entry.records} records, {entry.nbytes} B -> {outcome}{took}'
      f'{f", fault {entry.fault}" if entry.fault else ""}'
      f'{"" if entry.applied else ", not applied"}'
      f' (connection {entry.connection})')
