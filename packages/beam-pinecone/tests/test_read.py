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

import asyncio
import pickle

import apache_beam as beam
import pytest
import query_messages as messages
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from fake_pages import FakePages
from fake_pinecone import API_KEY

from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Done
from beam_pinecone import PineconeConnection
from beam_pinecone import PineconeReadRequest
from beam_pinecone import ReadAllFromPinecone
from beam_pinecone import ReadFromPinecone
from beam_pinecone import Tuning
from beam_pinecone.operations.export import FetchVectors
from beam_pinecone.operations.export import Ids
from beam_pinecone.operations.export import ids_per_request
from beam_pinecone.schema import IndexSchema

QUICK = Tuning(backoff=0.001)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)


@pytest.fixture
def index():
  with FakePages() as fake:
    yield fake


def vectors(*ids):
  return {id: {'values': [1.0, 2.0], 'metadata': {'id': id}} for id in ids}


@pytest.fixture
def run():
  loop = asyncio.new_event_loop()
  yield loop.run_until_complete
  loop.close()


def read(index, expected, **arguments):
  arguments = {'tuning': QUICK} | arguments
  with beam.Pipeline(runner='FnApiRunner') as p:
    rows = p | ReadFromPinecone('docs', connection=index.host, **arguments)
    assert_that(
        rows | beam.Map(lambda r: (r.namespace, r.id)), equal_to(expected))


# ----------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    'arguments, error, says',
    [
        ({
            'index': 5
        }, TypeError, 'index'),
        ({
            'index': 'Docs'
        }, ValueError, 'index'),
        ({
            'namespaces': 'x'
        }, TypeError, 'namespaces'),
        ({
            'namespaces': []
        }, ValueError, 'namespaces'),
        ({
            'namespaces': [5]
        }, TypeError, 'namespaces'),
        ({
            'namespaces': ['ü']
        }, ValueError, 'namespaces'),
        ({
            'prefix': ''
        }, ValueError, 'prefix'),
        ({
            'prefix': ['ü']
        }, ValueError, 'prefix'),
        ({
            'prefix': 5
        }, TypeError, 'prefix'),
        ({
            'prefix': 'a', 'filter': {
                'x': 1
            }
        }, ValueError, 'exclude each other'),
        ({
            'filter': {}
        }, ValueError, 'filter is empty'),
        ({
            'filter': {
                'x': {
                    '$like': 1
                }
            }
        }, ValueError, '\\$like'),
        ({
            'filter': 'x'
        }, TypeError, 'filter'),
        ({
            'columns': 'values'
        }, TypeError, 'columns'),
        ({
            'columns': ['id']
        }, ValueError, 'columns'),
        ({
            'as_blocks': 1
        }, TypeError, 'as_blocks'),
        ({
            'connection': 'no host'
        }, ValueError, 'host'),
        ({
            'tuning': {}
        }, TypeError, 'tuning'),
        ({
            'tuning': Tuning(on_outage='collect')
        }, ValueError, 'on_outage'),
    ],
    ids=str)
def test_a_mistake_is_named_at_construction(arguments, error, says):
  with pytest.raises(error, match=says):
    ReadFromPinecone(**{'index': 'docs'} | arguments)


def test_a_request_is_normal_in_its_form():
  request = PineconeReadRequest(
      'docs', namespaces=['__default__', 'x', '', 'x'], prefix=['b', 'ba', 'a'])
  assert request.namespaces == ('', 'x')
  assert request.prefixes() == ('a', 'b')
  assert pickle.loads(pickle.dumps(request)) == request


def test_a_read_shows_what_it_reads_and_no_secret():
  shown = ReadFromPinecone(
      'docs', namespaces=['x'], prefix='a', connection='a.b').display_data()
  assert shown['index'] == 'docs'
  assert shown['namespaces'] == "'x'"
  assert shown['prefix'] == "'a'"
  assert shown['host'] == 'a.b'
  assert API_KEY not in str(shown)


# -------------------------------------------------------------------- reading


