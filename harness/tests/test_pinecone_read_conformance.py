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
"""`ReadFromPinecone` does what every source must do."""

import json
import urllib.request
import uuid
import zlib

import pinecone_shelf
import pytest

from beam_harness.conformance import ReadConformance
from beam_pinecone import EnvSecret
from beam_pinecone import PineconeConnection
from beam_pinecone import PineconeReadRequest
from beam_pinecone import ReadAllFromPinecone
from beam_pinecone import ReadFromPinecone
from beam_pinecone import WriteToPinecone


class TestReadFromPineconeConformance(ReadConformance):
  """Shards are namespaces."""
  transform = ReadFromPinecone
  namespace = 'ReadFromPinecone'
  target = 'books'
  list_operation = 'list'
  fetch_operation = 'fetch'
  lineage = ('pinecone:books',)
  secret = pinecone_shelf.SECRET
  secret_variable = 'PINECONE_API_KEY'
  page = 100
  narrow = (('metadata',), ('values', 'sparse_values'))
  where = {'year': {'$gte': 1950}}
  filter_operation = 'fetch_by_metadata'
  idle_requests = ('describe_index_stats',)
  construction = '''
      from beam_pinecone import ReadFromPinecone
      read = ReadFromPinecone('books', namespaces=['shelf'])
      '''
  heavy_modules = ('pinecone', 'httpx', 'pandas', 'torch')

  @pytest.fixture
  def emulator(self, pinecone, monkeypatch):
    pinecone_shelf.prepare(pinecone, monkeypatch)
    monkeypatch.setenv('PINECONE_GRPC_SCHEME', 'http')
    return pinecone

  def make_transform(self, emulator, *, secret_variable=None, **options):
    for ours, theirs in (('shards', 'namespaces'), ('where', 'filter')):
      if ours in options:
        options[theirs] = options.pop(ours)
    return ReadFromPinecone(
        'books',
        connection=pinecone_shelf.connection(emulator, secret_variable),
        **options)

  def make_read_all(self, emulator, **options):
    return ReadAllFromPinecone(
        connection=pinecone_shelf.connection(emulator), **options)

  def make_request(self, shards=None, prefix=None):
    return PineconeReadRequest('books', shards, prefix)

  def store(self, emulator, shard, keys):
    pinecone_shelf.store(emulator, keys, shard)

  def delete(self, emulator, shard, key):
    request = urllib.request.Request(
        f'{emulator.url}/vectors/delete',
        json.dumps({
            'ids': [key], 'namespace': shard
        }).encode(), {
            'api-key': self.secret, 'content-type': 'application/json'
        })
    assert json.load(urllib.request.urlopen(request, timeout=10)) == {}

  def expected(self, key):
    return pinecone_shelf.record(key)

  def matches(self, key):
    return zlib.crc32(key.encode()) % 100 >= 50

  def record_of(self, row):
    assert row['sparse_values'] is None
    metadata = row['metadata']
    if isinstance(metadata, str):
      metadata = json.loads(metadata)
    return row['namespace'], row['id'], {
        'values': row['values'], 'metadata': metadata
    }

  def make_sink(self, emulator):
    # A process remembers where an index is: never the same one again.
    self._copies = f'copies-{uuid.uuid4().hex[:12]}'
    emulator.seed({
        '$options': {
            'default_index': 'books', 'hosts': 'ports'
        },
        '$indexes': {
            self._copies: {
                'dimension': pinecone_shelf.DIMENSION, 'metric': 'cosine'
            }
        },
    })
    return WriteToPinecone(
        self._copies,
        namespace='{namespace}',
        connection=PineconeConnection(
            control_host=emulator.url, api_key=EnvSecret('PINECONE_API_KEY')))

  def copied(self, emulator):
    snapshot = emulator.snapshot()
    copies = snapshot[self._copies]
    assert copies == snapshot['books']
    return {
        key: {
            name: record[name] for name in ('values', 'metadata')
        } for records in copies.values() for key, record in records.items()
    }
