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
"""Lookups: elements in, the same elements with what the service knows out."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any
from typing import Optional

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import PCollection
from apache_beam.pvalue import TaggedOutput
from apache_beam.typehints import Any as AnyType
from apache_beam.utils.windowed_value import WindowedValue

from beam_connector_base.across import AcrossBundles
from beam_connector_base.cache import Cache
from beam_connector_base.columnar import take_rows
from beam_connector_base.dofn import FAILED
from beam_connector_base.dofn import DeliverFn
from beam_connector_base.dofn import hand_on
from beam_connector_base.failures import FailedRecord
from beam_connector_base.failures import check_on_error
from beam_connector_base.failures import handle_failures
from beam_connector_base.operation import MISSING
from beam_connector_base.operation import Operation
from beam_connector_base.rows import is_block
from beam_connector_base.submission import Failure
from beam_connector_base.submission import Submission
from beam_connector_base.tuning import Tuning

__all__ = ['Join', 'LookupFn', 'LookupRecords', 'LookupResult']

_JOINED = 'joined'
_MISSING = 'missing'
_ON_MISSING = ('null', 'separate', 'fail')


class Join(abc.ABC):
  """How an answer is put to the element that asked. Picklable, without state.

  An answer is whatever the operation's session replied, or `MISSING`.
  """
  @abc.abstractmethod
  def row(self, element: Any, answer: Any) -> Any:
    """The element with its answer; nulls where it is `MISSING`."""

  @abc.abstractmethod
  def block(self, batch: pa.RecordBatch, answers: list[Any]) -> pa.RecordBatch:
    """The rows with their answers, one per row; nulls where `MISSING`."""

  @abc.abstractmethod
  def key(self, element: Any, row: int) -> str:
    """The key of a row of the element as text, for messages."""

  def output_type(self, input_type: Any) -> Any:
    """The element type of the output; `Any` unless a schema is known."""
    return AnyType


class LookupResult(PCollection):
  """The joined elements, which further transforms apply to; and the others.

  It is the PCollection of the elements that were joined, so that lookups chain.

  Attributes:
    missing: with `on_missing='separate'`, the elements (or rows of a
      RecordBatch) of which the service knows nothing, unchanged.
    failed: a `FailedRecord` for each refused element; empty with
      `on_error='fail'`.
  """
  missing: PCollection
  failed: PCollection

  @classmethod
  def of(
      cls, joined: PCollection, missing: PCollection,
      failed: PCollection) -> LookupResult:
    # PCollections are equal by producer and tag: this is `joined` again.
    result = cls(
        joined.pipeline,
        joined.tag,
        joined.element_type,
        joined.windowing,
        joined.is_bounded)
    result.producer = joined.producer
    result.requires_deterministic_key_coder = (
        joined.requires_deterministic_key_coder)
    result.missing = missing
    result.failed = failed
    return result


class LookupRecords(beam.PTransform):
  """Joins elements with the answers of a service: a left join.

  Elements keep their windows, timestamps and panes. Equal keys are asked for
  once, within a bundle and with what is on its way in the process; answers are
  used again for as long as `cache` says. Bundles run in parallel and share one
  session per process.

  A lookup that can not reach its service fails the bundle, so that the runner
  tries again; a question that the service refuses is a failed record.

  Args:
    operation: what is asked; its limits say `answers=True`.
    join: how answers are put to elements.
    on_missing: what becomes of an element of which the service knows nothing.
      'null': it is joined with nulls; 'separate': it goes to `.missing`;
      'fail': it is a failed record.
    on_error: what happens to failed records; as for writes.
    cache: how long answers may be used again; None for not at all.
    tuning: how hard and how patiently the service is talked to.
    namespace: of the metrics, and the name used in messages.
    lineage: system and segments by which the source is named.

  Raises:
    ValueError, TypeError: an argument is not valid.
  """
  def __init__(
      self,
      operation: Operation,
      join: Join,
      *,
      on_missing: str = 'null',
      on_error: Any = 'fail',
      cache: Optional[Cache] = None,
      tuning: Optional[Tuning] = None,
      namespace: str,
      lineage: Optional[Sequence[str]] = None):
    super().__init__()
    if on_missing not in _ON_MISSING:
      raise ValueError(
          f'on_missing must be one of {_ON_MISSING}, not {on_missing!r}')
    if cache is not None and not isinstance(cache, Cache):
      raise TypeError(f'cache must be a Cache, not {type(cache).__name__}')
    if tuning is not None and not isinstance(tuning, Tuning):
      raise TypeError(f'tuning must be a Tuning, not {type(tuning).__name__}')
    self._on_error = check_on_error(on_error)
    if on_error == 'fail' and tuning and tuning.on_outage == 'collect':
      raise ValueError(
          "Tuning(on_outage='collect') makes failed records of an outage, and "
          "on_error='fail' stops at a failed record: pass on_error='collect'")
    self._operation = operation
    self._join = join
    self._on_missing = on_missing
    self._cache = cache
    self._tuning = tuning or Tuning()
    self._namespace = namespace
    self._lineage = tuple(lineage) if lineage else None

  def expand(self, pcoll: PCollection) -> LookupResult:
    element_type = pcoll.element_type or AnyType
    output_type = self._join.output_type(element_type)
    if self._tuning.across_bundles is not None:
      pcoll = pcoll | 'AcrossBundles' >> AcrossBundles(
          self._tuning.max_records, self._tuning.across_bundles)
    lookup = LookupFn(
        self._operation,
        self._tuning,
        join=self._join,
        on_missing=self._on_missing,
        fail=self._on_error == 'fail',
        name=self._namespace,
        lineage=self._lineage,
        cache=self._cache)
    outputs = (
        pcoll | 'Lookup' >> beam.ParDo(lookup).with_output_types(
            output_type).with_outputs(FAILED, _MISSING, main=_JOINED))
    joined = hand_on(outputs[_JOINED], output_type, 'Joined')
    failed = hand_on(outputs[FAILED], FailedRecord, 'Failed')
    missing = hand_on(outputs[_MISSING], element_type, 'Missing')
    handle_failures(self._on_error, failed, self._namespace)
    return LookupResult.of(joined, missing, failed)

  def display_data(self) -> dict[str, Any]:
    data: dict[str, Any] = {
        'target': self._operation.target,
        'on_missing': self._on_missing,
    }
    if self._cache is not None:
      data['cache_ttl'] = self._cache.ttl
    return data


class LookupFn(DeliverFn):
  """Asks for elements and emits them joined with their answers."""
  def __init__(
      self,
      operation: Operation,
      tuning: Tuning,
      *,
      join: Join,
      on_missing: str,
      fail: bool,
      name: str,
      lineage: Optional[Sequence[str]] = None,
      cache: Optional[Cache] = None):
    super().__init__(
        operation, tuning, fail=fail, name=name, lineage=lineage, cache=cache)
    self._join = join
    self._on_missing = on_missing

  def _closing(self) -> list[Any]:
    if self._submitted:
      self._metrics.source()
    return []

  def _emit(self, settled: list[Submission]) -> list[Any]:
    out: list[Any] = []
    found = missing = refused = unreached = 0
    for submission in settled:
      if submission.failures:
        unreached += sum(f.stage == 'outage' for f in submission.failures)
      wv: WindowedValue = submission.ticket
      element = submission.element
      values = submission.values or {}
      if is_block(element):
        block, found_rows, missing_rows = self._emit_block(submission)
        out += block
        found += found_rows
        missing += missing_rows
        refused += submission.rows - found_rows - missing_rows
        continue
      self._check_rows(submission)
      if submission.failures:
        refused += 1
        out += self._failed(submission, submission.failures)
        continue
      answer = values[0]
      if answer is not MISSING:
        found += 1
        out.append(wv.with_value(self._join.row(element, answer)))
        continue
      missing += 1
      if self._on_missing == 'null':
        out.append(wv.with_value(self._join.row(element, MISSING)))
      elif self._on_missing == 'separate':
        out.append(TaggedOutput(_MISSING, wv))
      else:
        out += self._failed(submission, [self._not_found(element, 0)])
    self._emitted += len(settled)
    self._metrics.looked_up(found, missing, refused - unreached)
    if unreached:
      self._metrics.settled(0, 0, 0, unreached)
    return out

  def _emit_block(self, submission: Submission) -> tuple[list[Any], int, int]:
    """The outputs of a RecordBatch: found and missing rows, failures."""
    batch: pa.RecordBatch = submission.element
    wv: WindowedValue = submission.ticket
    values = submission.values or {}
    self._check_rows(submission)
    failures = list(submission.failures or ())
    missing = [row for row, answer in values.items() if answer is MISSING]
    kept = np.ones(submission.rows, dtype=bool)
    kept[[failure.row for failure in failures]] = False
    if missing and self._on_missing != 'null':
      kept[missing] = False
    out: list[Any] = []
    if self._on_missing == 'fail':
      failures += [self._not_found(batch, row) for row in missing]
    out += self._failed(submission, failures)
    if missing and self._on_missing == 'separate':
      rows = take_rows(batch, sorted(missing))
      out.append(TaggedOutput(_MISSING, wv.with_value(rows)))
    rows_kept = np.flatnonzero(kept)
    if len(rows_kept):
      rest = (
          batch if len(rows_kept) == submission.rows else take_rows(
              batch, rows_kept))
      answers = [values[int(row)] for row in rows_kept]
      out.append(wv.with_value(self._join.block(rest, answers)))
    found = len(values) - len(missing)
    return out, found, len(missing)

  def _not_found(self, element: Any, row: int) -> Failure:
    return Failure(
        row,
        self._operation.target,
        self._join.key(element, row),
        'send',
        'NotFound',
        'the service knows nothing under this key; pass on_missing=\'null\' or '
        '\'separate\' if that may happen',
        404,
        1)
