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
"""What a connector implements: operations, sessions, blocks and verdicts.

This module holds no behaviour of the engine. It is the vocabulary in which a
connector says three things: how an element becomes rows on the wire
(`Session.encode`), how a batch of rows is sent (`Session.send`), and what an
error means (`Operation.classify`). Everything else (batching, concurrency,
retries, throttling, dead letters) is the engine's.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import Optional
from typing import Union

__all__ = [
    'ALL_OK',
    'Batch',
    'Block',
    'Done',
    'FATAL',
    'Failed',
    'Invalid',
    'Kind',
    'Limits',
    'MISSING',
    'Operation',
    'PERMANENT',
    'Rate',
    'SUPERSEDED',
    'Session',
    'Superseded',
    'TOO_LARGE',
    'TRANSIENT',
    'Unanswered',
    'Verdict',
    'throttled',
]

# ---------------------------------------------------------------- verdicts


class Kind(enum.Enum):
  """What the engine does about a failure."""
  #: Try again later; nothing is wrong with the records.
  TRANSIENT = 'transient'
  #: As TRANSIENT, and everybody slows down.
  THROTTLED = 'throttled'
  #: The service refused: alone among the records of a request, dead-letter it.
  PERMANENT = 'permanent'
  #: The request is too large: halve it; a single record is dead-lettered.
  TOO_LARGE = 'too_large'
  #: No record can be written until somebody acts: stop.
  FATAL = 'fatal'


@dataclasses.dataclass(frozen=True)
class Verdict:
  """The meaning of one failure.

  Args:
    kind: what to do about it.
    retry_after: seconds the service asked to wait; a floor for the next try.
    status: the HTTP status, or its nearest equivalent; None when there was no
      answer.
    reason: text for people; None means `str(error)`. Holds no payload and no
      credential.
  """
  kind: Kind
  retry_after: Optional[float] = None
  status: Optional[int] = None
  reason: Optional[str] = None


TRANSIENT = Verdict(Kind.TRANSIENT)
PERMANENT = Verdict(Kind.PERMANENT)
TOO_LARGE = Verdict(Kind.TOO_LARGE, status=413)
FATAL = Verdict(Kind.FATAL)


def throttled(
    retry_after: Optional[float] = None,
    *,
    status: Optional[int] = 429,
    reason: Optional[str] = None) -> Verdict:
  """The verdict on a request the service had no capacity for."""
  return Verdict(Kind.THROTTLED, retry_after, status, reason)


# ----------------------------------------------------------------- replies


class _AllOk:
  """The reply that every record of the batch was acknowledged."""
  __slots__ = ()

  def __repr__(self) -> str:
    return 'ALL_OK'

  def __reduce__(self) -> str:
    # A session written in a script is pickled with all it refers to.
    return 'ALL_OK'


ALL_OK = _AllOk()


@dataclasses.dataclass(frozen=True)
class Done:
  """This record was acknowledged; `value` is its answer, if it has one."""
  __slots__ = ('value',)
  value: Any


class _Missing:
  """The answer that the service holds nothing under this key."""
  __slots__ = ()

  def __repr__(self) -> str:
    return 'MISSING'

  def __reduce__(self) -> str:
    return 'MISSING'


#: `Done(MISSING)`: asked for, answered, and not there.
MISSING = _Missing()


@dataclasses.dataclass(frozen=True)
class Superseded:
  """This record was not written because the store holds a newer version."""
  __slots__ = ()


SUPERSEDED = Superseded()


@dataclasses.dataclass(frozen=True)
class Failed:
  """This record alone failed.

  PERMANENT and TOO_LARGE are final, TRANSIENT and THROTTLED are tried again
  without the record's neighbours, FATAL stops the bundle.
  """
  verdict: Verdict
  reason: str = ''
  error_type: str = ''


@dataclasses.dataclass(frozen=True)
class Unanswered:
  """The service said nothing about this record: it is tried again."""
  reason: str = 'the service did not answer for this record'


Reply = Union[Done, Superseded, Failed, Unanswered]
Replies = Union[_AllOk, Sequence[Reply]]

# ------------------------------------------------------------ rows, batches


@dataclasses.dataclass(frozen=True)
class Invalid:
  """A row that is not sent because the service would refuse or change it.

  Args:
    row: the row's number within the element; 0 for single records.
    reason: what is wrong and how to mend it, for people.
    key: the record's key as text, where it could be read.
    error_type: a short stable name of the check that failed.
    destination: where the row should have gone, as text, where known.
  """
  row: int
  reason: str
  key: str = ''
  error_type: str = 'InvalidRecord'
  destination: str = ''


class Block:
  """Rows of one destination, back to back, as they go over the wire.

  One record is a block of one. Batching, splitting and bisecting are slices of
  blocks; they never look into a row.

  Args:
    destination: where the rows go (a namespace, a table): hashable. Rows of
      different destinations never share a request.
    rows: one bytes-like buffer with all rows back to back, or a sequence of
      objects (for SDK-backed stores), or a sequence of bytes, one per row.
    offsets: row boundaries in bytes *as the wire counts them*, length
      `rows + 1`, ascending (tuple, list or numpy int64). May be omitted for a
      single record whose buffer is the row. For a sequence of rows these are
      the cumulated sizes.
    keys: one hashable key per row, or None where `Limits.keys` is 'free'.
    versions: one comparable version per row, or None.
    row_ids: the number of each row within its element, or None when row `i` of
      the block is row `i` of the element.
  """
  __slots__ = (
      'destination', 'rows', 'offsets', 'keys', 'versions', 'row_ids', 'n')

  def __init__(
      self,
      destination: Hashable,
      rows: Any,
      offsets: Optional[Sequence[int]] = None,
      keys: Optional[Sequence[Hashable]] = None,
      versions: Optional[Sequence[Any]] = None,
      row_ids: Optional[Sequence[int]] = None):
    self.destination = destination
    self.rows = rows
    self.keys: Any = keys
    self.versions = versions
    self.row_ids = row_ids
    if offsets is None:
      offsets = (0, len(rows))
      self.n = 1
    else:
      self.n = len(offsets) - 1
    self.offsets = offsets

  def __repr__(self) -> str:
    return f'Block({self.destination!r}, {self.n} rows)'

  def row_id(self, i: int) -> int:
    """The number within the element of the block's row `i`."""
    return i if self.row_ids is None else int(self.row_ids[i])

  def key(self, i: int) -> Optional[Hashable]:
    return None if self.keys is None else self.keys[i]

  def select(self, rows: Sequence[int]) -> Block:
    """A block of only these rows."""
    of_objects = isinstance(self.rows, (list, tuple))
    view = self.rows if of_objects or self.n == 1 else memoryview(self.rows)
    offsets = self.offsets
    ends = [0]
    picked = []
    for i in rows:
      ends.append(ends[-1] + int(offsets[i + 1] - offsets[i]))
      if of_objects:
        picked.append(view[i])
      else:
        picked.append(view if self.n == 1 else view[offsets[i]:offsets[i + 1]])
    return Block(
        self.destination,
        picked,
        ends,
        None if self.keys is None else [self.keys[i] for i in rows],
        None if self.versions is None else [self.versions[i] for i in rows],
        [self.row_id(i) for i in rows])


