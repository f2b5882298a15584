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
"""Schemas: fingerprints, compatibility of changes, lock files."""

import typing

import apache_beam as beam
import pytest

from beam_connector_base.schema import Change
from beam_connector_base.schema import Field
from beam_connector_base.schema import Schema
from beam_connector_base.schema import SchemaChangedError
from beam_connector_base.schema import changes
from beam_connector_base.schema import check_lock

USERS = Schema.of(
    'store:users', {
        'age': 'int64', 'tags': 'list<string>', 'score': 'float32'
    }, {'dimension': 3})


def test_a_lock_file_round_trips(tmp_path):
  path = str(tmp_path / 'users.lock.json')
  USERS.save(path)
  assert Schema.load(path) == USERS


def test_equal_schemas_of_different_targets_have_equal_fingerprints():
  other = Schema('store:people', USERS.fields, USERS.properties)
  assert other.fingerprint == USERS.fingerprint
  assert Schema.of('store:users', {
      'age': 'int32'
  }).fingerprint != (
      USERS.fingerprint)


@pytest.mark.parametrize('text', ['', '{}', '[]', '{"lock_version": 1}'])
def test_what_is_no_lock_file_is_refused(text):
  with pytest.raises(ValueError, match='not a schema lock'):
    Schema.from_json(text)


def test_a_lock_file_edited_by_hand_is_refused():
  text = USERS.to_json().replace('"int64"', '"int32"')
  with pytest.raises(ValueError, match='its own fingerprint'):
    Schema.from_json(text)


def test_a_lock_file_of_another_version_is_refused():
  text = USERS.to_json().replace('"lock_version": 1', '"lock_version": 9')
  with pytest.raises(ValueError, match='version 9'):
    Schema.from_json(text)


def test_an_unknown_type_is_refused_with_the_field_s_name():
  with pytest.raises(ValueError, match="'age' has the unknown type 'int'"):
    Field('age', 'int')


def test_each_change_is_found_and_judged():
  after = Schema(
      'store:users',
      (
          Field('age', 'float64'),
          Field('score', 'float32', nullable=False),
          Field('name', 'string')), (('dimension', 4),))
  assert changes(USERS, after) == [
      Change('retyped', 'age', 'int64', 'float64', False),
      Change('removed', 'tags', 'list<string>', None, False),
      Change('nullability', 'score', True, False, True),
      Change('added', 'name', None, 'string', True),
      Change('property', 'dimension', 3, 4, False),
  ]


def test_the_lock_check_names_every_incompatible_change():
  after = Schema.of('store:users', {'age': 'float64'}, {'dimension': 4})
  with pytest.raises(SchemaChangedError) as e:
    check_lock(USERS, after)
  message = str(e.value)
  assert 'age was int64 and is float64' in message
  assert 'tags (list<string>) was removed' in message
  assert 'dimension was 3 and is 4' in message
  assert 'write the lock' in message


def test_a_field_that_was_added_is_compatible():
  after = Schema(
      USERS.target, USERS.fields + (Field('x', 'bool'),), USERS.properties)
  assert check_lock(USERS, after) == [Change('added', 'x', None, 'bool', True)]


def test_rows_of_a_schema_have_a_beam_schema():
  row_type = USERS.row_type('User')
  hints = typing.get_type_hints(row_type)
  assert hints['age'] == typing.Optional[int]
  beam.coders.registry.register_coder(row_type, beam.coders.RowCoder)
  coder = beam.coders.registry.get_coder(row_type)
  row = row_type(3, ['a'], None)
  assert tuple(coder.decode(coder.encode(row))) == (3, ['a'], None)


def test_a_field_that_can_not_be_in_a_row_is_named():
  with pytest.raises(ValueError, match="'view.age'"):
    Schema.of('s', {'view.age': 'int64'}).row_type('Row')
