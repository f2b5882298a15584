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
"""Searches: from elements to queries, and from answers to joined elements."""

import logging
import pickle
import re
import time
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import query_messages as messages
from apache_beam.ml.rag import types
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms.window import TimestampedValue
from fake_pinecone import API_KEY
from fake_reads import FakeReads
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from beam_connector_base import FatalError
from beam_connector_base import Tuning
from beam_connector_base.cache import Cache
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.operation import MISSING
from beam_connector_base.operation import Block
from beam_connector_base.runtime import Runtime
from beam_pinecone import Match
from beam_pinecone import SearchPinecone
from beam_pinecone.encode.questions import QuestionEncoder
from beam_pinecone.operations.queries import best_first
from beam_pinecone.schema import IndexSchema
from beam_pinecone.search import search_operation
from beam_pinecone.search import search_tuning

DEFAULTS = {
    'namespace': '',
    'vector_field': 'vector',
    'id_field': None,
    'sparse_field': None,
    'filter': None,
    'include_values': False,
    'include_metadata': True,
    'output_field': 'matches',
    'on_missing_namespace': 'fail',
    'queries_per_second': None,
    'connection': None,
}
DENSE = IndexSchema('docs', 2, 'cosine', 'dense')
HYBRID = IndexSchema('docs', 2, 'dotproduct', 'dense')
SPARSE = IndexSchema('docs', None, 'dotproduct', 'sparse')


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
            'values': [0.0, 1.0], 'metadata': {
                'lang': 'de'
            }
        },
        'c': {
            'values': [3.0, 4.0]
        },
    }
    yield fake


@pytest.fixture
def runtime():
  made = Runtime()
  yield made
  made.shutdown()


def operation(index=None, top_k=2, **arguments):
  if index is not None:
    arguments.setdefault('connection', index.host)
  return search_operation('docs', top_k, **{**DEFAULTS, **arguments})


@pytest.fixture
def ask(index, runtime):
  """Asks for elements as one bundle; returns the submissions in order."""
  def ask(elements, tuning=None, cache=None, **arguments):
    dispatcher = Dispatcher(
        operation(index, **arguments),
        Tuning(backoff=0.001, open_deadline=5.0, **(tuning or {})),
        cache=cache,
        runtime=runtime)
    try:
      return dispatcher.run(elements)
    finally:
      dispatcher.close()

  return ask


def ids(submission):
  answer = submission.values[0]
  return [] if answer is MISSING else [match.id for match in answer]


def refused(submission):
  (failure,) = submission.failures
  return failure


# ------------------------------------------------------------------ encoding


def encoder(schema=DENSE, top_k=3, **arguments):
  return QuestionEncoder(operation(top_k=top_k, **arguments).question, schema)


def request(element, schema=DENSE, **arguments):
  """The request of one record, as bytes."""
  block = encoder(schema, **arguments).encode(element)
  assert isinstance(block, Block), block
  return bytes(block.rows)


def reason(element, schema=DENSE, **arguments):
  invalid = encoder(schema, **arguments).encode(element)
  assert not isinstance(invalid, Block), invalid
  return invalid.error_type, invalid.reason


class Question(NamedTuple):
  id: str
  vector: list[float]


VECTORS = [
    [1.0, 2.0],
    (1, 2),
    np.array([1, 2], np.float32),
    np.array([1, 2], np.float64),
    np.array([1, 9, 2, 9], np.float32)[::2],
]


@pytest.mark.parametrize('vector', VECTORS, ids=str)
def test_a_vector_of_any_kind_is_the_same_request(vector):
  assert request({'vector': vector}) == messages.query_bytes(
      3, vector=[1.0, 2.0], include_metadata=True)


@pytest.mark.parametrize(
    'element',
    [{
        'id': 'q', 'vector': [1.0, 2.0]
    },
     beam.Row(id='q', vector=[1.0, 2.0]),
     Question('q', [1.0, 2.0])],
    ids=lambda e: type(e).__name__)
