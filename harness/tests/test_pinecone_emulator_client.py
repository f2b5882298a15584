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
"""The official client, unmodified, works with the emulated Pinecone."""

from __future__ import annotations

import json
import urllib.request

import numpy as np
import pytest
from pinecone import errors
from pinecone_official import CLIENTS
from pinecone_official import KEY
from pinecone_official import create
from pinecone_official import forget_past_failures
from pinecone_official import open_index

from beam_harness.emulators.pinecone import counts
from beam_harness.emulators.pinecone import digest
from beam_harness.emulators.pinecone import digest_of
from beam_harness.faults import FaultRule


@pytest.fixture(autouse=True)
def _no_memory():
  forget_past_failures()


@pytest.fixture(params=CLIENTS)
def kind(request):
  return request.param


@pytest.fixture
def opened(kind, pinecone):
  """Makes an index and opens it."""
  handles = []

  def make(name='one', **body):
    handles.append(open_index(kind, create(pinecone, name, **body)))
    return handles[-1]

  yield make
  for handle in handles:
    handle.close()


@pytest.fixture
def index(opened):
  return opened()


FILMS = [
    ('alien', [1, 0, 0], {
        'year': 1979, 'genre': ['horror', 'space']
    }),
    ('jaws', [.8, .6, 0], {
        'year': 1975, 'genre': ['horror'], 'seen': True
    }),
    ('solaris', [0, 1, 0], {
        'year': 1972, 'genre': ['space'], 'seen': False
    }),
    ('heat', [0, .5, .8], {
        'year': 1995
    }),
]


def ids(answer):
  return [match.id for match in answer.matches]


def test_upsert_replaces_the_whole_record(index, pinecone):
  assert index.upsert(vectors=FILMS).upserted_count == 4
  assert index.upsert(vectors=[('heat', [1, 2, 3])]).upserted_count == 1
  snapshot = pinecone.snapshot()
  assert sorted(snapshot['one']['']) == ['alien', 'heat', 'jaws', 'solaris']
  assert snapshot['one']['']['heat'] == {
      'values': [1, 2, 3], 'sparse': None, 'metadata': None
  }


def test_fetch_returns_what_was_stored_as_the_service_rounds_it(index):
  index.upsert(
      vectors=[(
          'a/1 é'.replace('é', 'e'), [.1, 2, 3e-5], {
              'n': 1994,
              's': 'ünï',
              'b': True,
              'l': ['x', 'y'],
              '': 'empty key'
          })],
      namespace='n 1')
  answer = index.fetch(ids=['a/1 e', 'missing'], namespace='n 1')
  assert answer.namespace == 'n 1'
  assert list(answer.vectors) == ['a/1 e']
  record = answer.vectors['a/1 e']
  np.testing.assert_array_equal(
      np.float32(record.values), np.float32([.1, 2, 3e-5]))
  assert record.metadata == {
      'n': 1994.0, 's': 'ünï', 'b': True, 'l': ['x', 'y'], '': 'empty key'
  }
  assert isinstance(record.metadata['n'], float)


@pytest.mark.parametrize(
    'metric, order, scores',
    [
        ('cosine', ['alien', 'jaws', 'heat', 'solaris'], [1, .8, 0, 0]),
        ('dotproduct', ['alien', 'jaws', 'heat', 'solaris'], [2, 1.6, 0, 0]),
        ('euclidean', ['alien', 'jaws', 'heat', 'solaris'], [1, 1.8, 4.89, 5]),
    ])
def test_query_ranks_by_the_metric(opened, metric, order, scores):
  index = opened(metric=metric)
  index.upsert(vectors=FILMS)
  answer = index.query(vector=[2, 0, 0], top_k=10)
  assert ids(answer) == order
  np.testing.assert_allclose([m.score for m in answer.matches],
                             scores,
                             rtol=1e-6)
  assert ids(index.query(vector=[2, 0, 0], top_k=2)) == order[:2]


def test_query_includes_only_what_it_is_asked_for(index):
  index.upsert(vectors=FILMS)
  (match,) = index.query(vector=[1, 0, 0], top_k=1).matches
  assert (list(match.values), match.metadata) == ([], None)
  (match,) = index.query(
      vector=[1, 0, 0], top_k=1, include_values=True,
      include_metadata=True).matches
  assert list(match.values) == [1, 0, 0]
  assert match.metadata == {'year': 1979.0, 'genre': ['horror', 'space']}


def test_query_filters(index):
  index.upsert(vectors=FILMS)

  def found(expression):
    answer = index.query(vector=[1, 0, 0], top_k=10, filter=expression)
    return sorted(ids(answer))

  assert found({'genre': 'horror'}) == ['alien', 'jaws']
  assert found({'year': {'$gte': 1979}}) == ['alien', 'heat']
  assert found({'seen': {'$exists': False}}) == ['alien', 'heat']
  assert found({
      '$or': [{
          'seen': True
      }, {
          '$and': [{
              'genre': {
                  '$in': ['space']
              }
          }, {
              'year': {
                  '$lt': 1975
              }
          }]
      }]
  }) == ['jaws', 'solaris']
  assert found({}) == ['alien', 'heat', 'jaws', 'solaris']


