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
"""The fault plan any emulator obeys: what goes wrong, when, for which request.

A plan is data: it survives JSON, and two runs of one plan decide alike. Each
rule counts the requests it looks at (its operation, its transport). Whether
the n-th of them is hit depends on the plan's seed, the rule's position and n,
on nothing else: no clock, no state of the service, no other rule. With
requests in flight at once n follows the order of arrival.

    FaultPlan([
        FaultRule('error', operation='upsert', probability=0.1),
        FaultRule('throttle', operation='upsert', retry_after=0.5, first=3),
        FaultRule('latency', seconds=0.01),
    ], seed=7)

Of the rules that hit a request the delays (`latency`) add up, and the first
other one decides how it ends. Record-level rules come after all others, and
`poison` before `partial`; but a poisoned record is never stored: a rule that
would let the service carry the request out (see `FaultRule.applies`) gives way
to `poison`, and does not count as a hit then.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.core import Transport

__all__ = ['FaultPlan', 'FaultRule', 'KINDS']

#: What each kind of rule does to a request.
KINDS: Mapping[str, str] = {
    'latency': 'the answer comes `seconds` later (plus up to `jitter`)',
    'error': 'an error status in the words of the service; 503 by default',
    'throttle': 'the same for 429 and RESOURCE_EXHAUSTED',
    'reset': 'the connection is reset (RST) instead of an answer',
    'truncate': 'the connection is closed in the middle of the answer',
    'hang': 'no answer at all; ends when the client gives up',
    'slow_body': 'the answer trickles in over `seconds`',
    'poison': 'a request holding a record that matches is refused as a whole',
    'partial': 'some records of a request are refused, the others applied',
}

_RECORD_KINDS = frozenset(('poison', 'partial'))
_ERROR_KINDS = frozenset(('error', 'throttle', 'poison'))
#: A real answer is needed to cut it or to send it slowly.
_ANSWERED_KINDS = frozenset(('truncate', 'slow_body', 'partial'))

_GRPC_OF_HTTP: Mapping[int, str] = {
    400: 'INVALID_ARGUMENT',
    401: 'UNAUTHENTICATED',
    403: 'PERMISSION_DENIED',
    404: 'NOT_FOUND',
    408: 'DEADLINE_EXCEEDED',
    409: 'ALREADY_EXISTS',
    413: 'INVALID_ARGUMENT',
    429: 'RESOURCE_EXHAUSTED',
    500: 'INTERNAL',
    501: 'UNIMPLEMENTED',
    503: 'UNAVAILABLE',
    504: 'DEADLINE_EXCEEDED',
}


@dataclasses.dataclass(frozen=True)
class FaultRule:
  """One thing that goes wrong, and for which requests.

  Attributes:
    kind: one of `KINDS`.
    operation: the service's name of an operation, or '*' for all.
    transport: 'rest' or 'grpc'; None is both.
    probability: chance of a hit, 0 to 1.
    skip: how many requests to leave alone before the rule begins.
    first: hits only among this many requests after `skip`; None is no end.
    every: of those, only each `every`-th, beginning with the first.
    count: no more than this many hits.
    status: HTTP status of error kinds. Default: 503, throttle 429, poison 400.
    grpc: name of the gRPC status of error kinds. Default: what goes with
      `status`.
    retry_after: seconds the client is told to wait; None says nothing.
    message: text of the error; None is a text of ours.
    seconds: duration for 'latency' and 'slow_body'.
    jitter: 'latency' adds a random 0 to `jitter` seconds.
    after_effect: the service carries the request out first, then the fault
      takes the answer's place. Always so for 'truncate', 'slow_body' and
      'partial'.
    records: regular expression searched in record ids, for 'poison' and
      'partial'.
    share: 'partial' without `records` refuses this share of the records, 0 to
      1, chosen by draw.
  """
  kind: str
  operation: str = '*'
  transport: Transport | None = None
  probability: float = 1.0
  skip: int = 0
  first: int | None = None
  every: int | None = None
  count: int | None = None
  status: int | None = None
  grpc: str | None = None
  retry_after: float | None = None
  message: str | None = None
  seconds: float = 0.0
  jitter: float = 0.0
  after_effect: bool = False
  records: str | None = None
  share: float = 0.5

  def __post_init__(self):
    def check(holds: bool, field: str, expected: str) -> None:
      if not holds:
        raise ValueError(
            f'FaultRule.{field} must be {expected}, '
            f'not {getattr(self, field)!r}')

    check(self.kind in KINDS, 'kind', f'one of {sorted(KINDS)}')
    check(self.transport in (None, 'rest', 'grpc'), 'transport', 'rest or grpc')
    check(0 <= self.probability <= 1, 'probability', 'between 0 and 1')
    check(0 <= self.share <= 1, 'share', 'between 0 and 1')
    check(self.skip >= 0, 'skip', 'at least 0')
    for field in ('first', 'every', 'count'):
      value = getattr(self, field)
      check(value is None or value >= 1, field, 'at least 1 or None')
    check(self.seconds >= 0, 'seconds', 'at least 0')
    check(self.jitter >= 0, 'jitter', 'at least 0')
    check(
        self.status is None or 400 <= self.status <= 599,
        'status',
        'an HTTP error status')
    check(
        self.grpc is None or self.grpc in GRPC_CODES and self.grpc != 'OK',
        'grpc',
        'the name of a gRPC error status')
    if self.kind == 'poison':
      check(self.records is not None, 'records', 'given for poison')
    if self.records is not None:
      check(
          self.kind in _RECORD_KINDS, 'kind', 'poison or partial with records')
      try:
        re.compile(self.records)
      except re.error as e:
        raise ValueError(
            f'FaultRule.records is no regular expression: {e}') from e

  def to_json(self) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    return {
        field.name: value
        for field in dataclasses.fields(self)
        if (value := getattr(self, field.name)) != field.default
    }

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> FaultRule:
    """Raises ValueError for an unknown field or a bad value."""
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(value) - known):
      raise ValueError(
          f'FaultRule has no field {", ".join(unknown)}; '
          f'it has {", ".join(sorted(known))}')
    if 'kind' not in value:
      raise ValueError(f'a fault rule needs a kind: one of {sorted(KINDS)}')
    return cls(**value)

  @property
  def by_record(self) -> bool:
    """Whether it depends on the records of a request."""
    return self.kind in _RECORD_KINDS

  @property
  def is_error(self) -> bool:
    """Whether an error in the words of the service is the answer."""
    return self.kind in _ERROR_KINDS

  @property
  def applies(self) -> bool:
    """Whether the service carries the request out all the same."""
    return self.after_effect or self.kind in _ANSWERED_KINDS

  def http_status(self) -> int:
    """HTTP status of an error kind."""
    if self.status is not None:
      return self.status
    return {'throttle': 429, 'poison': 400}.get(self.kind, 503)

  def grpc_status(self) -> int:
    """Number of the gRPC status of an error kind."""
    if self.grpc is not None:
      return GRPC_CODES[self.grpc]
    return GRPC_CODES[_GRPC_OF_HTTP.get(self.http_status(), 'UNKNOWN')]


@dataclasses.dataclass(frozen=True)
class FaultPlan:
  """Rules and the seed of their draws. Data only."""
  rules: tuple[FaultRule, ...] = ()
  seed: int = 0

  def __init__(self, rules: Iterable[FaultRule] = (), seed: int = 0):
    object.__setattr__(self, 'rules', tuple(rules))
    object.__setattr__(self, 'seed', seed)

  def to_json(self) -> dict[str, Any]:
    return {'seed': self.seed, 'rules': [rule.to_json() for rule in self.rules]}

  @classmethod
  def from_json(cls, value: Mapping[str, Any] | str | bytes) -> FaultPlan:
    """A plan from a JSON text or from what it parses to.

    Raises:
      ValueError: it is not a plan; the message names the field.
    """
    if isinstance(value, (str, bytes)):
      value = json.loads(value)
    if not isinstance(value, Mapping) or set(value) - {'seed', 'rules'}:
      raise ValueError('a fault plan is {"seed": int, "rules": [...]}')
    return cls([FaultRule.from_json(rule) for rule in value.get('rules', ())],
               value.get('seed', 0))
