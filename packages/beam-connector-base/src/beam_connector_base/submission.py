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
"""One element on its way, and what became of its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any
from typing import Optional

from beam_connector_base.credentials import redact
from beam_connector_base.errors import FatalError
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Reply
from beam_connector_base.operation import Superseded

__all__ = ['Failure', 'Submission', 'apply_reply', 'failure_of_invalid']


@dataclasses.dataclass(frozen=True)
class Failure:
  """Why one row was refused.

  Args:
    row: its number within the element; 0 for single records.
    destination: where it should have gone.
    key: its key as text, where known.
    stage: 'encode' (never sent), 'send' (the service refused it) or 'outage'
      (not delivered before the deadline, with `Tuning(on_outage='collect')`).
    error_type: a short stable name.
    message: what is wrong, for people.
    http_status: the status or its equivalent, where there was an answer.
    attempts: requests that held the row.
  """
  __slots__ = (
      'row',
      'destination',
      'key',
      'stage',
      'error_type',
      'message',
      'http_status',
      'attempts')
  row: int
  destination: str
  key: str
  stage: str
  error_type: str
  message: str
  http_status: Optional[int]
  attempts: int


class Submission:
  """One element on its way; all its rows settle before it is handed back.

  Attributes:
    element: as submitted.
    ticket: whatever the caller wants back with it.
    rows: number of rows of the element.
    failures: the refused rows, or None.
    superseded: rows that were not written because a newer one was.
    values: answers by row number, for operations that answer; else None.
  """
  # Rarely set: they live on the class until then.
  failures: Optional[list[Failure]] = None
  superseded = 0
  values: Optional[dict[int, Any]] = None
  _counts: Optional[dict[Hashable, int]] = None

  def __init__(self, element: Any, ticket: Any):
    self.element = element
    self.ticket = ticket
    self.rows = 0
    self.outstanding = 0
    self._sent = 0
    self._destination: Hashable = None

  def send(self, destination: Hashable, rows: int) -> None:
    """Counts rows of the element that go into batches."""
    if self._counts is not None:
      self._counts[destination] = self._counts.get(destination, 0) + rows
    elif self._sent and destination != self._destination:
      self._counts = {self._destination: self._sent, destination: rows}
    self._destination = destination
    self._sent += rows
    self.outstanding += rows

  @property
  def destinations(self) -> dict[Hashable, int]:
    """Rows per destination, of those not refused before they were sent."""
    if self._counts is not None:
      return self._counts
    return {self._destination: self._sent} if self._sent else {}

  def answer(self, row: int, value: Any) -> None:
    if self.values is None:
      self.values = {}
    self.values[row] = value

  def fail(self, failure: Failure) -> None:
    if self.failures is None:
      self.failures = []
    self.failures.append(failure)


def apply_reply(
    submission: Submission,
    block: Block,
    i: int,
    reply: Reply,
    stage: str,
    attempts: int) -> None:
  """Notes what became of one row."""
  if isinstance(reply, Done):
    if reply.value is not None:
      submission.answer(block.row_id(i), reply.value)
  elif isinstance(reply, Superseded):
    submission.superseded += 1
  else:
    assert isinstance(reply, Failed)
    key = block.key(i)
    submission.fail(
        Failure(
            block.row_id(i),
            str(block.destination),
            '' if key is None else str(key),
            stage,
            reply.error_type or reply.verdict.kind.value,
            redact(reply.reason or reply.verdict.reason or 'refused'),
            reply.verdict.status,
            attempts))


def failure_of_invalid(item: Any) -> Failure:
  if not isinstance(item, Invalid):
    raise FatalError(
        f'encode() yielded {type(item).__name__}, not a Block or an Invalid: a '
        'bug of the connector')
  return Failure(
      item.row,
      item.destination,
      item.key,
      'encode',
      item.error_type,
      redact(item.reason),
      None,
      0)