def test_query_by_id(index):
  index.upsert(vectors=FILMS)
  assert ids(index.query(id='heat', top_k=2)) == ['heat', 'solaris']
  assert ids(index.query(id='missing', top_k=2)) == []


def test_reads_of_a_namespace_that_is_not_there_are_empty(index):
  index.upsert(vectors=FILMS)
  assert ids(index.query(vector=[1, 0, 0], top_k=2, namespace='no')) == []
  assert index.fetch(ids=['alien'], namespace='no').vectors == {}
  assert index.list_paginated(namespace='no').vectors == []


def test_delete_by_id_filter_and_all(index, pinecone):
  index.upsert(vectors=FILMS, namespace='n')
  index.delete(ids=['alien', 'missing'], namespace='n')
  assert sorted(pinecone.snapshot()['one']['n']) == ['heat', 'jaws', 'solaris']
  index.delete(filter={'seen': {'$exists': True}}, namespace='n')
  assert sorted(pinecone.snapshot()['one']['n']) == ['heat']
  index.delete(delete_all=True, namespace='n')
  assert pinecone.snapshot() == {'one': {'n': {}}}
  with pytest.raises(errors.NotFoundError, match='Namespace not found'):
    index.delete(ids=['alien'], namespace='nowhere')


def test_stats_count_by_namespace(index):
  index.upsert(vectors=FILMS)
  index.upsert(vectors=FILMS[:1], namespace='n')
  stats = index.describe_index_stats()
  assert stats.total_vector_count == 5
  assert {
      name: each.vector_count for name, each in stats.namespaces.items()
  } == {
      '__default__': 4, 'n': 1
  }
  assert (stats.dimension, stats.metric,
          stats.vector_type) == (3, 'cosine', 'dense')


@pytest.mark.parametrize('spelling', ['', '__default__'])
def test_both_names_of_the_default_namespace_are_the_same(
    index, pinecone, spelling):
  pinecone.seed({'$options': {'default_namespace': spelling}})
  index.upsert(vectors=FILMS[:1])
  index.upsert(vectors=FILMS[1:], namespace='__default__')
  assert counts(pinecone) == {'one': {'': 4}}
  stats = index.describe_index_stats()
  assert list(stats.namespaces) == [spelling]


def test_update_changes_what_it_names(index):
  index.upsert(vectors=FILMS)
  index.update(id='jaws', set_metadata={'year': 1976, 'new': 'x'})
  index.update(id='alien', values=[3, 2, 1])
  index.update(id='missing', values=[3, 2, 1])
  vectors = index.fetch(ids=['jaws', 'alien', 'missing']).vectors
  assert vectors['jaws'].metadata == {
      'year': 1976.0, 'genre': ['horror'], 'seen': True, 'new': 'x'
  }
  assert list(vectors['alien'].values) == [3, 2, 1]
  assert vectors['alien'].metadata == {
      'year': 1979.0, 'genre': ['horror', 'space']
  }
  assert 'missing' not in vectors
  assert ids(index.query(vector=[3, 2, 1], top_k=1)) == ['alien']


def test_update_by_filter_says_how_many_it_means(index):
  index.upsert(vectors=FILMS)
  fields = {'filter': {'genre': 'horror'}, 'set_metadata': {'scary': True}}
  assert index.update(**fields, dry_run=True).matched_records == 2
  assert ids(index.query(vector=[1, 0, 0], top_k=9,
                         filter={'scary': True})) == []
  assert index.update(**fields).matched_records == 2
  assert ids(index.query(vector=[1, 0, 0], top_k=9,
                         filter={'scary': True})) == ['alien', 'jaws']


def test_list_pages_through_ids_in_byte_order(index):
  names = [f'doc{i}#{j}' for i in range(3) for j in range(90)]
  index.upsert(vectors=[(name, [1, 2, 3]) for name in names], namespace='n')

  def listed(**fields):
    pages, token = [], None
    while True:
      page = index.list_paginated(
          namespace='n', pagination_token=token, **fields)
      pages.append([item.id for item in page.vectors])
      if page.pagination is None:
        return pages
      token = page.pagination.next

  pages = listed()
  assert [len(page) for page in pages] == [100, 100, 70]
  assert sum(pages, []) == sorted(names)
  assert sum(listed(prefix='doc1#', limit=40), []) == sorted(names[90:180])
  assert listed(prefix='doc1#', limit=90) == [sorted(names[90:180])]
  assert listed(prefix='none') == [[]]


