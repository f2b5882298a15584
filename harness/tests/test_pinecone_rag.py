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
"""Retrieval with Beam's RAG package: chunks written, asked for, found again."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.rag.ingestion.base import VectorDatabaseWriteTransform
from apache_beam.ml.rag.types import EmbeddableItem
from apache_beam.ml.rag.types import Embedding
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to

from beam_pinecone import PineconeVectorWriterConfig
from beam_pinecone import SearchPineconeChunks

TEXTS = ['one fish', 'two fish', 'red bird', 'blue bird']
WORDS = ['one', 'two', 'red', 'blue', 'fish', 'bird']


def chunk(text, i, **metadata):
  """A chunk embedded by the words it has."""
  item = EmbeddableItem.from_text(text, id=f'c{i}', metadata=metadata)
  words = [float(word in text.split()) for word in WORDS]
  held = np.flatnonzero(words)
  item.embedding = Embedding(words, (held.tolist(), [1.0] * len(held)))
  return item


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed({
      '$indexes': {
          'dense': {
              'dimension': len(WORDS), 'metric': 'cosine'
          },
          'hybrid': {
              'dimension': len(WORDS), 'metric': 'dotproduct'
          },
      }
  })
  return pinecone


@pytest.mark.parametrize('name, sparse', [('dense', False), ('hybrid', True)])
def test_chunks_are_written_and_found_by_questions(index, name, sparse):
  with beam.Pipeline(runner='FnApiRunner') as p:
    written = (
        p | beam.Create([
            chunk(text, i, kind=text.split()[1])
            for i, text in enumerate(TEXTS)
        ])
        | VectorDatabaseWriteTransform(
            PineconeVectorWriterConfig(name, namespace='{kind}',
                                       sparse=sparse)))
    found = (
        p | 'questions' >> beam.Create([
            chunk('one red fish', 'q1', kind='fish'),
            chunk('blue', 'q2', kind='bird'),
        ])
        | beam.WaitOn(written.written)
        | SearchPineconeChunks(name, 1, namespace='{kind}', sparse=sparse)
        | beam.Map(
            lambda item: (
                item.id, [(f.chunk.id, f.chunk.content.text, f.chunk.metadata)
                          for f in item.metadata['found']])))
    assert_that(
        found,
        equal_to([
            ('cq1', [('c0', 'one fish', {})]),
            ('cq2', [('c3', 'blue bird', {})]),
        ]))


def test_a_chunk_without_an_embedding_is_a_failed_record(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    found = (
        p | beam.Create([EmbeddableItem.from_text('one', id='bare')])
        | SearchPineconeChunks('dense', on_error='collect'))
    assert_that(
        found.failed | beam.Map(lambda f: (f.key, f.error_type, f.element.id)),
        equal_to([('bare', 'MissingVector', 'bare')]))
