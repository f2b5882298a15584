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
import typing

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.ml.rag.types import Chunk
from apache_beam.ml.rag.types import Content

from beam_connector_base.rows import as_mapping
from beam_connector_base.rows import is_block
from beam_connector_base.rows import nested


class Named(typing.NamedTuple):
  id: str
  values: list


@dataclasses.dataclass
class Data:
  id: str
  values: list


VALUES = [1.0]


@pytest.mark.parametrize(
    'element',
    [
        {
            'id': 'a', 'values': VALUES
        },
        collections.OrderedDict(id='a', values=VALUES),
        beam.Row(id='a', values=VALUES),
        Named('a', VALUES),
        Data('a', VALUES),
    ],
    ids=lambda element: type(element).__name__)
def test_all_kinds_of_elements_read_alike(element):
  for _ in range(2):
    mapping = as_mapping(element)
    assert list(mapping.items()) == [('id', 'a'), ('values', VALUES)]
    assert mapping['values'] is VALUES


def test_beams_own_dataclasses_are_read():
  item = Chunk(content=Content(text='t'), id='a')
  assert as_mapping(item)['id'] == 'a'
  assert as_mapping(item)['content'] is item.content


@pytest.mark.parametrize('element', ['text', ('a', 1), 7, None, Data])
def test_other_elements_are_refused_and_the_accepted_kinds_named(element):
  with pytest.raises(TypeError, match='dict.*Row.*NamedTuple.*RecordBatch'):
    as_mapping(element)


def test_only_a_record_batch_is_a_block():
  assert is_block(pa.record_batch({'id': ['a']}))
  assert not is_block(pa.table({'id': ['a']}))
  assert not is_block([{'id': 'a'}])


def test_a_record_within_a_record_is_a_mapping():
  named = collections.namedtuple('Named', ['b', 'a'])
  assert nested(beam.Row(a=1, b=2)) == {'a': 1, 'b': 2}
  assert nested(named(2, 1)) == {'a': 1, 'b': 2}
  for value in ({'a': 1}, 'text', (1, 2), [1], None, 5):
    assert nested(value) is value
