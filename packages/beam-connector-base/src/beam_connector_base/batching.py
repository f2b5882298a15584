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
"""Cutting batches from blocks by exact bytes, by count and by key.

A `Batcher` belongs to one bundle and one thread. It never looks into a row:
batches, halves and left-overs are slices of blocks.
"""

from __future__ import annotations

import bisect
import operator
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from typing import Any
from typing import Optional

import numpy as np

from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Limits

__all__ = ['Batcher', 'halves', 'select']

# What an open batch costs besides its rows, in bytes of the pending budget: a
# bundle with very many destinations must not be free.
_OPEN_BATCH_BYTES = 512

# Why a batch was sent, for metrics.
FULL_RECORDS = 'full_records'
FULL_BYTES = 'full_bytes'
BUDGET = 'budget'
KEY = 'key'
FINISH = 'finish'

Piece = tuple[Any, Block, int, int]
Ready = list[tuple[Batch, str]]


class _Open(Batch):
  """A batch that is being filled."""
  __slots__ = ('seen',)

  def __init__(self, destination: Hashable, frame: int, keyed: bool):
    super().__init__(destination, [], 0, frame)
    self.seen: Optional[set[Hashable]] = set() if keyed else None


class Batcher:
  """Collects the rows of one bundle into batches that fit the limits.

  Args:
    limits: of the session, with the user's tuning applied.
    pending_bytes: total of all batches being filled; when a row does not fit,
      the fullest batches are sent first.
  """
  def __init__(self, limits: Limits, pending_bytes: int):
    self._max_records = limits.max_records
    self._max_bytes = (
        limits.max_bytes if limits.max_bytes is not None else 1 << 62)
    self._separator = limits.separator_bytes
    self._frame: Callable[[Hashable], int] = limits.frame_bytes
    self._keyed = limits.keys != 'free'
    self._pending_bytes = pending_bytes
    self._open: dict[Hashable, _Open] = {}
    self._filled = 0

  def add(self, submission: Any, block: Block, ready: Ready) -> Sequence[int]:
    """Puts the block's rows into batches; full ones are appended to `ready`.

    Returns:
      The rows of the block that alone are larger than a request may be. They
      are in no batch.
    """
    if block.n != 1:
      return self._add_rows(submission, block, ready) if block.n else ()
    # One record: the fast path.
    offsets = block.offsets
    size = offsets[1] - offsets[0]
    batch = self._open.get(block.destination)
    if batch is None:
      if self._frame(block.destination) + size > self._max_bytes:
        return (0,)
      batch = self._start(block.destination)
    else:
      size += self._separator
      seen = batch.seen
      if batch.nbytes + size > self._max_bytes or (seen is not None
                                                   and block.keys[0] in seen):
        size -= self._separator
        if self._frame(block.destination) + size > self._max_bytes:
          return (0,)
        keyed = seen is not None and block.keys[0] in seen
        self._close(batch, KEY if keyed else FULL_BYTES, ready)
        batch = self._start(block.destination)
    batch.pieces.append((submission, block, 0, 1))
    batch.nbytes += size
    if batch.seen is not None:
      batch.seen.add(block.keys[0])
    n = batch.n = batch.n + 1
    filled = self._filled = self._filled + size
    if n >= self._max_records:
      self._close(batch, FULL_RECORDS, ready)
    elif filled > self._pending_bytes:
      self._relieve(ready)
    return ()

  @property
  def pending(self) -> bool:
    """Whether a batch is being filled."""
    return bool(self._open)

  def flush(self, ready: Ready) -> None:
    """Sends all that is left."""
    for batch in self._open.values():
      ready.append((batch, FINISH))
    self._open.clear()
    self._filled = 0

  def _add_rows(self, submission: Any, block: Block,
                ready: Ready) -> Sequence[int]:
    offsets: Any = np.asarray(block.offsets, dtype=np.int64)
    block.offsets = offsets
    destination = block.destination
    alone = self._max_bytes - self._frame(destination)
    widths = np.diff(offsets)
    separator = self._separator
    ends = offsets
    if separator:
      ends = offsets + separator * np.arange(len(offsets), dtype=np.int64)
    if int(widths.max()) <= alone:
      self._add_run(submission, block, ends, 0, block.n, ready)
      return ()
    oversized = np.flatnonzero(widths > alone)
    start = 0
    for row in oversized:
      if row > start:
        self._add_run(submission, block, ends, start, int(row), ready)
      start = int(row) + 1
    if start < block.n:
      self._add_run(submission, block, ends, start, block.n, ready)
    return [int(row) for row in oversized]

  def _add_run(
      self,
      submission: Any,
      block: Block,
      ends: np.ndarray,
      start: int,
      stop: int,
      ready: Ready) -> None:
    destination = block.destination
    separator = self._separator
    while start < stop:
      batch = self._open.get(destination) or self._start(destination)
      # Bytes of rows i..j with their separators: ends[j] - ends[i] - separator.
      room = self._max_bytes - batch.nbytes
      if not batch.n:
        room += separator
      end = int(np.searchsorted(ends, ends[start] + room, 'right')) - 1
      reason = FULL_BYTES
      if end >= start + self._max_records - batch.n:
        end = start + self._max_records - batch.n
        reason = FULL_RECORDS
      end = min(end, stop)
      if batch.seen is not None:
        unique = _unique_until(block.keys, start, end, batch.seen)
        if unique < end:
          end, reason = unique, KEY
      if end > start:
        size = int(ends[end] - ends[start])
        if not batch.n:
          size -= separator
        batch.pieces.append((submission, block, start, end))
        batch.n += end - start
        batch.nbytes += size
        self._filled += size
        start = end
      if start < stop or batch.n >= self._max_records:
        self._close(batch, reason, ready)
    if self._filled > self._pending_bytes:
      self._relieve(ready)

  def _start(self, destination: Hashable) -> _Open:
    frame = self._frame(destination)
    batch = _Open(destination, frame, self._keyed)
    self._open[destination] = batch
    self._filled += frame + _OPEN_BATCH_BYTES
    return batch

  def _close(self, batch: _Open, reason: str, ready: Ready) -> None:
    del self._open[batch.destination]
    self._filled -= batch.nbytes + _OPEN_BATCH_BYTES
    batch.seen = None
    ready.append((batch, reason))

  def _relieve(self, ready: Ready) -> None:
    """Sends the fullest batches until a quarter of the budget is free."""
    for batch in sorted(self._open.values(), key=_nbytes, reverse=True):
      if self._filled <= self._pending_bytes * 3 // 4:
        break
      self._close(batch, BUDGET, ready)


