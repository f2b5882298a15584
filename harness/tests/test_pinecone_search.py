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
"""SearchPinecone against the emulator: exact scores, filters, what goes wrong.

What every lookup has to keep is in the conformance suite; here is what only
searches of Pinecone have.
"""

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from pinecone import Pinecone

from beam_connector_base import FatalError
from beam_connector_base import Tuning
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.operation import MISSING
from beam_harness.faults import FaultRule
from beam_pinecone import PineconeConnection
from beam_pinecone import SearchPinecone
from beam_pinecone import WriteToPinecone

N, DIMENSION = 200, 8
INDEXES = {
    'docs': {
        'dimension': DIMENSION, 'metric': 'cosine'
    },
    'hybrid': {
        'dimension': DIMENSION, 'metric': 'dotproduct'
    },
    'places': {
        'dimension': DIMENSION, 'metric': 'euclidean'
    },
    'terms': {
        'metric': 'dotproduct', 'vector_type': 'sparse'
    },
    'papers': {
        'schema': {
            'fields': {
                'title': {
                    'type': 'string', 'full_text_search': {}
                }
            }
        }
    },
}
rng = np.random.default_rng(11)
VECTORS = rng.normal(size=(N, DIMENSION)).astype(np.float32)
QUERIES = rng.normal(size=(20, DIMENSION)).astype(np.float32)
SPARSE = [{
    'indices': [i % 7, 7 + i % 5], 'values': [1.0, 0.5 + i / N]
} for i in range(N)]
METADATA = [{
    'year': 1990 + i % 30,
    'lang': 'de' if i % 3 == 0 else 'en',
    'tags': [f't{i % 4}', f't{i % 5}'],
    'good': i % 2 == 0
} for i in range(N)]


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed({'$indexes': INDEXES})
  return pinecone


def write(name, namespace='', values=True, sparse=False):
  rows = [{
      'id': f'v{i}',
      'metadata': METADATA[i],
      **({'values': VECTORS[i]} if values else {}),
      **({'sparse_values': SPARSE[i]} if sparse else {}),
  } for i in range(N)]  # yapf: disable
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = p | beam.Create(rows) | WriteToPinecone(name, namespace=namespace)


def search(elements, name='docs', top_k=5, **arguments):
  """Searches as one bundle; returns the matches of each, or the failure."""
  transform = SearchPinecone(name, top_k, queries_per_second=None, **arguments)
  dispatcher = Dispatcher(transform._operation, Tuning(backoff=0.01))
  try:
    out = []
    for submission in dispatcher.run(elements):
      if submission.failures:
        out.append(submission.failures[0])
      else:
        answer = submission.values[0]
        out.append([] if answer is MISSING else answer)
    return out
  finally:
    dispatcher.close()


def scores(metric, query, vectors=VECTORS):
  query, vectors = query.astype(np.float64), vectors.astype(np.float64)
  if metric == 'euclidean':
    return -((vectors - query)**2).sum(axis=1)
  products = vectors @ query
  if metric == 'cosine':
    products /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
  return products


def nearest(metric, query, k=5, keep=None):
  """Ids of the nearest, by arithmetic of our own."""
  values = scores(metric, query)
  order = np.argsort(-values, kind='stable')
  return [f'v{i}' for i in order if keep is None or keep(METADATA[i])][:k]


def ids(found):
  return [match.id for match in found]


@pytest.mark.parametrize(
    'name, metric', [('docs', 'cosine'), ('hybrid', 'dotproduct'),
                     ('places', 'euclidean')])
@pytest.mark.parametrize('order', ['sorted', 'loose'])
def test_the_nearest_vectors_come_best_first_on_every_metric(
    index, name, metric, order):
  write(name)
  index.seed({'$options': {'match_order': order}})
  found = search([{'vector': query} for query in QUERIES], name)
  assert [ids(f) for f in found] == [nearest(metric, q) for q in QUERIES]
  sign = -1 if metric == 'euclidean' else 1
  assert [m.score for m in found[0]] == pytest.approx([
      sign * s for s in sorted(scores(metric, QUERIES[0]), reverse=True)[:5]
  ], rel=1e-5)  # yapf: disable


