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
"""Pinecone behind the interfaces of Beam's RAG package."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.rag.ingestion.base import VectorDatabaseWriteTransform
from apache_beam.ml.rag.types import Chunk
from apache_beam.ml.rag.types import Content
from apache_beam.ml.rag.types import Embedding
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from fake_pinecone import API_KEY
from fake_reads import FakeReads

from beam_pinecone import FoundChunk
from beam_pinecone import Match
from beam_pinecone import PineconeVectorWriterConfig
from beam_pinecone import SearchPineconeChunks
from beam_pinecone import SparseValues
from beam_pinecone.rag import chunk_of


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)


@pytest.fixture
def index():
  with FakeReads() as fake:
    yield fake


def chunk(name, vector, text='text', sparse=None, **metadata):
  return Chunk(
      Content(text),
      id=name,
      metadata=metadata,
      embedding=Embedding(vector, sparse))


def test_chunks_are_written_by_beams_own_transform(index):
  config = PineconeVectorWriterConfig(
      'docs', namespace='{tenant}', connection=index.host, on_error='collect')
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([
            chunk('a', [1.0, 2.0], 'one', ([3], [0.5]), tenant='x', n=1),
            chunk('bad', [1.0], tenant='x'),
        ])
        | VectorDatabaseWriteTransform(config))
    assert_that(
        result.failed | beam.Map(lambda f: (f.key, f.error_type)),
        equal_to([('bad', 'WrongDimension')]),
        'failed')
    assert_that(
        result.written | 'ids' >> beam.Map(lambda c: c.id),
        equal_to(['a']),
        'written')
  assert index.rows['x']['a'] == {
      'values': [1.0, 2.0],
      'sparse': {
          3: 0.5
      },
      'metadata': {
          'content': 'one', 'n': 1.0
      },
  }


def test_sparse_embeddings_and_texts_may_be_left_out(index):
  config = PineconeVectorWriterConfig(
      'docs', sparse=False, content_key=None, connection=index.host)
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = (
        p | beam.Create([chunk('a', [1.0, 2.0], sparse=([3], [0.5]))])
        | VectorDatabaseWriteTransform(config))
  assert index.rows['']['a'] == {
      'values': [1.0, 2.0], 'sparse': {}, 'metadata': {}
  }


@pytest.mark.parametrize(
    'arguments, says',
    [({
        'index': 'Docs'
    }, 'index'), ({
        'keep': 'title'
    }, 'keep'), ({
        'on_error': 'ignore'
    }, 'on_error')],
    ids=str)
def test_a_mistake_is_named_at_construction(arguments, says):
  with pytest.raises((TypeError, ValueError), match=says):
    PineconeVectorWriterConfig(**{'index': 'docs'} | arguments)


def test_chunks_in_chunks_with_what_was_found_out(index):
  index.records[''] = {
      'a': {
          'values': [1.0, 0.0],
          'metadata': {
              'content': 'the answer', 'lang': 'en'
          }
      },
      'b': {
          'values': [0.0, 1.0]
      },
  }
  question = chunk('q', [2.0, 1.0], 'a question', asked='today')
  with beam.Pipeline(runner='FnApiRunner') as p:
    found = (
        p | beam.Create([question])
        | SearchPineconeChunks('docs', connection=index.host))
    assert_that(
        found | beam.Map(lambda c: (c.id, c.content.text, c.metadata)),
        equal_to([(
            'q',
            'a question',
            {
                'asked':
                    'today',
                'found': [
                    FoundChunk(
                        Chunk(
                            Content('the answer'),
                            id='a',
                            metadata={'lang': 'en'}),
                        2.0),
                    FoundChunk(Chunk(Content(), id='b'), 1.0)
                ]
            })]))
    assert_that(found.failed, equal_to([]), 'failed')
  assert question.metadata == {'asked': 'today'}


def test_a_question_that_is_no_chunk_is_named(index):
  with pytest.raises(Exception, match='not dict: use SearchPinecone'):
    with beam.Pipeline(runner='FnApiRunner') as p:
      _ = (
          p | beam.Create([{'vector': [1.0, 2.0]}])
          | SearchPineconeChunks('docs', connection=index.host))  # yapf: disable


def test_a_match_is_the_chunk_it_was_written_from():
  match = Match(
      'a',
      0.5, {
          'text': 'one', 'n': 1.0
      },
      np.array([1.0, 2.0], np.float32),
      SparseValues(np.array([3], np.uint32), np.array([0.5], np.float32)))
  assert chunk_of(match, 'text') == chunk(
      'a', [1.0, 2.0], 'one', ([3], [0.5]), n=1.0)
  assert chunk_of(Match('a', 0.5)).embedding is None
