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

import collections
import dataclasses
import datetime
from typing import Any
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pinecone_messages as messages
import pytest
from apache_beam.ml.rag.types import Chunk
from apache_beam.ml.rag.types import Content
from apache_beam.ml.rag.types import Embedding
from apache_beam.utils.timestamp import Timestamp

from beam_connector_base.operation import Block
from beam_connector_base.operation import Invalid
from beam_pinecone.encode.layout import Layout
from beam_pinecone.encode.records import Checks
from beam_pinecone.encode.records import RecordEncoder
from beam_pinecone.schema import IndexSchema

DENSE = IndexSchema('docs', 2, 'cosine', 'dense')
HYBRID = IndexSchema('docs', 2, 'dotproduct', 'dense')
SPARSE = IndexSchema('docs', None, 'dotproduct', 'sparse')
VALUES = [0.5, 0.25]


def encoder(schema=DENSE, **arguments):
  layout = Layout.of(**arguments)
  return RecordEncoder(layout, schema, Checks(layout))


def written(element, schema=DENSE, **arguments):
  """The one vector the element becomes."""
  block = encoder(schema, **arguments).encode(element)
  assert isinstance(block, Block), block
  assert block.n == 1
  _, vectors = messages.read_request(block.rows)
  ((id, vector),) = vectors.items()
  assert block.keys == (id,)
  return vector | {'id': id, 'namespace': block.destination}


def refused(element, schema=DENSE, **arguments):
  invalid = encoder(schema, **arguments).encode(element)
  assert isinstance(invalid, Invalid), invalid
  assert invalid.row == 0
  return invalid


class Doc(NamedTuple):
  id: str
  values: Any
  lang: str


@dataclasses.dataclass
class DocClass:
  id: str
  values: Any
  lang: str


@pytest.mark.parametrize(
    'make', [
        dict,
        collections.OrderedDict,
        beam.Row,
        Doc,
        DocClass,
    ])
def test_every_kind_of_record_is_written(make):
  vector = written(make(id='a', values=np.array(VALUES, 'f4'), lang='en'))
  assert vector == {
      'id': 'a',
      'namespace': '',
      'values': VALUES,
      'sparse': {},
      'metadata': {
          'lang': 'en'
      },
  }


def test_the_dicts_of_the_services_own_client_are_written():
  vector = written({
      'id': 'a',
      'values': VALUES,
      'sparse_values': {
          'indices': [3], 'values': [0.5]
      },
      'metadata': {
          'n': 1, 'tags': ['x', 'y']
      },
  },
                   HYBRID)
  assert vector['sparse'] == {3: 0.5}
  assert vector['metadata'] == {'n': 1.0, 'tags': ['x', 'y']}


def test_a_mapping_is_merged_with_the_other_metadata():
  row = {'id': 'a', 'values': VALUES, 'lang': 'en', 'metadata': {'n': 1}}
  assert written(row)['metadata'] == {'lang': 'en', 'n': 1.0}
  assert written(row, keep=['n'])['metadata'] == {'n': 1.0}
  assert written(row, drop=['metadata'])['metadata'] == {'lang': 'en'}
  row['metadata'] = {'lang': None}
  assert written(row)['metadata'] == {'lang': 'en'}
  row['metadata'] = {'lang': 'de'}
  assert refused(row).error_type == 'MetadataConflict'
  assert written(row, drop=['lang'])['metadata'] == {}


def test_a_metadata_field_that_is_no_mapping_is_metadata():
  row = {'id': 'a', 'values': VALUES, 'metadata': 'text', 'n': 1}
  assert written(row)['metadata'] == {'metadata': 'text', 'n': 1.0}
  assert written(row, keep=['n'])['metadata'] == {'n': 1.0}
  row['metadata'] = None
  assert written(row)['metadata'] == {'n': 1.0}
  row['metadata'] = {'a': 'b'}
  assert refused(row, metadata_field=None).error_type == 'MetadataType'


def test_a_record_without_metadata_has_none():
  data = encoder().encode({'id': 'a', 'values': VALUES, 'x': None}).rows
  assert data == messages.upsert_bytes([{'id': 'a', 'values': VALUES}])


