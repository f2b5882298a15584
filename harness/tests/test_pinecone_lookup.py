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
"""LookupPinecone against the emulator: what is stored comes back, by its id.

What every lookup has to keep is in the conformance suite; here is what only
Pinecone has.
"""

import json

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from pinecone import Pinecone

from beam_connector_base import FatalError
from beam_connector_base import Tuning
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.operation import MISSING
from beam_harness.faults import FaultRule
from beam_pinecone import LookupPinecone
from beam_pinecone import PineconeConnection
from beam_pinecone import WriteToPinecone

N, DIMENSION = 300, 16
INDEXES = {
    'docs': {
        'dimension': DIMENSION, 'metric': 'dotproduct'
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
VECTORS = np.random.default_rng(5).normal(size=(N, DIMENSION)).astype('<f4')


def metadata(i):
  return {'n': float(i), 'tags': [f't{i % 3}', 'ä'], 'even': i % 2 == 0}


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed({'$indexes': INDEXES})
  rows = [{
      'id': f'v {i}', 'values': VECTORS[i], 'metadata': metadata(i)
  } for i in range(N)]
  rows[7]['sparse_values'] = {'indices': [3, 1], 'values': [0.5, 0.25]}
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = p | beam.Create(rows) | WriteToPinecone('docs', namespace='ns')
  pinecone.clear_log()
  return pinecone


def look_up(elements, name='docs', tuning=None, **arguments):
  """Looks up as one bundle; returns each record, None, or the failure."""
  arguments.setdefault('namespace', 'ns')
  transform = LookupPinecone(name, requests_per_second=None, **arguments)
  dispatcher = Dispatcher(transform._operation, tuning or Tuning(backoff=0.01))
  try:
    out = []
    for submission in dispatcher.run(elements):
      if submission.failures:
        out.append(submission.failures[0])
      else:
        answer = submission.values[0]
        out.append(None if answer is MISSING else answer)
    return out
  finally:
    dispatcher.close()


def test_records_come_back_as_they_were_written_and_as_others_read_them(index):
  records = look_up([{'id': f'v {i}'} for i in range(N)])
  theirs = Pinecone().index(name='docs').fetch(
      ids=[f'v {i}' for i in range(20)], namespace='ns').vectors
  for i, record in enumerate(records):
    assert record.id == f'v {i}'
    assert record.values.tolist() == VECTORS[i].tolist()
    assert record.metadata == metadata(i)
    if i < 20:
      assert record.metadata == theirs[record.id].metadata
      assert record.values.tolist() == pytest.approx(
          list(theirs[record.id].values))
  assert records[7].sparse_values.indices.tolist() == [3, 1]
  assert records[7].sparse_values.values.tolist() == [0.5, 0.25]
  assert records[8].sparse_values is None
  assert [e.records for e in index.log('fetch') if e.transport == 'grpc'] == [N]


def test_a_block_gets_its_records_in_a_column(index):
  batch = pa.record_batch({'id': ['v 1', 'nobody', 'v 7', 'v 1']})
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([batch])
        | LookupPinecone('docs', namespace='ns')
        | beam.FlatMap(lambda b: b.column('record').to_pylist())
        | beam.Map(
            lambda r: r and (
                r['id'], r['values'], json.loads(r['metadata']), r[
                    'sparse_values'])))
    first = ('v 1', VECTORS[1].tolist(), metadata(1), None)
    seventh = (
        'v 7',
        VECTORS[7].tolist(),
        metadata(7), {
            'indices': [3, 1], 'values': [0.5, 0.25]
        })
    assert_that(out, equal_to([first, None, seventh, first]))
  (request,) = index.log('fetch')
  assert request.records == 3


@pytest.mark.parametrize('too_large', ['out_of_range', '413'])
def test_records_that_do_not_fit_into_one_answer_come_in_several(
    index, too_large):
  index.seed({'$options': {'max_result_bytes': 6_000, 'too_large': too_large}})
  records = look_up([{'id': f'v {i}'} for i in range(N)])
  assert [r.metadata['n'] for r in records] == list(range(N))
  sizes = [e.records for e in index.log('fetch') if e.ok]
  assert sum(sizes) == N
  assert len(sizes) > 1


def test_a_namespace_that_does_not_exist_does_not_pass_silently(index):
  with pytest.raises(FatalError, match="no namespace 'typo'"):
    look_up([{'id': 'v 1'}], namespace='typo')
  rows = [{'id': 'v 1', 't': 'ns'}, {'id': 'v 1', 't': 'typo'}]
  found, failure = look_up(rows, namespace='{t}')
  assert found.id == 'v 1'
  assert (failure.destination, failure.http_status) == ('typo', 404)
  assert look_up(rows, namespace='{t}', on_missing_namespace='empty')[1] is None


@pytest.mark.parametrize('by_host', [False, True])
def test_an_index_of_documents_fails_loudly(index, by_host):
  connection = None
  if by_host:
    connection = PineconeConnection(
        host=Pinecone().indexes.describe('papers').host)
  with pytest.raises(FatalError, match="'papers' is a document index"):
    look_up([{'id': 'a'}], 'papers', connection=connection)
  assert not index.log('fetch')


def test_faults_of_all_kinds_lose_and_change_no_answer(index):
  index.faults([
      FaultRule(
          'throttle', operation='fetch', probability=0.1, retry_after=0.01),
      FaultRule('error', operation='fetch', status=503, probability=0.1),
      FaultRule('reset', operation='fetch', probability=0.05),
      FaultRule('truncate', operation='fetch', probability=0.05),
  ])
  records = look_up([{
      'id': f'v {i}'
  } for i in range(N)],
                    tuning=Tuning(backoff=0.01, max_records=5))
  assert [r.metadata['n'] for r in records] == list(range(N))
  assert sum(not e.ok for e in index.log('fetch')) > 5
