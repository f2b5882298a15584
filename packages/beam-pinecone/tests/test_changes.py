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
"""UpdatePinecone and DeleteFromPinecone: what is sent, and what is refused."""

import pickle
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from fake_pages import FakePages
from fake_pinecone import API_KEY

from beam_connector_base.dispatcher import Dispatcher
from beam_pinecone import DeleteFromPinecone
from beam_pinecone import Tuning
from beam_pinecone import UpdatePinecone

QUICK = Tuning(backoff=0.001)


class Row(NamedTuple):
  id: str
  tenant: str


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)


@pytest.fixture
def index():
  with FakePages() as fake:
    fake.records = {'': {}, 'x': {}}
    yield fake


def change(index, transform, *elements):
  """Submissions of the elements, and the requests that were sent for them."""
  dispatcher = Dispatcher(transform._operation, QUICK)
  try:
    submissions = dispatcher.run(elements)
  finally:
    dispatcher.close()
  refused = [
      [failure.error_type for failure in s.failures or ()] for s in submissions
  ]
  requests = [
      request for name, request in index.calls
      if name in ('Update', 'Delete', 'DeleteNamespace')
  ]
  return refused, requests


# -------------------------------------------------------------------- updates


@pytest.mark.parametrize(
    'arguments, error, says',
    [
        ({
            'index': 'Docs'
        }, ValueError, 'index'),
        ({
            'dry_run': True
        }, ValueError, 'dry_run needs filter'),
        ({
            'dry_run': 1
        }, TypeError, 'dry_run'),
        ({
            'set_metadata': {
                'a': 1
            }
        }, ValueError, 'set_metadata needs filter'),
        ({
            'filter': {}
        }, ValueError, 'every record'),
        ({
            'filter': 'x'
        }, TypeError, 'filter'),
        ({
            'filter': {
                'x': {
                    '$like': 1
                }
            }
        }, ValueError, '\\$like'),
        ({
            'filter': {
                'x': 1
            }, 'set_metadata': 5
        }, TypeError, 'set_metadata'),
        ({
            'filter': {
                'x': 1
            }, 'set_metadata': {
                'a': {}
            }
        },
         ValueError,
         "set_metadata: metadata 'a'"),
        ({
            'filter': {
                'x': 1
            }, 'set_metadata': {
                'a': None
            }
        },
         ValueError,
         'no value'),
        ({
            'filter': {
                'x': 1
            }, 'set_metadata': {
                'a': 1
            }, 'keep': ['b']
        },
         ValueError,
         'keep'),
        ({
            'id_field': None
        }, TypeError, 'id_field'),
        ({
            'keep': ['a'], 'drop': ['b']
        }, ValueError, 'keep and drop'),
        ({
            'on_error': 'ignore'
        }, ValueError, 'on_error'),
    ],
    ids=str)
def test_a_mistake_in_an_update_is_named(arguments, error, says):
  with pytest.raises(error, match=says):
    UpdatePinecone(**{'index': 'docs'} | arguments)


def test_an_update_has_what_is_given_and_nothing_else(index):
  update = UpdatePinecone('docs', connection=index.host)
  refused, requests = change(
      index,
      update, {
          'id': 'a', 'values': [1, 2]
      }, {
          'id': 'b', 'lang': 'en', 'n': None
      }, {
          'id': 'c', 'metadata': {
              'n': 1
          }
      }, {
          'id': 'd', 'sparse_values': ([3], [0.5])
      })
  assert refused == [[], [], [], []]
  assert sorted(
      requests, key=lambda r: r['id']) == [
          {
              'id': 'a', 'values': [1.0, 2.0]
          },
          {
              'id': 'b', 'set_metadata': {
                  'lang': 'en'
              }
          },
          {
              'id': 'c', 'set_metadata': {
                  'n': 1.0
              }
          },
          {
              'id': 'd', 'sparse_values': {
                  'indices': [3], 'values': [0.5]
              }
          },
      ]


def test_updates_of_one_id_are_sent_one_after_the_other(index):
  update = UpdatePinecone('docs', connection=index.host)
  elements = [{'id': 'a', 'n': n} for n in range(20)]
  _, requests = change(index, update, *elements)
  assert [request['set_metadata']['n'] for request in requests] == [*range(20)]