class Batch:
  """What `Session.send` is given: rows of one destination, one request.

  `pieces` are `(submission, block, start, stop)`; a session reads the batch
  through `buffers`, `rows` and `keys` and needs not look at the pieces.

  Attributes:
    destination: of every row.
    n: number of rows.
    nbytes: size of the request as the wire counts it, frame and separators
      included.
    attempt: 1 at the first try of exactly these rows.
  """
  __slots__ = ('destination', 'pieces', 'n', 'nbytes', 'attempt')

  def __init__(
      self,
      destination: Hashable,
      pieces: list[tuple[Any, Block, int, int]],
      n: int,
      nbytes: int):
    self.destination = destination
    self.pieces = pieces
    self.n = n
    self.nbytes = nbytes
    self.attempt = 1

  def __len__(self) -> int:
    return self.n

  def __repr__(self) -> str:
    return f'Batch({self.destination!r}, {self.n} rows, {self.nbytes} bytes)'

  def buffers(self) -> list[Any]:
    """The rows as few contiguous buffers, for `b''.join`; no row is copied."""
    out: list[Any] = []
    for _, block, start, stop in self.pieces:
      rows = block.rows
      if isinstance(rows, (list, tuple)):
        out.extend(rows[start:stop])
      elif stop - start == block.n:
        out.append(rows)
      else:
        offsets = block.offsets
        out.append(memoryview(rows)[offsets[start]:offsets[stop]])
    return out

  def rows(self) -> Iterator[Any]:
    """The rows one by one: objects, or one bytes-like per row."""
    for _, block, start, stop in self.pieces:
      rows = block.rows
      if isinstance(rows, (list, tuple)):
        yield from rows[start:stop]
      elif block.n == 1:
        yield rows
      else:
        view = memoryview(rows)
        offsets = block.offsets
        for i in range(start, stop):
          yield view[offsets[i]:offsets[i + 1]]

  def keys(self) -> Iterator[Optional[Hashable]]:
    """The key of each row, in order; None where there are no keys."""
    for _, block, start, stop in self.pieces:
      if block.keys is None:
        for _ in range(start, stop):
          yield None
      else:
        yield from block.keys[start:stop]