def test_an_element_of_any_kind_is_the_same_request(element):
  block = encoder().encode(element)
  assert bytes(block.rows) == messages.query_bytes(
      3, vector=[1.0, 2.0], include_metadata=True)
  assert str(block.keys[0]) == 'q'


def test_a_chunk_is_searched_by_its_embedding():
  chunk = types.Chunk(
      types.Content('text'),
      id='q',
      metadata={'tenant': 't'},
      embedding=types.Embedding([1.0, 2.0], ([3], [0.5])))
  arguments = {'namespace': '{tenant}', 'filter': {'tenant': '{tenant}'}}
  expected = {
      'namespace': 't',
      'filter': {
          'tenant': 't'
      },
      'vector': [1.0, 2.0],
      'include_metadata': True,
  }
  assert request(chunk, **arguments) == messages.query_bytes(3, **expected)
  assert request(
      chunk, HYBRID, sparse_field='sparse',
      **arguments) == messages.query_bytes(
          3, **expected, sparse={
              'indices': [3], 'values': [0.5]
          })
  assert request(
      chunk, vector_field=None, id_field='id') == messages.query_bytes(
          3, id='q', include_metadata=True)
  assert reason(chunk, output_field='tenant')[0] == 'OutputFieldTaken'


def test_sparse_and_hybrid_queries():
  sparse = {'indices': [7, 2**32 - 1], 'values': [0.5, 1.5]}
  row = {'vector': [1.0, 2.0], 'terms': sparse}
  assert request(
      row, HYBRID, sparse_field='terms') == messages.query_bytes(
          3, vector=[1.0, 2.0], sparse=sparse, include_metadata=True)
  assert request(
      row, SPARSE, sparse_field='terms',
      vector_field=None) == messages.query_bytes(
          3, sparse=sparse, include_metadata=True)


def test_a_vector_of_zeros_may_be_searched_for():
  assert request({'vector': [0.0, 0.0]}) == messages.query_bytes(
      3, vector=[0.0, 0.0], include_metadata=True)


@pytest.mark.parametrize(
    'row, schema, arguments, error_type, says',
    [
        ({
            'vector': [1.0]
        },
         DENSE, {},
         'WrongDimension',
         "'vector' has 1 values.*dimension 2"),
        ({
            'vector': [1.0, float('nan')]
        }, DENSE, {}, 'VectorNotFinite', 'nan'),
        ({
            'vector': ['x', 'y']
        }, DENSE, {}, 'VectorType', "'vector'"),
        ({
            'vector': None
        },
         DENSE, {},
         'MissingVector',
         "'vector'.*vector_field="),
        ({
            'vector': [1.0, 2.0]
        },
         SPARSE, {},
         'DenseOnSparseIndex',
         'sparse_field='),
        ({
            'vector': [1.0, 2.0], 's': ([1], [1.0])
        },
         DENSE, {
             'sparse_field': 's'
         },
         'SparseNotSupported',
         'cosine'),
        ({
            's': ([1], [1.0])
        },
         HYBRID, {
             'sparse_field': 's'
         },
         'MissingVector',
         "'vector' is missing.*dense"),
        ({
            'vector': [1.0, 2.0], 's': ([1, 1], [1.0, 2.0])
        },
         HYBRID, {
             'sparse_field': 's'
         },
         'SparseDuplicate',
         "'s'"),
        ({
            'id': 'ü'
        }, DENSE, {
            'id_field': 'id'
        }, 'IdNotAscii', "'id'"),
        ({
            'vector': [1.0, 2.0], 'matches': 1
        },
         DENSE, {},
         'OutputFieldTaken',
         "'matches'.*output_field="),
        ({
            'vector': [1.0, 2.0]
        },
         DENSE, {
             'namespace': '{tenant}'
         },
         'MissingNamespaceField',
         "'tenant'"),
        ({
            'vector': [1.0, 2.0], 'tenant': 'ü'
        },
         DENSE, {
             'namespace': '{tenant}'
         },
         'NamespaceNotAscii',
         'namespace'),
        ({
            'vector': [1.0, 2.0]
        },
         DENSE, {
             'filter': {
                 'lang': '{lang}'
             }
         },
         'MissingFilterField',
         "'lang'"),
    ],
    ids=str)