def test_fetch_by_metadata_pages(index):
  index.upsert(
      vectors=[(f'{i:03d}', [1, 2, i], {
          'odd': bool(i % 2)
      }) for i in range(30)])
  found, token, pages = {}, None, 0
  while True:
    page = index.fetch_by_metadata(
        filter={'odd': True}, limit=4, pagination_token=token)
    pages += 1
    found.update(page.vectors)
    if page.pagination is None:
      break
    token = page.pagination.next
  assert sorted(found) == [f'{i:03d}' for i in range(1, 30, 2)]
  assert list(found['007'].values) == [1, 2, 7]
  assert pages == 4


def test_namespaces_live_and_die(index):
  index.create_namespace(
      name='a/b .', schema={'fields': {
          'year': {
              'filterable': True
          }
      }})
  index.upsert(vectors=FILMS, namespace='a/b .')
  index.upsert(vectors=FILMS[:1])
  index.upsert(vectors=FILMS[:1], namespace='z')
  described = index.describe_namespace(name='a/b .')
  assert (described.name, described.record_count) == ('a/b .', 4)
  assert described.indexed_fields.fields == ['year']
  assert index.describe_namespace(name='__default__').record_count == 1
  page = index.list_namespaces_paginated(limit=2)
  assert [each.name for each in page.namespaces] == ['__default__', 'a/b .']
  assert page.total_count == 3
  page = index.list_namespaces_paginated(
      limit=2, pagination_token=page.pagination.next)
  assert [each.name for each in page.namespaces] == ['z']
  assert page.pagination is None
  page = index.list_namespaces_paginated(prefix='a')
  assert [each.name for each in page.namespaces] == ['a/b .']
  with pytest.raises(errors.ConflictError):
    index.create_namespace(name='z')
  index.delete_namespace(name='z')
  for method in (index.describe_namespace, index.delete_namespace):
    with pytest.raises(errors.NotFoundError):
      method(name='z')


SPARSE = [
    {
        'id': 'a', 'sparse_values': {
            'indices': [1, 5], 'values': [1.0, 2.0]
        }
    },
    {
        'id': 'b',
        'sparse_values': {
            'indices': [5, 4_000_000_000], 'values': [.5, 1.0]
        }
    },
    {
        'id': 'c', 'sparse_values': {
            'indices': [9], 'values': [7.0]
        }
    },
]


def test_sparse_index_scores_shared_indices(opened, pinecone):
  index = opened(vector_type='sparse')
  index.upsert(vectors=SPARSE)
  query = {'indices': [4_000_000_000, 5], 'values': [3.0, 1.0]}
  answer = index.query(sparse_vector=query, top_k=5, include_values=True)
  assert [(m.id, m.score) for m in answer.matches] == [('b', 3.5), ('a', 2.0)]
  assert list(answer.matches[0].sparse_values.indices) == [5, 4_000_000_000]
  assert list(answer.matches[0].sparse_values.values) == [.5, 1.0]
  pinecone.seed({'$options': {'sparse_without_overlap': 'include'}})
  assert ids(index.query(sparse_vector=query, top_k=5)) == ['b', 'a', 'c']
  stats = index.describe_index_stats()
  assert (stats.dimension, stats.vector_type) == (None, 'sparse')


def test_hybrid_score_is_the_sum_of_both_parts(opened):
  index = opened(metric='dotproduct')
  index.upsert(
      vectors=[{
          **each, 'values': [i + 1, 0, 0]
      } for i, each in enumerate(SPARSE)] + [{
          'id': 'dense only', 'values': [0, 1, 0]
      }])
  answer = index.query(
      vector=[1, 0, 0],
      sparse_vector={
          'indices': [5], 'values': [10.0]
      },
      top_k=4)
  assert [(m.id, m.score) for m in answer.matches] == [('a', 21.0), ('b', 7.0),
                                                       ('c', 3.0),
                                                       ('dense only', 0.0)]
  index.update(id='c', sparse_values={'indices': [5], 'values': [9.0]})
  assert ids(index.query(id='c', top_k=1)) == ['c']


def test_refusal_reaches_the_caller(index):
  with pytest.raises(errors.ApiError) as caught:
    index.upsert(vectors=[('a', [1, 2])])
  assert caught.value.status_code == 400
  assert 'Vector dimension 2 does not match the dimension of the index 3' in (
      str(caught.value))


def test_thousands_of_records_are_compared_by_digest(index, pinecone):
  rng = np.random.default_rng(0)
  records = {
      f'{i:05d}': {
          'values': rng.standard_normal(3),
          'metadata': {
              'i': i, 'tags': ['a', 'b'][:i % 3]
          }
      } for i in range(5_000)
  }
  for at in range(0, 5_000, 1_000):
    index.upsert(
        vectors=[(
            record_id, list(map(float, record['values'])), record['metadata'])
                 for record_id, record in list(records.items())[at:at + 1_000]])
  assert digest(pinecone) == {'one': {'': digest_of(records)}}
  assert counts(pinecone) == {'one': {'': 5_000}}
  records['00007']['metadata']['i'] = 8
  assert digest(pinecone) != {'one': {'': digest_of(records)}}


