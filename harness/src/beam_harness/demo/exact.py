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
"""Exact search with numpy, outside Beam: what the index is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ['ExactSearch', 'largest_difference', 'recall']

# Two documents whose scores differ by less may swap places: the index works
# in single precision, and batches of other sizes move a vector by some 1e-7.
TIE = 1e-5


class ExactSearch:
  """Cosine similarity of a query with every document.

  Args:
    ids: of the documents.
    vectors: float32, shape (len(ids), dimension).
  """
  def __init__(self, ids: Sequence[str], vectors: np.ndarray):
    self._ids = list(ids)
    self._positions = {doc_id: i for i, doc_id in enumerate(self._ids)}
    self._vectors = _unit(vectors)

  def scores(self, queries: np.ndarray) -> np.ndarray:
    """Similarities, shape (queries, documents)."""
    return _unit(queries) @ self._vectors.T

  def search(self, queries: np.ndarray, k: int) -> list[list[str]]:
    """The ids of the k best documents for each query, best first."""
    order = np.argsort(-self.scores(queries), axis=1, kind='stable')[:, :k]
    return [[self._ids[i] for i in row] for row in order]

  def agrees(self, queries: np.ndarray, found: Sequence[Sequence[str]],
             k: int) -> list[bool]:
    """Whether what was found for each query is its k best, in their order.

    Documents that score the same within `TIE` may stand in either order.
    """
    scores = self.scores(queries)
    verdicts = []
    for row, ids in zip(scores, found, strict=True):
      best = np.sort(row)[::-1][:k]
      known = [self._positions[i] for i in ids if i in self._positions]
      verdicts.append(
          len(ids) == len(set(ids)) == len(known) == len(best)
          and bool(np.all(np.abs(row[known] - best) <= TIE)))
    return verdicts


def recall(
    found: Sequence[Sequence[str]], relevant: Sequence[str], k: int) -> float:
  """The share of questions whose relevant document is among the first k."""
  if not relevant:
    raise ValueError('recall of no questions is not defined')
  hits = sum(
      answer in ids[:k] for ids, answer in zip(found, relevant, strict=True))
  return hits / len(relevant)


def largest_difference(
    held: Mapping[Any, ArrayLike], expected: Mapping[Any, ArrayLike]) -> float:
  """The largest difference of any component; infinite unless the ids match."""
  if held.keys() != expected.keys():
    return float('inf')
  worst = 0.0
  for key, values in expected.items():
    a = np.asarray(held[key], np.float32)
    b = np.asarray(values, np.float32)
    if a.shape != b.shape or not np.isfinite(a).all():
      return float('inf')
    if a.size:
      worst = max(worst, float(np.max(np.abs(a - b))))
  return worst


def _unit(vectors: np.ndarray) -> np.ndarray:
  vectors = np.asarray(vectors, np.float64)
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
