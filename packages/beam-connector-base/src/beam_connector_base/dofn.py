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
"""The DoFn under all transforms: bundles in, settled elements out."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any
from typing import Optional

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue

from beam_connector_base.bundle import Bundle
from beam_connector_base.cache import Cache
from beam_connector_base.columnar import take_rows
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.errors import LostRecordError
from beam_connector_base.failures import FailedRecord
from beam_connector_base.failures import RecordRefusedError
from beam_connector_base.metrics import DeliveryMetrics
from beam_connector_base.operation import Operation
from beam_connector_base.rows import is_block
from beam_connector_base.submission import Failure
from beam_connector_base.submission import Submission
from beam_connector_base.tuning import Tuning

__all__ = ['DeliverFn', 'FAILED', 'hand_on']

#: The tag of failed records.
FAILED = 'failed'


def hand_on(outputs: PCollection, element_type: Any, label: str) -> PCollection:
  """The elements again, out of a DoFn that emits them as they come.

  Where a consumer takes batches (`DoFn.process_batch`; Beam's dataframes and
  with them WriteToJson and WriteToCsv), Beam (2.77: runners/worker/
  operations.py, DoOperation.finish) flushes its buffer before it calls
  `finish_bundle`: what that emits would be lost without a word.

  Args:
    outputs: of a DoFn that emits elements in `finish_bundle`.
    element_type: of the elements.
    label: of the step.
  """
  return outputs | label >> beam.Map(_same).with_output_types(element_type)


def _same(element: Any) -> Any:
  return element


class DeliverFn(beam.DoFn, abc.ABC):
  """Hands elements to the engine and emits them as they settle.

  An element may settle while later ones are processed, so all outputs are
  `WindowedValue`s of the element they belong to. Never wrap this in
  `with_exception_handling`: it would blame whatever element happens to be
  processed when something goes wrong, and forget the others.
  """
  def __init__(
      self,
      operation: Operation,
      tuning: Tuning,
      *,
      fail: bool,
      name: str,
      lineage: Optional[Sequence[str]] = None,
      cache: Optional[Cache] = None):
    self._operation = operation
    self._tuning = tuning
    self._fail = fail
    self._name = name
    self._cache = cache
    self._metrics = DeliveryMetrics(name, lineage)
    self._dispatcher: Optional[Dispatcher] = None
    self._bundle: Optional[Bundle] = None
    self._submitted = 0
    self._emitted = 0

  def setup(self) -> None:
    self._dispatcher = Dispatcher(
        self._operation, self._tuning, cache=self._cache)
    self._dispatcher.open()

  def start_bundle(self) -> None:
    # A runner may use the instance again after a bundle failed.
    self._abandon()
    assert self._dispatcher is not None
    self._bundle = self._dispatcher.bundle()
    self._submitted = 0
    self._emitted = 0

  def process(
      self, element: Any, wv: Any = beam.DoFn.WindowedValueParam) -> Any:
    bundle = self._bundle
    assert bundle is not None
    try:
      self._submitted += 1
      bundle.submit(element, wv)
      settled = bundle.settled()
      if not settled:
        return ()
      out = self._emit(settled)
      self._metrics.record(bundle.reports())
    except BaseException:
      self._abandon()
      raise
    return out if len(wv.windows) == 1 else _keep_windows(out)

  def finish_bundle(self) -> Any:
    bundle = self._bundle
    assert bundle is not None
    try:
      out = self._emit(bundle.drain())
      if self._emitted != self._submitted:
        raise LostRecordError(
            f'{self._name}: {self._submitted} elements were submitted and '
            f'{self._emitted} settled')
    except BaseException:
      self._abandon()
      raise
    self._bundle = None
    self._metrics.record(bundle.reports())
    out.extend(self._closing())
    return out

  def teardown(self) -> None:
    self._abandon()
    if self._dispatcher is not None:
      self._dispatcher.close()
      self._dispatcher = None

  def _abandon(self) -> None:
    """Cancels the bundle: nothing of it may be taken for the next one's."""
    bundle, self._bundle = self._bundle, None
    if bundle is not None:
      bundle.cancel()
      self._metrics.record(bundle.reports())

  @abc.abstractmethod
  def _emit(self, settled: list[Submission]) -> list[Any]:
    """The outputs of elements whose rows have all settled.

    Counts them in `self._emitted`.
    """

  def _closing(self) -> list[Any]:
    """What is emitted once, at the end of a bundle that succeeded."""
    return []

  def _check_rows(self, submission: Submission) -> None:
    """Each row of an element is settled once, whatever a connector does."""
    element = submission.element
    expected = (
        element.num_rows if is_block(element) else max(submission.rows, 1))
    if submission.rows != expected:
      raise LostRecordError(
          f'{self._name}: an element of '
          f'{element.num_rows if is_block(element) else 1} row(s) was encoded '
          f'as {submission.rows}: a bug of the connector')

  def _failed(self, submission: Submission, failures: Sequence[Failure]) -> Any:
    """Dead letters of an element, or the end of the bundle.

    Raises:
      RecordRefusedError: with `on_error='fail'`.
    """
    if failures and self._fail:
      raise self._refused(failures[0])
    wv: WindowedValue = submission.ticket
    return [
        TaggedOutput(
            FAILED, wv.with_value(_failed_record(submission, failure)))
        for failure in failures
    ]

  def _refused(self, failure: Failure) -> RecordRefusedError:
    record = f'record {failure.key!r}' if failure.key else 'a record'
    if failure.row:
      record += f' (row {failure.row} of its RecordBatch)'
    if failure.destination:
      record += f' for {failure.destination!r}'
    status = f' [{failure.http_status}]' if failure.http_status else ''
    return RecordRefusedError(
        f'{self._name}: {self._operation.target}: {record} was refused'
        f'{status}: {failure.error_type}: {failure.message}. Mend the record, '
        "or pass on_error='collect' and read .failed.")


def _failed_record(submission: Submission, failure: Failure) -> FailedRecord:
  element = submission.element
  if is_block(element):
    element = take_rows(element, [failure.row])
  return FailedRecord(
      element,
      failure.destination,
      failure.key,
      failure.stage,
      failure.error_type,
      failure.message,
      failure.http_status,
      failure.attempts,
      submission.ticket.timestamp)


class _Windows(tuple[Any, ...]):
  """The windows of an output that must not be multiplied.

  For each `WindowedValue` that `process` emits, Beam (2.77:
  runners/common.py, _maybe_propagate_windowing_info) repeats the windows as
  many times as the *current* input has windows: with windows that slide, an
  output would reach each of its windows several times.
  """
  __slots__ = ()

  def __mul__(self, n: Any) -> _Windows:
    return self


def _keep_windows(outputs: list[Any]) -> list[Any]:
  kept: list[Any] = []
  for output in outputs:
    if isinstance(output, TaggedOutput):
      kept.append(TaggedOutput(output.tag, _with_fixed_windows(output.value)))
    else:
      kept.append(_with_fixed_windows(output))
  return kept


def _with_fixed_windows(wv: WindowedValue) -> WindowedValue:
  return WindowedValue(
      wv.value, wv.timestamp, _Windows(wv.windows), wv.pane_info)
