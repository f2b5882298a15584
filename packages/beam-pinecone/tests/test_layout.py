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

import pytest

from beam_pinecone.encode.layout import Layout


@pytest.mark.parametrize(
    'arguments, error, says',
    [
        ({
            'keep': 'title'
        }, TypeError, "keep=['title']"),
        ({
            'drop': 'title'
        }, TypeError, "drop=['title']"),
        ({
            'keep': 5
        }, TypeError, 'keep'),
        ({
            'keep': [1]
        }, TypeError, 'keep'),
        ({
            'keep': ['a'], 'drop': ['b']
        }, ValueError, 'exclude'),
        ({
            'keep': ['id']
        }, ValueError, 'id_field'),
        ({
            'keep': ['$x']
        }, ValueError, '$'),
        ({
            'id_field': ''
        }, ValueError, 'id_field'),
        ({
            'id_field': None
        }, TypeError, 'id_field'),
        ({
            'values_field': 5
        }, TypeError, 'values_field'),
        ({
            'values_field': None, 'sparse_field': None
        },
         ValueError,
         'needs values'),
        ({
            'values_field': 'id'
        }, ValueError, 'both'),
        ({
            'version_field': 'values'
        }, ValueError, 'version_field'),
        ({
            'namespace': None
        }, TypeError, 'namespace'),
        ({
            'namespace': 5
        }, TypeError, 'namespace'),
        ({
            'namespace': 'ä'
        }, ValueError, 'ASCII'),
        ({
            'namespace': 'n' * 513
        }, ValueError, '512'),
        ({
            'namespace': '{'
        }, ValueError, 'template'),
    ],
    ids=str)
def test_a_mistake_is_named_at_construction(arguments, error, says):
  with pytest.raises(error, match='.') as raised:
    Layout.of(**arguments)
  assert says in str(raised.value)


def test_an_unpicklable_callable_is_named_at_construction():
  stream = (row for row in ())
  with pytest.raises(ValueError, match='pickled'):
    Layout.of(namespace=lambda row: str(stream))


def test_layouts_are_equal_by_value_after_pickling():
  layout = Layout.of(
      namespace='{tenant}', keep=['b', 'a', 'a'], version_field='v')
  copy = pickle.loads(pickle.dumps(layout))
  assert copy == layout == Layout.of(
      namespace='{tenant}', keep=('a', 'b'), version_field='v')
  assert hash(copy) == hash(layout)


def test_metadata_is_every_field_not_used_otherwise():
  names = ['id', 'values', 'sparse_values', 'metadata', 'v', 'tenant', 'a', 'b']
  where = {'namespace': '{tenant}', 'version_field': 'v'}
  assert Layout.of(**where).metadata_fields(names) == ['a', 'b']
  assert Layout.of(drop=['a'], **where).metadata_fields(names) == ['b']
  assert Layout.of(
      keep=['tenant', 'v', 'b'],
      **where).metadata_fields(names) == ['v', 'tenant', 'b']


def test_keep_and_drop_name_keys_of_a_mapping_or_all_of_it():
  names = ['a', 'b']
  assert Layout.of().merged_fields(names) == names
  assert Layout.of(keep=['a']).merged_fields(names) == ['a']
  assert Layout.of(keep=['metadata']).merged_fields(names) == names
  assert Layout.of(drop=['a']).merged_fields(names) == ['b']
  assert Layout.of(drop=['metadata']).merged_fields(names) == []
