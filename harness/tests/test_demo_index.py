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
"""The plain HTTP client by which the demo checks what the connector wrote."""

import numpy as np
import pytest

from beam_harness.demo.index import IndexClient
from beam_harness.demo.index import create_index
from beam_harness.emulators import launch


@pytest.fixture(scope='module')
def emulator():
  with launch.start('pinecone') as emulator:
    yield emulator


@pytest.fixture
def client(emulator):
  emulator.reset()
  key = emulator.environment()['PINECONE_API_KEY']
  client = IndexClient(create_index(emulator.url, key, 'docs', 3), key)
  yield client
  client.close()


def _upsert(client, namespace, vectors):
  client.request(
      'POST',
      '/vectors/upsert',
      {
          'namespace':
              namespace,
          'vectors': [{
              'id': doc_id, 'values': values
          } for doc_id, values in vectors.items()],
      })


def test_fetch_pages_through_many_ids_and_leaves_out_unknown_ones(client):
  vectors = {f'id/{i}?&': [float(i), 1.0, 0.1] for i in range(250)}
  _upsert(client, 'a b', vectors)
  held = client.fetch([*vectors, 'unknown'], 'a b')
  assert held.keys() == vectors.keys()
  for doc_id, values in vectors.items():
    np.testing.assert_array_equal(
        np.array(held[doc_id], np.float32), np.array(values, np.float32))


def test_counts_are_per_namespace(client):
  _upsert(client, 'one', {'a': [1, 0, 0]})
  _upsert(client, 'two', {'a': [1, 0, 0], 'b': [0, 1, 0]})
  assert client.counts() == {'one': 1, 'two': 2}


def test_an_error_of_the_service_is_told(client):
  with pytest.raises(RuntimeError,
                     match='POST /vectors/upsert .* answered 400.*dimension'):
    _upsert(client, 'ns', {'a': [1, 0, 0, 0]})


def test_a_closed_client_connects_again(client):
  client.counts()
  client.close()
  assert client.counts() == {}


def test_only_plain_http_is_spoken():
  with pytest.raises(ValueError, match='plain http'):
    IndexClient('https://index.example', 'key')