@pytest.mark.parametrize('as_batch', [False, True])
def test_what_can_not_be_searched_is_refused_with_its_reason(
    row, schema, arguments, error_type, says, as_batch):
  if as_batch:
    if 's' in row:
      row = {**row, 's': {'indices': row['s'][0], 'values': row['s'][1]}}
    items = list(
        encoder(schema,
                **arguments).encode_batch(pa.RecordBatch.from_pylist([row])))
    (invalid,) = items
  else:
    invalid = encoder(schema, **arguments).encode(row)
  assert invalid.error_type == error_type
  assert re.search(says, invalid.reason), invalid.reason


def test_an_element_without_fields_is_refused():
  assert reason([1.0, 2.0])[0] == 'ElementType'


numbers = st.floats(-1e6, 1e6, width=32)
rows = st.lists(
    st.fixed_dictionaries({
        'id':
            st.none() | st.sampled_from(['a', 'ü', '']),
        'vector':
            st.none() | st.lists(numbers, max_size=3),
        'terms':
            st.none()
            | st.lists(st.tuples(st.integers(0, 5), numbers), max_size=3).map(
                lambda pairs: {
                    'indices': [p[0] for p in pairs],
                    'values': [p[1] for p in pairs]
                }),
        'ns':
            st.sampled_from(['x', 'y', None, 'ü']),
        'year':
            st.none() | st.integers(0, 3),
    }),
    min_size=1,
    max_size=6)
SCHEMA = pa.schema([('id', pa.string()), ('vector', pa.list_(pa.float32())),
                    (
                        'terms',
                        pa.struct([('indices', pa.list_(pa.int64())),
                                   ('values', pa.list_(pa.float32()))])),
                    ('ns', pa.string()), ('year', pa.int64())])


@given(
    rows,
    st.sampled_from([DENSE, HYBRID, SPARSE]),
    st.sampled_from([None, 'id']),
    st.sampled_from([None, 'terms']),
    st.sampled_from(['', '{ns}']),
    st.sampled_from(
        [None, {
            'y': '{year}'
        }, lambda row: {
            'z': row['ns'] or 'none'
        }]))
@settings(max_examples=150, deadline=None)
def test_rows_of_a_block_are_asked_like_single_records(
    rows, schema, id_field, sparse_field, namespace, chosen):
  made = encoder(
      schema,
      id_field=id_field,
      sparse_field=sparse_field,
      namespace=namespace,
      filter=chosen)
  singly = {}
  for i, row in enumerate(rows):
    item = made.encode(row)
    singly[i] = ((item.destination, bytes(item.rows),
                  item.keys[0]) if isinstance(item, Block) else
                 (item.error_type, item.reason, item.destination))
  together = {}
  for item in made.encode_batch(pa.RecordBatch.from_pylist(rows, SCHEMA)):
    if isinstance(item, Block):
      for i in range(item.n):
        together[item.row_id(i)] = (
            item.destination, bytes(item.rows[i]), item.keys[i])
    else:
      together[item.row] = (item.error_type, item.reason, item.destination)
  assert {
      i: t[:2] for i, t in together.items()
  } == {
      i: s[:2] for i, s in singly.items()
  }


def test_a_block_of_many_rows_keeps_their_numbers():
  n = 3_000
  vectors = np.arange(2 * n, dtype=np.float32).reshape(n, 2) + 1
  batch = pa.RecordBatch.from_arrays(
      [pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 2)],
      ['vector'])
  seen = {}
  for block in encoder().encode_batch(batch):
    for i in range(block.n):
      seen[block.row_id(i)] = messages.QueryRequest.FromString(
          block.rows[i]).vector[0]
  assert seen == {i: 2.0 * i + 1 for i in range(n)}


# -------------------------------------------------------------------- answers


def test_matches_come_best_first(ask):
  (submission,) = ask([{'vector': [1.0, 1.0]}])
  assert submission.values[0] == [
      Match('c', 7.0), Match('a', 1.0, {'lang': 'en'})]  # yapf: disable


