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
"""Scores of the emulated Pinecone against plain float64 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from beam_harness.emulators.pinecone.requests import Sparse
from beam_harness.emulators.pinecone.scoring import METRICS
from beam_harness.emulators.pinecone.scoring import SparseRows
from beam_harness.emulators.pinecone.scoring import best


def plain_score(metric, query, row):
  query = [float(x) for x in query]
  row = [float(x) for x in row]
  if metric == 'euclidean':
    return sum((a - b)**2 for a, b in zip(query, row, strict=True))
  product = sum(a * b for a, b in zip(query, row, strict=True))
  if metric == 'dotproduct':
    return product
  length = sum(a * a for a in query)**.5 * sum(b * b for b in row)**.5
  return product / length if length else 0.0


def plain_best(metric, query, rows, ids, top_k, extra=None, chosen=None):
  scored = []
  for i in range(len(ids)) if chosen is None else chosen:
    score = plain_score(metric, query, rows[i])
    scored.append((i, score + (0 if extra is None else extra[i])))
  sign = 1 if metric == 'euclidean' else -1
  return sorted(scored, key=lambda each: (sign * each[1], ids[each[0]]))[:top_k]


def squares(rows):
  return np.einsum('ij,ij->i', rows, rows, dtype=np.float64)


@pytest.mark.parametrize('metric', METRICS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 40),
    dimension=st.integers(1, 12),
    top_k=st.integers(1, 50),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    filtered=st.sampled_from([None, 0.1, 0.7]),
    hybrid=st.booleans())
def test_best_rows_are_those_of_plain_arithmetic(
    metric, seed, count, dimension, top_k, scale, filtered, hybrid):
  rng = np.random.default_rng(seed)
  rows = (scale * rng.standard_normal((count, dimension))).astype(np.float32)
  query = (scale * rng.standard_normal(dimension)).astype(np.float32)
  ids = [f'{rng.integers(100)}-{i}' for i in range(count)]
  extra = rng.standard_normal(count) if hybrid else None
  chosen = None
  if filtered is not None:
    chosen = np.flatnonzero(rng.random(count) < filtered)
  found = best(
      metric,
      query,
      rows,
      squares(rows),
      ids,
      top_k,
      extra=extra,
      chosen=chosen)
  expected = plain_best(metric, query, rows, ids, top_k, extra, chosen)
  assert [i for i, _ in found] == [i for i, _ in expected]
  np.testing.assert_allclose([score for _, score in found],
                             [score for _, score in expected],
                             rtol=1e-9,
                             atol=1e-12)


@pytest.mark.parametrize('metric', METRICS)
def test_rows_that_float32_cannot_tell_apart_come_in_their_true_order(metric):
  rng = np.random.default_rng(1)
  base = rng.standard_normal(256).astype(np.float32)
  rows = np.tile(base, (200, 1))
  # The last bits of a few values: less than what a float32 sum rounds off.
  for i in range(200):
    rows[i, i % 256] = np.nextafter(rows[i, i % 256], np.float32(9), dtype='f4')
  query = rng.standard_normal(256).astype(np.float32)
  ids = [f'{i:03d}' for i in range(200)]
  found = best(metric, query, rows, squares(rows), ids, 10)
  assert [i for i, _ in found
         ] == [i for i, _ in plain_best(metric, query, rows, ids, 10)]


def test_equal_scores_come_in_the_order_of_their_ids():
  rows = np.ones((5000, 3), dtype=np.float32)
  ids = [str(9999 - i) for i in range(5000)]
  found = best('cosine', rows[0], rows, squares(rows), ids, 3)
  assert [ids[i] for i, _ in found] == ['5000', '5001', '5002']


@pytest.mark.parametrize('metric', METRICS)
def test_query_of_zeros_is_a_query(metric):
  rows = np.eye(3, dtype=np.float32)
  found = best(
      metric, np.zeros(3, dtype=np.float32), rows, squares(rows), 'abc', 2)
  expected = 1.0 if metric == 'euclidean' else 0.0
  assert found == [(0, expected), (1, expected)]


def sparse(pairs):
  return Sparse(
      np.array(list(pairs), dtype=np.uint32),
      np.array(list(pairs.values()), dtype=np.float32))


PAIRS = st.dictionaries(
    st.sampled_from([0, 1, 2, 7, 2**31, 2**32 - 1]),
    st.sampled_from([-2.0, 0.5, 1.0, 3.25]),
    min_size=1)


@given(PAIRS, st.lists(st.one_of(st.none(), PAIRS), max_size=6))
def test_sparse_score_is_the_product_over_shared_indices(query, stored):
  rows = SparseRows([None if s is None else sparse(s) for s in stored])
  products, overlap = rows.dot(sparse(query))
  for i, pairs in enumerate(stored):
    shared = set(query) & set(pairs or ())
    assert overlap[i] == bool(shared)
    assert products[i] == sum(query[k] * pairs[k] for k in shared)
