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
"""Lookups: ids in, records out, many ids a request."""

import pickle
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.ml.rag import types
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms.window import TimestampedValue
from fake_pinecone import API_KEY
from fake_reads import FakeReads

from beam_connector_base import FatalError
from beam_connector_base import Tuning
from beam_connector_base.cache import Cache
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.operation import MISSING
from beam_connector_base.runtime import Runtime
from beam_pinecone import LookupPinecone
from beam_pinecone import Record
from beam_pinecone.lookup import lookup_operation

DEFAULTS = {
    'id_field': 'id',
    'namespace': '',
    'include_values': True,
    'include_metadata': True,
    'output_field': 'record',
    'on_missing_namespace': 'fail',
    'requests_per_second': None,
    'connection': None,
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)


@pytest.fixture
def index():
  with FakeReads() as fake:
    fake.records[''] = {
        f'id-{i}': {
            'values': [1.0, float(i)], 'metadata': {
                'n': i
            }
        } for i in range(50)
    }
    fake.records['ns'] = {
        'x': {
            'values': [0.5, 0.5], 'sparse': {
                'indices': [3], 'values': [0.5]
            }
        }
    }
    yield fake


@pytest.fixture
def runtime():
  made = Runtime()
  yield made
  made.shutdown()


def operation(index=None, **arguments):
  if index is not None:
    arguments.setdefault('connection', index.host)
  return lookup_operation('docs', **{**DEFAULTS, **arguments})


@pytest.fixture
def look_up(index, runtime):
  """Looks elements up as one bundle; returns the submissions in order."""
  def look_up(elements, tuning=None, cache=None, **arguments):
    dispatcher = Dispatcher(
        operation(index, **arguments),
        Tuning(backoff=0.001, open_deadline=5.0, **(tuning or {})),
        cache=cache,
        runtime=runtime)
    try:
      return dispatcher.run(elements)
    finally:
      dispatcher.close()

  return look_up


def found(submission):
  return None if submission.values[0] is MISSING else submission.values[0].id


def rows(*numbers):
  return [{'id': f'id-{i}'} for i in numbers]


def test_many_ids_share_a_request_and_equal_ones_are_asked_once(look_up, index):
  answers = look_up(rows(*range(50), *range(50)))
  assert [found(s) for s in answers] == [f'id-{i}' for i in range(50)] * 2
  (fetch,) = index.fetches
  assert sorted(fetch.ids) == sorted(f'id-{i}' for i in range(50))


def test_a_record_has_its_vector_and_metadata_or_what_was_asked_for(look_up):
  row = {'id': 'id-7'}
  (whole,) = look_up([row])
  record = whole.values[0]
  assert record.values.tolist() == [1.0, 7.0]
  assert record.values.dtype == np.float32
  assert record.metadata == {'n': 7.0}
  (bare,) = look_up([row], include_values=False, include_metadata=False)
  assert bare.values[0] == Record('id-7')
  (sparse,) = look_up([{'id': 'x'}], namespace='ns')
  assert sparse.values[0].sparse_values.indices.tolist() == [3]


def test_an_id_without_a_record_is_missing(look_up):
  answers = look_up(rows(3, 99, 4))
  assert [found(s) for s in answers] == ['id-3', None, 'id-4']


def test_each_record_is_looked_up_in_its_own_namespace(look_up, index):
  answers = look_up([{'id': 'x', 't': 'ns'}, {'id': 'id-1', 't': ''},
                     {'id': 'id-1', 't': 'ns'}], namespace='{t}')  # yapf: disable
  assert [found(s) for s in answers] == ['x', 'id-1', None]
  assert sorted(f.namespace for f in index.fetches) == ['', 'ns']


def test_requests_have_as_many_ids_as_answers_can_hold(index, look_up):
  index.dimension = 20_000
  look_up(rows(*range(50)))
  assert sorted(len(f.ids) for f in index.fetches) == [1, 49]


def test_an_answer_that_is_too_large_is_asked_for_in_halves(index, look_up):
  index.most_ids = 20
  answers = look_up(rows(*range(50)))
  assert [found(s) for s in answers] == [f'id-{i}' for i in range(50)]
  assert sorted(
      len(f.ids) for f in index.fetches) == [12, 12, 13, 13, 25, 25, 50]


def test_an_id_that_is_refused_costs_no_other_one(index, look_up):
  index.refuses = {'id-3'}
  answers = look_up(rows(*range(8)))
  assert [bool(s.failures) for s in answers] == [i == 3 for i in range(8)]
  (failure,) = answers[3].failures
  assert (failure.key, failure.http_status) == ('id-3', 400)


