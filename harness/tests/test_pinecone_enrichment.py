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
"""The enrichment handlers against the emulator, in Beam's own Enrichment."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.rag.types import EmbeddableItem
from apache_beam.ml.rag.types import Embedding
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms.enrichment import Enrichment

from beam_harness.faults import FaultRule
from beam_pinecone import PineconeLookupEnrichmentHandler
from beam_pinecone import PineconeSearchEnrichmentHandler
from beam_pinecone import WriteToPinecone

VECTORS = np.eye(4, dtype=np.float32) + 0.1


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed({'$indexes': {'docs': {'dimension': 4, 'metric': 'cosine'}}})
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = (
        p | beam.Create([{
            'id': f'v{i}', 'values': VECTORS[i], 'n': i
        } for i in range(4)])
        | WriteToPinecone('docs'))
  pinecone.clear_log()
  return pinecone


def test_rows_are_enriched_with_matches_and_then_with_a_record(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p
        | beam.Create([
            beam.Row(vector=VECTORS[i].tolist(), wanted='v0') for i in range(4)
        ])
        | 'search' >> Enrichment(
            PineconeSearchEnrichmentHandler(
                'docs', 1, filter={'n': {
                    '$lt': 3
                }}))
        | 'fetch' >> Enrichment(
            PineconeLookupEnrichmentHandler('docs', id_field='wanted'))
        | beam.Map(lambda row: (row.matches[0].id, row.record.metadata)))
    first = {'n': 0.0}
    assert_that(
        out | beam.Map(lambda pair: pair[1]), equal_to([first] * 4), 'records')
    assert_that(
        out | 'ids' >> beam.Map(lambda pair: pair[0]) | beam.Distinct(),
        equal_to(['v0', 'v1', 'v2']),
        'matches')


def test_chunks_are_enriched_in_their_metadata(index):
  question = EmbeddableItem.from_text('which?', id='q')
  question.embedding = Embedding(VECTORS[2].tolist())
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([question])
        | Enrichment(
            PineconeSearchEnrichmentHandler('docs', 2, use_custom_types=True))
        | beam.Map(lambda item: item.metadata['enrichment_data']))
    ids = out | 'ids' >> beam.Map(
        lambda found: (found['id'][0], found['fields'][0]))
    assert_that(ids, equal_to([('v2', {'n': 2.0})]))


def test_what_may_pass_is_tried_again_by_the_connector(index):
  index.faults([FaultRule('error', operation='query', status=503, count=2)])
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([beam.Row(vector=VECTORS[1].tolist())])
        | Enrichment(PineconeSearchEnrichmentHandler('docs', 1))
        | beam.Map(lambda row: row.matches[0].id))
    assert_that(out, equal_to(['v1']))
  assert [e.ok for e in index.log('query')] == [False, False, True]


def test_a_namespace_that_does_not_exist_fails_with_its_name(index):
  with pytest.raises(Exception, match="no namespace 'typo'"):
    with beam.Pipeline(runner='FnApiRunner') as p:
      _ = (
          p | beam.Create([beam.Row(id='v1')])
          | Enrichment(
              PineconeLookupEnrichmentHandler('docs', namespace='typo')))
