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
"""Carries a fault plan out: what happens to each request as it comes."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from typing import Any

from beam_harness.emulators.core import Refuse
from beam_harness.emulators.core import Transport
from beam_harness.faults import FaultPlan
from beam_harness.faults import FaultRule

__all__ = ['Decision', 'Faults']


@dataclasses.dataclass(frozen=True)
class Decision:
  """What happens to one request.

  Attributes:
    rule: the rule that decides how the request ends; None leaves it alone.
    delay: seconds to wait before the service is asked.
    late: seconds to wait between the service and the answer.
    refuse: for a 'partial' rule, which records to refuse.
    message: text of the error, for the kinds that have one.
  """
  rule: FaultRule | None = None
  delay: float = 0.0
  late: float = 0.0
  refuse: Refuse | None = None
  message: str = ''

  @property
  def kind(self) -> str | None:
    """For the log: the kind of the rule, 'latency' for a delay alone."""
    if self.rule is not None:
      return self.rule.kind
    return 'latency' if self.delay or self.late else None

  @property
  def is_error(self) -> bool:
    """Whether an error in the words of the service takes the answer's place."""
    return self.rule is not None and self.rule.is_error

  @property
  def applies(self) -> bool:
    """Whether the service is asked to carry the request out."""
    return self.rule is None or self.rule.applies


_UNTOUCHED = Decision()


class Faults:
  """A plan being carried out: the counters of its rules. Thread-safe."""
  def __init__(self, plan: FaultPlan | None = None):
    self._lock = threading.Lock()
    self.plan = plan or FaultPlan()
    self._seen = [0] * len(self.plan.rules)
    self._hits = [0] * len(self.plan.rules)

  def check(self, partial_operations: Collection[str]) -> None:
    """Refuses a plan the service cannot carry out.

    Raises:
      ValueError: a 'partial' rule names an operation that is applied or
        refused as a whole.
    """
    for rule in self.plan.rules:
      if rule.kind != 'partial':
        continue
      if (rule.operation not in partial_operations
          and not (rule.operation == '*' and partial_operations)):
        raise ValueError(
            f'the service answers {rule.operation!r} as a whole; a partial '
            f'failure is possible for: {sorted(partial_operations) or "none"}')

  def hits(self) -> list[int]:
    """How often each rule hit."""
    with self._lock:
      return list(self._hits)

  def decide(
      self,
      operation: str,
      transport: Transport,
      record_ids: Callable[[], Sequence[str]] = tuple,
      can_be_partial: bool = False) -> Decision:
    """Counts one request and says what happens to it.

    Args:
      operation: the service's name of the operation.
      transport: 'rest' or 'grpc'.
      record_ids: called when a record-level rule needs them.
      can_be_partial: whether the operation has partial answers; a 'partial'
        rule for '*' passes by the others.
    """
    if not self.plan.rules:
      return _UNTOUCHED
    delay = late = 0.0
    whole: int | None = None
    by_record: list[tuple[int, int]] = []
    with self._lock:
      for index, rule in enumerate(self.plan.rules):
        if (rule.operation not in ('*', operation)
            or rule.transport not in (None, transport)
            or rule.kind == 'partial' and not can_be_partial):
          continue
        n = self._seen[index]
        self._seen[index] += 1
        if not self._hit(index, rule, n):
          continue
        if rule.by_record:
          by_record.append((index, n))
          continue
        self._hits[index] += 1
        if rule.kind == 'latency':
          seconds = rule.seconds
          if rule.jitter:
            seconds += rule.jitter * self._draw('jitter', index, n)
          if rule.after_effect:
            late += seconds
          else:
            delay += seconds
        elif whole is None:
          whole = index
    if whole is not None:
      return self._whole(whole, by_record, record_ids, delay, late)
    if by_record:
      decision = self._by_record(by_record, record_ids(), delay, late)
      if decision is not None:
        return decision
    return Decision(delay=delay, late=late) if delay or late else _UNTOUCHED

  def _whole(
      self,
      index: int,
      by_record: list[tuple[int, int]],
      record_ids: Callable[[], Sequence[str]],
      delay: float,
      late: float) -> Decision:
    """What a rule for whole requests does, unless poison forbids the effect."""
    rule = self.plan.rules[index]
    if rule.applies:
      poison = [
          each for each in by_record
          if self.plan.rules[each[0]].kind == 'poison'
      ]
      if poison:
        decision = self._by_record(poison, record_ids(), delay, late)
        if decision is not None:
          with self._lock:
            self._hits[index] -= 1
          return decision
    return Decision(rule, delay, late, message=rule.message or _message(rule))

  def _hit(self, index: int, rule: FaultRule, n: int) -> bool:
    position = n - rule.skip
    if position < 0 or rule.first is not None and position >= rule.first:
      return False
    if rule.every is not None and position % rule.every:
      return False
    if rule.count is not None and self._hits[index] >= rule.count:
      return False
    return rule.probability >= 1 or (
        self._draw('hit', index, n) < rule.probability)

  def _by_record(
      self,
      candidates: list[tuple[int, int]],
      ids: Sequence[str],
      delay: float,
      late: float) -> Decision | None:
    # Poison first: a partial failure would let the service take the rest.
    for index, n in sorted(
        candidates, key=lambda each: self.plan.rules[each[0]].kind != 'poison'):
      rule = self.plan.rules[index]
      refused = self._refused(index, n, ids)
      if not refused:
        continue
      with self._lock:
        # Several requests may have passed _hit before one of them counted.
        if rule.count is not None and self._hits[index] >= rule.count:
          continue
        self._hits[index] += 1
      if rule.kind == 'poison':
        message = rule.message or (
            f'record {ids[min(refused)]!r} is refused (injected fault)')
        return Decision(rule, delay, late, message=message)
      return Decision(
          rule,
          delay,
          late,
          refuse=_refuse(refused),
          message=rule.message or _message(rule))
    return None

  def _refused(self, index: int, n: int, ids: Sequence[str]) -> frozenset[int]:
    rule = self.plan.rules[index]
    if rule.records is not None:
      matches = re.compile(rule.records).search
      return frozenset(i for i, each in enumerate(ids) if matches(each))
    return frozenset(
        i for i in range(len(ids))
        if self._draw('record', index, n, i) < rule.share)

  def _draw(self, *what: Any) -> float:
    """Uniform in [0, 1), the same in every process for the same arguments."""
    text = '/'.join(map(str, (self.plan.seed, *what)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, 'big') >> 11) / (1 << 53)


def _refuse(positions: frozenset[int]) -> Refuse:
  return lambda position, _: position in positions


def _message(rule: FaultRule) -> str:
  if rule.kind == 'throttle':
    return 'too many requests (injected fault)'
  return f'{rule.kind} (injected fault)'
