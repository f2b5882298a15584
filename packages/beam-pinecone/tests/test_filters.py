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
"""Filters: what is refused and how it is said, templates, callables."""

import pickle

import numpy as np
import pytest
import query_messages as messages

from beam_connector_base.values import CallableError
from beam_pinecone.encode.filters import Filter
from beam_pinecone.encode.filters import FilterReader
from beam_pinecone.encode.filters import filter_bytes
from beam_pinecone.errors import Refused


def read(encoded):
  """A filter's bytes as plain data."""
  return _plain(messages.Struct.FromString(encoded))


def _plain(struct):
  return {key: _value(value) for key, value in struct.fields.items()}


def _value(value):
  kind = value.WhichOneof('kind')
  if kind == 'struct_value':
    return _plain(value.struct_value)
  if kind == 'list_value':
    return [_value(item) for item in value.list_value.values]
  return getattr(value, kind)


LEGAL = [
    {'lang': 'en'},
    {'year': {'$gte': 2020, '$lt': 2024.5}},
    {'ok': True, 'lang': {'$ne': 'de'}},
    {'tag': {'$in': ['a', 'b', 3]}},
    {'tag': {'$nin': []}},
    {'tag': {'$exists': False}},
    {'$or': [{'a': 1}, {'$and': [{'b': 2}, {'c': 'x'}]}]},
    {'': {'$eq': ''}},
    {'größe': {'$gt': -1}},
]  # yapf: disable


@pytest.mark.parametrize('expression', LEGAL, ids=str)
def test_a_filter_says_on_the_wire_what_was_typed(expression):
  assert read(filter_bytes(expression)) == expression
  assert filter_bytes(expression) == messages.ordered_struct(
      expression).SerializeToString()


def test_numpy_scalars_and_arrays_are_plain_values():
  assert read(
      filter_bytes({
          'a': np.int64(3),
          'b': {
              '$gt': np.float32(0.5)
          },
          'c': {
              '$in': np.array(['x', 'y'])
          },
          'd': np.bool_(True)
      })) == {
          'a': 3, 'b': {
              '$gt': 0.5
          }, 'c': {
              '$in': ['x', 'y']
          }, 'd': True
      }


endless = {}
endless['$and'] = [endless]

ILLEGAL = [
    ({'lang': {'$like': 'e%'}}, "'lang'.*no operator \\$like.*\\$eq"),
    ({'$eq': 3}, '\\$eq belongs to a field'),
    ({'$not': [{'a': 1}]}, 'no operator \\$not'),
    ({'text': {'$match_all': 'word'}}, '\\$match_all.*document indexes'),
    ({'a': {'$or': [{'b': 1}]}}, '\\$or stands beside fields'),
    ({'a': {'b': {'c': 1}}}, "'a'.*'b' is no operator.*not nested"),
    ({'a': {}}, "'a' has an empty condition"),
    ({'a': None}, "'a': \\$eq takes no None.*\\$exists"),
    ({'a': ['x', 'y']}, "'a': \\$eq takes one value.*\\$in"),
    ({'a': {'$gt': '2020'}}, "'a': \\$gt takes a number, not '2020'.*1970"),
    ({'a': {'$lte': True}}, "'a': \\$lte takes a number"),
    ({'a': {'$in': 'xy'}}, "'a': \\$in takes a list"),
    ({'a': {'$in': ['x', True]}}, "'a': \\$in takes a list.*holds True"),
    ({'a': {'$exists': 1}}, "'a': \\$exists takes True or False"),
    ({'a': {'$nin': list(range(10_001))}}, '10001 values.*limit is 10000'),
    ({'a': float('nan')}, "'a': \\$eq: nan is no number"),
    ({'a': 2**53 + 1}, "'a': \\$eq: 9007199254740993.*beyond 2\\*\\*53"),
    ({'$and': []}, '\\$and takes a list of filters'),
    ({'$and': [{}]}, '\\$and takes a list of filters, which holds \\{\\}'),
    ({'$or': {'a': 1}}, '\\$or takes a list of filters'),
    ({3: 'a'}, '3 is a int.*fields and operators'),
    ({'a': '\ud800'}, "'a': \\$eq holds a lone surrogate"),
    (endless, 'more than 32 levels'),
]  # yapf: disable


@pytest.mark.parametrize('expression, says', ILLEGAL, ids=lambda x: str(x)[:40])
def test_what_the_service_would_reject_is_refused_with_its_place(
    expression, says):
  with pytest.raises(Refused, match=says):
    filter_bytes(expression)


