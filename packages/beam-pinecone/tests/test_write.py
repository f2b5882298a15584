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

import logging
import pickle
import subprocess
import sys

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from fake_pinecone import API_KEY
from fake_pinecone import FakeIndex

import beam_pinecone
from beam_pinecone import EnvSecret
from beam_pinecone import PineconeConnection
from beam_pinecone import Tuning
from beam_pinecone import WriteToPinecone


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)


@pytest.fixture
def index():
  with FakeIndex() as fake:
    yield fake


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
            'index': 'a' * 46
        }, ValueError, 'index'),
        ({
            'index': '-a'
        }, ValueError, 'index'),
        ({
            'namespaces': 'a'
        }, TypeError, 'namespaces'),
        ({
            'connection': 5
        }, TypeError, 'connection'),
        ({
            'connection': 'no host'
        }, ValueError, 'host'),
        ({
            'on_error': 'ignore'
        }, ValueError, 'on_error'),
        ({
            'tuning': {}
        }, TypeError, 'tuning'),
        ({
            'keep': 'title'
        }, TypeError, 'keep'),
    ],
    ids=str)
def test_a_mistake_is_named_at_construction(arguments, error, says):
  with pytest.raises(error) as raised:
    WriteToPinecone(**{'index': 'docs'} | arguments)
  assert says in str(raised.value)


def test_a_transform_holds_no_secret_and_shows_none():
  transform = WriteToPinecone('docs', namespace='{ns}', connection='a.b')
  shown = transform.display_data()
  assert shown['index'] == 'docs'
  assert shown['namespace'] == '{ns}'
  for text in (repr(transform), str(shown)):
    assert API_KEY not in text
  assert API_KEY.encode() not in pickle.dumps(transform._operation)


def test_all_public_names_exist():
  for name in beam_pinecone.__all__:
    assert getattr(beam_pinecone, name) is not None


def test_records_and_blocks_are_written_and_failures_come_out(index):
  batch = pa.RecordBatch.from_pydict({
      'id': ['b1', 'b2', None],
      'values': pa.array([[1, 2], [0, 0], [3, 4]], pa.list_(pa.float32(), 2)),
  })
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = (
        p
        | beam.Create([{
            'id': 'a', 'values': [1.0, 2.0], 'lang': 'en'
        }, {
            'id': 'bad', 'values': [1.0]
        },
                       batch])
        | WriteToPinecone(
            'docs',
            namespace='ns',
            connection=PineconeConnection(
                host=index.host, api_key=EnvSecret('PINECONE_API_KEY')),
            on_error='collect',
            tuning=Tuning(max_records=2)))
    failed = result.failed | beam.Map(lambda f: (f.key, f.error_type, f.stage))
    assert_that(
        failed,
        equal_to([('bad', 'WrongDimension', 'encode'),
                  ('b2', 'ZeroVector', 'encode'), ('', 'MissingId', 'encode')]))
    written = result.written | beam.Map(
        lambda e: e['id'] if isinstance(e, dict) else e['id'].to_pylist())
    assert_that(written, equal_to(['a', ['b1']]), label='written')
  assert index.ids('ns') == ['a', 'b1']
  assert index.rows['ns']['a']['metadata'] == {'lang': 'en'}


def test_a_refused_record_stops_the_pipeline_by_default(index, caplog):
  with caplog.at_level(logging.INFO):
    with pytest.raises(Exception) as raised:
      with beam.Pipeline(runner='FnApiRunner') as p:
        _ = (
            p | beam.Create([{
                'id': 'doc-7', 'values': [1.0]
            }])
            | WriteToPinecone('docs', connection=index.host))
  message = str(raised.value)
  for part in ('WriteToPinecone', "'docs'", 'doc-7', 'dimension 2'):
    assert part in message
  assert API_KEY not in message + caplog.text


def test_importing_the_package_contacts_and_imports_nothing_heavy():
  code = (
      # Beam itself imports pandas where it is installed.
      'import sys, apache_beam; before = set(sys.modules); '
      'import beam_pinecone; '
      'print([m for m in ("pinecone", "apache_beam.ml", "httpx", "pandas", '
      '"apache_beam.yaml") if m in set(sys.modules) - before])')
  out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code],
                       capture_output=True,
                       text=True,
                       check=True)
  assert out.stdout.strip() == '[]'
