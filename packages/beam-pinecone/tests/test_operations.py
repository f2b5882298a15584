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

import pickle

import numpy as np
import pinecone_messages as messages
import pyarrow as pa
import pytest
from fake_pinecone import API_KEY
from fake_pinecone import FakeIndex
from fake_pinecone import control_plane

from beam_connector_base import FatalError
from beam_connector_base import OutageError
from beam_connector_base import Tuning
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.operation import Kind
from beam_connector_base.runtime import Runtime
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.encode.layout import Layout
from beam_pinecone.errors import PineconeError
from beam_pinecone.operations.upserts import MAX_REQUEST_BYTES
from beam_pinecone.operations.upserts import MAX_VECTORS
from beam_pinecone.operations.upserts import UpsertVectors

QUICK = {'backoff': 0.001, 'open_deadline': 5.0}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)


@pytest.fixture
def index():
  with FakeIndex() as fake:
    yield fake


@pytest.fixture
def runtime():
  made = Runtime()
  yield made
  made.shutdown()


@pytest.fixture
def write(index, runtime):
  """Writes elements as one bundle; returns the submissions."""
  def write(elements, tuning=None, **arguments):
    dispatcher = Dispatcher(
        operation(index, **arguments),
        Tuning(**QUICK, **(tuning or {})),
        runtime=runtime)
    try:
      bundle = dispatcher.bundle()
      for element in elements:
        bundle.submit(element)
      return bundle.drain()
    finally:
      dispatcher.close()

  return write


def operation(index, **arguments):
  return UpsertVectors(
      'docs',
      Layout.of(**arguments),
      PineconeConnection(host=index.host, source_tag='tests'))


def record(i, **fields):
  return {'id': f'id-{i}', 'values': [1.0, float(i)]} | fields


def failures(submissions):
  return {
      f.key: f.error_type for submission in submissions
      for f in submission.failures or ()
  }


def test_records_are_written_to_their_namespaces(index, write):
  rows = [record(i, ns='ab'[i % 2], n=i) for i in range(10)]
  write(rows, namespace='{ns}')
  assert index.ids('a') == [f'id-{i}' for i in range(0, 10, 2)]
  assert index.ids('b') == [f'id-{i}' for i in range(1, 10, 2)]
  assert index.rows['a']['id-2'] == {
      'values': [1.0, 2.0], 'sparse': {}, 'metadata': {
          'n': 2.0
      }
  }
  assert len(index.requests) == 2


def test_every_request_says_who_we_are(index, write):
  write([record(1)])
  stats, upsert = index.metadata
  for headers in (stats, upsert):
    assert headers['api-key'] == API_KEY
    assert headers['x-pinecone-api-version'] == '2026-07'
    assert headers['user-agent'].startswith('beam-pinecone/')
    assert 'source_tag=tests' in headers['user-agent']
  assert stats['x-request-id'] != upsert['x-request-id']


def test_records_and_batches_make_the_same_requests(index, write):
  rows = [record(i, t=f'text {i}') for i in range(100)]
  write(rows)
  batch = pa.RecordBatch.from_pylist(
      rows,
      pa.schema([('id', pa.string()), ('values', pa.list_(pa.float32(), 2)),
                 ('t', pa.string())]))
  write([batch])
  assert index.requests[0] == index.requests[1]
  assert index.requests[0] == messages.upsert_bytes(
      [record(i) | {
          'metadata': {
              't': f'text {i}'
          }
      } for i in range(100)])


@pytest.mark.parametrize('as_batch', [False, True])
def test_no_request_is_larger_than_the_service_allows(index, write, as_batch):
  index.dimension = 100
  rows = [{
      'id': f'id-{i}',
      'values': np.full(100, i + 1, np.float32),
      'text': 'x' * 5000,
  } for i in range(1500)]
  elements = [pa.RecordBatch.from_pylist(rows)] if as_batch else rows
  write(elements, namespace='some-namespace')
  sizes = [len(request) for request in index.requests]
  assert max(sizes) <= MAX_REQUEST_BYTES
  assert max(sizes) > MAX_REQUEST_BYTES - 6000
  assert len(index.ids('some-namespace')) == 1500


