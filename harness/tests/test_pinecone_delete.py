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
"""DeleteFromPinecone against the emulator, by what the index then holds."""

from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to

from beam_harness.faults import FaultRule
from beam_pinecone import Tuning
from beam_pinecone.delete import DeleteFromPinecone

INDEXES = {
    'docs': {
        'dimension': 2, 'metric': 'cosine'
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


class Row(NamedTuple):
  id: str
  tenant: str


def record(**metadata):
  return {'values': [1.0, 2.0], 'metadata': metadata or None}


DOCS = {
    '': {
        id: record(lang=lang)
        for id, lang in (('a', 'en'), ('b', 'de'), ('c', 'en'))
    },
    'x': {
        id: record(lang='en') for id in 'abc'
    },
}


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed({'$indexes': INDEXES, 'docs': DOCS})
  pinecone.clear_log()
  return pinecone


def delete(elements, name='docs', **arguments):
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = p | beam.Create(elements) | DeleteFromPinecone(name, **arguments)


def left(index):
  return {
      name: sorted(records)
      for name, records in index.snapshot()['docs'].items()
  }


@pytest.mark.parametrize(
    'elements',
    [
        ['a', 'b', 'unknown'],
        [{
            'id': 'a'
        }, {
            'id': 'b', 'more': 1
        }],
        [beam.Row(id='a'), beam.Row(id='b')],
        [pa.RecordBatch.from_pydict({'id': ['a', 'b']})],
    ],
    ids=['text', 'dicts', 'rows', 'block'])
def test_records_are_deleted_by_id(index, elements):
  delete(elements)
  assert left(index) == {'': ['c'], 'x': ['a', 'b', 'c']}


def test_the_namespace_may_depend_on_the_element(index):
  delete([Row('a', 'x'), Row('b', '')], namespace='{tenant}')
  assert left(index) == {'': ['a', 'c'], 'x': ['b', 'c']}


def test_blocks_of_many_namespaces_are_deleted_in_few_requests(index):
  index.seed({
      'docs': {
          name: {
              f'{name}{i}': record() for i in range(700)
          } for name in ('p', 'q')
      }
  })
  ids = [f'{name}{i}' for i in range(700) for name in ('p', 'q')]
  batch = pa.RecordBatch.from_pydict({
      'key': ids, 'tenant': [id[0] for id in ids]
  })
  delete([batch, batch], namespace='{tenant}', id_field='key')
  assert left(index)['p'] == left(index)['q'] == []
  assert [e.records for e in index.log('delete')] == [1000, 1000, 400, 400]


def test_bad_ids_come_out_and_the_others_are_deleted(index):
  batch = pa.RecordBatch.from_pydict({'id': ['a', None, 'ü']})
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([batch, '', {
            'key': 'b'
        }, 5])
        | DeleteFromPinecone('docs', on_error='collect'))
    assert_that(
        result.failed | beam.Map(lambda f: (f.key, f.error_type)),
        equal_to([('', 'MissingId'), ('ü', 'IdNotAscii'), ('', 'IdEmpty'),
                  ('', 'MissingId'), ('', 'ElementType')]))
    assert_that(
        result.written | beam.Map(lambda b: b['id'].to_pylist()),
        equal_to([['a']]),
        label='written')
  assert left(index)[''] == ['b', 'c']


def test_a_namespace_that_does_not_exist_is_deleted_already(index):
  delete(['a'], namespace='nowhere')
  delete([None], namespace='nowhere', delete_all=True)
  delete([None], namespace='nowhere', delete_namespace=True)
  delete([None], namespace='nowhere', filter={'lang': 'en'})
  assert index.count('delete').requests == 3
  assert left(index) == {'': ['a', 'b', 'c'], 'x': ['a', 'b', 'c']}


def test_a_namespace_that_does_not_exist_may_be_an_error(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([Row('a', 'nowhere'), Row('b', 'x')])
        | DeleteFromPinecone(
            'docs',
            namespace='{tenant}',
            missing_namespace='fail',
            on_error='collect'))
    assert_that(
        result.failed | beam.Map(lambda f: (f.key, f.http_status, f.stage)),
        equal_to([('a', 404, 'send')]))
  assert left(index)['x'] == ['a', 'c']


# ------------------------------------------------------------ by filter, whole


def test_all_that_match_are_deleted(index):
  delete([{'lang': 'en'}, {'lang': 'fr'}], filter={'lang': '{lang}'})
  assert left(index) == {'': ['b'], 'x': ['a', 'b', 'c']}
  assert index.count('delete').requests == 2


def test_a_constant_filter_is_applied_once_per_element(index):
  delete([0], filter={'lang': {'$in': ['en', 'de']}}, namespace='x')
  assert left(index) == {'': ['a', 'b', 'c'], 'x': []}


def test_a_filter_of_a_block_is_made_of_its_rows(index):
  delete([pa.RecordBatch.from_pydict({'lang': ['de', 'fr']})],
         filter={'lang': '{lang}'})
  assert left(index)[''] == ['a', 'c']


@pytest.mark.parametrize('made', [{}, None])
def test_an_empty_filter_deletes_nothing(index, made):
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([{
            'x': 1
        }])
        | DeleteFromPinecone(
            'docs', filter=lambda row: made, on_error='collect'))
    assert_that(
        result.failed | beam.Map(lambda f: f.error_type),
        equal_to(['FilterEmpty']))
  assert left(index)[''] == ['a', 'b', 'c']


def test_all_records_of_a_namespace_are_deleted(index):
  delete([{'tenant': 'x'}], namespace='{tenant}', delete_all=True)
  assert left(index) == {'': ['a', 'b', 'c'], 'x': []}


@pytest.mark.parametrize('name', ['x', ''])
def test_a_namespace_is_deleted(index, name):
  delete([beam.Row(tenant=name)], namespace='{tenant}', delete_namespace=True)
  assert name not in left(index)
  assert len(left(index)) == 1


# ------------------------------------------------------------------- failures


def test_faults_on_the_way_delete_all_the_same(index):
  index.faults([
      FaultRule(operation='delete', kind='error', grpc='UNAVAILABLE', first=1),
      FaultRule(
          operation='delete', kind='reset', after_effect=True, skip=1, count=1),
  ])
  delete(['a', 'b', 'c'], tuning=Tuning(max_records=1))
  assert left(index)[''] == []


def test_a_document_index_fails_loudly(index):
  with pytest.raises(Exception, match='document index'):
    delete(['a'], 'papers')
  assert index.count('delete').requests == 0
