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
"""Handwritten digits: real pictures, and scikit-learn's own classifier of them.

The 1,797 pictures that come with scikit-learn: 8 times 8 pixels from 0 to 16.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = [
    'DIMENSION',
    'Digits',
    'K',
    'accuracy',
    'as_written',
    'exact_predictions',
    'load',
    'majority',
]

DIMENSION = 64

#: Nearest neighbours that vote.
K = 5

#: Whole numbers have whole squared distances, many of them equal, and who of
#: those is the fifth neighbour would be a matter of chance. By cosine the fifth
#: and the sixth of every picture differ by 1e-5 or more, a hundred times what
#: single precision loses.
METRIC = 'cosine'

BLOCK_ROWS = 200


@dataclasses.dataclass(frozen=True)
class Digits:
  """Pictures and which digit each shows.

  Args:
    ids: one per picture, unique among all pictures.
    values: float32, shape (pictures, 64).
    digits: shape (pictures,).
  """
  ids: Sequence[str]
  values: np.ndarray
  digits: np.ndarray

  def __len__(self) -> int:
    return len(self.ids)

  def labels(self) -> dict[str, int]:
    """The digit of each picture, by id."""
    return dict(zip(self.ids, map(int, self.digits), strict=True))

  def blocks(self) -> list[pa.RecordBatch]:
    """Columns `id`, `values` (fixed size list of float32) and `digit`."""
    table = pa.table({
        'id':
            pa.array(self.ids, pa.string()),
        'values':
            pa.FixedSizeListArray.from_arrays(
                pa.array(self.values.ravel()), DIMENSION),
        'digit':
            pa.array(self.digits, pa.int64()),
    })
    return table.to_batches(BLOCK_ROWS)


def load() -> tuple[Digits, Digits]:
  """Returns two thirds to learn from, and every third picture to test with."""
  # Takes a second to import: only where it is used.
  from sklearn.datasets import load_digits

  values, digits = load_digits(return_X_y=True)
  ids = [f'digit-{i:04}' for i in range(len(digits))]
  test = np.arange(len(digits)) % 3 == 0

  def part(chosen: np.ndarray) -> Digits:
    return Digits([ids[i] for i in np.flatnonzero(chosen)],
                  values[chosen].astype(np.float32),
                  digits[chosen])

  return part(~test), part(test)


def exact_predictions(train: Digits, test: Digits) -> dict[str, int]:
  """What scikit-learn's exact search makes of each picture of `test`, by id."""
  from sklearn.neighbors import KNeighborsClassifier

  classifier = KNeighborsClassifier(K, metric=METRIC, algorithm='brute')
  classifier.fit(train.values, train.digits)
  predicted = classifier.predict(test.values)
  return dict(zip(test.ids, map(int, predicted), strict=True))


def accuracy(predicted: Mapping[str, int], test: Digits) -> float:
  """The share of pictures that were recognised."""
  return len(predicted.items() & test.labels().items()) / len(test)


def as_written(held: Sequence[Mapping[str, Any]], written: Digits) -> int:
  """How many of the records are pictures as they were written, each once.

  Args:
    held: with `id`, `values` and `digit`.
    written: the pictures.
  """
  labels = written.labels()
  pictures = dict(zip(written.ids, written.values, strict=True))
  return len({
      record['id']
      for record in held
      if labels.get(record['id']) == record['digit']
      and np.array_equal(record['values'], pictures[record['id']])
  })


def majority(votes: Sequence[int]) -> int:
  """The most frequent digit; of equally frequent ones the least.

  As scikit-learn has it.
  """
  counts = Counter(votes)
  return min(counts, key=lambda digit: (-counts[digit], digit))