def test_no_request_has_more_vectors_than_the_service_allows(index, write):
  write([record(i) for i in range(2500)])
  counts = [len(messages.read_request(r)[1]) for r in index.requests]
  assert sorted(counts) == [500, MAX_VECTORS, MAX_VECTORS]


def test_a_repeated_id_never_shares_a_request_and_the_last_one_stays(
    index, write):
  write([record(1, n=i) for i in range(5)])
  assert len(index.requests) == 5
  assert index.rows['']['id-1']['metadata'] == {'n': 4.0}


def test_an_older_version_does_not_replace_a_newer_one(index, write):
  done = write([record(1, v=v) for v in (3, 1, 5, 4)],
               version_field='v',
               keep=['v'])
  assert index.rows['']['id-1']['metadata'] == {'v': 5.0}
  assert sum(s.superseded for s in done) == 2


def test_a_poisoned_record_is_found_and_the_others_are_written(index, write):
  index.refuses = {'id-7', 'id-30'}
  done = write([record(i) for i in range(50)])
  assert failures(done) == {'id-7': 'permanent', 'id-30': 'permanent'}
  assert len(index.ids()) == 48
  (failure,) = next(s.failures for s in done if s.failures)
  assert 'is poisoned' in failure.message
  assert failure.http_status == 400
  assert failure.stage == 'send'


def test_a_request_refused_for_its_size_is_halved(index, write):
  text = 'message length too large: found 9 bytes, the limit is: 8 bytes'
  index.errors = [('OUT_OF_RANGE', text), ('RESOURCE_EXHAUSTED', text)]
  assert failures(write([record(i) for i in range(8)])) == {}
  assert len(index.ids()) == 8
  assert len(index.requests) > 2


def test_transient_errors_are_tried_again(index, write):
  index.errors = [('UNAVAILABLE', 'x'), ('INTERNAL', 'x'), ('ABORTED', 'x')]
  write([record(1)])
  assert index.ids() == ['id-1']
  assert len(index.requests) == 4


@pytest.mark.parametrize(
    'answer', [b'', b'\x08\x05', b'\x0a', b'\xff'], ids=str)
def test_an_answer_that_does_not_acknowledge_is_not_taken_for_one(
    index, write, answer):
  index.answer = answer
  with pytest.raises(OutageError):
    write([record(1)], {'deadline': 0.05})


@pytest.mark.parametrize(
    'trailers, seconds',
    [((), None), ((('retry-after', '3'),), 3.0),
     ((('grpc-retry-pushback-ms', '1500'),), 1.5),
     ((('grpc-retry-pushback-ms', '-1'), ('retry-after', '2')), 2.0)])
def test_throttling_says_how_long_to_wait(index, trailers, seconds):
  import asyncio

  from beam_connector_base.operation import Batch
  from beam_connector_base.operation import Block
  index.errors = [('RESOURCE_EXHAUSTED', '50 MB per second', trailers)]
  op = operation(index)

  async def attempt():
    session = await op.open()
    try:
      block = Block('', b'', None, ('a',))
      await session.send(Batch('', [(None, block, 0, 1)], 1, 0))
    finally:
      await session.close()

  with pytest.raises(PineconeError) as raised:
    asyncio.run(attempt())
  assert raised.value.request_id == 'r-1'
  verdict = op.classify(raised.value)
  assert verdict.kind is Kind.THROTTLED
  assert verdict.retry_after == seconds
  assert verdict.status == 429
  assert '50 MB per second' in verdict.reason


@pytest.mark.parametrize(
    'code, message, kind',
    [
        ('UNAVAILABLE', 'connection refused', Kind.TRANSIENT),
        ('INVALID_ARGUMENT', 'Vector dimension 3 does not', Kind.PERMANENT),
        ('UNAUTHENTICATED', 'Unauthorized', Kind.FATAL),
        ('PERMISSION_DENIED', 'no', Kind.FATAL),
        ('NOT_FOUND', 'index', Kind.FATAL),
        ('FAILED_PRECONDITION', 'index is Terminating', Kind.FATAL),
        ('UNIMPLEMENTED', '', Kind.FATAL),
        ('INTERNAL', '', Kind.TRANSIENT),
        ('RESOURCE_EXHAUSTED', '', Kind.THROTTLED),
        (
            'RESOURCE_EXHAUSTED',
            'Received message larger than max (9 vs. 8)',
            Kind.TOO_LARGE),
        (
            'INVALID_ARGUMENT',
            'does not take vector operations. Use the documents API',
            Kind.FATAL),
        ('404', 'no index', Kind.FATAL),
        ('401', '', Kind.FATAL),
        ('503', '', Kind.TRANSIENT),
        ('429', '', Kind.THROTTLED),
    ])
