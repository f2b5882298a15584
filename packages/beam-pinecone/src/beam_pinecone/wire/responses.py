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
"""Decoding of the answers this package reads; unknown fields are skipped."""

from __future__ import annotations

import dataclasses
from typing import Optional
from typing import Union

from beam_pinecone.wire.protobuf import VARINT
from beam_pinecone.wire.protobuf import fields

__all__ = ['IndexStats', 'index_stats', 'upserted_count']


@dataclasses.dataclass(frozen=True)
class IndexStats:
  """What DescribeIndexStats says of an index.

  Args:
    dimension: of its dense vectors; None for a sparse index.
    metric: 'cosine', 'dotproduct' or 'euclidean'; None if it was not told.
    vector_type: 'dense' or 'sparse'; None if it was not told.
    total_vector_count: over all namespaces.
    namespaces: vectors by namespace, as the service spells it.
  """
  dimension: Optional[int]
  metric: Optional[str]
  vector_type: Optional[str]
  total_vector_count: int
  namespaces: dict[str, int]


def index_stats(message: bytes) -> IndexStats:
  """Reads a DescribeIndexStatsResponse.

  Raises:
    ValueError: if the bytes are no complete message.
  """
  try:
    return _index_stats(message)
  except TypeError as e:
    raise ValueError(f'a field is of another type: {e}') from None


def upserted_count(message: bytes) -> int:
  """Reads an UpsertResponse.

  Raises:
    ValueError: if the bytes are no complete message.
  """
  return next((
      value for number, kind, value in fields(message)
      if number == 1 and kind == VARINT),
              0)


def _index_stats(message: bytes) -> IndexStats:
  dimension, metric, vector_type, total = None, None, None, 0
  namespaces = {}
  for number, _, value in fields(message):
    if number == 1:
      name = ''
      summary: Union[bytes, memoryview] = b''
      for part, _, inner in fields(value):
        if part == 1:
          name = str(inner, 'utf-8')
        elif part == 2:
          summary = inner
      namespaces[name] = next(
          (count for part, _, count in fields(summary) if part == 1), 0)
    elif number == 2:
      dimension = int(value)
    elif number == 4:
      total = int(value)
    elif number == 5:
      metric = str(value, 'utf-8')
    elif number == 6:
      vector_type = str(value, 'utf-8')
  return IndexStats(
      dimension or None, metric or None, vector_type or None, total, namespaces)