@pytest.mark.parametrize(
    'metric, best', [('dotproduct', ['c', 'a', 'b']),
                     ('euclidean', ['b', 'a', 'c'])])
def test_matches_are_put_in_order_whatever_order_they_come_in(
    index, ask, metric, best):
  index.metric = metric
  index.order = lambda keys: [keys[1], keys[2], keys[0]]
  (submission,) = ask([{'vector': [2.0, 1.0]}], top_k=3)
  assert ids(submission) == best


def test_matches_of_one_score_keep_their_order():
  matches = [Match('x', 1.0), Match('b', 2.0), Match('a', 2.0)]
  assert [m.id for m in best_first(matches, False)] == ['b', 'a', 'x']


def test_values_are_float32_arrays_when_asked_for(ask):
  (submission,) = ask([{'vector': [1.0, 1.0]}], include_values=True, top_k=1)
  (match,) = submission.values[0]
  assert match.values.dtype == np.float32
  assert match.values.tolist() == [3.0, 4.0]
  (without,) = ask([{'vector': [1.0, 1.0]}], include_metadata=False)
  assert all(m.metadata is None and m.values is None for m in without.values[0])


def test_stored_vectors_are_searched_for_by_id_and_others_by_vector(ask, index):
  found = ask([{'like': 'b'}, {'like': None, 'vector': [1.0, 0.0]},
               {'like': 'nobody'}], id_field='like')  # yapf: disable
  assert [ids(s) for s in found] == [['c', 'b'], ['c', 'a'], []]
  # Side by side: which one arrives first is open.
  assert sorted(q.id for q in index.queries) == ['', 'b', 'nobody']


def test_equal_queries_are_sent_once(ask, index):
  found = ask([{'vector': [1.0, 0.0], 'n': i} for i in range(20)])
  assert len(index.queries) == 1
  assert [ids(s) for s in found] == [['c', 'a']] * 20


def test_answers_are_used_again_while_they_are_cached(index, runtime):
  dispatcher = Dispatcher(
      operation(index), cache=Cache(ttl=600), runtime=runtime)
  row = {'vector': [1.0, 0.0]}
  first = dispatcher.run([row])
  index.records[''] = {}
  assert dispatcher.run([row])[0].values == first[0].values
  assert len(index.queries) == 1
  dispatcher.run([{'vector': [1.0, 0.5]}])
  assert len(index.queries) == 2
  dispatcher.close()


def test_many_queries_are_in_flight_up_to_what_tuning_allows(index, runtime):
  for in_flight in (1, 6, 20):
    index.most_in_flight = 0
    side_by_side, tuning = search_tuning(Tuning(in_flight=in_flight))
    dispatcher = Dispatcher(
        operation(index, side_by_side=side_by_side), tuning, runtime=runtime)
    index.gate.clear()
    bundle = dispatcher.bundle()
    for i in range(64):
      bundle.submit({'vector': [1.0, float(i)]})
    # The fake has eight threads.
    until = time.monotonic() + 5
    while index.most_in_flight < min(in_flight, 8) and time.monotonic() < until:
      time.sleep(0.001)
    index.gate.set()
    assert len(bundle.drain()) == 64
    assert index.most_in_flight == min(in_flight, 8)
    dispatcher.close()


@pytest.mark.parametrize(
    'tuning, side_by_side, in_flight',
    [(None, 8, None), (Tuning(), 8, None), (Tuning(in_flight=1), 1, 1),
     (Tuning(in_flight=5), 5, 1), (Tuning(in_flight=12), 6, 2),
     (Tuning(in_flight=64), 8, 8), (Tuning(max_records=1, in_flight=4), 1, 4)],
    ids=str)
def test_deliveries_are_as_large_as_the_requests_in_flight_allow(
    tuning, side_by_side, in_flight):
  size, changed = search_tuning(tuning)
  assert size == side_by_side
  assert (changed.in_flight if changed else None) == in_flight


# --------------------------------------------------------------------- errors


