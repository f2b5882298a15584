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
"""Facts of the engine as Beam metrics, lineage and the ledger.

All of it happens on the bundle's own thread: what another thread counts is
dropped by Beam without a word.
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from threading import Lock
from typing import Any
from typing import NamedTuple
from typing import Optional

import apache_beam as beam
from apache_beam import coders
from apache_beam.metrics.metric import Lineage
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.utils.windowed_value import WindowedValue

from beam_connector_base.reports import Report
from beam_connector_base.submission import Submission

__all__ = [
    'BundleLedger',
    'CombineLedger',
    'DeliveryMetrics',
    'LedgerRow',
    'THROTTLED',
]

#: The name by which Dataflow recognises throttling; whole seconds.
THROTTLED = 'cumulativeThrottlingSeconds'

# Classes of requests by how they ended; the rest has its own name.
_CLASSES = {
    'ok': 'ok',
    'partial': 'ok',
    'throttled': 'throttled',
    'transient': 'transient',
    'timeout': 'transient',
    'refused': 'refused',
    'too_large': 'refused',
    'fatal': 'fatal',
}

# Facts of a report about lookups, and the counter of each.
_LOOKUPS = {
    'cache_hits': 'cache_hits',
    'cache_misses': 'cache_misses',
    'joined': 'requests_saved',
}


class DeliveryMetrics:
  """Counts what the engine reports.

  Counters: `requests` and, by how they ended, `requests_ok` (or partly),
  `requests_throttled`, `requests_transient` (timeouts included),
  `requests_refused`, `requests_fatal`; `records_written`, `records_refused`,
  `records_superseded`, `records_unreached` (given up in an outage),
  `records_retried`; `bytes_sent` (retries included); `flush_<reason>`;
  `connections_opened`; `cumulativeThrottlingSeconds`. For lookups
  `records_found`, `records_missing`, `cache_hits`, `cache_misses` and
  `requests_saved` (rows that waited for another's request).
  Distributions: `batch_records`, `batch_bytes`, `request_latency_ms`,
  `in_flight`.

  Args:
    namespace: of the metrics: the transform's name.
    lineage: system and segments of the sink, reported once per bundle.
  """
  def __init__(self, namespace: str, lineage: Optional[Sequence[str]] = None):
    self._namespace = namespace
    self._lineage = tuple(lineage) if lineage else None
    self._counters: dict[str, Any] = {}
    self._distributions: dict[str, Any] = {}

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_counters': {}, '_distributions': {}}

  def sink(self) -> None:
    """Names the sink as one that this job writes to."""
    if self._lineage:
      Lineage.sinks().add(self._lineage[0], *self._lineage[1:])

  def source(self) -> None:
    """Names the source as one that this job reads from."""
    if self._lineage:
      Lineage.sources().add(self._lineage[0], *self._lineage[1:])

  def looked_up(self, found: int, missing: int, refused: int) -> None:
    """Counts rows whose answer is known."""
    if found:
      self._count('records_found', found)
    if missing:
      self._count('records_missing', missing)
    if refused:
      self._count('records_refused', refused)

  def settled(
      self, written: int, refused: int, superseded: int,
      unreached: int) -> None:
    """Counts records whose fate is decided."""
    if written:
      self._count('records_written', written)
    if refused:
      self._count('records_refused', refused)
    if superseded:
      self._count('records_superseded', superseded)
    if unreached:
      self._count('records_unreached', unreached)

  def record(self, reports: Iterable[Report]) -> None:
    """Counts requests and batches, from `Bundle.reports()`."""
    throttled = 0.0
    for report in reports:
      throttled += report.throttled_seconds
      if report.connections:
        self._count('connections_opened', report.connections)
      if report.retried:
        self._count('records_retried', report.retried)
      if report.in_flight:
        self._update('in_flight', report.in_flight)
      for name in ('cache_hits', 'cache_misses', 'joined'):
        if getattr(report, name):
          self._count(_LOOKUPS[name], getattr(report, name))
      if report.records:
        self._update('batch_records', report.records)
        self._update('batch_bytes', report.nbytes)
        self._count(f'flush_{report.flush}', 1)
      for attempt in report.attempts:
        self._count('requests', 1)
        self._count(f'requests_{_CLASSES[attempt.outcome]}', 1)
        self._count('bytes_sent', attempt.nbytes)
        self._update('request_latency_ms', round(attempt.seconds * 1000))
    if throttled > 0:
      seconds = _whole_seconds.add(self._namespace, throttled)
      if seconds:
        self._count(THROTTLED, seconds)

  def _count(self, name: str, n: int) -> None:
    counter = self._counters.get(name)
    if counter is None:
      counter = self._counters[name] = Metrics.counter(self._namespace, name)
    counter.inc(n)

  def _update(self, name: str, value: int) -> None:
    distribution = self._distributions.get(name)
    if distribution is None:
      distribution = self._distributions[name] = Metrics.distribution(
          self._namespace, name)
    distribution.update(value)


class _WholeSeconds:
  """Keeps the fractions of a second that the counter can't hold.

  Per process, not per bundle: most waits are shorter than a second, and so are
  many bundles.
  """
  def __init__(self) -> None:
    self._lock = Lock()
    self._rest: dict[str, float] = {}

  def add(self, namespace: str, seconds: float) -> int:
    with self._lock:
      total = self._rest.get(namespace, 0.0) + seconds
      whole = int(total)
      self._rest[namespace] = total - whole
    return whole


_whole_seconds = _WholeSeconds()

# ---------------------------------------------------------------------- ledger


class LedgerRow(NamedTuple):
  """What became of the records of one window and destination.

  `records` = `written` + `superseded` + `failed`, always.

  Args:
    destination: where the records went or were to go; '' for records refused
      before that was known.
    records: that came in.
    written: acknowledged by the service.
    superseded: not written because a newer version already was.
    failed: in `.failed`.
  """
  destination: str
  records: int
  written: int
  superseded: int
  failed: int


coders.registry.register_coder(LedgerRow, coders.RowCoder)


class BundleLedger:
  """The ledger of one bundle, on its thread."""
  def __init__(self) -> None:
    self._counts: dict[tuple[Any, str], list[int]] = {}

  def add(
      self,
      windows: Iterable[Any],
      destination: str,
      *,
      written: int = 0,
      superseded: int = 0,
      failed: int = 0) -> None:
    """Adds records of an element that lies in these windows."""
    for window in windows:
      key = (window, destination)
      counts = self._counts.get(key)
      if counts is None:
        counts = self._counts[key] = [0, 0, 0]
      counts[0] += written
      counts[1] += superseded
      counts[2] += failed

  def enter(self, submission: Submission) -> None:
    """Adds the rows of one element, all of which have settled."""
    windows = submission.ticket.windows
    failures = submission.failures or ()
    # What was refused before it was sent is not among `destinations`.
    unsent = collections.Counter(
        failure.destination
        for failure in failures
        if failure.stage == 'encode')
    sent = collections.Counter(
        failure.destination
        for failure in failures
        if failure.stage != 'encode')
    for destination, failed in unsent.items():
      self.add(windows, destination, failed=failed)
    superseded = submission.superseded
    for to, n in submission.destinations.items():
      failed = sent[str(to)]
      # Exact for elements with one destination. For others the engine doesn't
      # say where the superseded rows were going, only how many they are.
      outdated = min(n - failed, superseded)
      superseded -= outdated
      self.add(
          windows,
          str(to),
          written=n - failed - outdated,
          superseded=outdated,
          failed=failed)

  def rows(self) -> Iterator[WindowedValue]:
    """One row per window and destination, at the window's end."""
    for (window, destination), (written, superseded,
                                failed) in self._counts.items():
      row = LedgerRow(
          destination,
          written + superseded + failed,
          written,
          superseded,
          failed)
      yield WindowedValue(row, window.max_timestamp(), (window,))


class CombineLedger(beam.PTransform):
  """Sums the bundles' ledgers: one row per window and destination."""
  def expand(self, rows: PCollection) -> PCollection:
    return (
        rows
        | 'ByDestination' >> beam.Map(_by_destination).with_output_types(
            tuple[str, tuple[int, int, int, int]])
        | 'Sum' >> beam.CombinePerKey(_sum)
        | 'Rows' >> beam.MapTuple(_row).with_output_types(LedgerRow))


def _by_destination(row: LedgerRow) -> tuple[str, tuple[int, ...]]:
  return row.destination, tuple(row[1:])


def _sum(counts: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
  total: tuple[int, ...] = (0, 0, 0, 0)
  for row in counts:
    total = tuple(map(sum, zip(total, row, strict=True)))
  return total


def _row(destination: str, counts: tuple[int, int, int, int]) -> LedgerRow:
  return LedgerRow(destination, *counts)
