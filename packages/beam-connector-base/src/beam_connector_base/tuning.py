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
"""The settings a user may turn, all of them optional."""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import Optional

from beam_connector_base import values
from beam_connector_base.operation import Limits

__all__ = ['Tuning']

_POSITIVE_INTS = ('max_records', 'max_bytes', 'in_flight')
_POSITIVE_NUMBERS = (
    'attempt_timeout',
    'deadline',
    'open_deadline',
    'pending_bytes',
    'in_flight_bytes',
    'across_bundles')
_ON_OUTAGE = ('raise', 'collect')


@dataclasses.dataclass(frozen=True)
class Tuning:
  """How hard and how patiently a transform talks to its service.

  Every field is None by default, which means: what the service documents, or
  the engine's own default. Those are right for production; change one when a
  measurement says so.

  Args:
    max_records: records per request, at most the service's own limit.
    max_bytes: bytes per request as the wire counts them, likewise.
    in_flight: the most requests in flight per process, over all bundle threads.
    attempt_timeout: seconds one request may take.
    deadline: seconds without progress after which a batch gives up and its
      bundle fails, so that the runner holds the input back.
    open_deadline: seconds to keep trying to connect; 60 by default.
    backoff: base, in seconds, of the full-jitter backoff; 0.2 by default.
    quota_share: share in (0, 1] of the documented rates that this process may
      use; divide 1 by the number of workers.
    pending_bytes: bytes of batches that are still being filled, per bundle;
      32 MiB by default.
    in_flight_bytes: bytes of batches sent and not yet settled, per process;
      64 MiB by default.
    across_bundles: seconds that records of a stream may wait for others of
      later bundles; None batches within a bundle only.
    on_outage: 'raise' (default) fails the bundle when the deadline passes;
      'collect' makes failed records of what could not be delivered.
    refusals_in_a_row: how many records, each refused on its own for one and the
      same reason with none delivered in between, stop the bundle; 32 by
      default, 0 for never.
    rate_limiter: an `apache_beam.io.components.rate_limiter.RateLimiter` asked
      before each request.

  Raises:
    ValueError: a field is out of range; the message names it.
  """
  max_records: Optional[int] = None
  max_bytes: Optional[int] = None
  in_flight: Optional[int] = None
  attempt_timeout: Optional[float] = None
  deadline: Optional[float] = None
  open_deadline: Optional[float] = None
  backoff: Optional[float] = None
  quota_share: Optional[float] = None
  pending_bytes: Optional[int] = None
  in_flight_bytes: Optional[int] = None
  across_bundles: Optional[float] = None
  on_outage: Optional[str] = None
  refusals_in_a_row: Optional[int] = None
  rate_limiter: Optional[Any] = None

  def __post_init__(self) -> None:
    for name in _POSITIVE_INTS:
      value = getattr(self, name)
      if value is not None and (isinstance(value, bool)
                                or not isinstance(value, int) or value < 1):
        raise ValueError(f'Tuning.{name} must be an int >= 1, got {value!r}')
    for name in _POSITIVE_NUMBERS:
      value = getattr(self, name)
      if value is not None and not _number(value, above=0):
        raise ValueError(f'Tuning.{name} must be a number > 0, got {value!r}')
    if self.backoff is not None and not (_number(self.backoff, above=0)
                                         or self.backoff == 0):
      raise ValueError(f'Tuning.backoff must be >= 0, got {self.backoff!r}')
    if self.quota_share is not None and not (_number(self.quota_share, above=0)
                                             and self.quota_share <= 1):
      raise ValueError(
          f'Tuning.quota_share must be in (0, 1], got {self.quota_share!r}')
    if self.on_outage is not None and self.on_outage not in _ON_OUTAGE:
      raise ValueError(
          f'Tuning.on_outage must be one of {_ON_OUTAGE}, '
          f'got {self.on_outage!r}')
    if self.refusals_in_a_row is not None and (
        isinstance(self.refusals_in_a_row, bool)
        or not isinstance(self.refusals_in_a_row, int)
        or self.refusals_in_a_row < 0):
      raise ValueError(
          'Tuning.refusals_in_a_row must be an int >= 0, '
          f'got {self.refusals_in_a_row!r}')
    if self.rate_limiter is not None and not isinstance(self.rate_limiter,
                                                        values.ByValue):
      if not callable(getattr(self.rate_limiter, 'allow', None)):
        raise ValueError(
            'Tuning.rate_limiter must have a method allow(hits_added=n), as '
            'apache_beam.io.components.rate_limiter.RateLimiter has')
      # Copies that a runner unpickles must stay equal: they share one session.
      object.__setattr__(
          self, 'rate_limiter', values.ByValue(self.rate_limiter.allow))

  def apply(self, limits: Limits) -> Limits:
    """The service's limits, narrowed by what the user asked for."""
    changes: dict[str, Any] = {}
    if self.max_records is not None:
      changes['max_records'] = min(self.max_records, limits.max_records)
    if self.max_bytes is not None:
      changes['max_bytes'] = min(
          self.max_bytes, limits.max_bytes or self.max_bytes)
    if self.in_flight is not None:
      changes['max_in_flight'] = self.in_flight
      changes['in_flight'] = min(limits.in_flight, self.in_flight)
    if self.attempt_timeout is not None:
      changes['attempt_timeout'] = self.attempt_timeout
    if self.deadline is not None:
      changes['deadline'] = self.deadline
    return dataclasses.replace(limits, **changes) if changes else limits


def _number(value: Any, *, above: float) -> bool:
  return (
      isinstance(value, (int, float)) and not isinstance(value, bool)
      and above < value < float('inf'))