def test_throttled_and_failed_queries_are_tried_again_alone(ask, index):
  index.errors = [None, ('RESOURCE_EXHAUSTED', 'slow down', ()), None,
                  ('UNAVAILABLE', 'gone', ())]  # yapf: disable
  vectors = [{'vector': [1.0, float(i)]} for i in range(8)]
  found = ask(vectors)
  assert all(ids(s) for s in found)
  assert len(index.queries) == 10


def test_a_query_that_is_refused_costs_no_other_one(ask, index):
  index.refuses = {5.0}
  found = ask([{'id': f'q{i}', 'vector': [float(i), 1.0]} for i in range(8)])
  assert [bool(s.failures) for s in found] == [i == 5 for i in range(8)]
  failure = refused(found[5])
  assert (failure.key, failure.stage,
          failure.http_status) == ('q5', 'send', 400)
  assert 'poisoned' in failure.message


def test_an_answer_that_is_unreadable_is_tried_again(index, runtime):
  index.reply = b'\x12\x05ab'
  dispatcher = Dispatcher(
      operation(index), Tuning(backoff=0.001, deadline=0.05), runtime=runtime)
  with pytest.raises(Exception, match='the answer is unreadable'):
    dispatcher.run([{'vector': [1.0, 1.0]}])
  dispatcher.close()


def test_an_answer_that_is_too_large_says_what_to_ask_for(ask, index):
  index.errors = [(
      'OUT_OF_RANGE',
      'Error, message length too large: found 5 bytes, the limit is: 4 '
      'bytes', ())]
  failure = refused(ask([{'vector': [1.0, 1.0]}])[0])
  assert 'top_k=' in failure.message
  assert failure.http_status == 413


def test_vectors_that_fit_in_no_answer_are_an_error_when_opening(index, ask):
  index.dimension = 1_000
  with pytest.raises(FatalError, match='top_k=1001 .*4.0 MB.*top_k=996 or'):
    ask([{'vector': [1.0]}], top_k=1_001, include_values=True)
  assert not index.queries


def test_an_index_of_documents_is_not_searched(index, ask):
  index.dimension, index.metric = None, None
  with pytest.raises(FatalError, match='document'):
    ask([{'vector': [1.0]}])
  assert not index.queries


def test_a_wrong_key_fails_with_its_remedy_and_without_the_key(
    ask, monkeypatch, caplog):
  monkeypatch.setenv('PINECONE_API_KEY', 'wrong-key-0815')
  with caplog.at_level(logging.DEBUG):
    with pytest.raises(FatalError, match='api_key') as raised:
      ask([{'vector': [1.0, 1.0]}])
  assert 'wrong-key-0815' not in str(raised.value) + caplog.text


# ----------------------------------------------------------------- namespaces


def test_a_namespace_that_does_not_exist_is_not_an_empty_one(ask, index):
  index.records['known'] = {'a': {'values': [1.0, 0.0]}}
  index.records['empty'] = {}
  found = ask([{
      'vector': [1.0, 0.0], 'ns': ns
  } for ns in ['known', 'empty', 'typo', '']],
              namespace='{ns}')
  assert [ids(s) for s in found[:2] + found[3:]] == [['a'], [], ['c', 'a']]
  failure = refused(found[2])
  assert failure.destination == 'typo'
  assert "no namespace 'typo'" in failure.message
  assert 'on_missing_namespace' in failure.message
  assert failure.http_status == 404


def test_one_namespace_for_all_that_does_not_exist_stops(ask, index):
  with pytest.raises(FatalError, match="no namespace 'typo'"):
    ask([{'vector': [1.0, 0.0]}], namespace='typo')


def test_a_namespace_may_be_missing_where_that_is_said(ask, index):
  (found,) = ask([{
      'vector': [1.0, 0.0]
  }],
                 namespace='typo',
                 on_missing_namespace='empty')
  assert ids(found) == []
  assert index.looks == 1


def test_namespaces_are_looked_at_only_where_nothing_was_found(ask, index):
  ask([{'vector': [1.0, float(i)]} for i in range(30)])
  assert index.looks == 1
  index.records[''] = {}
  ask([{'vector': [1.0, float(i)]} for i in range(30)])
  # The default namespace is always there.
  assert index.looks == 2
  index.records['empty'] = {}
  ask([{'vector': [1.0, float(i)]} for i in range(30)], namespace='empty')
  assert index.looks == 4


