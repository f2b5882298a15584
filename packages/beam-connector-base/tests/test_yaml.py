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

from typing import NamedTuple
from typing import Optional

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.typehints import row_type
from apache_beam.utils.timestamp import Timestamp

from beam_connector_base.credentials import EnvSecret
from beam_connector_base.credentials import FileSecret
from beam_connector_base.failures import FailedRecord
from beam_connector_base.tuning import Tuning
from beam_connector_base.yaml import ErrorHandling
from beam_connector_base.yaml import fields_of_type
from beam_connector_base.yaml import read_settings
from beam_connector_base.yaml import secret_of
from beam_connector_base.yaml import tuning_of


class Doc(NamedTuple):
  id: str
  n: Optional[int]


FAILED = FailedRecord(
    Doc('a', 1),
    'tenant',
    'a',
    'send',
    'Refused',
    'it is too large',
    413,
    2,
    Timestamp(0))


def test_errors_are_rows_of_element_message_and_stack():
  errors = ErrorHandling.of({'output': 'bad'})
  assert errors.on_error == 'collect'
  with beam.Pipeline(runner='FnApiRunner') as p:
    good = p | 'Good' >> beam.Create([Doc('b', 2)])
    failed = p | 'Failed' >> beam.Create([FAILED])
    outputs = errors.outputs(good, failed, Doc)
    assert sorted(outputs) == ['bad', 'good']
    assert outputs['good'] is good
    kind = outputs['bad'].element_type
    assert isinstance(kind, row_type.RowTypeConstraint)
    assert [name for name, _ in kind._fields] == ['element', 'msg', 'stack']
    assert_that(
        outputs['bad'] | beam.Map(lambda row: (row.element.id, row.msg)),
        equal_to([('a', 'Refused: it is too large')]))
    assert_that(
        outputs['bad'] | 'Stack' >> beam.Map(lambda row: row.stack),
        equal_to([
            "stage send, key 'a', destination 'tenant', status 413, 2 attempts"
        ]),
        'stack')


def test_without_error_handling_there_is_one_output():
  errors = ErrorHandling.of(None)
  assert errors.on_error == 'fail'
  good, failed = object(), object()
  assert errors.outputs(good, failed, Doc) is good


@pytest.mark.parametrize(
    'spec, says',
    [
        ({}, 'output'),
        ('bad', 'mapping'),
        ({
            'output': ''
        }, 'output'),
        ({
            'output': 'good'
        }, "not 'good'"),
        ({
            'output': 'bad', 'stage': 1
        }, 'no setting stage'),
    ],
    ids=str)
def test_error_handling_that_is_none_is_named(spec, says):
  with pytest.raises(ValueError, match=says):
    ErrorHandling.of(spec)


def test_what_the_loader_of_beam_adds_is_no_setting():
  spec = {'output': 'bad', '__line__': 7, '__uuid__': 'x'}
  assert read_settings('error_handling', spec, ('output',)) == {'output': 'bad'}


def test_a_tuning_is_made_of_its_fields():
  assert tuning_of(None) is None
  assert tuning_of({'max_records': 5}) == Tuning(max_records=5)
  with pytest.raises(ValueError, match='no setting rate_limiter'):
    tuning_of({'rate_limiter': 'x'})
  with pytest.raises(ValueError, match='max_records'):
    tuning_of({'max_records': '5'})


def test_a_secret_is_a_reference():
  assert secret_of('A', None, None, 'key') == EnvSecret('A')
  assert secret_of(None, 'path', None, 'key') == FileSecret('path')
  assert secret_of(None, None, 'default', 'key') == 'default'
  with pytest.raises(ValueError, match='key_env and key_file'):
    secret_of('A', 'path', None, 'key')


def test_fields_are_those_of_the_type_of_rows():
  assert fields_of_type(Doc) == [('id', str), ('n', Optional[int])]
  kind = row_type.RowTypeConstraint.from_fields([('x', int)])
  assert fields_of_type(kind) == [('x', int)]
  assert fields_of_type(dict) is None