# ------------------------------------------------------------------ limits


@dataclasses.dataclass(frozen=True)
class Rate:
  """A documented rate limit of the service, per second.

  Args:
    requests: requests per second; None is unlimited.
    records: records per second.
    nbytes: bytes per second.
    scope: 'session' for one bucket, 'destination' for one per destination.
  """
  requests: Optional[float] = None
  records: Optional[float] = None
  nbytes: Optional[float] = None
  scope: str = 'session'


def _no_frame(destination: Hashable) -> int:
  return 0


@dataclasses.dataclass(frozen=True)
class Limits:
  """What the service allows, known once a session is open.

  Args:
    max_records: records per request.
    max_bytes: bytes per request as the wire counts them; None is unlimited.
    frame_bytes: bytes of an empty request for a destination.
    separator_bytes: bytes between two rows.
    in_flight: requests in flight per process to start with; the limit adapts
      between 1 and `max_in_flight`.
    max_in_flight: the most requests in flight per process.
    rates: documented rate limits.
    keys: 'free': nothing to respect. 'unique': a key at most once per request.
      'serial': besides, one request in flight per key in the process, in the
      order of arrival. 'newest': as 'serial', and a row older than what was
      acknowledged settles as superseded.
    attempt_timeout: seconds one request may take.
    deadline: seconds without progress after which a batch gives up.
    answers: the operation answers each row (a lookup): `send` replies
      `Done(value)` or `Done(MISSING)`, equal keys are asked for once, and
      answers may be cached. Needs `keys='free'` and a key for every row.
    side_by_side: the service takes one record a request, and `send` makes as
      many requests as the batch has records, all at once. Metrics count them
      as such; `in_flight` counts batches.
  """
  max_records: int = 1000
  max_bytes: Optional[int] = None
  frame_bytes: Callable[[Hashable], int] = _no_frame
  separator_bytes: int = 0
  in_flight: int = 8
  max_in_flight: int = 64
  rates: tuple[Rate, ...] = ()
  keys: str = 'free'
  attempt_timeout: float = 60.0
  deadline: float = 600.0
  answers: bool = False
  side_by_side: bool = False


# ------------------------------------------------------------- the contract


class Session(abc.ABC):
  """One open connection to the service, shared by all bundle threads.

  Either `send` or `send_blocking` is implemented. `send` runs on the process's
  one event loop and must not block it; cancelling it must make a late
  acknowledgement impossible. `send_blocking` runs on a bounded pool of threads
  and keeps its slot until it returns.
  """

  #: Known once the session is open.
  limits: Limits

  @abc.abstractmethod
  def encode(self, element: Any) -> Iterable[Union[Block, Invalid]]:
    """Turns an element into rows; pure, on the bundle's thread.

    Every row of the element appears exactly once, in a `Block` or as an
    `Invalid`. An exception is a bug or a bad user callable and fails the
    bundle; a bad record is an `Invalid`, never an exception.
    """

  async def send(self, batch: Batch) -> Replies:
    """Sends one request.

    Returns:
      `ALL_OK`, or one reply per row of the batch, in order.

    Raises:
      Exception: the request failed as a whole; `Operation.classify` says what
        that means.
    """
    raise TypeError(
        f'{type(self).__name__} implements neither send nor send_blocking')

  #: Set to a method by sessions around a blocking SDK; same contract as `send`.
  send_blocking: Optional[Callable[[Batch], Replies]] = None

  async def check(self) -> None:
    """Raises, with the cause and the remedy, if the service is not usable."""

  async def close(self) -> None:
    """Closes the connection. Called once, on the event loop."""


class Operation(abc.ABC):
  """One kind of thing done to one service, as plain picklable data.

  Subclasses are frozen dataclasses: equal by value, hashable, without a secret
  (credentials are references, see `credentials`). Equal operations share one
  session per process. Wrap callables in `values.ByValue`, so that the copies
  that a runner unpickles stay equal.
  """
  @abc.abstractmethod
  async def open(self) -> Session:
    """Connects. Called once per process and value, on the event loop."""

  @abc.abstractmethod
  def classify(self, error: BaseException) -> Verdict:
    """Says what an error raised by `open` or `send` means.

    Delegate to `retry.http_verdict`, `retry.grpc_verdict` or
    `retry.transport_verdict`. What nobody knows is a bug: `FATAL`.
    """

  @property
  @abc.abstractmethod
  def target(self) -> str:
    """What is written to or asked, for messages and display data."""