def test_errors_are_classified(index, code, message, kind):
  assert operation(index).classify(PineconeError(code, message)).kind is kind


def test_other_errors_are_classified(index):
  classify = operation(index).classify
  assert classify(ConnectionRefusedError()).kind is Kind.TRANSIENT
  assert classify(KeyError('bug')).kind is Kind.FATAL
  missing = FileNotFoundError(2, 'no such file', '/ca.pem')
  verdict = classify(missing)
  assert verdict.kind is Kind.FATAL
  assert 'ca_certs' in verdict.reason


# ---------------------------------------------------------- cannot be opened


def open_it(runtime, connection, **tuning):
  Dispatcher(
      UpsertVectors('docs', Layout.of(), connection),
      Tuning(**QUICK | tuning),
      runtime=runtime).open()


def test_an_index_that_does_not_exist_is_named(runtime):
  with control_plane({}) as (url, _):
    with pytest.raises(FatalError, match="no index 'docs'"):
      open_it(runtime, PineconeConnection(control_host=url))


def test_a_wrong_key_is_named_without_being_shown(index, runtime, monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', 'wrong-key-0815')
  with pytest.raises(FatalError, match='api_key') as raised:
    open_it(runtime, PineconeConnection(host=index.host))
  assert 'docs' in str(raised.value)
  assert 'wrong-key' not in str(raised.value)


def test_a_missing_key_names_the_variable(index, runtime, monkeypatch):
  monkeypatch.delenv('PINECONE_API_KEY')
  with pytest.raises(FatalError, match='PINECONE_API_KEY'):
    open_it(runtime, PineconeConnection(host=index.host))


def test_an_unreachable_host_is_named_after_the_deadline(runtime):
  with pytest.raises(OutageError, match="'docs'.*127.0.0.1:9"):
    open_it(
        runtime, PineconeConnection(host='http://127.0.0.1:9'), open_deadline=1)


def test_missing_certificates_are_named(index, runtime):
  with pytest.raises(FatalError, match='/nowhere/ca.pem'):
    open_it(
        runtime,
        PineconeConnection(
            host='localhost:1', tls=True, ca_certs='/nowhere/ca.pem'))


def test_a_document_index_is_named_with_its_remedy(index, runtime):
  with control_plane({'/indexes/docs':
      (200, {'host': index.host,
             'schema': {'fields': {'title': {}}}})}) as (url, _):
    with pytest.raises(FatalError, match='document index.*vector index'):
      open_it(runtime, PineconeConnection(control_host=url))


def test_a_write_refused_by_a_document_index_stops_the_bundle(index, write):
  index.errors = [(
      'INVALID_ARGUMENT',
      'This index does not take vector operations. Use the documents API')]
  with pytest.raises(FatalError, match='document index'):
    write([record(1), record(2)])


def test_an_index_opens_when_it_is_ready(index, runtime):
  index.stats_error = ('UNAVAILABLE', 'starting')
  answers = iter([index.stats_error, None])
  original = index._authorize

  def authorize(context):
    index.stats_error = next(answers)
    original(context)

  index._authorize = authorize
  open_it(runtime, PineconeConnection(host=index.host))


def test_the_session_knows_the_index(index, runtime):
  index.dimension, index.metric, index.vector_type = None, None, 'sparse'
  dispatcher = Dispatcher(operation(index), Tuning(**QUICK), runtime=runtime)
  session = dispatcher.session
  assert session.schema.vector_type == 'sparse'
  assert session.schema.dimension is None
  assert session.limits.keys == 'serial'
  runtime.run(session.check())
  dispatcher.close()


def test_operations_are_equal_by_value_and_hold_no_secret(index):
  op = operation(index, namespace=lambda row: row['ns'], drop=['a'])
  pickled = pickle.dumps(op)
  copy = pickle.loads(pickled)
  assert copy == op
  assert hash(copy) == hash(op)
  assert API_KEY.encode() not in pickled
  assert API_KEY not in repr(op)