# ------------------------------------------------------------------ transform


@pytest.mark.parametrize(
    'arguments, error, says',
    [
        ({'index': 'Docs'}, ValueError, 'index'),
        ({'index': 5}, TypeError, 'index'),
        ({'top_k': 0}, ValueError, 'top_k'),
        ({'top_k': 10_001}, ValueError, 'top_k'),
        ({'top_k': 2.0}, TypeError, 'top_k'),
        ({'namespace': None}, TypeError, 'namespace'),
        ({'namespace': 'ü'}, ValueError, 'namespace'),
        ({'vector_field': None}, ValueError, 'vector_field'),
        ({'vector_field': ''}, ValueError, 'vector_field'),
        ({'id_field': 3}, TypeError, 'id_field'),
        ({'id_field': 'vector'}, ValueError, 'id_field'),
        ({'output_field': None}, TypeError, 'output_field'),
        ({'output_field': 'vector'}, ValueError, 'output_field'),
        ({'filter': {'a': {'$x': 1}}}, ValueError, 'filter'),
        ({'filter': 'a = 1'}, TypeError, 'filter'),
        ({'include_values': 1}, TypeError, 'include_values'),
        ({'include_metadata': None}, TypeError, 'include_metadata'),
        ({'cache': 60}, TypeError, 'cache'),
        ({'on_missing': 'skip'}, ValueError, 'on_missing'),
        ({'on_missing_namespace': 'skip'}, ValueError, 'on_missing_namespace'),
        ({'on_error': 'ignore'}, ValueError, 'on_error'),
        ({'queries_per_second': 0}, ValueError, 'queries_per_second'),
        ({'queries_per_second': 'x'}, TypeError, 'queries_per_second'),
        ({'connection': 5}, TypeError, 'connection'),
        ({'tuning': {}}, TypeError, 'tuning'),
        ({'limit': 3}, TypeError, 'limit'),
    ],
    ids=str)  # yapf: disable
def test_a_mistake_is_named_at_construction(arguments, error, says):
  with pytest.raises(error, match=says):
    SearchPinecone(**{'index': 'docs'} | arguments)


def test_the_operation_is_equal_to_its_copies_and_holds_no_secret():
  made = operation(
      filter={
          'a': '{a}', 'b': 1
      },
      namespace=lambda row: row['ns'],
      connection='a.b')
  data = pickle.dumps(made)
  assert pickle.loads(data) == made
  assert hash(pickle.loads(data)) == hash(made)
  assert API_KEY.encode() not in data
  shown = SearchPinecone(
      'docs', 3, namespace='{ns}', filter={
          'a': 1
      }, connection='a.b').display_data()
  assert shown['index'] == 'docs'
  assert (shown['namespace'], shown['top_k']) == ('{ns}', 3)
  assert shown['filter'] == '{"a": 1}'


def test_event_times_stay_and_each_kind_of_element_gets_its_matches(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p
        | beam.Create([({
            'id': 'd', 'vector': [1.0, 0.0]
        }, 5), (beam.Row(id='r', vector=[0.0, 1.0]), 7),
                       (Question('n', [1.0, 1.0]), 9)])
        | beam.Map(lambda pair: TimestampedValue(*pair))
        | SearchPinecone('docs', 1, connection=index.host)
        | beam.Map(
            lambda e, t=beam.DoFn.TimestampParam: (
                type(e).__name__, e['id']
                if isinstance(e, dict) else e.id, float(t), [
                    m.id for m in
                    (e['matches'] if isinstance(e, dict) else e.matches)
                ])))
    assert_that(
        out,
        equal_to([('dict', 'd', 5.0, ['c']), ('Row', 'r', 7.0, ['c']),
                  ('Row', 'n', 9.0, ['c'])]))


