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
"""Our requests beside those of Pinecone's own gRPC client, as they arrive."""

import pytest
from pinecone.grpc import GrpcIndex

from beam_connector_base.dispatcher import Dispatcher
from beam_pinecone import PineconeConnection
from beam_pinecone.encode.layout import Layout
from beam_pinecone.operations.upserts import UpsertVectors

DENSE = [
    {
        'id': 'plain', 'values': [0.1, -2.5, 3e38, 1e-8]
    },
    {
        'id': 'i' * 300,
        'values': [1.0, 2.0, 3.0, 4.0],
        'metadata': {
            'z': 1,
            'a': 'text',
            'aa': 'ü€' * 40,
            'Z': 2**53,
            'tags': ['p', '', 'q'],
            'none': [],
            'yes': True,
            'no': False,
            'zero': 0,
            'empty': '',
            'ü': 1.5,
            'long': 'x' * 20_000,
        },
    },
    {
        'id': 'null',
        'values': [0.0, 0.0, 0.0, 1.0],
        'metadata': {
            'gone': None, 'kept': 1
        },
    },
]
HYBRID = [
    {
        'id': 'hybrid',
        'values': [1.0, 2.0, 3.0, 4.0],
        'sparse_values': {
            'indices': [5, 1, 300, 2**32 - 1], 'values': [0.5, 0.25, 1.0, 2.0]
        },
        'metadata': {
            'a': 1
        },
    },
]
# Sent in another form that means the same: the official client writes an empty
# Struct where we write nothing, and leaves out a key that is the empty string.
SPELLED_OTHERWISE = [
    {
        'id': 'without', 'values': [1.0, 2.0, 3.0, 4.0], 'metadata': {}
    },
    {
        'id': 'no name',
        'values': [1.0, 2.0, 3.0, 4.0],
        'metadata': {
            '': 'x'
        },
    },
]


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed(
      {'$indexes': {
          'docs': {
              'dimension': 4, 'metric': 'dotproduct'
          }
      }})
  pinecone.capture(bodies=True)
  return pinecone


def official(emulator, vectors, namespace):
  key = emulator.environment()['PINECONE_API_KEY']
  with GrpcIndex(host=emulator.url, api_key=key, grpc_scheme='http') as client:
    client.upsert(vectors=vectors, namespace=namespace)
  return emulator.log('upsert')[-1].body


def ours(emulator, vectors, namespace):
  dispatcher = Dispatcher(
      UpsertVectors(
          'docs',
          Layout.of(namespace=namespace),
          PineconeConnection(host=emulator.url)))
  try:
    bundle = dispatcher.bundle()
    for vector in vectors:
      bundle.submit(vector)
    bundle.drain()
  finally:
    dispatcher.close()
  return emulator.log('upsert')[-1].body


@pytest.mark.parametrize('namespace', ['', 'tenant-1'])
def test_requests_are_byte_for_byte_those_of_the_official_client(
    index, namespace):
  assert ours(index, DENSE, namespace) == official(index, DENSE, namespace)


@pytest.mark.parametrize(
    'vectors', [HYBRID, SPELLED_OTHERWISE], ids=['sparse', 'empty'])
def test_requests_that_are_spelled_otherwise_mean_the_same(index, vectors):
  # Sparse values: the official client sends each number with its tag, we send
  # them packed, as proto3 does; every reader takes both.
  assert len(ours(index, vectors,
                  'ours')) <= len(official(index, vectors, 'theirs')) + 2
  stored = index.snapshot()['docs']
  assert stored['ours'] == stored['theirs']
  assert len(stored['ours']) == len(vectors)
