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
"""The metadata filter language of the emulated Pinecone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_harness.emulators.pinecone.errors import ServiceError
from beam_harness.emulators.pinecone.filters import compile_filter

FILM = {
    'title': 'Alien',
    'year': 1979.0,
    'seen': True,
    'genres': ['horror', 'science fiction'],
    'none': [],
}


@pytest.mark.parametrize(
    'expression, expected',
    [
        ({}, True),
        ({'title': 'Alien'}, True),
        ({'title': 'alien'}, False),
        ({'title': {'$eq': 'Alien'}}, True),
        ({'title': {'$ne': 'Alien'}}, False),
        ({'title': {'$ne': 'Aliens'}}, True),
        ({'year': 1979}, True),
        ({'year': {'$eq': 1979.0}}, True),
        ({'year': '1979'}, False),
        ({'year': {'$gt': 1979}}, False),
        ({'year': {'$gte': 1979}}, True),
        ({'year': {'$lt': 1979.5}}, True),
        ({'year': {'$lte': 1978}}, False),
        ({'year': {'$gt': 1900, '$lt': 1980}}, True),
        ({'year': {'$gt': 1900, '$lt': 1950}}, False),
        ({'year': {'$gt': 10**400}}, False),
        ({'title': {'$gt': 0}}, False),
        ({'seen': True}, True),
        ({'seen': 1}, False),
        ({'seen': {'$ne': False}}, True),
        ({'seen': {'$gt': 0}}, False),
        ({'genres': 'horror'}, True),
        ({'genres': {'$eq': 'comedy'}}, False),
        ({'genres': {'$ne': 'horror'}}, False),
        ({'genres': {'$in': ['comedy', 'horror']}}, True),
        ({'genres': {'$nin': ['comedy', 'horror']}}, False),
        ({'genres': {'$nin': ['comedy']}}, True),
        ({'genres': {'$gt': 1}}, False),
        ({'none': {'$in': ['horror']}}, False),
        ({'title': {'$in': ['Alien', 7]}}, True),
        ({'year': {'$in': ['Alien', 1979]}}, True),
        ({'title': {'$in': []}}, False),
        ({'title': {'$nin': []}}, True),
        ({'title': {'$exists': True}}, True),
        ({'title': {'$exists': False}}, False),
        ({'missing': {'$exists': False}}, True),
        ({'missing': 'x'}, False),
        ({'missing': {'$lt': 1}}, False),
        ({'title': 'Alien', 'year': 1979}, True),
        ({'title': 'Alien', 'year': 1980}, False),
        ({'$and': [{'title': 'Alien'}, {'seen': True}]}, True),
        ({'$and': [{'title': 'Alien'}, {'seen': False}]}, False),
        ({'$or': [{'title': 'Jaws'}, {'seen': True}]}, True),
        ({'$or': [{'title': 'Jaws'}, {'seen': False}]}, False),
        ({'$or': [{'$and': [{'seen': True}, {'year': 1979}]}, {'a': 1}]}, True),
        ({'$or': [{'title': 'Jaws'}, {'year': 1979}], 'seen': False}, False),
    ])  # yapf: disable
def test_filter_selects(expression, expected):
  assert compile_filter(expression)(FILM) is expected


@pytest.mark.parametrize(
    'expression, message',
    [
        ('x', 'filter must be an object'),
        ({'a': ['x']}, 'illegal condition for field a, got ["x"]'),
        ({'a': None}, 'illegal condition for field a, got null'),
        ({'a': {}}, 'illegal condition for field a, got {}'),
        ({'a': {'eq': 1}}, 'illegal condition for field a, got {"eq":1}'),
        ({'a': {'b': {'$eq': 1}}}, 'illegal condition for field a'),
        ({'a': {'$eq': ['x']}}, 'illegal condition for field a'),
        ({'a': {'$gt': 'x'}}, 'illegal condition for field a'),
        ({'a': {'$lt': True}}, 'illegal condition for field a'),
        ({'a': {'$in': 'x'}}, 'illegal condition for field a'),
        ({'a': {'$in': [True]}}, 'illegal condition for field a'),
        ({'a': {'$in': [['x']]}}, 'illegal condition for field a'),
        ({'a': {'$exists': 1}}, 'illegal condition for field a'),
        ({'a': {'$and': [{'b': 1}]}}, 'illegal condition for field a'),
        ({'a': {'$match_all': 'x'}}, 'illegal condition for field a'),
        ({'a': {'$in': list(range(10_001))}}, 'exceeds the limit of 10000'),
        ({'$not': {'a': 1}}, 'invalid operator $not'),
        ({'$eq': {'a': 1}}, 'invalid operator $eq'),
        ({'$and': []}, '$and must be a non-empty list'),
        ({'$or': {'a': 1}}, '$or must be a non-empty list'),
        ({'$or': [{}]}, '$or must hold filters'),
        ({'$or': ['x']}, '$or must hold filters'),
    ])  # yapf: disable
def test_filter_the_service_does_not_know_is_refused(expression, message):
  with pytest.raises(ServiceError) as caught:
    compile_filter(expression)
  assert message in caught.value.message
  assert (caught.value.code, caught.value.http) == (3, 400)


def test_filter_nested_without_end_is_refused():
  expression = {'a': 1}
  for _ in range(500):
    expression = {'$and': [expression]}
  with pytest.raises(ServiceError, match='nested too deeply'):
    compile_filter(expression)


@pytest.mark.parametrize('matches', [True, False])
@pytest.mark.parametrize('metadata', [None, {}, {'b': 1.0}])
def test_negation_of_a_missing_field_is_a_switch(matches, metadata):
  for expression in ({'a': {'$ne': 1}}, {'a': {'$nin': [1, 'x']}}):
    predicate = compile_filter(expression, negation_matches_missing=matches)
    assert predicate(metadata) is matches


SCALARS = st.one_of(
    st.booleans(),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.sampled_from(['a', 'b']))
METADATA = st.dictionaries(
    st.sampled_from('xyz'),
    st.one_of(SCALARS, st.lists(st.sampled_from(['a', 'b']), max_size=2)))
CONDITIONS = st.one_of(
    st.builds(lambda v: ('$eq', v), SCALARS),
    st.builds(lambda v: ('$ne', v), SCALARS),
    st.builds(
        lambda o, v: (o, v),
        st.sampled_from(['$gt', '$gte', '$lt', '$lte']),
        st.sampled_from([0, 1, 2.5])),
    st.builds(
        lambda o, v: (o, v),
        st.sampled_from(['$in', '$nin']),
        st.lists(st.sampled_from([0, 1, 'a', 'b']), max_size=3)),
    st.builds(lambda v: ('$exists', v), st.booleans()))
FILTERS = st.recursive(
    st.builds(lambda f, c: {f: dict([c])}, st.sampled_from('xyz'), CONDITIONS),
    lambda inner: st.builds(
        lambda o, parts: {o: parts}, st.sampled_from(['$and', '$or']), st.lists(
            inner, min_size=1, max_size=3)),
    max_leaves=6)


def model(expression, metadata):
  """The language, said a second time and as plainly as it goes."""
  ((name, value),) = expression.items()
  if name == '$and':
    return all(model(part, metadata) for part in value)
  if name == '$or':
    return any(model(part, metadata) for part in value)
  ((operator, operand),) = value.items()
  if operator == '$exists':
    return (name in metadata) == operand
  if name not in metadata:
    return operator in ('$ne', '$nin')
  stored = metadata[name]
  items = stored if isinstance(stored, list) else [stored]

  def same(a, b):
    return isinstance(a, bool) == isinstance(b, bool) and a == b

  if operator in ('$eq', '$ne'):
    return any(same(item, operand) for item in items) == (operator == '$eq')
  if operator in ('$in', '$nin'):
    hit = any(same(item, each) for item in items for each in operand)
    return hit == (operator == '$in')
  if isinstance(stored, bool) or not isinstance(stored, (int, float)):
    return False
  return {
      '$gt': stored > operand,
      '$gte': stored >= operand,
      '$lt': stored < operand,
      '$lte': stored <= operand,
  }[operator]


@given(FILTERS, METADATA)
def test_filter_agrees_with_a_model(expression, metadata):
  assert compile_filter(expression)(metadata) == model(expression, metadata)
