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
"""UpdatePinecone against the emulator, checked by what the index then holds."""

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to

from beam_harness.faults import FaultRule
from beam_pinecone.update import UpdatePinecone

INDEXES = {
    'docs': {
        'dimension': 2, 'metric': 'cosine'
    },
    'hybrid': {
        'dimension': 2, 'metric': 'dotproduct'
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


def record(values=(1.0, 2.0), **metadata):
  return {'values': list(values), 'metadata': metadata or None}


DOCS = {
    '': {
        'a': record(lang='en', n=1.0), 'b': record(lang='de', n=2.0)
    },
    'x': {
        'a': record(lang='en', n=3.0)
    },
}


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed({'$indexes': INDEXES, 'docs': DOCS, 'hybrid': DOCS})
  pinecone.clear_log()
  return pinecone


def update(elements, name='docs', **arguments):
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = p | beam.Create(elements) | UpdatePinecone(name, **arguments)


def metadata_of(index, id='a', namespace='', name='docs'):
  return index.snapshot()[name][namespace][id]['metadata']


def test_metadata_is_merged_and_values_stay(index):
  update([{'id': 'a', 'n': 7, 'tags': ['x'], 'lang': None}])
  stored = index.snapshot()['docs']
  assert stored['']['a'] == {
      'values': [1.0, 2.0],
      'sparse': None,
      'metadata': {
          'lang': 'en', 'n': 7.0, 'tags': ['x']
      }
  }
  assert stored['']['b']['metadata'] == DOCS['']['b']['metadata']
  assert stored['x']['a']['metadata'] == DOCS['x']['a']['metadata']


def test_values_are_replaced_and_metadata_stays(index):
  update([{
      'id': 'a', 'values': [3, 4], 'sparse_values': ([5], [0.5])
  }],
         'hybrid')
  assert index.snapshot()['hybrid']['']['a'] == {
      'values': [3.0, 4.0],
      'sparse': {
          'indices': [5], 'values': [0.5]
      },
      'metadata': {
          'lang': 'en', 'n': 1.0
      }
  }


def test_sparse_values_alone_are_replaced(index):
  update([{'id': 'a', 'sparse_values': ([5], [0.5])}], 'hybrid')
  assert index.snapshot()['hybrid']['']['a']['values'] == [1.0, 2.0]
  assert index.snapshot()['hybrid']['']['a']['sparse']['indices'] == [5]


def test_the_namespace_is_a_template_and_no_metadata(index):
  update([{'id': 'a', 'tenant': 'x', 'n': 9}], namespace='{tenant}')
  assert metadata_of(index, namespace='x') == {'lang': 'en', 'n': 9.0}


def test_an_id_that_does_not_exist_is_ignored_as_the_service_does(index):
  update([{'id': 'nobody', 'n': 1}])
  assert sorted(index.snapshot()['docs']['']) == ['a', 'b']


def test_rows_of_a_batch_are_updated_each_and_bad_ones_come_out(index):
  batch = pa.RecordBatch.from_pydict({
      'id': ['a', 'b', None],
      'values': pa.array([[5, 6], [0, 0], [1, 1]], pa.list_(pa.float32(), 2)),
      'n': [10, 11, 12],
  })
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([batch])
        | UpdatePinecone('docs', on_error='collect'))
    assert_that(
        result.failed
        | beam.Map(lambda f: (f.key, f.error_type, f.element['n'].to_pylist())),
        equal_to([('b', 'ZeroVector', [11]), ('', 'MissingId', [12])]))
    assert_that(
        result.written | beam.Map(lambda b: b['id'].to_pylist()),
        equal_to([['a']]),
        label='written')
  assert index.snapshot()['docs']['']['a']['values'] == [5.0, 6.0]
  assert metadata_of(index, 'a')['n'] == 10.0
  assert metadata_of(index, 'b')['n'] == 2.0


@pytest.mark.parametrize(
    'row, error_type',
    [
        ({
            'id': 'a'
        }, 'NothingToUpdate'),
        ({
            'id': 'a', 'n': None
        }, 'NothingToUpdate'),
        ({
            'n': 1
        }, 'MissingId'),
        ({
            'id': 'a', 'values': [1.0]
        }, 'WrongDimension'),
        ({
            'id': 'a', 'n': {
                'deep': 1
            }
        }, 'MetadataType'),
        ({
            'id': 'a', 'sparse_values': ([1], [1.0])
        }, 'SparseNotSupported'),
    ],
    ids=str)
def test_what_the_service_would_reject_is_refused(index, row, error_type):
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([row]) | UpdatePinecone('docs', on_error='collect'))
    assert_that(
        result.failed | beam.Map(lambda f: (f.error_type, f.stage)),
        equal_to([(error_type, 'encode')]))
  assert index.count('update').requests == 0