def test_fields_can_have_other_names():
  vector = written({
      'key': 'a', 'embedding': VALUES, 'id': 'b', 'terms': ([1], [2.0])
  },
                   HYBRID,
                   id_field='key',
                   values_field='embedding',
                   sparse_field='terms')
  assert vector['id'] == 'a'
  assert vector['metadata'] == {'id': 'b'}
  assert vector['sparse'] == {1: 2.0}


def test_sparse_vectors_need_no_dense_values():
  row = {'id': 'a', 'sparse_values': ([5], [1.0]), 'values': []}
  assert written(row, SPARSE)['sparse'] == {5: 1.0}
  assert refused(row, HYBRID).error_type == 'MissingValues'
  assert refused(
      row | {
          'values': VALUES
      }, SPARSE).error_type == 'DenseOnSparseIndex'
  assert refused({
      'id': 'a', 'values': VALUES
  }, SPARSE).error_type == 'DenseOnSparseIndex'


def test_sparse_values_are_refused_where_they_cannot_be_searched():
  row = {'id': 'a', 'values': VALUES, 'sparse_values': ([5], [1.0])}
  invalid = refused(row, DENSE)
  assert invalid.error_type == 'SparseNotSupported'
  assert 'dotproduct' in invalid.reason
  assert written(row, DENSE, sparse_field=None, drop=['sparse_values'])


def test_both_numbers_of_a_wrong_dimension_are_named():
  invalid = refused({'id': 'a', 'values': [1.0, 2.0, 3.0]})
  assert invalid.error_type == 'WrongDimension'
  assert '3 values' in invalid.reason
  assert 'dimension 2' in invalid.reason
  assert invalid.key == 'a'


def test_without_a_known_dimension_the_service_decides():
  assert written({'id': 'a', 'values': [1.0]}, IndexSchema('docs'))


@pytest.mark.parametrize(
    'row, error_type, key',
    [
        ({}, 'MissingId', ''),
        ({
            'values': VALUES
        }, 'MissingId', ''),
        ({
            'id': 'a'
        }, 'MissingVector', 'a'),
        ({
            'id': 'a', 'values': None
        }, 'MissingVector', 'a'),
        ({
            'id': 'a', 'values': []
        }, 'MissingVector', 'a'),
        ({
            'id': 'x' * 600, 'values': VALUES
        }, 'IdTooLong', 'x' * 128 + '...'),
        ({
            'id': 'a', 'values': VALUES, '$eq': 1
        }, 'MetadataKey', 'a'),
        ({
            'id': 'a', 'values': VALUES, 5: 1
        }, 'MetadataKey', 'a'),
        ({
            'id': 'a', 'values': VALUES, 't': {
                'a': 1
            }
        }, 'MetadataType', 'a'),
        ({
            'id': 'a', 'values': VALUES, 't': 'x' * 50_000
        },
         'MetadataTooLarge',
         'a'),
        ('text', 'ElementType', ''),
        (None, 'ElementType', ''),
        (('a', VALUES), 'ElementType', ''),
    ],
    ids=lambda v: str(v)[:40])
def test_a_bad_record_is_refused_with_its_key(row, error_type, key):
  invalid = refused(row)
  assert invalid.error_type == error_type
  assert invalid.key == key
  assert len(invalid.reason) > 20


# ------------------------------------------------------------- namespaces


def test_a_namespace_is_chosen_per_record():
  row = {'id': 'a', 'values': VALUES, 'tenant': 't1', 'n': 1}
  vector = written(row, namespace='x-{tenant}')
  assert vector['namespace'] == 'x-t1'
  assert vector['metadata'] == {'n': 1.0}
  vector = written(row, namespace=lambda row: row['tenant'].upper())
  assert vector['namespace'] == 'T1'
  assert vector['metadata'] == {'tenant': 't1', 'n': 1.0}
  assert written(
      row, namespace='{tenant}', keep=['tenant'])['metadata'] == {
          'tenant': 't1'
      }
  assert written(row, namespace='__default__')['namespace'] == ''


