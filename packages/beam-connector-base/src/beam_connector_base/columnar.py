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
"""RecordBatch as an element: a compact coder, and compact copies of rows.

A pickled slice of a RecordBatch carries all of its parent. Importing this
module registers `RecordBatchCoder`, so that a PCollection whose element type is
`pyarrow.RecordBatch` moves between workers as Arrow's IPC stream format, which
holds nothing but the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Union

import numpy as np
import pyarrow as pa
from apache_beam import coders

__all__ = ['PackedBatch', 'RecordBatchCoder', 'from_ipc', 'take_rows', 'to_ipc']


class RecordBatchCoder(coders.Coder):
  """Codes a `pyarrow.RecordBatch` as one Arrow IPC stream.

  Schema metadata and extension types are kept. Decoding copies nothing: the
  columns are views of the bytes that were read.
  """
  def encode(self, value: pa.RecordBatch) -> bytes:
    return to_ipc(value)

  def decode(self, encoded: bytes) -> pa.RecordBatch:
    return from_ipc(encoded)

  def estimate_size(self, value: pa.RecordBatch) -> int:
    return int(value.nbytes)

  def is_deterministic(self) -> bool:
    # What lies under a null is not defined.
    return False

  def to_type_hint(self) -> type:
    return pa.RecordBatch

  def __eq__(self, other: Any) -> bool:
    return type(self) is type(other)

  def __hash__(self) -> int:
    return hash(type(self))


coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)


class PackedBatch:
  """A RecordBatch that is compact however it is pickled.

  For where an element's type is not known, so that `RecordBatchCoder` would
  not be used.
  """
  __slots__ = ('batch',)

  def __init__(self, batch: pa.RecordBatch):
    self.batch = batch

  def __reduce__(self) -> Any:
    return _unpack, (to_ipc(self.batch),)


def _unpack(encoded: bytes) -> PackedBatch:
  return PackedBatch(from_ipc(encoded))


def to_ipc(batch: pa.RecordBatch) -> bytes:
  """The batch as an Arrow IPC stream."""
  sink = pa.BufferOutputStream()
  with pa.ipc.new_stream(sink, batch.schema) as writer:
    writer.write_batch(batch)
  return sink.getvalue().to_pybytes()


def from_ipc(encoded: bytes) -> pa.RecordBatch:
  """The one batch of an Arrow IPC stream."""
  with pa.ipc.open_stream(encoded) as reader:
    return reader.read_next_batch()


def take_rows(
    batch: pa.RecordBatch, indices: Union[Sequence[int],
                                          np.ndarray]) -> pa.RecordBatch:
  """Copies some rows; the copy keeps nothing of the batch alive.

  Args:
    batch: the rows to choose from.
    indices: numbers of the rows, in the order wanted.
  """
  chosen = pa.array(np.asarray(indices, dtype=np.int64))
  columns = [_take(column, chosen) for column in batch.columns]
  if not columns:
    return batch.slice(0, len(chosen))
  return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _take(column: pa.Array, chosen: pa.Array) -> pa.Array:
  try:
    taken = column.take(chosen)
  except pa.ArrowNotImplementedError:
    # Some types have no kernel for it, such as string views.
    return pa.array([column[i.as_py()].as_py() for i in chosen],
                    type=column.type)
  if (pa.types.is_dictionary(column.type)
      and len(taken.dictionary) > len(taken)):
    # Otherwise one row would keep the words of all the others.
    kept = taken.indices.drop_null().unique()
    words = taken.dictionary.take(kept)
    indices = pa.compute.index_in(taken.indices, value_set=kept)
    return pa.DictionaryArray.from_arrays(
        indices.cast(column.type.index_type),
        words,
        ordered=column.type.ordered)
  return taken
