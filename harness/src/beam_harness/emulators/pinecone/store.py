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
"""What is stored: indexes, namespaces, records. No request, no I/O.

A namespace keeps its dense vectors in one growing float32 array without gaps,
so that a query is one matrix product. Deleting moves the last row into the
gap.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from beam_harness.emulators.pinecone.requests import Metadata
from beam_harness.emulators.pinecone.requests import Record
from beam_harness.emulators.pinecone.requests import Sparse
from beam_harness.emulators.pinecone.rules import Rules
from beam_harness.emulators.pinecone.scoring import SparseRows

__all__ = ['Index', 'Namespace', 'Rows', 'record_digest']

_NOTHING = np.zeros(0, dtype=np.float32)
_FIRST_ROWS = 256

#: A write: what it does to rows.
Mutation = Callable[['Rows'], None]


class Rows:
  """Records of one namespace, in slots 0 to n - 1.

  Args:
    dimension: of the dense vectors; None for a sparse index.
  """
  def __init__(self, dimension: int | None):
    self._dimension = dimension
    self._slots: dict[str, int] = {}
    self._dense = np.zeros((0, dimension or 0), dtype=np.float32)
    self._squares = np.zeros(0, dtype=np.float64)
    self.ids: list[str] = []
    self.sparse: list[Sparse | None] = []
    self.metadata: list[Metadata | None] = []
    self._sorted: list[str] | None = None
    self._sparse_rows: SparseRows | None = None

  def __len__(self) -> int:
    return len(self.ids)

  def __contains__(self, record_id: str) -> bool:
    return record_id in self._slots

  @property
  def dense(self) -> np.ndarray:
    """Float32 (n, dimension), a view."""
    return self._dense[:len(self.ids)]

  @property
  def squares(self) -> np.ndarray:
    """Squared lengths of the dense vectors, float64 (n,), a view."""
    return self._squares[:len(self.ids)]

  @property
  def sparse_rows(self) -> SparseRows:
    if self._sparse_rows is None:
      self._sparse_rows = SparseRows(self.sparse)
    return self._sparse_rows

  @property
  def nbytes(self) -> int:
    """About what the records take, without metadata and sparse parts."""
    return sum(map(len, self.ids)) + self.dense.nbytes

  def sorted_ids(self) -> list[str]:
    """Ids in byte order (ids are ASCII)."""
    if self._sorted is None:
      self._sorted = sorted(self.ids)
    return self._sorted

  def get(self, record_id: str) -> Record | None:
    slot = self._slots.get(record_id)
    return None if slot is None else self.at(slot)

  def at(self, slot: int) -> Record:
    values = _NOTHING if self._dimension is None else self._dense[slot]
    return Record(
        self.ids[slot], values, self.sparse[slot], self.metadata[slot])

  def __iter__(self) -> Iterator[Record]:
    return (self.at(slot) for slot in range(len(self.ids)))

  def put(
      self,
      ids: Sequence[str],
      dense: np.ndarray | None,
      sparse: Sequence[Sparse | None],
      metadata: Sequence[Metadata | None]) -> None:
    """Stores whole records; of equal ids the last one stays."""
    slots = []
    for record_id, sparse_part, record_metadata in zip(ids, sparse, metadata, strict=True):
      slot = self._slots.get(record_id)
      if slot is None:
        slot = self._slots[record_id] = len(self.ids)
        self.ids.append(record_id)
        self.sparse.append(sparse_part)
        self.metadata.append(record_metadata)
        self._sorted = None
      else:
        self.sparse[slot] = sparse_part
        self.metadata[slot] = record_metadata
      slots.append(slot)
    if dense is None:
      dense = np.zeros((len(slots), 0), dtype=np.float32)
    self._reserve(len(self.ids))
    self._dense[slots] = dense
    self._squares[slots] = np.einsum('ij,ij->i', dense, dense, dtype=np.float64)
    self._sparse_rows = None

  def patch(
      self,
      ids: Sequence[str],
      values: np.ndarray | None,
      sparse: Sparse | None,
      set_metadata: Metadata | None) -> None:
    """Changes parts of records; ids that are not there are passed over."""
    for record_id in ids:
      slot = self._slots.get(record_id)
      if slot is None:
        continue
      if values is not None:
        self._dense[slot] = values
        self._squares[slot] = np.dot(
            values.astype(np.float64), values.astype(np.float64))
      if sparse is not None:
        self.sparse[slot] = sparse
        self._sparse_rows = None
      if set_metadata:
        self.metadata[slot] = {**(self.metadata[slot] or {}), **set_metadata}

  def remove(self, ids: Sequence[str]) -> None:
    """Deletes records; ids that are not there are passed over."""
    for record_id in ids:
      slot = self._slots.pop(record_id, None)
      if slot is None:
        continue
      last = len(self.ids) - 1
      if slot != last:
        moved = self.ids[last]
        self._slots[moved] = slot
        self.ids[slot] = moved
        self.sparse[slot] = self.sparse[last]
        self.metadata[slot] = self.metadata[last]
        if self._dimension is not None:
          self._dense[slot] = self._dense[last]
          self._squares[slot] = self._squares[last]
      self.ids.pop()
      self.sparse.pop()
      self.metadata.pop()
      self._sorted = None
      self._sparse_rows = None

  def clear(self) -> None:
    """Deletes all records and gives their memory back."""
    for each in (self._slots, self.ids, self.sparse, self.metadata):
      each.clear()
    self._dense = self._dense[:0].copy()
    self._squares = self._squares[:0].copy()
    self._sorted = None
    self._sparse_rows = None

  def page(self, prefix: str, after: str, limit: int) -> tuple[list[str], bool]:
    """Up to `limit` ids that start with `prefix`, in byte order.

    Args:
      prefix: '' for all.
      after: only ids greater than this; '' for the first page.
      limit: the page's size.

    Returns:
      The ids, and whether there are more.
    """
    ids = self.sorted_ids()
    start = bisect.bisect_left(ids, prefix)
    if after:
      start = max(start, bisect.bisect_right(ids, after))
    page: list[str] = []
    for position in range(start, len(ids)):
      if not ids[position].startswith(prefix):
        break
      if len(page) == limit:
        return page, True
      page.append(ids[position])
    return page, False

  def _reserve(self, rows: int) -> None:
    have = len(self._dense)
    if rows <= have:
      return
    size = max(rows, 2 * have, _FIRST_ROWS)
    dense = np.empty((size, self._dense.shape[1]), dtype=np.float32)
    dense[:have] = self._dense
    squares = np.empty(size, dtype=np.float64)
    squares[:have] = self._squares
    self._dense, self._squares = dense, squares


@dataclasses.dataclass
class _Pending:
  lsn: int
  due_at: float
  due_reads: int
  mutation: Mutation


class _View:
  """Rows as one kind of reader sees them: late by some time and some reads."""
  def __init__(self, rows: Rows, seconds: float, reads: int):
    self.rows = rows
    self.lsn = 0
    self._seconds = seconds
    self._reads_late = reads
    self._reads = 0
    self._pending: deque[_Pending] = deque()

  def write(self, lsn: int, mutation: Mutation, now: float) -> None:
    if not self._pending and self._seconds <= 0 and self._reads_late <= 0:
      mutation(self.rows)
      self.lsn = lsn
      return
    self._pending.append(
        _Pending(
            lsn, now + self._seconds, self._reads + self._reads_late, mutation))

  def seed(self, lsn: int, mutation: Mutation) -> None:
    mutation(self.rows)
    self.lsn = lsn

  def read(self, now: float) -> Rows:
    while self._pending and (self._pending[0].due_at <= now
                             and self._pending[0].due_reads <= self._reads):
      pending = self._pending.popleft()
      pending.mutation(self.rows)
      self.lsn = pending.lsn
    self._reads += 1
    return self.rows


class Namespace:
  """One namespace: what was committed, and what readers see of it.

  Attributes:
    committed: the rows with every write in.
    lsn: log sequence number of the last write.
    fields: names of the filterable metadata fields, None for all.
    discarded: upserted records that were counted and not kept.
  """
  def __init__(
      self, dimension: int | None, rules: Rules, clock: Callable[[], float]):
    self.lsn = 0
    self.fields: list[str] | None = None
    self.discarded = 0
    self._clock = clock
    lag = (rules.visibility_seconds, rules.visibility_reads)
    scan_lag = (
        lag[0] if rules.scan_seconds is None else rules.scan_seconds,
        lag[1] if rules.scan_reads is None else rules.scan_reads)
    views = {(0.0, 0): _View(Rows(dimension), 0.0, 0)}
    for seconds, reads in (lag, scan_lag):
      key = (float(seconds), reads)
      if key not in views:
        views[key] = _View(Rows(dimension), seconds, reads)
    self._views = list(views.values())
    self.committed = self._views[0].rows
    self._points = views[(float(lag[0]), lag[1])]
    self._scans = views[(float(scan_lag[0]), scan_lag[1])]

  def write(self, mutation: Mutation) -> int:
    """Commits a write.

    Returns:
      Its log sequence number.
    """
    self.lsn += 1
    now = self._clock()
    for view in self._views:
      view.write(self.lsn, mutation, now)
    return self.lsn

  def seed(self, mutation: Mutation) -> None:
    """Commits a write that every reader sees at once."""
    self.lsn += 1
    for view in self._views:
      view.seed(self.lsn, mutation)

  def points(self) -> tuple[Rows, int]:
    """The rows queries and fetches see, and the last write among them."""
    return self._points.read(self._clock()), self._points.lsn

  def scans(self) -> tuple[Rows, int]:
    """The rows lists, stats and reads by metadata see, likewise."""
    return self._scans.read(self._clock()), self._scans.lsn


class Index:
  """One index and its namespaces.

  Attributes:
    name: its name.
    dimension: of the dense vectors; None for a sparse index.
    metric: of the dense vectors; 'dotproduct' for a sparse index.
    queries_sparse: whether queries may have a sparse part. Writes may also
      where it is useless, unless the rules say otherwise.
    documents: whether it is a document index: its vectors API is a dead end.
  """
  def __init__(
      self,
      name: str,
      *,
      dimension: int | None,
      metric: str,
      documents: bool = False):
    self.name = name
    self.dimension = dimension
    self.metric = metric
    self.queries_sparse = metric == 'dotproduct'
    self.documents = documents
    self.namespaces: dict[str, Namespace] = {}

  @property
  def vector_type(self) -> str:
    return 'sparse' if self.dimension is None else 'dense'


def record_digest(record: Record) -> int:
  """A 128-bit digest of one record, the same on every machine.

  The digest of a set of records is their digests' sum modulo 2**128, so that
  it does not depend on an order.
  """
  digest = hashlib.blake2b(digest_size=16)
  digest.update(record.id.encode())
  digest.update(b'\0')
  digest.update(np.ascontiguousarray(record.values, dtype='<f4').tobytes())
  if record.sparse is not None:
    order = np.argsort(record.sparse.indices)
    digest.update(b'\1')
    digest.update(record.sparse.indices[order].astype('<u4').tobytes())
    digest.update(record.sparse.values[order].astype('<f4').tobytes())
  if record.metadata:
    digest.update(b'\2')
    digest.update(
        json.dumps(record.metadata, sort_keys=True,
                   separators=(',', ':')).encode())
  return int.from_bytes(digest.digest(), 'little')
