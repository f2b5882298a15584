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
"""The Beam side of a write: one transform, one DoFn, one result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any
from typing import Optional

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import PCollection
from apache_beam.pvalue import TaggedOutput
from apache_beam.typehints import Any as AnyType
from apache_beam.typehints import Tuple
from apache_beam.utils.windowed_value import WindowedValue

from beam_connector_base.across import AcrossBundles
from beam_connector_base.columnar import take_rows
from beam_connector_base.dofn import FAILED
from beam_connector_base.dofn import DeliverFn
from beam_connector_base.dofn import hand_on
from beam_connector_base.failures import FailedRecord
from beam_connector_base.failures import check_on_error
from beam_connector_base.failures import handle_failures
from beam_connector_base.metrics import BundleLedger
from beam_connector_base.metrics import CombineLedger
from beam_connector_base.metrics import LedgerRow
from beam_connector_base.operation import Operation
from beam_connector_base.rows import is_block
from beam_connector_base.submission import Submission
from beam_connector_base.tuning import Tuning

__all__ = ['WriteFn', 'WriteRecords', 'WriteResult']

_WRITTEN = 'written'
_LEDGER = 'ledger'
_ANSWERS = 'answers'


class WriteResult:
  """What became of the records.

  Attributes:
    written: the elements, unchanged, that need no more care: the service
      acknowledged them, or holds a newer version of the same record already (a
      superseded record; the ledger counts those apart). A `RecordBatch` comes
      once, when all of its rows are settled, without its refused rows, and not
      at all if none is left. Element type, windows, timestamps and panes are
      the input's. To sequence what comes next: `WaitOn(result.written)`.
    failed: a `FailedRecord` for each refused record or row; empty with
      `on_error='fail'`.
    answers: where the service answers a write, `(element, answer)` for each
      record or row that it answered; a row is a RecordBatch of that one row.
      Windows, timestamps and panes are the element's.
  """
  def __init__(
      self,
      written: PCollection,
      failed: PCollection,
      ledger: PCollection,
      answers: PCollection):
    self.written = written
    self.failed = failed
    self.answers = answers
    self._bundle_ledgers = ledger
    self._ledger: Optional[PCollection] = None

  @property
  def ledger(self) -> PCollection:
    """One `LedgerRow` per window and destination, to assert or to alert on.

    It is summed with a `CombinePerKey` that is added to the pipeline when this
    is first read; so an unbounded input must be windowed.
    """
    if self._ledger is None:
      # The whole label: there may be several writes in a pipeline.
      producer = self._bundle_ledgers.producer
      assert producer is not None
      label = f'Ledger({producer.full_label})'
      self._ledger = self._bundle_ledgers | label >> CombineLedger()
    return self._ledger


class WriteRecords(beam.PTransform):
  """Writes the records of a PCollection with an operation.

  At least once: in a bundle that succeeded, every record was acknowledged by
  the service (or superseded by a newer version) or is a `FailedRecord`. A
  record the service can't be reached for is neither: its bundle fails and is
  tried again by the runner.

  Bundles run in parallel, as many as the runner wants; all bundles of a process
  share one session, one limit of requests in flight and one budget of bytes.

  Args:
    operation: what is done to which service; opened on the workers only.
    on_error: what happens to records that the service refuses. 'fail': the
      bundle fails, with the record's key and the reason. 'collect': they are in
      `.failed`, which must then be read. An `ErrorHandler`: it is given them.
    tuning: how hard and how patiently the service is talked to.
    namespace: of the metrics, and the name used in messages: the transform the
      user sees, such as 'WriteToPinecone'.
    lineage: system and segments by which the sink is named as a target of data.

  Raises:
    ValueError, TypeError: an argument is not valid.
  """
  def __init__(
      self,
      operation: Operation,
      *,
      on_error: Any = 'fail',
      tuning: Optional[Tuning] = None,
      namespace: str,
      lineage: Optional[Sequence[str]] = None):
    super().__init__()
    if not isinstance(operation, Operation):
      raise TypeError(
          f'operation must be an Operation, not {type(operation).__name__}')
    if tuning is None:
      tuning = Tuning()
    elif not isinstance(tuning, Tuning):
      raise TypeError(f'tuning must be a Tuning, not {type(tuning).__name__}')
    self._on_error = check_on_error(on_error)
    if on_error == 'fail' and tuning.on_outage == 'collect':
      raise ValueError(
          "Tuning(on_outage='collect') makes failed records of an outage, and "
          "on_error='fail' stops at a failed record: pass on_error='collect'")
    self._operation = operation
    self._tuning = tuning
    self._namespace = namespace
    self._lineage = tuple(lineage) if lineage else None

  def expand(self, pcoll: PCollection) -> WriteResult:
    element_type = pcoll.element_type or AnyType
    if self._tuning.across_bundles is not None:
      pcoll = pcoll | 'AcrossBundles' >> AcrossBundles(
          self._tuning.max_records, self._tuning.across_bundles)
    write = WriteFn(
        self._operation,
        self._tuning,
        fail=self._on_error == 'fail',
        name=self._namespace,
        lineage=self._lineage)
    outputs = (
        pcoll | 'Write' >>
        beam.ParDo(write).with_output_types(element_type).with_outputs(
            FAILED, _LEDGER, _ANSWERS, main=_WRITTEN))
    written = hand_on(outputs[_WRITTEN], element_type, 'Written')
    failed = hand_on(outputs[FAILED], FailedRecord, 'Failed')
    ledger = outputs[_LEDGER]
    ledger.element_type = LedgerRow
    answers = hand_on(
        outputs[_ANSWERS], Tuple[element_type, AnyType], 'Answers')
    handle_failures(self._on_error, failed, self._namespace)
    return WriteResult(written, failed, ledger, answers)

  def display_data(self) -> dict[str, Any]:
    data: dict[str, Any] = {
        'target':
            self._operation.target,
        'on_error': (
            self._on_error if isinstance(self._on_error, str) else type(
                self._on_error).__name__),
    }
    for field in dataclasses.fields(self._tuning):
      value = getattr(self._tuning, field.name)
      if value is not None:
        data[field.name] = (
            value if isinstance(value, (str, int, float)) else repr(value))
    return data


class WriteFn(DeliverFn):
  """Writes elements and keeps the books of what became of them."""
  def __init__(
      self,
      operation: Operation,
      tuning: Tuning,
      *,
      fail: bool,
      name: str,
      lineage: Optional[Sequence[str]] = None):
    super().__init__(operation, tuning, fail=fail, name=name, lineage=lineage)
    self._ledger = BundleLedger()

  def start_bundle(self) -> None:
    super().start_bundle()
    self._ledger = BundleLedger()

  def _closing(self) -> list[Any]:
    if self._submitted:
      self._metrics.sink()
    return [TaggedOutput(_LEDGER, row) for row in self._ledger.rows()]

  def _emit(self, settled: list[Submission]) -> list[Any]:
    """The outputs of elements whose rows have all settled."""
    out: list[Any] = []
    simple = rows = refused = superseded = unreached = 0
    # Neighbours mostly share window and destination: counted together.
    alike = 0
    windows: Any = None
    destination: Any = None
    for submission in settled:
      if (submission.rows == 1 and submission.failures is None
          and not submission.superseded and not is_block(submission.element)):
        wv = submission.ticket
        (to,) = submission.destinations
        if to != destination or wv.windows != windows:
          if alike:
            self._ledger.add(windows, str(destination), written=alike)
            simple += alike
            alike = 0
          windows = wv.windows
          destination = to
        alike += 1
        # The input itself: same value, windows, timestamp and pane.
        out.append(wv)
        if submission.values is not None:
          out += _answers(submission)
      else:
        out += self._emit_one(submission)
        failures = submission.failures or ()
        rows += submission.rows
        refused += len(failures)
        superseded += submission.superseded
        unreached += sum(failure.stage == 'outage' for failure in failures)
    if alike:
      self._ledger.add(windows, str(destination), written=alike)
      simple += alike
    self._emitted += len(settled)
    self._metrics.settled(
        written=simple + rows - refused - superseded,
        refused=refused - unreached,
        superseded=superseded,
        unreached=unreached)
    return out

  def _emit_one(self, submission: Submission) -> list[Any]:
    """The outputs of an element that is a block, or had a failure."""
    element = submission.element
    wv: WindowedValue = submission.ticket
    failures = submission.failures or []
    rows = submission.rows
    self._check_rows(submission)
    out: list[Any] = self._failed(submission, failures)
    self._ledger.enter(submission)
    if not failures:
      if rows:
        out.append(wv)
    elif is_block(element) and len(failures) < rows:
      kept = np.ones(rows, dtype=bool)
      kept[[failure.row for failure in failures]] = False
      out.append(wv.with_value(take_rows(element, np.flatnonzero(kept))))
    if submission.values is not None:
      out += _answers(submission)
    return out


def _answers(submission: Submission) -> list[Any]:
  """What the service answered, beside whom it answered."""
  element = submission.element
  wv: WindowedValue = submission.ticket
  out = []
  for row, answer in sorted((submission.values or {}).items()):
    asked = take_rows(element, [row]) if is_block(element) else element
    out.append(TaggedOutput(_ANSWERS, wv.with_value((asked, answer))))
  return out