def test_keep_and_drop_narrow_what_is_set(index):
  row = {'id': 'a', 'x': 1, 'y': 2, 'tenant': 'x'}
  for arguments, names in (({'keep': ['x']}, {'x'}),
                           ({'drop': ['x']}, {'y', 'tenant'}),
                           ({'namespace': '{tenant}'}, {'x', 'y'})):
    index.calls.clear()
    update = UpdatePinecone('docs', connection=index.host, **arguments)
    _, (request,) = change(index, update, row)
    assert set(request['set_metadata']) == names


def test_fields_of_a_filter_are_not_set_unless_they_are_kept(index):
  row = {'old': 1, 'n': 2}
  for keep, names in ((None, {'n'}), (['old', 'n'], {'old', 'n'})):
    index.calls.clear()
    update = UpdatePinecone(
        'docs', filter={'n': '{old}'}, keep=keep, connection=index.host)
    _, (request,) = change(index, update, row)
    assert request['filter'] == {'n': 1.0}
    assert set(request['set_metadata']) == names


@pytest.mark.parametrize('matched', [None, 0, 7])
def test_the_number_of_matches_is_the_answer(index, matched):
  index.matched = matched
  update = UpdatePinecone(
      'docs',
      namespace='x',
      filter={'a': 1},
      set_metadata={'b': True},
      dry_run=True,
      connection=index.host)
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = p | beam.Create([None]) | update
    assert_that(
        result.answers, equal_to([] if matched is None else [(None, matched)]))
  assert index.asked('Update') == [{
      'namespace': 'x',
      'filter': {
          'a': 1.0
      },
      'set_metadata': {
          'b': True
      },
      'dry_run': True
  }]


def test_a_callable_that_makes_no_metadata_refuses_the_element(index):
  update = UpdatePinecone(
      'docs',
      filter={'a': 1},
      set_metadata=lambda row: row['set'],
      connection=index.host)
  refused, requests = change(
      index, update, {'set': 5}, {'set': {}}, {'set': {'b': 1}})
  assert refused == [['MetadataType'], ['NothingToUpdate'], []]
  assert len(requests) == 1


def test_an_update_in_a_namespace_the_service_does_not_know_is_refused(index):
  index.fails = {'Update': [('NOT_FOUND', 'Namespace not found', ())]}
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([{
            'id': 'a', 'n': 1
        }])
        | UpdatePinecone(
            'docs', connection=index.host, on_error='collect', tuning=QUICK))
    assert_that(
        result.failed | beam.Map(lambda f: (f.key, f.http_status, f.stage)),
        equal_to([('a', 404, 'send')]))


def test_an_answer_to_an_update_that_cannot_be_read_is_tried_again(index):
  index.replies = {'Update': b'\x08'}
  update = UpdatePinecone('docs', connection=index.host)
  dispatcher = Dispatcher(
      update._operation, Tuning(backoff=0.001, deadline=0.05))
  with pytest.raises(Exception, match='unreadable'):
    dispatcher.run([{'id': 'a', 'n': 1}])
  dispatcher.close()
  assert len(index.asked('Update')) > 1


# -------------------------------------------------------------------- deletes


@pytest.mark.parametrize(
    'arguments, error, says',
    [
        ({
            'index': 'Docs'
        }, ValueError, 'index'),
        ({
            'id_field': ''
        }, ValueError, 'id_field'),
        ({
            'filter': {}
        }, ValueError, 'every record'),
        ({
            'filter': {
                'x': 1
            }, 'delete_all': True
        },
         ValueError,
         'exclude one another'),
        ({
            'delete_all': True
        }, ValueError, 'namespace must be given'),
        ({
            'delete_namespace': True
        }, ValueError, 'namespace must be given'),
        ({
            'delete_all': 'yes', 'namespace': 'x'
        }, TypeError, 'delete_all'),
        ({
            'missing_namespace': 'ignore'
        }, ValueError, 'missing_namespace'),
        ({
            'namespace': 5
        }, TypeError, 'namespace'),
        ({
            'on_error': 'ignore'
        }, ValueError, 'on_error'),
    ],
    ids=str)
def test_a_mistake_in_a_delete_is_named(arguments, error, says):
  with pytest.raises(error, match=says):
    DeleteFromPinecone(**{'index': 'docs'} | arguments)


@pytest.mark.parametrize(
    'elements',
    [['a', 'b'], [{
        'id': 'a'
    }, {
        'id': 'b'
    }], [Row('a', 't'), beam.Row(id='b')],
     [pa.RecordBatch.from_pydict({'id': ['a', 'b']})]],
    ids=['text', 'dicts', 'rows', 'block'])
def test_ids_share_a_request(index, elements):
  delete = DeleteFromPinecone('docs', connection=index.host)
  refused, requests = change(index, delete, *elements)
  assert not any(refused)
  assert requests == [{'ids': ['a', 'b']}]


