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

import apache_beam as beam
import pytest
from fake_pinecone import API_KEY
from fake_pinecone import FakeIndex

from beam_connector_base.schema import Schema
from beam_pinecone import WriteToPinecone
from beam_pinecone.errors import PineconeError
from beam_pinecone.lock import lock_of
from beam_pinecone.lock import read_lock
from beam_pinecone.lock import verify
from beam_pinecone.schema import IndexSchema

DOCS = IndexSchema('docs', 2, 'dotproduct', 'dense')


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)


def test_a_lock_is_what_the_index_is(tmp_path):
  lock = lock_of(DOCS)
  assert dict(lock.properties) == {
      'dimension': 2, 'metric': 'dotproduct', 'vector_type': 'dense'
  }
  path = str(tmp_path / 'lock.json')
  lock.save(path)
  assert read_lock(path) == read_lock(lock) == lock
  assert read_lock(tmp_path / 'lock.json') == lock
  assert read_lock(None) is None


@pytest.mark.parametrize(
    'value, error, says',
    [(5, TypeError, 'schema is a int'),
     (Schema.of('feast:view',
                {'x': 'int64'}), ValueError, 'no Pinecone index')],
    ids=str)
def test_a_lock_of_something_else_is_named(value, error, says):
  with pytest.raises(error, match=says):
    WriteToPinecone('docs', schema=value)


def test_a_lock_that_is_not_there_is_named():
  with pytest.raises(OSError, match='no-such'):
    WriteToPinecone('docs', schema='/no-such/lock.json')


def test_each_difference_is_named():
  verify(None, DOCS)
  verify(lock_of(DOCS), DOCS)
  with pytest.raises(PineconeError) as raised:
    verify(lock_of(DOCS), IndexSchema('docs', 3, 'cosine', 'dense'))
  for part in ('dimension was 2 and is 3',
               'metric was dotproduct and is cosine'):
    assert part in str(raised.value)


def write(index, lock):
  with beam.Pipeline(runner='FnApiRunner') as p:
    _ = (
        p | beam.Create([{
            'id': 'a', 'values': [1.0, 2.0]
        }])
        | WriteToPinecone('docs', connection=index.host, schema=lock))


def test_a_write_keeps_to_its_lock():
  with FakeIndex() as index:
    write(index, lock_of(DOCS))
    assert index.ids() == ['a']


def test_a_write_to_another_index_than_its_lock_writes_nothing():
  with FakeIndex(metric='cosine') as index:
    with pytest.raises(Exception, match='metric was dotproduct and is cosine'):
      write(index, lock_of(DOCS))
    assert index.requests == []