def test_rows_with_a_schema_keep_one(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    found = (
        p | beam.Create([beam.Row(q='x', vector=[1.0, 0.0])])
        | SearchPinecone('docs', 1, include_values=True, connection=index.host))
    names = [name for name, _ in found.element_type._fields]
    assert names == ['q', 'vector', 'matches']
    out = found | beam.Reshuffle() | beam.Map(
        lambda row: (row.q, row.matches[0].id, row.matches[0].values.tolist()))
    assert_that(out, equal_to([('x', 'c', [3.0, 4.0])]))


def test_a_block_gets_a_column_of_matches(index):
  index.records['']['c']['sparse'] = {'indices': [3], 'values': [0.5]}
  batch = pa.RecordBatch.from_pylist([{
      'id': 'x', 'vector': [1.0, 0.0]
  }, {
      'id': 'bad', 'vector': [1.0]
  }, {
      'id': 'y', 'vector': [0.0, 1.0]
  }],
                                     pa.schema([
                                         ('id', pa.string()),
                                         ('vector', pa.list_(pa.float32()))
                                     ]))
  with beam.Pipeline(runner='FnApiRunner') as p:
    found = (
        p | beam.Create([batch])
        | SearchPinecone(
            'docs',
            2,
            include_values=True,
            on_error='collect',
            connection=index.host))
    assert_that(
        found.failed
        | beam.Map(lambda f: (f.key, f.error_type, f.element.num_rows)),
        equal_to([('bad', 'WrongDimension', 1)]),
        'failed')
    out = found | beam.Reshuffle() | beam.Map(
        lambda b: (b.column('id').to_pylist(), b.column('matches').to_pylist()))
    c = {
        'id': 'c',
        'score': 3.0,
        'metadata': None,
        'values': [3.0, 4.0],
        'sparse_values': {
            'indices': [3], 'values': [0.5]
        }
    }
    assert_that(
        out,
        equal_to([(['x', 'y'],
                   [[
                       c,
                       {
                           'id': 'a',
                           'score': 1.0,
                           'metadata': '{"lang":"en"}',
                           'values': [1.0, 0.0],
                           'sparse_values': None
                       }
                   ],
                    [
                        c | {
                            'score': 4.0
                        },
                        {
                            'id': 'b',
                            'score': 1.0,
                            'metadata': '{"lang":"de"}',
                            'values': [0.0, 1.0],
                            'sparse_values': None
                        }
                    ]])]))


def test_rows_for_which_nothing_was_found_go_where_they_are_told(index):
  index.records['empty'] = {}
  batch = pa.RecordBatch.from_pylist([{'vector': [1.0, 0.0], 'ns': 'empty'},
                                      {'vector': [1.0, 0.0], 'ns': ''}])  # yapf: disable
  with beam.Pipeline(runner='FnApiRunner') as p:
    elements = p | beam.Create([batch, {'vector': [1.0, 0.0], 'ns': 'empty'}])  # yapf: disable
    search = {'namespace': '{ns}', 'connection': index.host}
    empty = elements | 'null' >> SearchPinecone('docs', **search)
    apart = elements | 'apart' >> SearchPinecone(
        'docs', on_missing='separate', **search)
    assert_that(
        empty | 'e' >> beam.Map(
            lambda e: [len(m) for m in e.column('matches').to_pylist()]
            if isinstance(e, pa.RecordBatch) else e['matches']),
        equal_to([[0, 3], []]),
        'empty')
    assert_that(
        apart.missing | 'm' >> beam.Map(
            lambda e: e['ns'].to_pylist()
            if isinstance(e, pa.RecordBatch) else e['ns']),
        equal_to([['empty'], 'empty']),
        'missing')


def test_queries_are_counted_as_requests(index):
  p = beam.Pipeline(runner='FnApiRunner')
  _ = (
      p | beam.Create([{'vector': [1.0, float(i)]} for i in range(20)])
      | SearchPinecone('docs', connection=index.host))  # yapf: disable
  result = p.run()
  result.wait_until_finish()
  counters = {
      c.key.metric.name: c.committed
      for c in result.metrics().query()['counters']
      if c.key.metric.namespace == 'SearchPinecone'
  }
  assert counters['requests'] == counters['requests_ok'] == len(index.queries)
  assert counters['records_found'] == 20