def test_all_pages_of_all_namespaces_are_read(index):
  index.records = {'': vectors(*'abcde'), 'x': vectors('a'), 'y': {}}
  read(index, [('', id) for id in 'abcde'] + [('x', 'a')])
  assert len(index.asked('ListNamespaces')) == 2
  tokens = [
      request.get('pagination_token')
      for request in index.asked('List')
      if 'namespace' not in request
  ]
  assert tokens == [None, '2', '4']
  assert all(request['limit'] == 100 for request in index.asked('List'))


def test_a_server_that_cannot_list_namespaces_is_asked_for_statistics(index):
  index.unknown = {'ListNamespaces', 'DescribeNamespace'}
  index.records = {'': vectors('a'), 'x': vectors('b')}
  read(index, [('', 'a'), ('x', 'b')])
  read(index, [('x', 'b')], namespaces=['x'])
  with pytest.raises(Exception, match="no namespace 'y'"):
    read(index, [], namespaces=['y'])


def test_records_that_are_gone_are_counted_and_told(index, caplog):
  index.records = {'': vectors(*'abcd')}

  class Gone(dict):
    def __contains__(self, id):
      return id != 'c' and super().__contains__(id)

  index.records[''] = Gone(index.records[''])
  with caplog.at_level('WARNING'):
    read(index, [('', id) for id in 'abd'])
  assert '1 of 4 records were listed and not there' in caplog.text


def test_a_page_that_fails_is_asked_for_again(index):
  index.records = {'': vectors(*'abcde')}
  index.fails = {
      'ListNamespaces': [('UNAVAILABLE', 'try later', ())],
      'List': [('RESOURCE_EXHAUSTED', 'slow down', ()),
               ('ABORTED', 'again', ())],
  }
  index.errors = [('UNAVAILABLE', 'try later', ())]
  read(index, [('', id) for id in 'abcde'])
  assert len(index.asked('List')) == 5


def test_a_namespace_that_goes_while_it_is_read_is_empty(index):
  index.records = {'': vectors('a'), 'x': vectors('b')}
  index.fails = {'List': [('NOT_FOUND', 'Namespace not found', ())]}
  read(index, [('x', 'b')], namespaces=['', 'x'])


@pytest.mark.parametrize('method', ['List', 'FetchByMetadata'])
def test_what_the_service_refuses_fails_the_pipeline(index, method):
  index.records = {'x': vectors('a')}
  index.fails = {method: [('INVALID_ARGUMENT', 'Invalid token', ())] * 9}
  filter = None if method == 'List' else {'secret-field': 'secret-value'}
  with pytest.raises(Exception,
                     match="refuses to tell the .* of namespace 'x'") as raised:
    read(index, [], namespaces=['x'], filter=filter)
  assert 'Invalid token' in str(raised.value)
  assert 'secret' not in str(raised.value)


def test_records_by_metadata_are_read_page_by_page(index):
  index.records = {'': vectors(*'abc')}
  read(index, [('', id) for id in 'abc'], filter={'x': 1})
  first, second = index.asked('FetchByMetadata')
  assert first['filter'] == {'x': 1.0}
  assert 'pagination_token' not in first
  assert second['pagination_token'] == '2'


@pytest.mark.parametrize('method', ['List', 'ListNamespaces'])
def test_an_answer_that_cannot_be_read_is_asked_for_again(index, method):
  index.records = {'': vectors('a')}
  index.replies = {method: b'\x0a\x05abc'}
  with pytest.raises(Exception, match='unreadable'):
    read(index, [], tuning=Tuning(backoff=0.001, deadline=0.05))
  assert len(index.asked(method)) > 1


def test_a_read_of_several_indexes_is_one_pcollection(index):
  index.records = {'': vectors('a')}
  requests = [PineconeReadRequest('docs'), {'index': 'more'}]
  with beam.Pipeline(runner='FnApiRunner') as p:
    rows = (
        p | beam.Create(requests)
        | ReadAllFromPinecone(connection=index.host))
    assert_that(rows | beam.Map(lambda r: r.id), equal_to(['a', 'a']))


@pytest.mark.parametrize(
    'request_, says',
    [({
        'index': 'docs', 'namespace': 'x'
    }, 'namespaces'), ({}, 'index is required'), (5, 'must be')],
    ids=str)