def test_answers_are_used_again_while_they_are_cached(index, runtime):
  dispatcher = Dispatcher(
      operation(index), cache=Cache(ttl=600), runtime=runtime)
  dispatcher.run(rows(1, 99))
  again = dispatcher.run(rows(99, 1))
  assert [found(s) for s in again] == [None, 'id-1']
  assert len(index.fetches) == 1
  dispatcher.close()


@pytest.mark.parametrize(
    'row, error_type',
    [({'id': None}, 'MissingId'), ({}, 'MissingId'), ({'id': 5}, 'IdType'),
     ({'id': ''}, 'IdEmpty'), ({'id': 'ü'}, 'IdNotAscii'),
     ({'id': 'x' * 513}, 'IdTooLong'),
     ({'id': 'a', 'record': 1}, 'OutputFieldTaken'),
     ([1], 'ElementType')],
    ids=str)  # yapf: disable
def test_what_is_no_id_is_refused_with_its_reason(
    look_up, index, row, error_type):
  answers = look_up([row, {'id': 'id-1'}])
  (failure,) = answers[0].failures
  assert (failure.error_type, failure.stage) == (error_type, 'encode')
  assert found(answers[1]) == 'id-1'
  if isinstance(row, dict) and row:
    (block,) = look_up([pa.RecordBatch.from_pylist([row])])
    assert [f.error_type for f in block.failures] == [error_type]


def test_rows_of_a_block_are_looked_up_like_single_records(look_up, index):
  batch = pa.RecordBatch.from_pylist([
      {'id': 'id-1', 't': ''}, {'id': None, 't': ''}, {'id': 'x', 't': 'ns'},
      {'id': 'id-1', 't': 'ü'}, {'id': 'id-1', 't': None},
      {'id': 'id-2', 't': ''}])  # yapf: disable
  (submission,) = look_up([batch], namespace='{t}')
  assert {
      row: record.id for row, record in submission.values.items()
  } == {
      0: 'id-1', 2: 'x', 5: 'id-2'
  }
  assert {(f.row, f.error_type) for f in submission.failures} == {
      (1, 'MissingId'), (3, 'NamespaceNotAscii'), (4, 'MissingNamespaceField')
  }


def test_dictionary_coded_ids_are_looked_up(look_up):
  column = pa.array(['id-1', 'id-2', 'id-1']).dictionary_encode()
  (submission,) = look_up([pa.RecordBatch.from_arrays([column], ['id'])])
  assert [submission.values[i].id for i in range(3)] == ['id-1', 'id-2', 'id-1']


def test_a_namespace_that_does_not_exist_is_not_an_empty_one(look_up, index):
  index.records['empty'] = {}
  answers = look_up([{'id': 'a', 't': 'empty'}, {'id': 'b', 't': 'typo'},
                     {'id': 'c', 't': 'typo'}], namespace='{t}')  # yapf: disable
  assert found(answers[0]) is None
  for submission in answers[1:]:
    (failure,) = submission.failures
    assert "no namespace 'typo'" in failure.message
  with pytest.raises(FatalError, match="no namespace 'typo'"):
    look_up([{'id': 'a'}], namespace='typo')
  (missing,) = look_up([{
      'id': 'a'
  }],
                       namespace='typo',
                       on_missing_namespace='empty')
  assert found(missing) is None


def test_an_index_of_documents_is_not_looked_up(index, look_up):
  index.dimension, index.metric = None, None
  with pytest.raises(FatalError, match='document'):
    look_up([{'id': 'a'}])


def test_an_answer_that_is_unreadable_is_tried_again(index, runtime):
  index.reply = b'\x0a\x05ab'
  dispatcher = Dispatcher(
      operation(index), Tuning(backoff=0.001, deadline=0.05), runtime=runtime)
  with pytest.raises(Exception, match='the answer is unreadable'):
    dispatcher.run(rows(1))
  dispatcher.close()


# ------------------------------------------------------------------ transform


@pytest.mark.parametrize(
    'arguments, error, says',
    [
        ({'index': 'Docs'}, ValueError, 'index'),
        ({'id_field': None}, TypeError, 'id_field'),
        ({'id_field': ''}, ValueError, 'id_field'),
        ({'output_field': 'id'}, ValueError, 'output_field'),
        ({'namespace': 3}, TypeError, 'namespace'),
        ({'include_values': 'yes'}, TypeError, 'include_values'),
        ({'on_missing': 'skip'}, ValueError, 'on_missing'),
        ({'on_missing_namespace': 'skip'}, ValueError, 'on_missing_namespace'),
        ({'requests_per_second': -1}, ValueError, 'requests_per_second'),
        ({'cache': 60}, TypeError, 'cache'),
        ({'connection': 5}, TypeError, 'connection'),
        ({'ids': 3}, TypeError, 'ids'),
    ],
    ids=str)  # yapf: disable
