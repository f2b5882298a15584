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
"""Searches and lookups behind Beam's own Enrichment transform."""

import pickle
import subprocess
import sys

import apache_beam as beam
import pytest
from apache_beam.ml.rag.types import Chunk
from apache_beam.ml.rag.types import Content
from apache_beam.ml.rag.types import Embedding
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms.enrichment import Enrichment
from apache_beam.transforms.window import TimestampedValue
from fake_pinecone import API_KEY
from fake_reads import FakeReads

import beam_pinecone
from beam_connector_base.cache import Cache
from beam_pinecone import Match
from beam_pinecone import PineconeLookupEnrichmentHandler
from beam_pinecone import PineconeSearchEnrichmentHandler
from beam_pinecone import Record


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)


@pytest.fixture
def index():
  with FakeReads() as fake:
    fake.records[''] = {
        'a': {
            'values': [1.0, 0.0], 'metadata': {
                'lang': 'en'
            }
        },
        'b': {
            'values': [3.0, 4.0]
        },
    }
    yield fake


def search(index, **arguments):
  return PineconeSearchEnrichmentHandler(
      'docs', connection=index.host, **arguments)


def lookup(index, **arguments):
  return PineconeLookupEnrichmentHandler(
      'docs', connection=index.host, **arguments)


def chunk(name, vector):
  return Chunk(
      Content('text'),
      id=name,
      metadata={'k': name},
      embedding=Embedding(vector))


def test_a_row_gets_its_matches_and_keeps_its_event_time(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([([1.0, 0.0], 5), ([0.0, 1.0], 7)])
        | beam.Map(
            lambda pair: TimestampedValue(beam.Row(vector=pair[0]), pair[1]))
        | Enrichment(search(index, top_k=1))
        | beam.Map(
            lambda row, t=beam.DoFn.TimestampParam:
            (row.vector, row.matches, float(t))))
    assert_that(
        out,
        equal_to([([1.0, 0.0], [Match('b', 3.0)], 5.0),
                  ([0.0, 1.0], [Match('b', 4.0)], 7.0)]))


def test_a_row_gets_its_record_or_none(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([beam.Row(doc='a'), beam.Row(doc='z')])
        | Enrichment(lookup(index, id_field='doc', include_values=False))
        | beam.Map(lambda row: (row.doc, row.record)))
    assert_that(
        out,
        equal_to([('a', Record('a', None, None, {'lang': 'en'})), ('z', None)]))


def test_chunks_get_what_beams_milvus_handler_would_put_there(index):
  questions = [chunk('q', [1.0, 0.0])]
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create(questions)
        | Enrichment(search(index, top_k=2, use_custom_types=True)))
    assert_that(
        out | beam.Map(lambda c: (c.id, c.metadata)),
        equal_to([(
            'q',
            {
                'k': 'q',
                'enrichment_data': {
                    'id': ['b', 'a'],
                    'distance': [3.0, 1.0],
                    'fields': [{}, {
                        'lang': 'en'
                    }],
                },
            })]))
  assert questions[0].metadata == {'k': 'q'}


def test_chunks_get_their_records(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([chunk('a', None), chunk('z', None)])
        | Enrichment(
            lookup(index, include_values=False, use_custom_types=True))
        | beam.Map(lambda c: c.metadata['enrichment_data']))
    empty = {'values': None, 'sparse_values': None}
    assert_that(
        out,
        equal_to([{
            **empty, 'id': 'a', 'metadata': {
                'lang': 'en'
            }
        }, {
            **empty, 'id': None, 'metadata': None
        }]))


def test_batches_are_opted_in_to(index):
  assert search(index).batch_elements_kwargs() == {}
  handler = search(
      index, use_custom_types=True, min_batch_size=2, max_batch_size=10)
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([chunk(str(i), [1.0, float(i)]) for i in range(6)])
        | Enrichment(handler)
        | beam.Map(lambda c: (c.id, c.metadata['enrichment_data']['id'][0])))
    assert_that(out, equal_to([(str(i), 'b') for i in range(6)]))


def test_answers_are_used_again_while_they_are_cached(index):
  handler = lookup(index, cache=Cache(ttl=600))
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([beam.Row(id='a')] * 5) | Enrichment(handler)
        | beam.Map(lambda row: row.record.id))
    assert_that(out, equal_to(['a'] * 5))
  assert len(index.fetches) == 1


@pytest.mark.parametrize(
    'make, row, says',
    [
        (search, beam.Row(id='q7', vector=[1.0]), "'q7'.*dimension 2"),
        (lookup, beam.Row(id='ü'), 'outside ASCII'),
        (lookup, beam.Row(id='z'), "nothing under 'z'.*on_missing='null'"),
    ],
    ids=['wrong dimension', 'no id', 'missing'])
def test_the_reason_of_a_refusal_survives_beams_own_error(
    index, make, row, says):
  with pytest.raises(Exception, match=says):
    with beam.Pipeline(runner='FnApiRunner') as p:
      _ = p | beam.Create([row]) | Enrichment(make(index, on_missing='fail'))


def test_an_open_handler_pickles_without_its_connection_and_the_key(index):
  handler = search(index, use_custom_types=True)
  handler.__enter__()
  data = pickle.dumps(handler)
  handler.__exit__(None, None, None)
  assert API_KEY.encode() not in data
  copy = pickle.loads(data)
  question, response = copy(chunk('q', [1.0, 0.0]))
  assert copy.join_fn(question,
                      response).metadata['enrichment_data']['id'] == ['b', 'a']
  copy.__exit__(None, None, None)


def test_metrics_and_cache_keys_have_stable_names(index):
  handler = search(index)
  assert str(handler) == 'PineconeSearchEnrichmentHandler'
  assert handler.get_cache_key(
      beam.Row(id='q', vector=[1.0])) == "Pinecone index 'docs': q"
  assert lookup(index).get_cache_key(
      beam.Row(id='a')) == "Pinecone index 'docs': a"


@pytest.mark.parametrize(
    'arguments, error, says',
    [({
        'use_custom_types': 1
    }, TypeError, 'use_custom_types'),
     ({
         'on_missing': 'separate'
     }, ValueError, 'on_missing'), ({
         'top_k': 0
     }, ValueError, 'top_k')],
    ids=str)
def test_a_mistake_is_named_at_construction(arguments, error, says):
  with pytest.raises(error, match=says):
    PineconeSearchEnrichmentHandler('docs', **arguments)


def test_without_what_enrichment_needs_the_import_says_what_to_install():
  code = (
      'import sys\n'
      'sys.modules["google.api_core"] = None\n'
      'sys.modules["google.api_core.exceptions"] = None\n'
      'import beam_pinecone\n'
      'assert "PineconeSearchEnrichmentHandler" in dir(beam_pinecone)\n'
      'try:\n'
      '  beam_pinecone.PineconeSearchEnrichmentHandler\n'
      'except ImportError as e:\n'
      '  print(e)\n')
  out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code],
                       capture_output=True,
                       text=True,
                       check=True)
  assert "pip install 'beam-pinecone[enrichment]'" in out.stdout


def test_a_name_that_does_not_exist_is_an_attribute_error():
  with pytest.raises(AttributeError, match='SearchMilvus'):
    _ = beam_pinecone.SearchMilvus