def test_answers_are_those_of_the_official_client(index):
  write('docs', 'ns')
  theirs = Pinecone().index(name='docs')
  found = search([{
      'vector': q
  } for q in QUERIES],
                 namespace='ns',
                 include_values=True)
  for query, ours in zip(QUERIES, found, strict=True):
    expected = theirs.query(
        vector=query.tolist(),
        top_k=5,
        namespace='ns',
        include_values=True,
        include_metadata=True).matches
    assert ids(ours) == ids(expected)
    for match, other in zip(ours, expected, strict=True):
      assert match.score == pytest.approx(other.score)
      assert match.metadata == other.metadata
      assert match.values.tolist() == pytest.approx(list(other.values))


FILTERS = [
    ({'lang': 'de'}, lambda m: m['lang'] == 'de'),
    ({'year': {'$gte': 2000, '$lt': 2010}}, lambda m: 2000 <= m['year'] < 2010),
    ({'tags': {'$in': ['t1']}}, lambda m: 't1' in m['tags']),
    ({'good': {'$ne': True}}, lambda m: not m['good']),
    ({'$or': [{'lang': 'de'}, {'good': True}], 'year': {'$nin': [1990, 1991]}},
     lambda m: (m['lang'] == 'de' or m['good']) and m['year'] > 1991),
    ({'color': {'$exists': True}}, lambda m: False),
]  # yapf: disable


@pytest.mark.parametrize('chosen, keep', FILTERS, ids=lambda f: str(f)[:40])
def test_filters_choose_what_they_say(index, chosen, keep):
  write('docs')
  found = search([{'vector': q} for q in QUERIES[:5]], filter=chosen)
  assert [ids(f) for f in found] == [
      nearest('cosine', q, keep=keep) for q in QUERIES[:5]]  # yapf: disable


def test_filters_and_namespaces_depend_on_the_record(index):
  write('docs', 'a')
  write('docs', 'b')
  rows = [{
      'vector': QUERIES[i], 'lang': 'de' if i % 2 else 'en', 'ns': 'ab'[i % 2]
  } for i in range(6)]
  expected = [
      nearest(
          'cosine',
          QUERIES[i],
          keep=lambda m, i=i: m['lang'] == rows[i]['lang']) for i in range(6)
  ]
  for chosen in ({'lang': '{lang}'}, lambda row: {'lang': row['lang']}):
    found = search(rows, namespace='{ns}', filter=chosen)
    assert [ids(f) for f in found] == expected
  asked = [e for e in index.log('query') if e.ok]
  assert len(asked) == 12


def test_sparse_and_hybrid_searches_score_what_they_share(index):
  write('terms', values=False, sparse=True)
  write('hybrid', sparse=True)
  query = {'indices': [3, 9], 'values': [2.0, 1.0]}
  weights = np.array([
      sum(
          w * v
          for k, w in zip(s['indices'], s['values'], strict=True)
          for q, v in zip(query['indices'], query['values'], strict=True)
          if k == q)
      for s in SPARSE
  ])
  (found,) = search([{
      'terms': query
  }],
                    'terms',
                    vector_field=None,
                    sparse_field='terms')
  best = sorted(weights, reverse=True)[:5]
  assert [m.score for m in found] == pytest.approx(best)
  (found,) = search([{'vector': QUERIES[0], 'terms': query}],
                    'hybrid',
                    sparse_field='terms',
                    include_values=True)  # yapf: disable
  both = scores('dotproduct', QUERIES[0]) + weights
  order = np.argsort(-both)[:5]
  assert ids(found) == [f'v{i}' for i in order]
  assert found[0].sparse_values.indices.tolist() == SPARSE[order[0]]['indices']


def test_stored_vectors_find_their_like(index):
  write('docs')
  found = search([{'like': 'v7'}, {'like': 'nobody'}], id_field='like')
  assert ids(found[0]) == nearest('cosine', VECTORS[7])
  assert found[1] == []


def test_a_block_is_searched_like_its_rows(index):
  write('docs')
  batch = pa.RecordBatch.from_arrays(
      [pa.FixedSizeListArray.from_arrays(pa.array(QUERIES.ravel()), DIMENSION)],
      ['vector'])
  with beam.Pipeline(runner='FnApiRunner') as p:
    found = (
        p | beam.Create([batch])
        | SearchPinecone('docs', 5)
        | beam.FlatMap(
            lambda b: [[m['id'] for m in row] for row in b.column('matches').
                       to_pylist()]))
    assert_that(found, equal_to([nearest('cosine', q) for q in QUERIES]))


# ----------------------------------------------------------------- bad input


