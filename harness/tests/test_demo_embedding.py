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
"""The embedding step: batches in a pipeline give what the model gives."""

import threading

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that
from apache_beam.transforms.window import FixedWindows
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from beam_harness.demo import embedding

TEXTS = [f'{animal} number {i}' for animal in ('cat', 'dog') for i in range(20)]
BATCHING = 1e-5  # how much neighbours in a batch may change a vector


def test_vectors_are_float32_of_length_one():
  vectors = embedding.encoder().encode(['a house', 'a garden'])
  assert vectors.dtype == np.float32
  assert vectors.shape == (2, embedding.DIMENSION)
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_related_texts_are_nearer_than_unrelated_ones():
  a, b, c = embedding.encoder().encode([
      'How do I compress a file?',
      'Reading and writing gzip archives',
      'The minister resigned on Tuesday',
  ])
  assert a @ b > a @ c + 0.1


def test_the_model_is_loaded_once_however_many_threads_ask():
  start = threading.Barrier(4)
  got = []

  def ask():
    start.wait()
    got.append(embedding.encoder())

  threads = [threading.Thread(target=ask) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(got) == 4
  assert len(set(map(id, got))) == 1


def test_threads_outside_beam_keep_the_order():
  vectors = embedding.encode_in_threads(TEXTS)
  single = np.array([embedding.encoder().encode([t])[0] for t in TEXTS])
  np.testing.assert_allclose(vectors, single, atol=BATCHING)


def test_no_texts_give_an_empty_matrix():
  assert embedding.encode_in_threads([]).shape == (0, embedding.DIMENSION)


@pytest.mark.parametrize('batch_size', [1, 7, 100])
def test_each_element_gets_the_vector_of_its_own_text(batch_size):
  expected = {t: embedding.encoder().encode([t])[0] for t in TEXTS}

  def check(elements):
    assert sorted(e['text'] for e in elements) == sorted(TEXTS)
    for element in elements:
      assert element['values'].dtype == np.float32
      np.testing.assert_allclose(
          element['values'], expected[element['text']], atol=BATCHING)
      assert element['extra'] == element['text'].upper()

  with TestPipeline(runner='FnApiRunner') as p:
    embedded = (
        p
        | beam.Create([{
            'text': t, 'extra': t.upper()
        } for t in TEXTS])
        | beam.ParDo(embedding.EmbedTexts(batch_size=batch_size)))
    assert_that(embedded, check)


def test_windows_and_timestamps_stay_with_their_element():
  def with_times(
      element,
      timestamp=beam.DoFn.TimestampParam,
      window=beam.DoFn.WindowParam):
    yield element['second'], timestamp, window.start

  def check(rows):
    assert sorted(rows) == [
        (s, Timestamp(s), Timestamp(s // 10 * 10)) for s in range(25)
    ]

  with TestPipeline(runner='FnApiRunner') as p:
    rows = (
        p
        | beam.Create(range(25))
        | beam.Map(
            lambda s: TimestampedValue({
                'text': f'second {s}', 'second': s
            }, s))
        | beam.WindowInto(FixedWindows(10))
        | beam.ParDo(embedding.EmbedTexts(batch_size=8))
        | beam.ParDo(with_times))
    assert_that(rows, check)


def test_an_impossible_batch_size_is_refused_at_construction():
  with pytest.raises(ValueError, match='batch_size'):
    embedding.EmbedTexts(batch_size=0)
