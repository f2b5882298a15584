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
"""`WriteToPinecone` does what every sink must do."""

import array
import dataclasses
import math
import zlib
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.ml.rag.types import Content
from apache_beam.ml.rag.types import EmbeddableItem
from apache_beam.ml.rag.types import Embedding

from beam_harness.conformance import SinkConformance
from beam_pinecone import EnvSecret
from beam_pinecone import PineconeConnection
from beam_pinecone import WriteToPinecone

_DIMENSION = 8


class BookTuple(NamedTuple):
  id: str
  values: list[float]
  lang: str
  year: float
  tags: list[str]


@dataclasses.dataclass
class BookData:
  id: str
  values: list[float]
  lang: str
  year: float
  tags: list[str]


_SCHEMA = pa.schema([
    ('id', pa.string()),
    ('values', pa.list_(pa.float32(), _DIMENSION)),
    ('lang', pa.string()),
    ('year', pa.float64()),
    ('tags', pa.list_(pa.string())),
    ('text', pa.string()),
])


class TestWriteToPineconeConformance(SinkConformance):
  transform = WriteToPinecone
  namespace = 'WriteToPinecone'
  target = 'books'
  write_operation = 'upsert'
  lineage = ('pinecone:books',)
  secret = 'pcsk-c0nf0rmance-7d41'
  secret_variable = 'PINECONE_API_KEY'
  max_records = 1_000
  max_bytes = 2_000_000
  row_bytes = 150
  extra_kinds = ('numpy', 'array', 'EmbeddableItem')
  idle_requests = ('describe_index_stats',)
  construction = '''
      from beam_pinecone import WriteToPinecone
      sink = WriteToPinecone('books', namespace='{lang}')
      '''
  heavy_modules = ('pinecone', 'httpx', 'pandas', 'torch')

  @pytest.fixture
  def emulator(self, pinecone, monkeypatch):
    pinecone.seed({
        '$options': {
            'api_keys': [self.secret]
        },
        '$indexes': {
            'books': {
                'dimension': _DIMENSION, 'metric': 'cosine'
            }
        },
    })
    pinecone.clear_log()
    monkeypatch.setenv('PINECONE_API_KEY', self.secret)
    return pinecone

  def make_transform(self, emulator, *, secret_variable=None, **options):
    connection = PineconeConnection(
        host=emulator.url,
        api_key=EnvSecret(secret_variable or 'PINECONE_API_KEY'))
    return WriteToPinecone(
        'books', namespace='shelf', connection=connection, **options)

  def make_element(self, key, kind='dict'):
    stored = self.expected(key)
    fields = {'id': key, 'values': stored['values'], **stored['metadata']}
    if kind == 'numpy':
      return {**fields, 'values': np.array(stored['values'], np.float32)}
    if kind == 'array':
      return {**fields, 'values': array.array('f', stored['values'])}
    if kind == 'EmbeddableItem':
      return EmbeddableItem(
          Content(),
          id=key,
          metadata=stored['metadata'],
          embedding=Embedding(dense_embedding=stored['values']))
    return {
        'dict': dict,
        'Row': beam.Row,
        'NamedTuple': BookTuple,
        'dataclass': BookData,
    }[kind](**fields)

  def make_block(self, elements):
    return pa.RecordBatch.from_pylist(elements, _SCHEMA)

  def stored(self, emulator):
    return emulator.snapshot()['books'].get('shelf', {})

  def expected(self, key):
    number = zlib.crc32(key.encode())
    # Quarters are the same in float32.
    values = [(number >> i) % 64 / 4 + 0.25 for i in range(_DIMENSION)]
    return {
        'values': values,
        'sparse': None,
        'metadata': {
            'lang': 'en' if number % 2 else 'eu',
            'year': 1900.0 + number % 100,
            'tags': [f't{number % 7}', 'ü'],
        },
    }

  def bad_element(self, key):
    element = self.make_element(key)
    return {**element, 'values': [math.nan] + element['values'][1:]}

  def large_element(self, key, nbytes):
    return {**self.make_element(key), 'text': 'x' * nbytes}