def test_a_query_of_another_dimension_names_both(index):
  (failure,) = search([{'id': 'q1', 'vector': [1.0, 2.0]}])
  assert (failure.key, failure.error_type) == ('q1', 'WrongDimension')
  assert '2 values' in failure.message
  assert f'dimension {DIMENSION}' in failure.message
  assert not index.log('query')


def test_a_filter_that_a_template_makes_illegal_refuses_its_record(index):
  write('docs')
  found = search([{'vector': QUERIES[0], 'year': 'last'},
                  {'vector': QUERIES[0], 'year': 2000}],
                 filter={'year': {'$gte': '{year}'}})  # yapf: disable
  assert found[0].error_type == 'Filter'
  assert len(found[1]) == 5


def test_what_the_service_refuses_all_the_same_is_a_failed_record(index):
  write('docs')
  # The emulator refuses it as the service would, had we not known.
  index.seed({'$options': {'max_top_k': 3}})
  (failure,) = search([{'vector': QUERIES[0]}])
  assert (failure.stage, failure.http_status) == ('send', 400)
  assert 'top_k must be between 1 and 3' in failure.message


def test_a_namespace_that_does_not_exist_does_not_pass_silently(index):
  write('docs', 'here')
  with pytest.raises(FatalError, match="no namespace 'typo'"):
    search([{'vector': QUERIES[0]}], namespace='typo')
  rows = [{'vector': QUERIES[0], 'ns': ns} for ns in ('here', 'typo')]
  found = search(rows, namespace='{ns}')
  assert len(found[0]) == 5
  assert "no namespace 'typo'" in found[1].message
  assert search(rows, namespace='{ns}', on_missing_namespace='empty')[1] == []


def test_a_namespace_that_is_written_first_is_found(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    written = (
        p | beam.Create([{
            'id': 'a', 'values': VECTORS[0]
        }])
        | WriteToPinecone('docs', namespace='new'))
    found = (
        p | 'questions' >> beam.Create([{
            'vector': VECTORS[0]
        }])
        | beam.WaitOn(written.written)
        | SearchPinecone('docs', 1, namespace='new')
        | beam.Map(lambda row: ids(row['matches'])))
    assert_that(found, equal_to([['a']]))


@pytest.mark.parametrize('by_host', [False, True])
def test_an_index_of_documents_fails_loudly(index, by_host):
  connection = None
  if by_host:
    host = Pinecone().indexes.describe('papers').host
    connection = PineconeConnection(host=host)
  with pytest.raises(FatalError, match="'papers' is a document index"):
    search([{'vector': QUERIES[0]}], 'papers', connection=connection)
  assert not index.log('query')


@pytest.mark.parametrize('too_large', ['out_of_range', '413'])
def test_an_answer_over_the_limit_says_what_to_ask_for(index, too_large):
  write('docs')
  index.seed({'$options': {'max_result_bytes': 500, 'too_large': too_large}})
  (failure,) = search([{'vector': QUERIES[0]}], top_k=50)
  assert failure.http_status == 413
  assert 'top_k=' in failure.message


def test_an_index_that_does_not_exist_and_a_wrong_key_fail_with_a_remedy(
    index, monkeypatch):
  with pytest.raises(FatalError, match="no index 'nothing'"):
    search([{'vector': QUERIES[0]}], 'nothing')
  monkeypatch.setenv('PINECONE_API_KEY', 'wrong')
  with pytest.raises(FatalError, match='API key'):
    search([{'vector': QUERIES[0]}])


# -------------------------------------------------------------------- faults


def test_faults_of_all_kinds_lose_and_change_no_answer(index):
  write('docs')
  index.faults([
      FaultRule('throttle', operation='query', probability=0.1,
                retry_after=0.01),
      FaultRule('error', operation='query', status=503, probability=0.1),
      FaultRule('reset', operation='query', probability=0.02),
      FaultRule('truncate', operation='query', probability=0.03),
  ])  # yapf: disable
  rows = [{'vector': QUERIES[i % 20] + i // 20} for i in range(200)]
  found = search(rows)
  assert [ids(f) for f in found] == [
      nearest('cosine', row['vector']) for row in rows]  # yapf: disable
  assert sum(not e.ok for e in index.log('query')) > 10


def test_one_poisoned_query_costs_no_other_one(index):
  write('docs')
  index.faults([FaultRule('poison', operation='query', records='^v3$')])
  rows = [{'like': f'v{i}'} for i in range(8)]
  found = search(rows, id_field='like')
  assert found[3].http_status == 400
  assert all(len(f) == 5 for i, f in enumerate(found) if i != 3)
