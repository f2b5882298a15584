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
"""What all deliveries to one session share in this process."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import re
from collections.abc import Hashable
from typing import Any
from typing import Optional

from beam_connector_base.credentials import redact
from beam_connector_base.errors import AttemptTimeoutError
from beam_connector_base.flow import Flow
from beam_connector_base.keys import KeyOrder
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Session
from beam_connector_base.operation import Verdict
from beam_connector_base.retry import RetryPolicy
from beam_connector_base.retry import transport_verdict

__all__ = ['Link', 'Refusals']

_LOGGER = logging.getLogger(__name__)

# How often, at most, a session warns that its service is in trouble.
WARNING_SECONDS = 60.0


class Refusals:
  """Counts records refused on their own for one reason, none written between.

  When nearly everything fails the same way the records are not the problem.

  Args:
    most: how many in a row are too many; 0 for never.
  """
  _VARIABLE = re.compile(r'"[^"]*"|\'[^\']*\'|[0-9]+')

  def __init__(self, most: int):
    self._most = most
    self._signature: Optional[tuple[Optional[int], str]] = None
    self._count = 0

  def written(self) -> None:
    self._count = 0

  def refused(self, status: Optional[int], reason: str) -> bool:
    """Counts one; True when it is one too many."""
    signature = (status, self._VARIABLE.sub('#', reason)[:200])
    if signature != self._signature:
      self._signature = signature
      self._count = 0
    self._count += 1
    return 0 < self._most <= self._count


class Link:
  """What all deliveries to one session share in this process."""
  def __init__(
      self,
      operation: Operation,
      session: Session,
      limits: Limits,
      flow: Flow,
      policy: RetryPolicy,
      refusals: Refusals,
      *,
      collect_outages: bool = False,
      pool: Any = None,
      rng: Optional[random.Random] = None):
    self.operation = operation
    self.session = session
    self.limits = limits
    self.flow = flow
    self.policy = policy
    self.refusals = refusals
    self.collect_outages = collect_outages
    self.pool = pool
    self.rng = rng or random.Random()
    #: Set when the runtime ends: a cancelled request is not tried again.
    self.closing = False
    self._quiet_until = float('-inf')
    self.order: Optional[KeyOrder] = None
    if limits.keys in ('serial', 'newest'):
      self.order = KeyOrder(limits.keys == 'newest', operation.target)

  def warn(self, now: float, message: str) -> None:
    """Logs a warning, unless one was logged within the last minute.

    In an outage every batch has the same thing to say.
    """
    if now >= self._quiet_until:
      self._quiet_until = now + WARNING_SECONDS
      _LOGGER.warning('%s: %s', self.operation.target, message)

  def frame(self, destination: Hashable) -> int:
    return self.limits.frame_bytes(destination)

  def classify(self, error: BaseException) -> Verdict:
    """The operation's verdict, with a reason that is safe to show."""
    if isinstance(error, AttemptTimeoutError):
      return Verdict(Kind.TRANSIENT, reason=str(error))
    if isinstance(error, asyncio.CancelledError):
      # A transport that cancels its own call; ours is told apart before.
      return Verdict(Kind.TRANSIENT, reason='the request was cancelled')
    try:
      verdict = self.operation.classify(error)
    except Exception as bug:  # pylint: disable=broad-except
      verdict = transport_verdict(error) or Verdict(
          Kind.FATAL, reason=f'classify() raised {type(bug).__name__}: {bug}')
    reason = verdict.reason
    if reason is None:
      reason = f'{type(error).__name__}: {error}'.rstrip(': ')
    return dataclasses.replace(verdict, reason=redact(reason))