def test_an_element_that_is_no_request_fails_the_pipeline(
    index, request_, says):
  with pytest.raises(Exception, match=says):
    with beam.Pipeline(runner='FnApiRunner') as p:
      _ = (
          p | beam.Create([request_])
          | ReadAllFromPinecone(connection=index.host))


# ------------------------------------------------------------------- fetching


def fetch(index, *batches, tuning=QUICK):
  """The ids that came for each batch, and the ids of each request."""
  operation = FetchVectors('docs', PineconeConnection(host=index.host))
  dispatcher = Dispatcher(operation, tuning)
  try:
    submissions = dispatcher.run(
        [Ids('docs', ns, list(ids)) for ns, ids in batches])
  finally:
    dispatcher.close()
  got = [[
      record.id for records in (s.values or {}).values() for record in records
  ] for s in submissions]
  return got, sorted(''.join(f.ids) for f in index.fetches)


def test_ids_of_several_elements_share_a_request(index):
  index.records = {'': vectors(*'abcdef')}
  got, requests = fetch(index, ('', 'ab'), ('', 'cd'), ('', ''), ('', 'ef'))
  assert got == [['a', 'b'], ['c', 'd'], [], ['e', 'f']]
  assert requests == ['abcdef']


def test_an_element_of_several_requests_gets_all_of_its_records(index):
  index.records = {'': vectors(*'abcdef')}
  got, requests = fetch(index, ('', 'abcd'), ('', 'ef'),
                        tuning=Tuning(max_records=3))
  assert [sorted(ids) for ids in got] == [list('abcd'), list('ef')]
  assert requests == ['abc', 'def']


def test_what_is_gone_is_left_out_and_not_asked_for_again(index):
  index.records = {'': vectors('b', 'd')}
  got, requests = fetch(index, ('', 'ab'), ('', 'c'), ('', 'd'), ('x', 'a'))
  assert got == [['b'], [], ['d'], []]
  assert requests == ['a', 'abcd']


def test_answers_that_are_too_large_are_asked_for_in_halves(index):
  index.records = {'': vectors(*'abcdefgh')}
  index.most_ids = 3
  got, _ = fetch(index, ('', 'abcdefgh'))
  assert sorted(got[0]) == list('abcdefgh')


class Cut(FakePages):
  """Leaves all but the first two records out of an answer, without a word."""
  def _fetch(self, request, context):
    answer = messages.FetchResponse.FromString(super()._fetch(request, context))
    for id in list(self.fetches[-1].ids)[2:]:
      answer.vectors.pop(id, None)
    return answer.SerializeToString()


def test_a_large_answer_that_lacks_records_is_asked_for_the_rest(run):
  """What the service does at its limit is not documented: it may cut."""
  with Cut(dimension=260_000) as index:
    large = {'values': [1.0] * 260_000}
    index.records = {'': dict.fromkeys('abcd', large)}
    operation = FetchVectors('docs', PineconeConnection(host=index.host))
    session = run(operation.open())
    block, = session.encode(Ids('docs', '', list('abcde')))
    batch = Batch('', [(None, block, 0, 5)], 5, 0)
    first = run(session.send(batch))
    assert [type(reply).__name__ for reply in first
           ] == ['Done', 'Done', 'Unanswered', 'Unanswered', 'Unanswered']
    assert [record.id for record in first[0].value] == ['a', 'b']
    small = Batch('', [(None, block, 4, 5)], 1, 0)
    assert run(session.send(small)) == [Done(None)]
    run(session.close())


def test_a_request_has_as_many_ids_as_fit_into_an_answer():
  assert ids_per_request(IndexSchema('docs', 4)) == 1000
  assert 500 < ids_per_request(IndexSchema('docs', 1536)) < 650
  assert ids_per_request(IndexSchema('docs', 20_000)) == 43
  assert ids_per_request(IndexSchema('docs', None)) == 1000


def test_equal_operations_are_one():
  one = FetchVectors('docs', PineconeConnection())
  assert pickle.loads(pickle.dumps(one)) == one
  assert hash(pickle.loads(pickle.dumps(one))) == hash(one)
