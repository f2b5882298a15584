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
import heapq
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


class _Open:
  """A batch that is being filled."""
  __slots__ = ('batch', 'keys')

  def __init__(self, destination: Hashable, frame: int, keyed: bool):
    self.batch = Batch(destination, [], 0, frame)
    self.keys: Optional[set[Hashable]] = set() if keyed else None


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
    if block.n == 1:
      if self._add_row(submission, block, ready):
        return ()
      return (0,)
    if block.n == 0:
      return ()
    return self._add_rows(submission, block, ready)

  def flush(self, ready: Ready) -> None:
    """Sends all that is left."""
    for opened in self._open.values():
      if opened.batch.n:
        ready.append((opened.batch, FINISH))
    self._open.clear()
    self._filled = 0

  def _add_row(self, submission: Any, block: Block, ready: Ready) -> bool:
    offsets = block.offsets
    size = offsets[1] - offsets[0]
    destination = block.destination
    opened = self._open.get(destination)
    if opened is None:
      opened = self._start(destination)
    batch = opened.batch
    if batch.n:
      size += self._separator
      reason = ''
      if batch.nbytes + size > self._max_bytes:
        reason = FULL_BYTES
      elif opened.keys is not None and block.keys[0] in opened.keys:
        reason = KEY
      if reason:
        size -= self._separator
        if self._frame(destination) + size > self._max_bytes:
          return False
        self._close(destination, reason, ready)
        opened = self._start(destination)
        batch = opened.batch
    elif batch.nbytes + size > self._max_bytes:
      return False
    batch.pieces.append((submission, block, 0, 1))
    batch.n += 1
    batch.nbytes += size
    self._filled += size
    if opened.keys is not None:
      opened.keys.add(block.keys[0])
    if batch.n >= self._max_records:
      self._close(destination, FULL_RECORDS, ready)
    elif self._filled > self._pending_bytes:
      self._relieve(ready)
    return True

  def _add_rows(self, submission: Any, block: Block,
                ready: Ready) -> Sequence[int]:
    offsets = np.asarray(block.offsets, dtype=np.int64)
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
      opened = self._open.get(destination)
      if opened is None:
        opened = self._start(destination)
      batch = opened.batch
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
      if opened.keys is not None:
        unique = _unique_until(block.keys, start, end, opened.keys)
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
        self._close(destination, reason, ready)
    if self._filled > self._pending_bytes:
      self._relieve(ready)

  def _start(self, destination: Hashable) -> _Open:
    frame = self._frame(destination)
    opened = _Open(destination, frame, self._keyed)
    self._open[destination] = opened
    self._filled += frame + _OPEN_BATCH_BYTES
    return opened

  def _close(self, destination: Hashable, reason: str, ready: Ready) -> None:
    batch = self._open.pop(destination).batch
    self._filled -= batch.nbytes + _OPEN_BATCH_BYTES
    ready.append((batch, reason))

  def _relieve(self, ready: Ready) -> None:
    """Sends the fullest batches until a quarter of the budget is free."""
    fullest = heapq.nlargest(
        len(self._open),
        ((opened.batch.nbytes, i, destination)
         for i, (destination, opened) in enumerate(self._open.items())))
    for _, _, destination in fullest:
      if self._filled <= self._pending_bytes * 3 // 4:
        break
      if self._open[destination].batch.n:
        self._close(destination, BUDGET, ready)


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