@pytest.mark.parametrize(
    'namespace, error_type',
    [
        ('{nothing}', 'MissingNamespaceField'),
        ('{none}', 'MissingNamespaceField'),
        ('{umlaut}', 'NamespaceNotAscii'),
        (lambda row: None, 'NamespaceType'),
        (lambda row: 7, 'NamespaceType'),
        (lambda row: [], 'NamespaceType'),
    ],
    ids=str)
def test_a_record_without_a_usable_namespace_is_refused(namespace, error_type):
  row = {'id': 'a', 'values': VALUES, 'none': None, 'umlaut': 'ä'}
  assert refused(row, namespace=namespace).error_type == error_type


def test_a_refused_record_names_where_it_should_have_gone():
  row = {'id': 'a', 'tenant': 't1'}
  assert refused(row, namespace='{tenant}').destination == 't1'


# --------------------------------------------------------- EmbeddableItem


def item(**fields):
  fields = {
      'content': Content(text='the text'),
      'id': 'a',
      'metadata': {
          'lang': 'en', 'id': 'inner', 'tenant': 't1'
      },
      'embedding': Embedding(dense_embedding=VALUES),
  } | fields
  return Chunk(**fields)


def test_an_embeddable_item_is_written_with_its_text():
  vector = written(item())
  assert vector['id'] == 'a'
  assert vector['values'] == VALUES
  assert vector['metadata'] == {
      'lang': 'en', 'id': 'inner', 'tenant': 't1', 'content': 'the text'
  }


def test_the_text_of_an_item_has_a_key_of_its_own():
  assert written(
      item(), content_key='text', keep=['text'])['metadata'] == {
          'text': 'the text'
      }
  assert written(
      item(), content_key=None, drop=['id', 'tenant'])['metadata'] == {
          'lang': 'en'
      }
  taken = item(metadata={'content': 'another'})
  assert refused(taken).error_type == 'MetadataConflict'
  assert written(taken, content_key=None)['metadata'] == {'content': 'another'}
  assert written(item(metadata={'content': 'the text'}))


def test_an_item_may_be_sparse_or_hybrid():
  both = item(
      embedding=Embedding(
          dense_embedding=VALUES, sparse_embedding=([1, 2], [0.5, 1.0])))
  assert written(both, HYBRID)['sparse'] == {1: 0.5, 2: 1.0}
  sparse = item(embedding=Embedding(sparse_embedding=([1], [0.5])))
  assert written(sparse, SPARSE)['sparse'] == {1: 0.5}
  assert refused(item(embedding=None)).error_type == 'MissingVector'


def test_the_namespace_of_an_item_comes_from_its_metadata():
  vector = written(item(), namespace='{tenant}')
  assert vector['namespace'] == 't1'
  assert 'tenant' not in vector['metadata']
  assert written(item(), namespace=lambda row: row['lang'])['namespace'] == 'en'


def test_the_metadata_of_an_item_is_its_own_whatever_the_field_is_called():
  assert written(item(), metadata_field=None) == written(item())


# --------------------------------------------------------------- versions


@pytest.mark.parametrize(
    'version, expected',
    [
        (5, 5),
        (2.5, 2.5),
        ('2024-01-01', '2024-01-01'),
        (np.int64(5), 5),
        (datetime.datetime(1970, 1, 1, 0, 0, 1), 1_000_000),
        (
            datetime.datetime(
                1970,
                1,
                1,
                1,
                0,
                1,
                tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
            1_000_000),
        (Timestamp(1), 1_000_000),
    ],
    ids=repr)
def test_versions_compare(version, expected):
  block = encoder(version_field='v').encode({
      'id': 'a', 'values': VALUES, 'v': version
  })
  assert list(block.versions) == [expected]
  _, vectors = messages.read_request(block.rows)
  assert vectors['a']['metadata'] == {}


@pytest.mark.parametrize(
    'version, error_type',
    [(None, 'MissingVersion'), (float('nan'), 'VersionType'),
     ([], 'VersionType'), ('text', 'VersionType')])
def test_a_version_that_does_not_compare_is_refused(version, error_type):
  encode = encoder(version_field='v').encode
  row = {'id': 'a', 'values': VALUES, 'v': 1}
  assert isinstance(encode(row), Block)
  invalid = encode(row | {'v': version})
  assert invalid.error_type == error_type
  assert "'v'" in invalid.reason