def test_ids_that_are_none_are_refused_alone(index):
  delete = DeleteFromPinecone('docs', connection=index.host)
  batch = pa.RecordBatch.from_pydict({'id': ['a', None, '', 'b' * 513]})
  twice = pa.RecordBatch.from_arrays([batch['id'], batch['id']], ['id', 'id'])
  refused, requests = change(
      index, delete, batch, 'ü', {}, 5, twice.slice(0, 1))
  assert refused == [['MissingId', 'IdEmpty', 'IdTooLong'], ['IdNotAscii'],
                     ['MissingId'], ['ElementType'], ['DuplicateColumn']]
  assert requests == [{'ids': ['a']}]


def test_a_delete_by_filter_is_one_request_an_element(index):
  delete = DeleteFromPinecone(
      'docs',
      namespace='{tenant}',
      filter={'lang': '{lang}'},
      connection=index.host)
  batch = pa.RecordBatch.from_pydict({'tenant': ['x'], 'lang': ['fr']})
  refused, requests = change(
      index, delete, {'tenant': 'x', 'lang': 'en'}, batch, {'tenant': 'x'},
      {'lang': 'en'})
  assert refused == [[], [], ['MissingFilterField'], ['MissingNamespaceField']]
  assert sorted(
      requests, key=str) == [{
          'namespace': 'x', 'filter': {
              'lang': 'en'
          }
      }, {
          'namespace': 'x', 'filter': {
              'lang': 'fr'
          }
      }]


@pytest.mark.parametrize(
    'mode, request_',
    [({
        'delete_all': True
    }, {
        'delete_all': True, 'namespace': 'x'
    }), ({
        'delete_namespace': True
    }, {
        'namespace': 'x'
    })])
def test_a_whole_namespace_is_deleted(index, mode, request_):
  for namespace, element in (('x', None), ('{t}', {'t': 'x'})):
    index.calls.clear()
    delete = DeleteFromPinecone(
        'docs', namespace=namespace, connection=index.host, **mode)
    assert change(index, delete, element) == ([[]], [request_])


def test_the_default_namespace_is_deleted_by_its_name(index):
  index.records['__default__'] = {}
  delete = DeleteFromPinecone(
      'docs', namespace='', delete_namespace=True, connection=index.host)
  _, requests = change(index, delete, None)
  assert requests == [{'namespace': '__default__'}]


@pytest.mark.parametrize('missing', ['ok', 'fail'])
def test_a_namespace_that_does_not_exist(index, missing):
  delete = DeleteFromPinecone(
      'docs',
      namespace='nowhere',
      missing_namespace=missing,
      connection=index.host)
  refused, requests = change(index, delete, 'a')
  assert refused == [[]] if missing == 'ok' else [['permanent']]
  assert len(requests) == 1


def test_an_index_that_is_not_found_is_no_missing_namespace(index):
  index.fails = {'Delete': [('NOT_FOUND', 'Index not found', ())] * 9}
  delete = DeleteFromPinecone('docs', connection=index.host)
  with pytest.raises(Exception, match='Index not found'):
    change(index, delete, 'a')


@pytest.mark.parametrize(
    'transform',
    [
        UpdatePinecone('docs', filter=lambda row: row['f']),
        UpdatePinecone('docs', namespace='{t}', connection='a.b'),
        DeleteFromPinecone('docs', filter={'x': '{y}'}, namespace='n'),
        DeleteFromPinecone('docs', namespace='n', delete_namespace=True),
    ],
    ids=lambda t: type(t).__name__)
def test_operations_are_equal_to_their_copies_and_hold_no_secret(transform):
  operation = transform._operation
  copy = pickle.loads(pickle.dumps(operation))
  assert copy == operation
  assert hash(copy) == hash(operation)
  assert API_KEY not in str(transform.display_data())
  assert transform.display_data()['index'] == 'docs'


def test_ids_that_are_no_valid_arrow_are_refused_alone(index):
  text = pa.StringArray.from_buffers(
      3,
      pa.py_buffer(np.array([0, 1, 2, 3], np.int32)),
      pa.py_buffer(b'a\xffc'))
  batch = pa.RecordBatch.from_arrays([text], ['id'])
  delete = DeleteFromPinecone('docs', connection=index.host)
  refused, requests = change(index, delete, batch)
  assert refused == [['InvalidArrow']]
  assert requests == [{'ids': ['a', 'c']}]
