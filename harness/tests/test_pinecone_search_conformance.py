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
"""`SearchPinecone` does what every lookup must do."""

import dataclasses
import json
from typing import NamedTuple

import apache_beam as beam
import pinecone_shelf
import pyarrow as pa
import pytest
from apache_beam.ml.rag.types import Content
from apache_beam.ml.rag.types import EmbeddableItem

from beam_connector_base.rows import as_mapping
from beam_harness.conformance import LookupConformance
from beam_pinecone import SearchPinecone
from beam_pinecone.enrichment import PineconeSearchEnrichmentHandler


class QuestionTuple(NamedTuple):
  id: str
  note: str


@dataclasses.dataclass
class QuestionData:
  id: str
  note: str


_KINDS = {
    'dict': dict,
    'Row': beam.Row,
    'NamedTuple': QuestionTuple,
    'dataclass': QuestionData,
}


class TestSearchPineconeConformance(LookupConformance):
  """Searches by id for the nearest vector, which is the id's own.

  So the answer to each question is known, and a fault can single a question
  out. By vector, sparse, hybrid: see the connector's own tests.
  """
  transform = SearchPinecone
  namespace = 'SearchPinecone'
  target = 'books'
  ask_operation = 'query'
  lineage = ('pinecone:books',)
  secret = pinecone_shelf.SECRET
  secret_variable = 'PINECONE_API_KEY'
  # A query is a request of its own.
  max_records = 1
  together = 8
  extra_kinds = ('EmbeddableItem',)
  idle_requests = ('describe_index_stats',)
  construction = '''
      from beam_pinecone import SearchPinecone
      lookup = SearchPinecone('books', namespace='{lang}', id_field='id')
      '''
  heavy_modules = ('pinecone', 'httpx', 'pandas', 'torch')

  @pytest.fixture
  def emulator(self, pinecone, monkeypatch):
    pinecone_shelf.prepare(pinecone, monkeypatch)
    # A namespace without a record is none.
    pinecone_shelf.store(pinecone, ['another'])
    return pinecone

  def make_transform(self, emulator, *, secret_variable=None, **options):
    return SearchPinecone(
        'books',
        1,
        namespace='shelf',
        vector_field=None,
        id_field='id',
        include_values=True,
        connection=pinecone_shelf.connection(emulator, secret_variable),
        queries_per_second=None,
        **options)

  def make_handler(self, emulator, *, secret_variable=None, **options):
    return PineconeSearchEnrichmentHandler(
        'books',
        1,
        namespace='shelf',
        vector_field=None,
        id_field='id',
        include_values=True,
        connection=pinecone_shelf.connection(emulator, secret_variable),
        queries_per_second=None,
        **options)

  def store(self, emulator, keys):
    pinecone_shelf.store(emulator, keys)

  def make_question(self, key, kind='dict'):
    if kind == 'EmbeddableItem':
      return EmbeddableItem(Content(), id=key)
    return _KINDS[kind](id=key, note=f'asked for {key}')

  def make_block(self, questions):
    return pa.RecordBatch.from_pylist(
        questions, pa.schema([('id', pa.string()), ('note', pa.string())]))

  def bad_question(self):
    return self.make_question('x' * 600)

  def expected(self, key):
    return {'id': key, **pinecone_shelf.record(key)}

  def answer_of(self, joined):
    # A chunk has it in its metadata.
    matches = joined['matches'] if 'matches' in joined else (
        joined['metadata']['matches'])
    if not len(matches):
      return None
    (match,) = matches
    found = dict(as_mapping(match))
    assert found.pop('score') == pytest.approx(1.0, abs=1e-5)
    assert found.pop('sparse_values') is None
    if isinstance(found['metadata'], str):
      found['metadata'] = json.loads(found['metadata'])
    return found
