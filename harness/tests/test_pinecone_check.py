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
"""`python -m beam_pinecone check|lock` against the emulator."""

import json
import os
import subprocess
import sys

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pinecone import Pinecone

from beam_connector_base.schema import Schema
from beam_pinecone import WriteToPinecone
from beam_pinecone.__main__ import main

INDEXES = {
    'docs': {
        'dimension': 2, 'metric': 'cosine'
    },
    'wide': {
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
STORED = {'values': [1.0, 2.0]}


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed({
      '$indexes': INDEXES,
      'docs': {
          '': {
              'a': STORED
          }, 'x': {
              'a': STORED, 'b': STORED
          }
      }
  })
  pinecone.clear_log()
  return pinecone


def run(capsys, *argv):
  """Exit code and JSON report."""
  code = main([*argv, '--json'])
  printed = capsys.readouterr()
  assert os.environ['PINECONE_API_KEY'] not in printed.out + printed.err
  return code, json.loads(printed.out)


def findings(report):
  return {each['name']: each for each in report['findings']}


def jsonl(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


@pytest.mark.parametrize(
    'name, details',
    [
        (
            'docs',
            {
                'dimension': 2,
                'metric': 'cosine',
                'vector_type': 'dense',
                'vectors': 3,
                'namespaces': 2
            }),
        (
            'terms',
            {
                'dimension': None,
                'metric': 'dotproduct',
                'vector_type': 'sparse',
                'vectors': 0,
                'namespaces': 0
            }),
    ])
def test_an_index_is_described_and_nothing_is_written(
    index, capsys, name, details):
  before = index.snapshot()
  code, report = run(capsys, 'check', name)
  assert code == 0
  assert report['ok'] is True
  assert findings(report)['index']['details'] == details
  assert index.snapshot() == before
  operations = {entry.operation for entry in index.log()}
  assert operations == {'describe_index', 'describe_index_stats'}


@pytest.mark.parametrize(
    'namespace, says, vectors',
    [('x', "'x' holds 2", 2), ('y', "'y' does not exist yet", 0),
     ('', 'the default namespace holds 1', 1)])
@pytest.mark.parametrize('shown', ['', '__default__'])
def test_a_namespace_is_looked_for(
    index, capsys, namespace, says, vectors, shown):
  index.seed({'$options': {'default_namespace': shown}})
  code, report = run(capsys, 'check', 'docs', '--namespace', namespace)
  found = findings(report)['namespace']
  assert code == 0
  assert says in found['message']
  assert found['details']['vectors'] == vectors


def test_a_sample_is_counted_as_the_write_then_sends_it(
    index, capsys, tmp_path):
  rows = [{
      'id': f'id-{i}',
      'values': [1.0, i],
      'tenant': f't{i % 3}',
      'text': 'x' * 500
  } for i in range(9000)]
  path = jsonl(tmp_path / 'sample.jsonl', rows)
  code, report = run(
      capsys, 'check', 'docs', '--namespace', '{tenant}', '--sample', path)
  found = findings(report)['sample']['details']
  assert code == 0
  assert found['records'] == 9000
  assert found['namespaces'] == {'t0': 3000, 't1': 3000, 't2': 3000}
  assert index.count('upsert').requests == 0
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = (
        p | beam.Create(rows, reshuffle=False)
        | WriteToPinecone('docs', namespace='{tenant}'))
  sent = index.log('upsert')
  assert found['requests'] == len(sent)
  assert found['bytes'] == sum(entry.nbytes for entry in sent)


def test_rejects_are_counted_by_kind_with_examples(index, capsys, tmp_path):
  path = tmp_path / 'sample.ndjson'
  good = {'id': 'a', 'values': [1.0, 2.0]}
  rows = [good, {'id': 'b', 'values': [1.0]}, {'values': [1.0, 2.0]}, good]
  jsonl(path, rows)
  with path.open('a') as file:
    file.write('\n{not json\n[1]\n')
  code, report = run(capsys, 'check', 'docs', '--sample', str(path))
  found = findings(report)['sample']
  assert code == 1
  assert report['ok'] is False
  assert found['details']['refused'] == {
      'WrongDimension': 1, 'MissingId': 1, 'JSON': 2
  }
  assert "record 1 ('b')" in found['details']['examples']['WrongDimension'][0]
  assert 'dimension 2' in found['details']['examples']['WrongDimension'][0]
  # The id twice: two requests, one after the other.
  assert found['details']['requests'] == 2


@pytest.mark.parametrize('rows', [None, 1, 4, 100])
def test_a_parquet_sample_is_read_in_blocks(index, capsys, tmp_path, rows):
  table = pa.table({
      'key': [f'id-{i}' for i in range(6)],
      'values':
          pa.FixedSizeListArray.from_arrays(
              pa.array(np.arange(12, dtype=np.float32)), 2),
      'n': [None, *range(5)],
  })
  path = tmp_path / 'sample.parquet'
  pq.write_table(table, path, row_group_size=2)
  more = [] if rows is None else ['--rows', str(rows)]
  code, report = run(
      capsys, 'check', 'docs', '--sample', str(path), '--id-field', 'key', *more)
  assert code == 0
  found = findings(report)['sample']['details']
  assert found['records'] == min(6, rows or 6)


@pytest.mark.parametrize(
    'name, content, says',
    [
        ('sample.jsonl', '', 'holds no record'),
        ('sample.parquet', 'no parquet', 'cannot be read'),
        ('sample.csv', 'id\n', '.jsonl or .parquet'),
        ('missing.jsonl', None, 'cannot be read'),
    ])
def test_a_sample_that_is_none_fails(
    index, capsys, tmp_path, name, content, says):
  path = tmp_path / name
  if content is not None:
    path.write_text(content)
  code, report = run(capsys, 'check', 'docs', '--sample', str(path))
  assert code == 1
  assert says in findings(report)['sample']['message']


@pytest.mark.parametrize(
    'argv, says',
    [
        (['nothing'], "no index 'nothing'"),
        (['papers'], 'document index'),
        (['docs', '--host', 'http://127.0.0.1:9'], 'not reached'),
        (['docs', '--api-key-env', 'NO_SUCH_KEY'], 'NO_SUCH_KEY is not set'),
        (['docs', '--ca-certs', '/no/such.pem', '--host', 'https://a.b'],
         '/no/such.pem'),
    ],
    ids=str)
def test_an_index_that_cannot_be_used_says_why(index, capsys, argv, says):
  code, report = run(capsys, 'check', *argv)
  assert code == 1
  assert [each['ok'] for each in report['findings']] == [False]
  assert says in report['findings'][0]['message']


def test_a_document_index_given_by_its_host_is_recognised(index, capsys):
  host = Pinecone().indexes.describe('papers').host
  code, report = run(capsys, 'check', 'papers', '--host', host)
  assert code == 1
  message = report['findings'][0]['message']
  assert message.count('document index') == 1


def test_a_wrong_key_is_reported_and_not_shown(index, capsys, monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', 'wrong-key-0815')
  assert main(['check', 'docs']) == 1
  printed = capsys.readouterr()
  assert 'API key' in printed.out
  assert 'wrong-key' not in printed.out + printed.err


def test_a_key_may_come_from_a_file(index, capsys, monkeypatch, tmp_path):
  path = tmp_path / 'key'
  path.write_text(os.environ['PINECONE_API_KEY'] + '\n')
  monkeypatch.setenv('PINECONE_API_KEY', 'wrong-key-0815')
  assert main(['check', 'docs', '--api-key-file', str(path)]) == 0


@pytest.mark.parametrize(
    'argv, says',
    [
        (['check', 'Docs'], 'lower-case'),
        (['check', 'docs', '--keep', 'a', '--drop', 'b'], 'keep and drop'),
        (['check', 'docs', '--rows', '0'], 'positive'),
        (['check', 'docs', '--timeout', '-1'], 'timeout'),
        (['check', 'docs', '--host', 'no host'], 'host'),
        ([], 'command'),
    ],
    ids=str)
def test_wrong_arguments_are_named(capsys, argv, says):
  with pytest.raises(SystemExit) as raised:
    main(argv)
  assert raised.value.code == 2
  assert says in capsys.readouterr().err


# ----------------------------------------------------------------------- lock


def test_a_lock_says_what_the_index_is_and_a_write_keeps_to_it(
    index, capsys, tmp_path):
  path = str(tmp_path / 'docs.lock.json')
  assert main(['lock', 'docs', path]) == 0
  assert 'dimension 2' in capsys.readouterr().out
  lock = Schema.load(path)
  assert dict(lock.properties) == {
      'dimension': 2, 'metric': 'cosine', 'vector_type': 'dense'
  }
  code, report = run(capsys, 'check', 'docs', '--lock', path)
  assert code == 0 and findings(report)['lock']['ok']
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = (
        p | beam.Create([{
            'id': 'new', 'values': [1.0, 2.0]
        }])
        | WriteToPinecone('docs', schema=path))
  assert 'new' in index.snapshot()['docs']['']


def test_a_write_names_how_the_index_differs_from_its_lock(
    index, capsys, tmp_path):
  path = str(tmp_path / 'wide.lock.json')
  assert main(['lock', 'wide', path]) == 0
  capsys.readouterr()
  code, report = run(capsys, 'check', 'docs', '--lock', path)
  assert code == 1
  assert findings(report)['lock']['details']['differences'] == [
      'dimension was 3 and is 2', 'metric was dotproduct and is cosine'
  ]
  with pytest.raises(Exception, match='dimension was 3 and is 2'):
    with beam.Pipeline(runner='FnApiRunner') as p:
      _ = (
          p | beam.Create([{
              'id': 'new', 'values': [1.0, 2.0]
          }])
          | WriteToPinecone('docs', schema=path))
  assert 'new' not in index.snapshot()['docs']['']


def test_a_lock_that_cannot_be_made_or_read_says_why(index, capsys, tmp_path):
  assert main(['lock', 'nothing', str(tmp_path / 'x')]) == 1
  assert "no index 'nothing'" in capsys.readouterr().err
  assert not (tmp_path / 'x').exists()
  code, report = run(capsys, 'check', 'docs', '--lock', str(tmp_path / 'no'))
  assert code == 1
  assert 'cannot be read' in findings(report)['lock']['message']
  (tmp_path / 'other').write_text('{}')
  with pytest.raises(ValueError, match='not a schema lock'):
    WriteToPinecone('docs', schema=str(tmp_path / 'other'))


def test_it_runs_as_a_module(index):
  done = subprocess.run(
      [sys.executable, '-m', 'beam_pinecone', 'check', 'docs'],
      capture_output=True,
      check=False,
      text=True,
      env={
          **os.environ, **index.environment()
      })
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('ok ')