def test_a_mistake_is_named_at_construction(arguments, error, says):
  with pytest.raises(error, match=says):
    LookupPinecone(**{'index': 'docs'} | arguments)


def test_the_operation_is_equal_to_its_copies_and_holds_no_secret():
  made = operation(namespace=lambda row: row['ns'], connection='a.b')
  data = pickle.dumps(made)
  assert pickle.loads(data) == made
  assert API_KEY.encode() not in data
  shown = LookupPinecone('docs', namespace='{ns}').display_data()
  assert (shown['index'], shown['namespace']) == ('docs', '{ns}')


class Doc(NamedTuple):
  id: str


def test_event_times_stay_and_lookups_chain(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p
        | beam.Create([({'id': 'id-1'}, 5), (Doc('id-2'), 6),
                       ({'id': 'nobody'}, 7)])
        | beam.Map(lambda pair: TimestampedValue(*pair))
        | LookupPinecone('docs', connection=index.host)
        | 'again' >> LookupPinecone(
            'docs', output_field='more', connection=index.host)
        | beam.Map(
            lambda e,
            t=beam.DoFn.TimestampParam:
            (e if isinstance(e, dict) else e.as_dict(), float(t)))
        | beam.Map(
            lambda pair: (
                pair[0]['record'] and pair[0]['record'].metadata,
                pair[0]['more'] and pair[0]['more'].id,
                pair[1])))  # yapf: disable
    assert_that(
        out,
        equal_to([({
            'n': 1.0
        }, 'id-1', 5.0), ({
            'n': 2.0
        }, 'id-2', 6.0), (None, None, 7.0)]))


def test_rows_with_a_schema_keep_one(index):
  with beam.Pipeline(runner='FnApiRunner') as p:
    found = (
        p | beam.Create([beam.Row(id='id-1'), beam.Row(id='nobody')])
        | LookupPinecone('docs', connection=index.host))
    out = found | beam.Reshuffle() | beam.Map(
        lambda row: row.record and (row.record.id, row.record.values.tolist()))
    assert_that(out, equal_to([('id-1', [1.0, 1.0]), None]))


@pytest.mark.parametrize('on_missing', ['null', 'separate', 'fail'])
def test_a_block_gets_a_column_of_records(index, on_missing):
  batch = pa.record_batch({'id': ['id-1', 'nobody', 'id-2']})
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create([batch])
        | LookupPinecone(
            'docs',
            on_missing=on_missing,
            on_error='collect',
            connection=index.host))
    records = [{
        'id': f'id-{i}',
        'values': [1.0, float(i)],
        'sparse_values': None,
        'metadata': f'{{"n":{i}.0}}'
    } for i in (1, 2)]
    expected = list(records)
    if on_missing == 'null':
      expected.insert(1, None)
    out = result | beam.Reshuffle() | beam.Map(
        lambda b: b.column('record').to_pylist())
    assert_that(out, equal_to([expected]), 'found')
    missing = result.missing | 'm' >> beam.Map(lambda b: b['id'].to_pylist())
    assert_that(
        missing,
        equal_to([['nobody']] if on_missing == 'separate' else []),
        'missing')
    failed = result.failed | 'f' >> beam.Map(lambda f: f.key)
    assert_that(
        failed, equal_to(['nobody'] if on_missing == 'fail' else []), 'failed')


def test_columns_are_the_same_whatever_was_found(index):
  batch = pa.record_batch({'id': ['nobody']})
  full = pa.record_batch({'id': ['id-1']})
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([batch, full])
        | LookupPinecone('docs', connection=index.host)
        | beam.Map(lambda b: str(b.schema)) | beam.Distinct()
        | beam.combiners.Count.Globally())
    assert_that(out, equal_to([1]))


def test_a_chunk_gets_its_record_in_its_metadata(index):
  chunk = types.Chunk(types.Content('text'), id='id-1', metadata={'k': 'v'})
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([chunk])
        | LookupPinecone('docs', connection=index.host)
        | beam.Map(
            lambda c:
            (c.id, c.metadata['k'], c.metadata['record'].values.tolist())))
    assert_that(out, equal_to([('id-1', 'v', [1.0, 1.0])]))
  assert chunk.metadata == {'k': 'v'}
