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
"""WriteToPinecone against the emulator, checked by what the index then holds.

What every sink has to keep is in the conformance suite; here is what only
Pinecone has.
"""

import pathlib
import re

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from pinecone import Pinecone

from beam_connector_base.dispatcher import Dispatcher
from beam_pinecone import PineconeConnection
from beam_pinecone import Tuning
from beam_pinecone import WriteToPinecone

INDEXES = {
    'docs': {
        'dimension': 4, 'metric': 'cosine'
    },
    'hybrid': {
        'dimension': 4, 'metric': 'dotproduct'
    },
    'copy-of-docs': {
        'dimension': 4, 'metric': 'dotproduct'
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
DOCS = pa.table({
    'id': ['a', 'b'],
    'values': pa.array([[1, 2, 3, 4], [4, 3, 2, 1]], pa.list_(pa.float32())),
    'tenant': ['x', 'y'],
    'title': ['one', 'two'],
})
ROW = {'id': 'a', 'values': [1.0, 2.0, 3.0, 4.0]}


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed({'$indexes': INDEXES})
  pinecone.clear_log()
  return pinecone


def write(elements, name='docs', **arguments):
  """Writes in a pipeline; returns nothing, the index tells."""
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = p | beam.Create(elements) | WriteToPinecone(name, **arguments)


def refuse(elements, expected, name='docs', **arguments):
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p | beam.Create(elements)
        | WriteToPinecone(name, on_error='collect', **arguments))
    failed = result.failed | beam.Map(lambda f: (f.key, f.error_type, f.stage))
    assert_that(failed, equal_to(expected))


def test_an_index_is_looked_up_once_and_only_written_to(index):
  write([ROW])
  operations = [entry.operation for entry in index.log()]
  assert operations == ['describe_index', 'describe_index_stats', 'upsert']


def test_what_is_written_is_found_by_the_official_client(index):
  vectors = np.random.default_rng(7).normal(size=(50, 4)).astype(np.float32)
  write([{
      'id': f'v{i}', 'values': vector, 'n': i
  } for i, vector in enumerate(vectors)])
  found = Pinecone().index(name='docs').query(
      vector=vectors[17].tolist(), top_k=1, include_metadata=True)
  assert found.matches[0].id == 'v17'
  assert found.matches[0].metadata == {'n': 17.0}


def test_dense_sparse_and_hybrid_vectors_are_written(index):
  sparse = {'indices': [7, 2], 'values': [0.5, 0.25]}
  write([ROW, ROW | {'id': 'b', 'sparse_values': sparse}], 'hybrid')
  write([{'id': 's', 'sparse_values': ([1, 2**32 - 1], [1.0, 2.0])}], 'terms')
  batch = pa.RecordBatch.from_pydict({
      'id': ['c'], 'values': [[1.0, 0.0, 0.0, 0.0]], 'sparse_values': [sparse]
  })
  write([batch], 'hybrid')
  stored = index.snapshot()
  assert sorted(stored['hybrid']['']) == ['a', 'b', 'c']
  assert stored['hybrid']['']['a']['sparse'] is None
  assert stored['hybrid']['']['b']['sparse'] == stored['hybrid']['']['c'][
      'sparse']
  assert stored['terms']['']['s']['sparse'] == {
      'indices': [1, 2**32 - 1], 'values': [1.0, 2.0]
  }


def test_the_emulator_would_have_refused_what_we_refuse(index):
  """Each of these, sent as it is, costs its neighbours the request."""
  bad = [
      ('zero', ROW | {
          'values': [0.0] * 4
      }, 'ZeroVector'),
      ('short', ROW | {
          'values': [1.0]
      }, 'WrongDimension'),
      ('nan', ROW | {
          'values': [float('nan')] * 4
      }, 'VectorNotFinite'),
      ('sparse', ROW | {
          'sparse_values': ([1], [1.0])
      }, 'SparseNotSupported'),
      ('nested', ROW | {
          'x': {
              'a': 1
          }
      }, 'MetadataType'),
      ('large', ROW | {
          'x': 'y' * 41_000
      }, 'MetadataTooLarge'),
  ]
  elements = [row | {'id': key} for key, row, _ in bad]
  refuse([*elements, ROW],
         [(key, error_type, 'encode') for key, _, error_type in bad])
  assert list(index.snapshot()['docs']['']) == ['a']
  key = index.environment()['PINECONE_API_KEY']
  client = Pinecone(api_key=key).index(host=index.url)
  for _, row, _ in bad[:2]:
    with pytest.raises(Exception, match='(?i)vector'):
      client.upsert(vectors=[dict(row)])


def test_a_request_counts_its_bytes_as_the_service_does(index):
  text = 'x' * 30_000
  write([ROW | {
      'id': f'id-{i}', 'text': text
  } for i in range(150)],
        namespace='n')
  sizes = [entry.nbytes for entry in index.log('upsert')]
  assert len(index.snapshot()['docs']['n']) == 150
  assert max(sizes) <= 2_000_000
  assert max(sizes) > 2_000_000 - 31_000


def test_an_older_version_does_not_replace_a_newer_one(index):
  rows = [ROW | {'version': v, 'n': v} for v in (2, 9, 4)]
  batch = pa.RecordBatch.from_pylist(rows)
  write([batch], version_field='version')
  assert index.snapshot()['docs']['']['a']['metadata'] == {'n': 9.0}


@pytest.mark.parametrize(
    'name, arguments, says',
    [
        ('nothing', {}, "no index 'nothing'"),
        ('papers', {}, 'document index'),
        (
            'papers',
            {
                'by_host': True
            },
            'document index',
        ),
    ],
    ids=['missing', 'documents', 'documents by host'])
def test_an_index_that_cannot_be_written_is_named_with_its_remedy(
    index, name, arguments, says):
  connection = None
  if arguments.get('by_host'):
    connection = PineconeConnection(host=Pinecone().indexes.describe(name).host)
  with pytest.raises(Exception) as raised:
    write([ROW], name, connection=connection)
  assert says in str(raised.value)
  assert name in str(raised.value)
  if arguments.get('by_host'):
    assert index.count('upsert').requests >= 1
  else:
    assert index.count('upsert').requests == 0


def test_a_wrong_key_stops_the_pipeline_without_being_shown(index, monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', 'wrong-key-0815')
  with pytest.raises(Exception, match='API key') as raised:
    write([ROW])
  assert 'wrong-key' not in str(raised.value)


def test_a_host_that_answers_nothing_stops_the_pipeline(index):
  with pytest.raises(Exception, match="'docs'.*could not be reached"):
    write([ROW],
          connection='http://127.0.0.1:9',
          tuning=Tuning(open_deadline=0.5))


def test_one_connection_is_opened_for_many_bundles(index):
  operation = WriteToPinecone('docs')._operation
  dispatchers = [Dispatcher(operation) for _ in range(4)]
  for i, dispatcher in enumerate(dispatchers):
    bundle = dispatcher.bundle()
    bundle.submit(ROW | {'id': f'id-{i}'})
    bundle.drain()
  for dispatcher in dispatchers:
    dispatcher.close()
  assert index.count('describe_index').requests == 1
  assert index.count('describe_index_stats').requests == 1
  assert len(index.snapshot()['docs']['']) == 4


README = (
    pathlib.Path(__file__).parents[2] / 'packages/beam-pinecone/README.md')


def _examples():
  return re.findall('```python\n(.*?)```', README.read_text(), re.DOTALL)


@pytest.mark.parametrize('number', range(len(_examples())))
def test_the_examples_of_the_readme_run(index, tmp_path, monkeypatch, number):
  (tmp_path / 'docs').mkdir()
  pq.write_table(DOCS, tmp_path / 'docs' / 'docs.parquet')
  monkeypatch.chdir(tmp_path)
  code = _examples()[number]
  exec(compile(code, f'README, example {number}', 'exec'), {})
  if 'ReadFromParquet' in code:
    assert index.snapshot()['docs'] == {
        'x': {
            'a': {
                'values': [1.0, 2.0, 3.0, 4.0],
                'sparse': None,
                'metadata': {
                    'title': 'one'
                }
            }
        },
        'y': {
            'b': {
                'values': [4.0, 3.0, 2.0, 1.0],
                'sparse': None,
                'metadata': {
                    'title': 'two'
                }
            }
        },
    }
