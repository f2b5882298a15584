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
"""When to try again, and what an error of a transport means.

The verdict tables are the defaults for HTTP and gRPC services; an operation
that knows better decides before it asks them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import email.utils
import math
import random
import time
from typing import Optional
from typing import Union

from beam_connector_base.operation import Kind
from beam_connector_base.operation import Verdict

__all__ = [
    'RetryPolicy',
    'grpc_verdict',
    'http_verdict',
    'parse_retry_after',
    'transport_verdict',
]

# The longest full-jitter window, in seconds: an outage is probed that often.
MAX_BACKOFF_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
  """Full jitter: attempt n waits a random time below `base * 2**n`.

  Args:
    base: seconds of the first window.
    attempt_timeout: seconds one request may take.
    deadline: seconds without progress after which a batch gives up.
    cap: seconds of the largest window.
  """
  base: float = 0.2
  attempt_timeout: float = 60.0
  deadline: float = 600.0
  cap: float = MAX_BACKOFF_SECONDS

  def delay(
      self, failures: int, retry_after: Optional[float],
      rng: random.Random) -> float:
    """Seconds to wait after the `failures`-th failure in a row (from 1).

    What the service asked for is a floor; jitter comes on top of it, so that
    those who were told the same do not come back in the same instant.
    """
    window = min(self.cap, self.base * 2.0**min(failures - 1, 30))
    jitter = rng.uniform(0.0, window)
    return jitter if not retry_after else retry_after + jitter


# 4xx that no other record of the request could survive either: the address,
# the credential or the account is wrong, not the data.
_HTTP_FATAL = frozenset([401, 402, 403, 404, 405, 407, 410, 501, 505])
_HTTP_TRANSIENT = frozenset([408, 425, 500, 502, 503, 504])


def http_verdict(
    status: int,
    retry_after: Union[str, float, None] = None,
    reason: Optional[str] = None) -> Verdict:
  """The verdict on an HTTP status outside 2xx.

  408, 425 and 5xx are transient, 429 is throttled, 413 is too large; 401,
  402, 403, 404, 405 and redirects are fatal; every other 4xx is permanent.

  Args:
    status: HTTP status code.
    retry_after: the `Retry-After` header (seconds or a date), or seconds.
    reason: text for people.
  """
  wait = (
      parse_retry_after(retry_after)
      if isinstance(retry_after, str) else retry_after)
  if status == 429:
    kind = Kind.THROTTLED
  elif status == 413:
    kind = Kind.TOO_LARGE
  elif status in _HTTP_FATAL or status < 400:
    kind = Kind.FATAL
  elif status in _HTTP_TRANSIENT or status >= 500:
    kind = Kind.TRANSIENT
  else:
    kind = Kind.PERMANENT
  return Verdict(kind, wait, status, reason)


# gRPC code -> (kind, nearest HTTP status), after google.rpc.Code's own mapping.
_GRPC = {
    'CANCELLED': (Kind.TRANSIENT, 499),
    'UNKNOWN': (Kind.TRANSIENT, 500),
    'INVALID_ARGUMENT': (Kind.PERMANENT, 400),
    'DEADLINE_EXCEEDED': (Kind.TRANSIENT, 504),
    'NOT_FOUND': (Kind.FATAL, 404),
    'ALREADY_EXISTS': (Kind.PERMANENT, 409),
    'PERMISSION_DENIED': (Kind.FATAL, 403),
    'RESOURCE_EXHAUSTED': (Kind.THROTTLED, 429),
    'FAILED_PRECONDITION': (Kind.PERMANENT, 400),
    'ABORTED': (Kind.TRANSIENT, 409),
    'OUT_OF_RANGE': (Kind.PERMANENT, 400),
    'UNIMPLEMENTED': (Kind.FATAL, 501),
    'INTERNAL': (Kind.TRANSIENT, 500),
    'UNAVAILABLE': (Kind.TRANSIENT, 503),
    'DATA_LOSS': (Kind.FATAL, 500),
    'UNAUTHENTICATED': (Kind.FATAL, 401),
}


def grpc_verdict(
    code: str,
    retry_after: Union[str, float, None] = None,
    reason: Optional[str] = None) -> Verdict:
  """The verdict on a gRPC status.

  Args:
    code: the name of the code, such as 'UNAVAILABLE'.
    retry_after: seconds the service asked to wait.
    reason: text for people.
  """
  kind, status = _GRPC.get(code, (Kind.FATAL, None))
  wait = (
      parse_retry_after(retry_after)
      if isinstance(retry_after, str) else retry_after)
  return Verdict(kind, wait, status, reason)


def transport_verdict(error: BaseException) -> Optional[Verdict]:
  """TRANSIENT for errors below the protocol, None for what is none of these."""
  if isinstance(
      error,
      (OSError, EOFError, asyncio.TimeoutError,
       concurrent.futures.TimeoutError)):
    return Verdict(
        Kind.TRANSIENT, reason=f'{type(error).__name__}: {error}'.rstrip(': '))
  return None


def parse_retry_after(text: Optional[str]) -> Optional[float]:
  """Seconds of a `Retry-After` value (a number or an HTTP date), or None."""
  if not text:
    return None
  try:
    seconds = float(text)
    return max(0.0, seconds) if math.isfinite(seconds) else None
  except ValueError:
    pass
  try:
    when = email.utils.parsedate_to_datetime(text)
  except (TypeError, ValueError):
    return None
  return max(0.0, when.timestamp() - time.time())