def test_a_lost_answer_and_a_throttled_request_change_nothing_twice(index):
  index.faults([
      FaultRule(operation='update', kind='reset', after_effect=True, first=1),
      FaultRule(
          operation='update',
          kind='throttle',
          grpc='RESOURCE_EXHAUSTED',
          skip=1,
          count=1),
  ])
  update([{'id': 'a', 'n': 5}, {'id': 'b', 'n': 6}])
  assert metadata_of(index, 'a')['n'] == 5.0
  assert metadata_of(index, 'b')['n'] == 6.0
  assert index.count('update').requests > 2


# ----------------------------------------------------------------- by filter


def test_all_that_match_are_updated_and_counted(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([{
            'old': 'en', 'lang': 'en-GB'
        }, {
            'old': 'fr', 'lang': 'fr-FR'
        }])
        | UpdatePinecone('docs', filter={'lang': '{old}'}))
    assert_that(
        result.answers | beam.MapTuple(lambda row, n: (row['old'], n)),
        equal_to([('en', 1), ('fr', 0)]))
    assert_that(
        result.written | beam.Map(lambda row: row['old']),
        equal_to(['en', 'fr']),
        label='written')
  assert metadata_of(index, 'a') == {'lang': 'en-GB', 'n': 1.0}
  assert metadata_of(index, 'b')['lang'] == 'de'
  assert metadata_of(index, 'a', 'x')['lang'] == 'en'


def test_a_dry_run_counts_and_changes_nothing(index):
  before = index.snapshot()
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([{
            'least': 1
        }])
        | UpdatePinecone(
            'docs',
            filter={'n': {
                '$gte': '{least}'
            }},
            set_metadata={'old': True},
            dry_run=True))
    assert_that(result.answers, equal_to([({'least': 1}, 2)]))
  assert index.snapshot() == before
  assert index.count('update').requests == 1


def test_metadata_of_an_update_by_filter_may_be_called_for(index):
  update([{
      'lang': 'de'
  }],
         filter=lambda row: {'lang': row['lang']},
         set_metadata=lambda row: {'lang': row['lang'].upper()})
  assert metadata_of(index, 'b')['lang'] == 'DE'


@pytest.mark.parametrize(
    'row, filter, error_type',
    [
        ({
            'a': 1, 'values': [1.0, 2.0]
        }, {
            'lang': 'en'
        }, 'UpdateByFilter'),
        ({
            'x': 1
        }, {
            'lang': '{lang}'
        }, 'MissingFilterField'),
        ({
            'n': 1
        }, lambda row: {}, 'FilterEmpty'),
        ({
            'n': 1
        }, lambda row: {
            '$not': 1
        }, 'Filter'),
        ({
            'lang': 'en'
        }, {
            'lang': '{lang}'
        }, 'NothingToUpdate'),
    ],
    ids=str)
def test_an_element_that_makes_no_update_by_filter_is_refused(
    index, row, filter, error_type):
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([row])
        | UpdatePinecone('docs', filter=filter, on_error='collect'))
    assert_that(
        result.failed | beam.Map(lambda f: f.error_type),
        equal_to([error_type]))
  assert index.count('update').requests == 0


def test_a_document_index_fails_loudly(index):
  with pytest.raises(Exception, match='document index'):
    update([{'id': 'a', 'n': 1}], 'papers')
  assert index.count('update').requests == 0
