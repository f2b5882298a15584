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
"""Exact similarity scores, and the best of them.

Scores over a whole namespace are one float32 matrix product. What is near the
cut is then computed again in float64, so that neither the order nor the choice
depends on float32 rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from beam_harness.emulators.pinecone.requests import Sparse

__all__ = ['METRICS', 'SparseRows', 'best', 'exact', 'approximate']

METRICS = ('cosine', 'dotproduct', 'euclidean')

#: Relative error of a float32 dot product that the recomputation covers.
_SLACK = 1e-5

#: Rows converted to float64 at a time.
_PART = 2_048


def approximate(
    metric: str, query: np.ndarray, rows: np.ndarray,
    squares: np.ndarray) -> np.ndarray:
  """Scores of all rows in float32 arithmetic.

  Args:
    metric: one of `METRICS`. For 'euclidean' the score is the squared
      distance, as in the service.
    query: float32 (d,).
    rows: float32 (n, d).
    squares: float64 (n,), the rows' squared lengths.

  Returns:
    float64 (n,).
  """
  products = (rows @ query).astype(np.float64)
  if metric == 'dotproduct':
    return products
  square = float(np.dot(query.astype(np.float64), query.astype(np.float64)))
  if metric == 'cosine':
    return _cosine(products, squares, square)
  return np.maximum(squares + square - 2.0 * products, 0.0)


def exact(metric: str, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Scores of rows in float64 arithmetic; shapes as in `approximate`."""
  query = query.astype(np.float64)
  rows = rows.astype(np.float64)
  if metric == 'euclidean':
    difference = rows - query
    return np.einsum('ij,ij->i', difference, difference)
  products = rows @ query
  if metric == 'dotproduct':
    return products
  return _cosine(products, np.einsum('ij,ij->i', rows, rows), query @ query)


def _cosine(
    products: np.ndarray, squares: np.ndarray, square: float) -> np.ndarray:
  lengths = np.sqrt(squares * square)
  # An all-zero query is like nothing and everything: score 0.
  return np.divide(
      products, lengths, out=np.zeros_like(products), where=lengths > 0)


def best(
    metric: str,
    query: np.ndarray,
    rows: np.ndarray,
    squares: np.ndarray,
    ids: Sequence[str],
    top_k: int,
    *,
    extra: np.ndarray | None = None,
    chosen: np.ndarray | None = None) -> list[tuple[int, float]]:
  """The best rows, best first; equal scores in the order of their ids.

  Args:
    metric, query, rows, squares: as in `approximate`.
    ids: the rows' ids, for ties.
    top_k: how many.
    extra: float64 (n,) added to the score (the sparse part), or None.
    chosen: positions of the rows that may be returned, or None for all.

  Returns:
    (position, score) pairs.
  """
  if chosen is None:
    chosen = np.arange(len(ids))
  elif len(chosen) * 4 < len(ids):
    rows, squares = rows[chosen], squares[chosen]
    extra = None if extra is None else extra[chosen]
    local = best(
        metric,
        query,
        rows,
        squares, [ids[i] for i in chosen],
        top_k,
        extra=extra)
    return [(int(chosen[i]), score) for i, score in local]
  if not len(chosen):
    return []
  scores = approximate(metric, query, rows, squares)
  if extra is not None:
    scores = scores + extra
  sign = 1.0 if metric == 'euclidean' else -1.0
  keys = sign * scores[chosen]
  near = chosen[_near_cut(keys, top_k, _error(metric, query, squares))]
  if len(near) <= 4 * top_k + 1024:
    scores = _exact_in_parts(metric, query, rows, near)
    if extra is not None:
      scores = scores + extra[near]
  else:
    # Hardly anything tells these rows apart, as with an all-zero query.
    scores = scores[near]
  order = sorted(
      range(len(near)), key=lambda i: (sign * scores[i], ids[near[i]]))
  return [(int(near[i]), float(scores[i])) for i in order[:top_k]]


def _exact_in_parts(
    metric: str, query: np.ndarray, rows: np.ndarray,
    chosen: np.ndarray) -> np.ndarray:
  parts = [
      exact(metric, query, rows[chosen[at:at + _PART]])
      for at in range(0, len(chosen), _PART)
  ]
  return np.concatenate(parts)


def _error(metric: str, query: np.ndarray, squares: np.ndarray) -> float:
  """A bound of what float32 arithmetic may have added to any score."""
  if metric == 'cosine':
    return _SLACK
  square = float(np.dot(query.astype(np.float64), query.astype(np.float64)))
  largest = float(squares.max(initial=0.0))
  return _SLACK * (largest + square + 1e-12)


def _near_cut(keys: np.ndarray, top_k: int, error: float) -> np.ndarray:
  """Positions of the `top_k` smallest keys and of all close to them."""
  if len(keys) <= top_k:
    return np.arange(len(keys))
  cut = np.partition(keys, top_k - 1)[top_k - 1]
  return np.flatnonzero(keys <= cut + 2 * error)


class SparseRows:
  """The sparse vectors of a namespace, laid out for scoring all at once."""
  def __init__(self, vectors: Sequence[Sparse | None]):
    present = [(row, v) for row, v in enumerate(vectors) if v is not None]
    self._rows = len(vectors)
    self._indices = _joined([v.indices for _, v in present], np.uint32)
    self._values = _joined([v.values for _, v in present], np.float64)
    self._row = np.repeat(
        np.array([row for row, _ in present], dtype=np.intp),
        np.array([len(v.indices) for _, v in present], dtype=np.intp))

  def dot(self, query: Sparse) -> tuple[np.ndarray, np.ndarray]:
    """Dot products with all rows, over the shared indices.

    Returns:
      float64 (n,) products and bool (n,), true where an index is shared.
    """
    order = np.argsort(query.indices)
    wanted = query.indices[order]
    weights = query.values[order].astype(np.float64)
    at = np.searchsorted(wanted, self._indices)
    at[at == len(wanted)] = 0
    shared = wanted[at] == self._indices if len(wanted) else np.zeros(
        len(self._indices), dtype=bool)
    rows = self._row[shared]
    products = np.bincount(
        rows,
        weights=self._values[shared] * weights[at[shared]],
        minlength=self._rows)
    overlap = np.zeros(self._rows, dtype=bool)
    overlap[rows] = True
    return products, overlap


def _joined(parts: list[np.ndarray], dtype) -> np.ndarray:
  if not parts:
    return np.zeros(0, dtype=dtype)
  return np.concatenate(parts).astype(dtype, copy=False)
