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
"""What an emulator remembers of the requests it got.

Counters are kept as requests come and go, so that totals and the highest
concurrency cost nothing to ask for, however long the log is.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator

from beam_harness.emulators.core import Call
from beam_harness.emulators.core import LogEntry
from beam_harness.emulators.core import without_secrets

__all__ = ['Capture', 'Counts', 'RequestLog']


@dataclasses.dataclass(frozen=True)
class Capture:
  """What entries keep beyond the facts; both cost memory.

  Attributes:
    headers: request headers, secrets replaced by '***'.
    bodies: request bodies.
  """
  headers: bool = False
  bodies: bool = False


@dataclasses.dataclass
class Counts:
  """Totals of one operation since the last reset.

  Attributes:
    requests: requests that arrived completely.
    ok: whole answers that said it worked.
    failed: whole answers that said it did not.
    unanswered: requests that ended without a whole answer.
    in_flight: requests that have not ended.
    max_in_flight: the most requests in flight at one time.
    records: records in the requests, retries counted again.
    ok_records: records in the requests answered ok.
    nbytes: bytes of the request bodies.
    statuses: number of answers by 'rest:200', 'grpc:14'.
    faults: number of requests by kind of fault.
  """
  requests: int = 0
  ok: int = 0
  failed: int = 0
  unanswered: int = 0
  in_flight: int = 0
  max_in_flight: int = 0
  records: int = 0
  ok_records: int = 0
  nbytes: int = 0
  statuses: dict[str, int] = dataclasses.field(default_factory=dict)
  faults: dict[str, int] = dataclasses.field(default_factory=dict)


class RequestLog:
  """The entries since the last reset, in order of arrival. Thread-safe."""
  def __init__(self, capacity: int = 1_000_000):
    """
    Args:
      capacity: entries to keep; the oldest go first. Counters are not cut.
    """
    self.capture = Capture()
    self._capacity = capacity
    self._lock = threading.Lock()
    self._start()

  def _start(self) -> None:
    self._entries: collections.deque[LogEntry] = collections.deque(
        maxlen=self._capacity)
    self._next = 0
    self._counts: dict[str, Counts] = {}
    # Counters of the entries in flight, by the identity of the entry.
    self._open: dict[int, Counts] = {}
    self._max_in_flight = 0

  def begin(
      self,
      call: Call,
      operation: str,
      records: int,
      connection: int,
      peer: str) -> LogEntry:
    """A request has arrived completely."""
    capture = self.capture
    nbytes = len(call.body)
    entry = LogEntry(
        number=0,
        operation=operation,
        transport=call.transport,
        method=call.method,
        path=call.path,
        status=None,
        records=records,
        nbytes=nbytes,
        started=time.monotonic(),
        ended=None,
        connection=connection,
        peer=peer,
        request_id=call.headers.get('x-request-id'),
        fault=None,
        applied=False,
        headers=without_secrets(call.headers) if capture.headers else None,
        body=bytes(call.body) if capture.bodies else None)
    with self._lock:
      entry.number = self._next
      self._next += 1
      self._entries.append(entry)
      counts = self._counts.get(operation)
      if counts is None:
        counts = self._counts[operation] = Counts()
      counts.requests += 1
      counts.records += records
      counts.nbytes += nbytes
      counts.in_flight += 1
      counts.max_in_flight = max(counts.max_in_flight, counts.in_flight)
      self._open[id(entry)] = counts
      self._max_in_flight = max(self._max_in_flight, len(self._open))
    return entry

  def end(self, entry: LogEntry, status: int | None) -> None:
    """The request has ended, with a whole answer or (None) without one."""
    with self._lock:
      if entry.ended is not None:
        return
      entry.status = status
      entry.ended = time.monotonic()
      counts = self._open.pop(id(entry), None)
      if counts is None:
        return  # Begun before a reset: of no interest to what came after.
      counts.in_flight -= 1
      if status is None:
        counts.unanswered += 1
      else:
        key = f'{entry.transport}:{status}'
        counts.statuses[key] = counts.statuses.get(key, 0) + 1
        if entry.ok:
          counts.ok += 1
          counts.ok_records += entry.records
        else:
          counts.failed += 1
      if entry.fault is not None:
        counts.faults[entry.fault] = counts.faults.get(entry.fault, 0) + 1

  def entries(
      self,
      *,
      after: int = -1,
      limit: int | None = None,
      operation: str | None = None,
      transport: str | None = None,
      fault: str | None = None) -> list[LogEntry]:
    """Copies of entries in order of arrival.

    Args:
      after: only entries with a greater number.
      limit: at most this many.
      operation, transport, fault: only entries that have this value.
    """
    with self._lock:
      found = (
          dataclasses.replace(entry)
          for entry in self._from(after + 1)
          if (operation is None or entry.operation == operation) and (
              transport is None or entry.transport == transport) and (
                  fault is None or entry.fault == fault))
      return list(itertools.islice(found, limit))

  def last(self, n: int) -> list[LogEntry]:
    """Copies of the last `n` entries, in order of arrival."""
    with self._lock:
      return [
          dataclasses.replace(entry)
          for entry in self._from(max(0, self._next - n))
      ]

  def _from(self, number: int) -> Iterator[LogEntry]:
    skip = number - (self._next - len(self._entries))
    if skip <= 0:
      return iter(self._entries)
    if skip > len(self._entries) // 2:
      # A deque is walked from its nearer end.
      wanted = len(self._entries) - skip
      tail = list(itertools.islice(reversed(self._entries), max(0, wanted)))
      return reversed(tail)
    return itertools.islice(self._entries, skip, None)

  def reset(self) -> None:
    """Forgets everything, requests in flight included."""
    with self._lock:
      self._start()

  @property
  def max_in_flight(self) -> int:
    """The most requests of all operations in flight at one time."""
    with self._lock:
      return self._max_in_flight

  @property
  def dropped(self) -> int:
    """Entries that went because the log is full."""
    with self._lock:
      return self._next - len(self._entries)

  def counts(self) -> dict[str, Counts]:
    """A copy of the totals, by operation."""
    with self._lock:
      return {
          operation:
              dataclasses.replace(
                  counts,
                  statuses=dict(counts.statuses),
                  faults=dict(counts.faults))
          for operation, counts in self._counts.items()
      }