def test_upsert_is_logged_with_its_records(index, pinecone, kind):
  index.upsert(vectors=FILMS)
  index.fetch(ids=['alien', 'jaws'])
  upsert, fetch = pinecone.log('upsert') + pinecone.log('fetch')
  assert (upsert.records, fetch.records) == (4, 2)
  assert upsert.transport == ('grpc' if kind == 'grpc' else 'rest')
  assert upsert.ok and fetch.ok


def test_poisoned_record_refuses_its_request_and_no_other(index, pinecone):
  pinecone.faults([FaultRule('poison', 'upsert', records='bad-')])
  with pytest.raises(errors.ApiError) as caught:
    index.upsert(vectors=[('good', [1, 2, 3]), ('bad-1', [1, 2, 3])])
  assert caught.value.status_code == 400
  index.upsert(vectors=[('good', [1, 2, 3])])
  assert list(pinecone.snapshot()['one']['']) == ['good']


def test_injected_error_is_one_of_the_services(index, pinecone):
  # Not one that the client repeats: its pauses would be ours.
  pinecone.faults([FaultRule('error', status=403, message='not today')])
  with pytest.raises(errors.ForbiddenError, match='not today'):
    index.query(vector=[1, 2, 3], top_k=1)


def test_writes_and_reads_carry_sequence_numbers_on_rest(pinecone):
  index = open_index('rest', create(pinecone))
  pinecone.seed({'$options': {'visibility_reads': 1}})
  first = index.upsert(vectors=FILMS[:1], namespace='n').response_info
  second = index.upsert(vectors=FILMS[1:], namespace='n').response_info
  assert (first.lsn_committed, second.lsn_committed) == (1, 2)
  early = index.query(vector=[1, 0, 0], top_k=9, namespace='n')
  assert ids(early) == []
  assert not early.response_info.is_reconciled(first.lsn_committed)
  late = index.query(vector=[1, 0, 0], top_k=9, namespace='n')
  assert len(ids(late)) == 4
  assert late.response_info.is_reconciled(second.lsn_committed)
  index.close()


def test_discarded_records_are_checked_and_counted(index, pinecone):
  pinecone.seed({'$options': {'discard_records': True}})
  for _ in range(3):
    index.upsert(vectors=FILMS)
  with pytest.raises(errors.ApiError):
    index.upsert(vectors=[('a', [0, 0, 0])])
  assert counts(pinecone) == {'one': {'': 12}}
  assert index.describe_index_stats().total_vector_count == 12
  assert pinecone.snapshot() == {'one': {'': {}}}


def test_matches_can_come_in_no_useful_order(index, pinecone):
  index.upsert(vectors=FILMS)
  pinecone.seed({'$options': {'match_order': 'loose'}})
  found = ids(index.query(vector=[1, 0, 0], top_k=4))
  assert sorted(found) == ['alien', 'heat', 'jaws', 'solaris']
  assert found != ['alien', 'jaws', 'heat', 'solaris']
  assert ids(index.query(vector=[1, 0, 0], top_k=2)) == ['alien', 'jaws']


def test_namespace_can_vanish_with_its_last_record(index, pinecone):
  pinecone.seed({'$options': {'empty_namespace': 'drop'}})
  index.upsert(vectors=FILMS, namespace='n')
  index.delete(delete_all=True, namespace='n')
  with pytest.raises(errors.NotFoundError):
    index.delete(delete_all=True, namespace='n')


def test_snapshot_seeds_another_emulator(index, pinecone):
  index.upsert(vectors=FILMS)
  snapshot = pinecone.snapshot()
  pinecone.reset()
  assert pinecone.snapshot() == {}
  pinecone.seed(snapshot)
  assert pinecone.snapshot() == snapshot
  assert ids(index.query(vector=[1, 0, 0], top_k=2)) == ['alien', 'jaws']


def test_answers_are_json_with_the_services_headers(pinecone):
  create(pinecone)
  request = urllib.request.Request(
      f'{pinecone.url}/describe_index_stats', b'{}', {'Api-Key': KEY})
  with urllib.request.urlopen(request) as response:
    assert response.headers['content-type'] == 'application/json'
    assert response.headers['x-pinecone-request-id']
    assert json.load(response) == {
        'namespaces': {},
        'indexFullness': 0.0,
        'totalVectorCount': 0,
        'vectorType': 'dense',
        'dimension': 3,
        'metric': 'cosine',
    }
