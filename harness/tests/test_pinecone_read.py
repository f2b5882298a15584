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
"""ReadFromPinecone and ReadAllFromPinecone against the emulator."""

import json

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms.window import SlidingWindows
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from pinecone import Pinecone

from beam_connector_base.dispatcher import Dispatcher
from beam_harness.faults import FaultRule
from beam_pinecone import PineconeConnection
from beam_pinecone import Tuning
from beam_pinecone import WriteToPinecone
from beam_pinecone.operations.export import FetchVectors
from beam_pinecone.operations.export import Ids
from beam_pinecone.read import PineconeReadRequest
from beam_pinecone.read import PineconeVector
from beam_pinecone.read import ReadAllFromPinecone
from beam_pinecone.read import ReadFromPinecone

INDEXES = {
    'docs': {
        'dimension': 3, 'metric': 'cosine'
    },
    'more': {
        'dimension': 3, 'metric': 'dotproduct'
    },
    'copy': {
        'dimension': 3, 'metric': 'dotproduct'
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
LANGS = ('de', 'en', 'fr')


def records(n, name='id'):
  return {
      f'{name}-{i:04}': {
          'values': [1.0 + i, 0.5, -1.0],
          'metadata': {
              'n': float(i), 'lang': LANGS[i % 3]
          },
      } for i in range(n)
  }


MIXED = {
    'plain': {
        'values': [1.0, 2.0, 3.0]
    },
    'hybrid': {
        'values': [1.0, 2.0, 4.0],
        'sparse': {
            'indices': [7, 2**32 - 1], 'values': [0.5, 0.25]
        },
        'metadata': {
            'x': 'text',
            'y': 2.5,
            'z': True,
            'tags': ['a', 'b'],
            'ünicode "key"': 'ü\n\U0001f600',
        }
    },
    'other types': {
        'values': [0.0, 0.0, 1.0],
        'metadata': {
            'x': 1.0, 'y': 'text', 'z': ['c'], 'tags': False
        }
    },
}


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed({'$indexes': INDEXES})
  pinecone.clear_log()
  return pinecone


def expect(read, expected):
  """Runs a pipeline whose only source is `read`; checks (namespace, id)s."""
  with beam.Pipeline(runner='FnApiRunner') as p:
    got = p | read | beam.FlatMap(_names)
    assert_that(got, equal_to(expected))


def _names(element):
  if isinstance(element, pa.RecordBatch):
    return list(
        zip(
            element['namespace'].to_pylist(),
            element['id'].to_pylist(),
            strict=True))
  return [(element.namespace, element.id)]


def names(n, namespace='', name='id'):
  return [(namespace, id) for id in records(n, name)]


# ---------------------------------------------------------------- what is read


def test_records_come_as_rows_with_all_they_have(index):
  index.seed({'more': {'ns': MIXED}})
  with beam.Pipeline(runner='FnApiRunner') as p:
    rows = p | ReadFromPinecone('more')
    assert rows.element_type is PineconeVector
    plain = rows | beam.Map(_as_stored)
    assert_that(
        plain,
        equal_to([('ns', id, _stored(vector)) for id, vector in MIXED.items()]))


def _as_stored(row):
  assert row.values.dtype == np.float32
  sparse = row.sparse_values
  return row.namespace, row.id, (
      row.values.tolist(),
      sparse and (sparse.indices.tolist(), sparse.values.tolist()),
      row.metadata)


def _stored(vector):
  sparse = vector.get('sparse')
  return (
      vector['values'],
      sparse and (sparse['indices'], sparse['values']),
      vector.get('metadata'))


def test_records_come_as_blocks_of_one_schema(index):
  index.seed({'more': {'ns': MIXED, 'other': {'a': MIXED['plain']}}})
  with beam.Pipeline(runner='FnApiRunner') as p:
    blocks = p | ReadFromPinecone('more', as_blocks=True)
    assert blocks.element_type is pa.RecordBatch
    assert_that(blocks | beam.FlatMap(_check_block), equal_to([*MIXED, 'a']))


def _check_block(block):
  assert [str(field.type) for field in block.schema] == [
      'string',
      'string',
      'fixed_size_list<item: float>[3]',
      'struct<indices: list<item: uint32>, values: list<item: float>>',
      'string'
  ]
  for row in block.to_pylist():
    stored = MIXED.get(row['id'], MIXED['plain'])
    assert row['values'] == stored['values']
    assert row['sparse_values'] == stored.get('sparse')
    expected = stored.get('metadata')
    assert json.loads(row['metadata'] or 'null') == expected
    yield row['id']


@pytest.mark.parametrize('as_blocks', [False, True])
def test_what_is_read_can_be_written_again_as_it_was(index, as_blocks):
  index.seed({'more': {'ns': MIXED, '': records(300)}})
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = (
        p | ReadFromPinecone('more', as_blocks=as_blocks)
        | WriteToPinecone('copy', namespace='{namespace}'))
  stored = index.snapshot()
  assert stored['copy'] == stored['more']


@pytest.mark.parametrize('as_blocks', [False, True])
def test_a_sparse_index_is_read(index, as_blocks):
  terms = {
      'a': {
          'sparse': {
              'indices': [1], 'values': [2.0]
          }, 'metadata': {
              'x': 'y'
          }
      }
  }
  index.seed({'terms': {'': terms}})
  with beam.Pipeline(runner='FnApiRunner') as p:
    got = (
        p | ReadFromPinecone('terms', as_blocks=as_blocks)
        | beam.Map(lambda e: e.to_pylist()[0] if as_blocks else e._asdict())
        | beam.Map(
            lambda row: (
                row['id'], row['values'],
                [list(row['sparse_values'][k]) for k in ('indices', 'values')]
                if as_blocks else [list(v) for v in row['sparse_values']])))
    assert_that(got, equal_to([('a', None, [[1], [2.0]])]))


def test_columns_narrow_what_is_read(index):
  index.seed({'docs': {'': records(2)}})
  with beam.Pipeline(runner='FnApiRunner') as p:
    vectors = p | 'V' >> ReadFromPinecone('docs', columns=['values'])
    assert_that(
        vectors | 'V1' >>
        beam.Map(lambda r: (r.values is not None, r.metadata, r.sparse_values)),
        equal_to([(True, None, None)] * 2),
        label='values')
    metadata = p | 'M' >> ReadFromPinecone(
        'docs', columns=['metadata'], as_blocks=True)
    assert_that(
        metadata | 'M1' >> beam.Map(lambda b: b.schema.names),
        equal_to([['id', 'namespace', 'metadata']]),
        label='metadata')


@pytest.mark.parametrize('as_blocks', [False, True])
def test_ids_alone_are_listed_and_not_fetched(index, as_blocks):
  index.seed({'docs': {'': records(250)}})
  expect(ReadFromPinecone('docs', columns=(), as_blocks=as_blocks), names(250))
  assert index.count('fetch').requests == 0
  assert index.count('list').requests == 3


# ------------------------------------------------------------ which are read


@pytest.mark.parametrize(
    'n, lists', [(0, 0), (1, 1), (99, 1), (100, 1), (101, 2), (1234, 13)])
def test_every_record_is_read_once_whatever_their_number(index, n, lists):
  if n:
    index.seed({'docs': {'': records(n)}})
  expect(ReadFromPinecone('docs'), names(n))
  assert index.count('list').requests == lists
  assert index.count('fetch').records == n


def test_an_empty_namespace_gives_nothing(index):
  index.seed({'docs': {'x': {}, '': {}}})
  expect(ReadFromPinecone('docs'), [])
  expect(ReadFromPinecone('docs', namespaces=['x', '']), [])


@pytest.mark.parametrize('shown', ['', '__default__'])
def test_all_namespaces_are_read_unless_some_are_named(index, shown):
  index.seed({
      '$options': {
          'default_namespace': shown
      },
      'docs': {
          '': records(3), 'x': records(120), 'y': records(1, 'y')
      }
  })
  expect(
      ReadFromPinecone('docs'), names(3) + names(120, 'x') + names(1, 'y', 'y'))
  expect(
      ReadFromPinecone('docs', namespaces=['y', '__default__', '']),
      names(3) + names(1, 'y', 'y'))


def test_more_namespaces_than_a_page_are_listed_side_by_side(index):
  index.seed({'docs': {f'n{i:03}': records(1) for i in range(230)}})
  index.faults([FaultRule(operation='list', kind='latency', seconds=0.02)])
  expect(
      ReadFromPinecone('docs'), [(f'n{i:03}', 'id-0000') for i in range(230)])
  assert index.count('list_namespaces').requests == 3
  assert index.max_in_flight('list') > 1


def test_prefixes_choose_records_once(index):
  index.seed({'docs': {'': records(300), 'x': records(20, 'other')}})
  expected = [('', f'id-{i:04}') for i in range(100, 200)]
  expect(ReadFromPinecone('docs', prefix='id-01'), expected)
  expect(
      ReadFromPinecone('docs', prefix=['id-01', 'id-012', 'other']),
      expected + names(20, 'x', 'other'))


def test_a_filter_chooses_records_page_by_page(index):
  index.seed({
      'docs': {
          '': records(2500), 'x': records(3)
      },
  })
  expected = [('', f'id-{i:04}') for i in range(0, 2500, 3)]
  expect(
      ReadFromPinecone('docs', filter={'lang': 'de'}),
      expected + [('x', 'id-0000')])
  assert index.count('fetch').requests == 0
  assert index.count('list').requests == 0


@pytest.mark.parametrize('columns', [(), ('values', 'metadata')])
def test_pages_of_a_filter_go_on_where_the_last_one_ended(index, columns):
  index.seed({
      '$options': {
          'max_result_bytes': 10_000
      }, 'docs': {
          '': records(700)
      }
  })
  expect(
      ReadFromPinecone('docs', filter={'n': {
          '$gte': 100
      }}, columns=columns),
      names(700)[100:])
  assert index.count('fetch_by_metadata').requests > 3


def test_requests_of_one_pcollection_name_their_indexes(index):
  index.seed({
      'docs': {
          '': records(150), 'x': records(2)
      },
      'more': {
          '': records(3, 'm')
      }
  })
  requests = [
      PineconeReadRequest('docs', namespaces=['x']), {
          'index': 'docs', 'prefix': 'id-010'
      },
      beam.Row(index='more', filter={'lang': 'en'})
  ]
  with beam.Pipeline(runner='FnApiRunner') as p:
    got = (
        p | beam.Create(requests) | ReadAllFromPinecone()
        | beam.FlatMap(_names))
    assert_that(
        got, equal_to(names(2, 'x') + names(150)[100:110] + [('', 'm-0001')]))


def test_windows_and_timestamps_are_those_of_the_request(index):
  index.seed({'docs': {'': records(2)}, 'more': {'': records(1, 'm')}})
  requests = [(PineconeReadRequest('docs'), 7),
              (PineconeReadRequest('more', filter={'lang': 'de'}), 18)]
  with beam.Pipeline(runner='FnApiRunner') as p:
    got = (
        p | beam.Create(requests)
        | beam.MapTuple(TimestampedValue)
        | beam.WindowInto(SlidingWindows(10, 5))
        | ReadAllFromPinecone()
        | beam.ParDo(_Timed()))
    assert_that(
        got,
        equal_to([(id, at, start)
                  for id, at, starts in (('id-0000', 7,
                                          (0, 5)), ('id-0001', 7, (0, 5)),
                                         ('m-0000', 18, (10, 15)))
                  for start in starts]))


class _Timed(beam.DoFn):
  def process(
      self, row, at=beam.DoFn.TimestampParam, window=beam.DoFn.WindowParam):
    yield row.id, int(at), int(window.start)


def test_a_read_is_bounded_and_in_the_global_window(index):
  index.seed({'docs': {'': records(2)}})
  with beam.Pipeline(runner='FnApiRunner') as p:
    rows = p | ReadFromPinecone('docs')
    assert rows.is_bounded
    assert rows.windowing.is_default()
    at = rows | beam.Map(lambda r, t=beam.DoFn.TimestampParam: t)
    assert_that(at, equal_to([MIN_TIMESTAMP] * 2))


# ------------------------------------------------------------ what goes wrong


def test_faults_on_the_way_lose_and_repeat_nothing(index):
  index.seed({'docs': {'': records(650), 'x': records(30)}})
  index.faults([
      FaultRule(operation='list_namespaces', kind='reset', first=1),
      FaultRule(operation='list', kind='error', grpc='UNAVAILABLE', every=3),
      FaultRule(operation='fetch', kind='reset', after_effect=True, every=2),
      FaultRule(operation='describe_namespace', kind='error', first=1),
  ])
  expect(
      ReadFromPinecone('docs', tuning=Tuning(backoff=0.01)),
      names(650) + names(30, 'x'))
  index.faults([
      FaultRule(operation='fetch_by_metadata', kind='throttle', first=1),
  ])
  expect(
      ReadFromPinecone('docs', namespaces=['x'], filter={'n': 3}),
      [('x', 'id-0003')])


def test_a_listing_goes_on_at_the_page_that_failed(index):
  index.seed({'docs': {'': records(500)}})
  index.faults([
      FaultRule(
          operation='list', kind='error', grpc='UNAVAILABLE', skip=3, count=2)
  ])
  expect(ReadFromPinecone('docs', tuning=Tuning(backoff=0.01)), names(500))
  # Five pages, of which one was asked for three times.
  assert index.count('list').requests == 7


def test_an_outage_fails_the_pipeline(index):
  index.seed({'docs': {'': records(1)}})
  index.faults([FaultRule(operation='fetch', kind='error', grpc='UNAVAILABLE')])
  with pytest.raises(Exception, match='gave up'):
    expect(ReadFromPinecone('docs', tuning=Tuning(deadline=0.2)), [])


def test_answers_that_would_be_too_large_are_asked_for_in_parts(index):
  index.seed({
      '$options': {
          'max_result_bytes': 20_000
      },
      'docs': {
          '': {
              f'id-{i:04}': {
                  'values': [1.0, 2.0, 3.0], 'metadata': {
                      'text': 'x' * 700
                  }
              } for i in range(200)
          }
      }
  })
  expect(ReadFromPinecone('docs'), names(200))


def test_a_request_has_as_many_ids_as_its_answer_may_have(index):
  """1,536 dimensions are 6 KB each: less than 650 of them make 4 MB."""
  index.seed({'$indexes': {'wide': {'dimension': 1536, 'metric': 'cosine'}}})
  vectors = np.ones((1500, 1536), np.float32)
  batch = pa.RecordBatch.from_pydict({
      'id': [f'id-{i:04}' for i in range(1500)],
      'values':
          pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 1536)
  })
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = p | beam.Create([batch]) | WriteToPinecone('wide')
  expect(ReadFromPinecone('wide', as_blocks=True), names(1500))
  counts = index.count('fetch')
  assert counts.records == 1500
  assert 3 <= counts.requests <= 4


def test_ids_that_are_gone_by_the_time_they_are_fetched_are_left_out(index):
  index.seed({'docs': {'': records(3)}})
  dispatcher = Dispatcher(FetchVectors('docs', PineconeConnection()))
  (submission,) = dispatcher.run(
      [Ids('docs', '', ['id-0000', 'gone', 'id-0002'])])
  (found,) = submission.values.values()
  assert [record.id for record in found] == ['id-0000', 'id-0002']
  (nothing,) = dispatcher.run([Ids('docs', '', ['gone'])])
  assert nothing.failures is None and not nothing.values
  dispatcher.close()


@pytest.mark.parametrize('arguments', [{}, {'filter': {'n': 1}}])
def test_a_namespace_that_is_named_has_to_exist(index, arguments):
  index.seed({'docs': {'x': records(2)}})
  with pytest.raises(Exception, match="no namespace 'y'.*check the name"):
    expect(ReadFromPinecone('docs', namespaces=['x', 'y'], **arguments), [])


@pytest.mark.parametrize('by_host', [False, True])
@pytest.mark.parametrize(
    'arguments', [{}, {
        'filter': {
            'n': 1
        }
    }, {
        'namespaces': ['']
    }], ids=str)
def test_a_document_index_fails_loudly(index, by_host, arguments):
  connection = None
  if by_host:
    connection = Pinecone().indexes.describe('papers').host
  with pytest.raises(Exception, match="'papers' is a document index"):
    expect(ReadFromPinecone('papers', connection=connection, **arguments), [])


def test_an_index_that_does_not_exist_is_named(index):
  with pytest.raises(Exception, match="no index 'nothing'"):
    expect(ReadFromPinecone('nothing'), [])


def test_a_request_that_is_none_fails_the_pipeline(index):
  with pytest.raises(Exception, match='namespace'):
    with beam.Pipeline(runner='FnApiRunner') as p:
      _ = p | beam.Create([{
          'index': 'docs', 'namespace': 'x'
      }]) | ReadAllFromPinecone()


def test_the_same_is_read_as_by_the_official_client(index):
  index.seed({'more': {'': {**records(230), **MIXED}}})
  client = Pinecone().index(name='more')
  theirs = {}
  for page in client.list():
    ids = [item.id for item in page.vectors]
    for id, vector in client.fetch(ids=ids).vectors.items():
      sparse = vector.sparse_values
      theirs[id] = (
          list(vector.values),
          sparse and (list(sparse.indices), list(sparse.values)),
          vector.metadata or None)
  with beam.Pipeline(runner='FnApiRunner') as p:
    rows = p | ReadFromPinecone('more') | beam.Map(_as_stored)
    assert_that(
        rows, equal_to([('', id, vector) for id, vector in theirs.items()]))
