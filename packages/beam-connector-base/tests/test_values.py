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
import socket

import pyarrow as pa
import pytest
from apache_beam.internal import pickler

from beam_connector_base.values import ByValue
from beam_connector_base.values import CallableError
from beam_connector_base.values import MissingField
from beam_connector_base.values import choose

BATCH = pa.record_batch({
    'tenant': ['a', None, 'c'],
    'shard': [1, 2, 3],
    'vector': [[0.0], [1.0], [2.0]],
})


def test_callable_is_equal_to_copies_of_its_copies():
  suffix = '!'
  original = ByValue(lambda row: row['a'] + suffix)
  copies = [original]
  for dumps, loads in ((pickler.dumps, pickler.loads),
                       (pickle.dumps, pickle.loads)) * 2:
    copies.append(loads(dumps(copies[-1])))
  assert len(set(copies)) == 1
  assert copies[-1]({'a': 'x'}) == 'x!'
  # Also once the function itself was unpickled.
  assert copies[-1] == original
  assert len({*copies, pickle.loads(pickle.dumps(copies[-1]))}) == 1


def test_different_callables_differ():
  assert ByValue(lambda row: 1) != ByValue(lambda row: 2)


def test_wrapping_twice_changes_nothing():
  original = ByValue(str)
  assert ByValue(original) == original


def test_callable_that_can_not_be_pickled_is_refused_at_construction():
  connection = socket.socket()
  with pytest.raises(ValueError, match="can't be pickled.*socket"):
    ByValue(lambda row: connection)
  connection.close()


def test_what_is_no_callable_is_refused():
  with pytest.raises(TypeError, match='callable, not int'):
    ByValue(7)


@pytest.mark.parametrize('spec', ['plain', '', None, 7])
def test_constants(spec):
  chosen = choose(spec)
  assert chosen.is_constant
  assert chosen.of({}) == chosen.constant == spec
  assert chosen.column(BATCH) == [spec] * 3


def test_doubled_braces_stand_for_themselves():
  assert choose('{{x}}').constant == '{x}'
  assert choose('{{{a}}}').of({'a': 1}) == '{1}'


def test_template_reads_fields():
  chosen = choose('{tenant}-{shard}-{tenant}')
  assert chosen.fields == ('tenant', 'shard')
  assert not chosen.is_constant
  assert chosen.of({'tenant': 'a', 'shard': 7}) == 'a-7-a'
  assert str(chosen) == '{tenant}-{shard}-{tenant}'
  assert pickle.loads(pickle.dumps(chosen)) == chosen == choose(str(chosen))


def test_missing_and_null_fields_are_named():
  chosen = choose('{tenant}')
  with pytest.raises(KeyError, match="'tenant' is missing") as raised:
    chosen.of({'other': 1})
  assert raised.value.field == 'tenant'
  with pytest.raises(MissingField, match="'tenant' is null"):
    chosen.of({'tenant': None})


def test_missing_field_survives_pickling():
  error = pickle.loads(pickle.dumps(MissingField('tenant', 'is null')))
  assert (error.field, str(error)) == ('tenant', "the field 'tenant' is null")


@pytest.mark.parametrize(
    'spec, expected',
    [
        ('{tenant}', ['a', None, 'c']),
        ('{shard}', ['1', '2', '3']),
        ('{tenant}/{shard}', ['a/1', None, 'c/3']),
        ('{nothing}', [None, None, None]),
    ])
def test_column_of_a_template_costs_only_the_rows_that_lack_a_field(
    spec, expected):
  values = choose(spec).column(BATCH)
  assert [
      None if isinstance(value, MissingField) else value for value in values
  ] == expected


def test_column_of_a_callable_equals_row_by_row():
  chosen = choose(lambda row: f"{row['shard']}:{sorted(row)}:{len(row)}")
  assert chosen.column(BATCH) == [chosen.of(row) for row in BATCH.to_pylist()]


def test_a_callable_that_raises_is_named_with_the_fields_it_was_given():
  chosen = choose(lambda row: row['region'])
  with pytest.raises(
      CallableError,
      match=r"lambda.*KeyError: 'region'.*fields tenant, shard:"):
    chosen.of({'tenant': 'payload', 'shard': 1})
  with pytest.raises(CallableError, match='vector, row 0:') as raised:
    chosen.column(BATCH)
  assert 'payload' not in str(raised.value)


@pytest.mark.parametrize('spec', ['{', '}', '{}', '{a!r}', '{a:>3}', '{ }'])
def test_malformed_template_is_refused_at_construction(spec):
  with pytest.raises(ValueError, match='malformed template'):
    choose(spec)