@pytest.mark.parametrize('expression, says', ILLEGAL, ids=lambda x: str(x)[:40])
def test_a_constant_is_checked_where_it_is_typed(expression, says):
  with pytest.raises(ValueError, match='^filter: .*' + says):
    Filter.of(expression)


@pytest.mark.parametrize('wrong', ['lang = en', 5, ['a']], ids=str)
def test_what_is_no_filter_at_all_is_named(wrong):
  with pytest.raises(TypeError, match='filter is a '):
    Filter.of(wrong)


def test_no_filter_and_an_empty_one_are_the_same():
  for nothing in (None, {}):
    reader = FilterReader(Filter.of(nothing))
    assert reader.is_constant
    assert reader.of({'a': 1}) is None


def test_filters_are_equal_by_value_and_survive_pickling():
  one = Filter.of({'a': np.int64(1), 'b': np.str_('x')})
  assert one == Filter.of({'b': 'x', 'a': 1})
  assert hash(one) == hash(pickle.loads(pickle.dumps(one)))
  template = Filter.of({'a': '{a}'})
  assert pickle.loads(pickle.dumps(template)) == template
  assert template != one


def test_fields_of_the_record_stand_in_for_templates():
  reader = FilterReader(
      Filter.of({
          'lang': '{lang}',
          'year': {
              '$gte': '{since}'
          },
          '$or': [{
              'tenant': 'team-{team}'
          }, {
              'tag': {
                  '$in': '{tags}'
              }
          }],
          'kind': {
              '$in': ['{lang}', 'all']
          },
      }))
  assert set(reader.fields) == {'lang', 'since', 'team', 'tags'}
  row = {
      'lang': 'en', 'since': 2020, 'team': 7, 'tags': ['a', 'b'], 'more': None
  }
  for _ in range(2):
    assert read(reader.of(row)) == {
        'lang': 'en',
        'year': {
            '$gte': 2020
        },
        '$or': [{
            'tenant': 'team-7'
        }, {
            'tag': {
                '$in': ['a', 'b']
            }
        }],
        'kind': {
            '$in': ['en', 'all']
        },
    }


def test_values_that_are_equal_in_python_only_are_kept_apart():
  reader = FilterReader(Filter.of({'a': '{a}'}))
  values = [1, True, 1.0, False, 0]
  assert [read(reader.of({'a': v}))['a'] for v in values] == values
  assert [type(read(reader.of({'a': v}))['a']) for v in values] == [
      float, bool, float, bool, float]  # yapf: disable


def test_braces_that_are_doubled_stand_for_themselves():
  reader = FilterReader(Filter.of({'a': '{{x}}'}))
  assert reader.is_constant
  assert read(reader.constant) == {'a': '{x}'}


@pytest.mark.parametrize('row', [{}, {'lang': None}], ids=str)
def test_a_record_without_a_field_of_the_template_is_refused(row):
  reader = FilterReader(Filter.of({'lang': '{lang}'}))
  with pytest.raises(Refused, match="'lang'.*filter is made of") as raised:
    reader.of(row)
  assert raised.value.error_type == 'MissingFilterField'


def test_a_value_the_service_would_reject_refuses_its_record_only():
  reader = FilterReader(Filter.of({'year': {'$gte': '{year}'}}))
  with pytest.raises(Refused, match='takes a number'):
    reader.of({'year': 'last'})
  assert read(reader.of({'year': 3})) == {'year': {'$gte': 3}}


def test_a_malformed_template_is_an_error_at_construction():
  with pytest.raises(ValueError, match='filter: malformed template'):
    Filter.of({'a': '{a'})


def test_a_callable_makes_the_filter_or_none():
  chosen = Filter.of(lambda row: row.get('f'))
  reader = FilterReader(pickle.loads(pickle.dumps(chosen)))
  assert not reader.is_constant
  assert read(reader.of({'f': {'a': '{b}'}})) == {'a': '{b}'}
  assert reader.of({'f': {}}) is None
  assert reader.of({}) is None
  for wrong in ('a', {'$x': 1}):
    with pytest.raises(Refused):
      reader.of({'f': wrong})


def test_a_callable_that_can_not_be_sent_is_named():
  endless_rows = (row for row in ())
  with pytest.raises(ValueError, match="can't be pickled"):
    Filter.of(lambda row: endless_rows)


def test_a_callable_that_raises_is_named():
  reader = FilterReader(Filter.of(lambda row: {'a': row['b']}))
  with pytest.raises(CallableError, match='lambda.*KeyError.*fields c'):
    reader.of({'c': 1})
