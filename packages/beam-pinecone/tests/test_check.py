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

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_pinecone import API_KEY
from fake_pinecone import FakeIndex

from beam_pinecone import PineconeConnection
from beam_pinecone import check
from beam_pinecone.__main__ import main
from beam_pinecone.encode.layout import Layout


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)


@pytest.fixture
def index():
  with FakeIndex() as fake:
    yield fake


def run(index, sample=None, rows=None, **layout):
  findings = check.check(
      'docs',
      PineconeConnection(host=index.host, timeout=5),
      Layout.of(**layout),
      sample,
      rows)
  return {finding.name: finding for finding in findings}


def jsonl(tmp_path, *lines):
  path = tmp_path / 'sample.jsonl'
  path.write_text(
      '\n'.join(
          line if isinstance(line, str) else json.dumps(line)
          for line in lines))
  return str(path)


ROW = {'id': 'a', 'values': [1.0, 2.0]}


def test_an_index_is_described(index):
  finding = run(index)['index']
  assert finding.ok
  assert 'dense, 2 dimensions, dotproduct' in finding.message
  assert finding.details['dimension'] == 2


@pytest.mark.parametrize(
    'error, says',
    [
        (('UNAUTHENTICATED', 'Unauthorized'), 'API key'),
        (('PERMISSION_DENIED', 'no'), 'role and project'),
        (('UNAVAILABLE', 'no'), 'not reached'),
    ],
    ids=str)
def test_an_index_that_cannot_be_read_says_why(index, error, says):
  index.stats_error = error
  findings = run(index, sample='not looked at')
  assert list(findings) == ['index']
  assert not findings['index'].ok
  assert says in findings['index'].message
  assert API_KEY not in findings['index'].message


def test_an_index_without_dimension_is_one_of_documents():
  with FakeIndex(dimension=None, metric=None, vector_type='dense') as index:
    finding = run(index)['index']
    assert not finding.ok
    assert 'document index' in finding.message


def test_a_template_has_no_namespace_to_look_for(index):
  assert 'namespace' not in run(index, namespace='{tenant}')
  assert 'does not exist yet' in run(index, namespace='x')['namespace'].message


def test_a_sample_is_counted_by_namespace(index, tmp_path):
  rows = [ROW | {'id': str(i), 'tenant': f't{i % 2}'} for i in range(2002)]
  finding = run(index, jsonl(tmp_path, *rows), namespace='{tenant}')['sample']
  assert finding.ok
  assert finding.details['namespaces'] == {'t0': 1001, 't1': 1001}
  assert finding.details['requests'] == 4
  assert index.requests == []


def test_rejects_are_named_with_their_numbers(index, tmp_path):
  path = jsonl(
      tmp_path,
      ROW,
      '{',
      '',
      '5',
      ROW | {
          'id': 'b', 'values': [0.0, 0.0]
      },
      ROW | {
          'id': 'c', 'x': 'y' * 2_000_000
      })
  finding = run(index, path)['sample']
  assert not finding.ok
  assert finding.details['records'] == 5
  assert finding.details['refused'] == {
      'JSON': 2, 'ZeroVector': 1, 'MetadataTooLarge': 1
  }
  examples = finding.details['examples']
  assert examples['ZeroVector'][0].startswith("record 3 ('b'): 'values' is")
  assert len(json.dumps(examples)) < 2_000


def test_a_record_that_fills_a_request_alone_is_refused(tmp_path):
  with FakeIndex(dimension=600_000) as index:
    path = tmp_path / 'sample.parquet'
    values = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ones(600_000, np.float32)), 600_000)
    pq.write_table(pa.table({'id': ['a'], 'values': values}), path)
    finding = run(index, str(path))['sample']
  assert finding.details['refused'] == {'RecordTooLarge': 1}
  assert finding.details['requests'] == 0


def test_rows_of_a_block_are_numbered_through_the_file(index, tmp_path):
  values = pa.FixedSizeListArray.from_arrays(
      pa.array([1, 1, 1, 1, 0, 0], pa.float32()), 2)
  table = pa.table({'id': ['a', 'b', 'c'], 'values': values})
  path = tmp_path / 'sample.parquet'
  pq.write_table(table, path, row_group_size=1)
  finding = run(index, str(path))['sample']
  assert finding.details['examples']['ZeroVector'][0].startswith('record 2 ')
  assert run(index, str(path), rows=2)['sample'].ok


def test_the_report_is_printed_for_people(index, tmp_path, capsys):
  path = jsonl(tmp_path, ROW, {'id': 'b'})
  code = main(['check', 'docs', '--host', index.host, '--sample', path])
  printed = capsys.readouterr().out
  assert code == 1
  assert printed.startswith('ok      index: ')
  assert 'FAILED  sample: 2 records' in printed
  assert '1 x MissingVector' in printed
  assert API_KEY not in printed


def test_the_report_is_one_json_object(index, capsys):
  assert main(['check', 'docs', '--host', index.host, '--json']) == 0
  report = json.loads(capsys.readouterr().out)
  assert report['ok'] is True
  assert [each['name'] for each in report['findings']] == ['index', 'namespace']


def test_a_lock_is_written_and_compared_with(index, tmp_path, capsys):
  path = str(tmp_path / 'docs.lock.json')
  assert main(['lock', 'docs', path, '--host', index.host]) == 0
  check_it = ['check', 'docs', '--host', index.host, '--lock', path]
  assert main(check_it) == 0
  index.dimension = 3
  assert main(check_it) == 1
  assert 'dimension was 2 and is 3' in capsys.readouterr().out


def test_a_lock_that_cannot_be_written_says_why(index, capsys):
  assert main(['lock', 'docs', '/proc/no/lock', '--host', index.host]) == 1
  assert '/proc/no/lock cannot be written' in capsys.readouterr().err
