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
"""The same made-up vectors in every form that a client takes."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa

from beam_pinecone.wire.vectors import upsert_request
from beam_pinecone.wire.vectors import vector_row

__all__ = ['Vectors', 'record_batch']


class Vectors:
  """Vectors with ids, in float32; other forms are made once, when asked for.

  Args:
    n: how many.
    dimension: of each.
  """
  def __init__(self, n: int, dimension: int):
    self.n = n
    self.dimension = dimension
    self.ids = [f'vector-{i:07d}' for i in range(n)]
    self.array = np.random.default_rng(7).standard_normal((n, dimension),
                                                          dtype=np.float32)

  @functools.cached_property
  def lists(self) -> list[list[float]]:
    """As an embedding service's JSON has them."""
    return self.array.tolist()

  @functools.cached_property
  def records(self) -> list[dict[str, object]]:
    """Dicts with Python lists."""
    return [{
        'id': name, 'values': values
    } for name, values in zip(self.ids, self.lists, strict=True)]

  def blocks(self, rows: int) -> list[pa.RecordBatch]:
    """RecordBatches over the array's memory."""
    return [
        record_batch(self.ids[i:i + rows], self.array[i:i + rows])
        for i in range(0, self.n, rows)
    ]

  def requests(self, batch: int) -> list[bytes]:
    """UpsertRequests for the default namespace, as they go over the wire."""
    rows = [
        vector_row(name.encode(), values.tobytes(), values.nbytes, b'', b'')
        for name, values in zip(self.ids, self.array, strict=True)
    ]
    return [
        upsert_request(rows[i:i + batch], '') for i in range(0, self.n, batch)
    ]


def record_batch(
    ids: list[str], array: np.ndarray, **columns: object) -> pa.RecordBatch:
  """Vectors as a RecordBatch that uses the array's memory.

  Args:
    ids: of the vectors.
    array: float32, (len(ids), dimension), contiguous.
    **columns: more columns; a string is the value of all rows.
  """
  values = pa.FixedSizeListArray.from_arrays(
      pa.array(array.reshape(-1)), array.shape[1])
  return pa.record_batch({
      'id': pa.array(ids),
      'values': values,
      **{
          name: pa.array([value] * len(ids)) for name, value in columns.items()
      }
  })