_nbytes = operator.attrgetter('nbytes')


def _unique_until(keys: Any, start: int, end: int, seen: set[Hashable]) -> int:
  """The first row whose key was seen before; adds those before it to `seen`."""
  new = set(keys[start:end])
  if len(new) == end - start and seen.isdisjoint(new):
    seen |= new
    return end
  for i in range(start, end):
    if keys[i] in seen:
      return i
    seen.add(keys[i])
  return end


def select(
    batch: Batch, rows: Sequence[int], frame: int, separator: int) -> Batch:
  """The batch of only these rows, given in ascending order."""
  pieces: list[Piece] = []
  nbytes = frame + separator * max(0, len(rows) - 1)
  base = 0
  at = 0
  for submission, block, start, stop in batch.pieces:
    top = base + stop - start
    last = bisect.bisect_left(rows, top, at)
    run = None
    for row in rows[at:last]:
      i = start + row - base
      if run is not None and run == i:
        pieces[-1] = (*pieces[-1][:3], i + 1)
      else:
        pieces.append((submission, block, i, i + 1))
      run = i + 1
      nbytes += int(block.offsets[i + 1] - block.offsets[i])
    at = last
    base = top
  return Batch(batch.destination, pieces, len(rows), nbytes)


def halves(batch: Batch, frame: int, separator: int) -> tuple[Batch, Batch]:
  """The batch as two of half as many rows."""
  middle = batch.n // 2
  left: list[Piece] = []
  right: list[Piece] = []
  n = 0
  for submission, block, start, stop in batch.pieces:
    cut = min(stop, max(start, start + middle - n))
    if cut > start:
      left.append((submission, block, start, cut))
    if stop > cut:
      right.append((submission, block, cut, stop))
    n += stop - start
  return (
      _of_pieces(batch.destination, left, frame, separator),
      _of_pieces(batch.destination, right, frame, separator))


def _of_pieces(
    destination: Hashable, pieces: list[Piece], frame: int,
    separator: int) -> Batch:
  n = sum(stop - start for _, _, start, stop in pieces)
  nbytes = frame + separator * max(0, n - 1) + sum(
      int(block.offsets[stop] - block.offsets[start])
      for _, block, start, stop in pieces)
  return Batch(destination, pieces, n, nbytes)
