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
"""An emulated index of books: what the suites of reads look for in it."""

import zlib

from beam_pinecone import EnvSecret
from beam_pinecone import PineconeConnection

DIMENSION = 8
SECRET = 'pcsk-c0nf0rmance-7d41'


def prepare(pinecone, monkeypatch):
  """Makes the index, whose namespace 'shelf' is not empty, and the key known.
  """
  pinecone.seed({
      '$options': {
          'api_keys': [SECRET]
      },
      '$indexes': {
          'books': {
              'dimension': DIMENSION, 'metric': 'cosine'
          }
      },
  })
  pinecone.clear_log()
  monkeypatch.setenv('PINECONE_API_KEY', SECRET)


def store(pinecone, keys, namespace='shelf'):
  pinecone.seed({'books': {namespace: {key: record(key) for key in keys}}})


def record(key):
  """What is stored under a key."""
  number = zlib.crc32(key.encode())
  # Quarters are the same in float32.
  return {
      'values': [(number >> i) % 64 / 4 + 0.25 for i in range(DIMENSION)],
      'metadata': metadata(key),
  }


def metadata(key):
  number = zlib.crc32(key.encode())
  return {
      'title': f'title of {key}',
      'year': 1900.0 + number % 100,
      'tags': [f't{number % 7}', 'ü'],
  }


def connection(emulator, secret_variable=None):
  return PineconeConnection(
      host=emulator.url,
      api_key=EnvSecret(secret_variable or 'PINECONE_API_KEY'))
