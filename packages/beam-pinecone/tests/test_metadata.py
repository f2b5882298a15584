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

import datetime
import decimal
import enum
import json

import numpy as np
import pinecone_messages as messages
import pytest
from apache_beam.utils.timestamp import Timestamp

from beam_pinecone.errors import Refused
from beam_pinecone.wire.metadata import MAX_METADATA_BYTES
from beam_pinecone.wire.metadata import MetadataKey
from beam_pinecone.wire.metadata import encode_metadata


class Color(str, enum.Enum):
  RED = 'red'


def encoded(metadata):
  return encode_metadata([MetadataKey(k) for k in sorted(metadata)], metadata)


def same(value, plain):
  expected = messages.upsert_request([{
      'id': 'a', 'metadata': {
          'k': plain
      }
  }]).vectors[0].metadata
  return encoded({'k': value}) == expected.SerializeToString()


@pytest.mark.parametrize(
    'value, plain',
    [
        (np.float64(1.5), 1.5),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float16(0.5), 0.5),
        (np.int64(2**53), 2**53),
        (np.uint8(7), 7),
        (np.bool_(True), True),
        (np.str_('x'), 'x'),
        (Color.RED, 'red'),
        (('a', 'b'), ['a', 'b']),
        (np.array(['a', 'b']), ['a', 'b']),
        (np.array(['a', 'b'], object), ['a', 'b']),
        ([np.str_('a')], ['a']),
        ([], []),
        (-2**53, -2**53),
        (0, 0),
        ('', ''),
        (False, False),
    ])
def test_a_value_that_loses_nothing_is_converted(value, plain):
  assert same(value, plain)


def test_none_means_that_the_record_does_not_have_the_key():
  assert encoded({'a': None, 'b': 1}) == encoded({'b': 1})
  assert encoded({'a': None}) == b''


@pytest.mark.parametrize(
    'value, error_type, says',
    [
        ({
            'a': 1
        }, 'MetadataType', 'does not nest'),
        ([1, 2], 'MetadataType', 'lists of strings'),
        (['a', 1], 'MetadataType', 'lists of strings'),
        (['a', None], 'MetadataType', 'lists of strings'),
        (('a', b'b'), 'MetadataType', 'lists of strings'),
        (np.array([1.0]), 'MetadataType', 'lists of strings'),
        (np.zeros((1, 1)), 'MetadataType', '2 dimensions'),
        ([['a']], 'MetadataType', 'lists of strings'),
        (b'x', 'MetadataType', 'decode it'),
        (datetime.date(2024, 1, 1), 'MetadataType', 'isoformat'),
        (datetime.datetime(2024, 1, 1), 'MetadataType', 'isoformat'),
        (np.datetime64('2024-01-01'), 'MetadataType', 'isoformat'),
        (Timestamp(1), 'MetadataType', 'isoformat'),
        (decimal.Decimal(1), 'MetadataType', 'Decimal'),
        ({'a'}, 'MetadataType', 'a set'),
        (2**53 + 1, 'MetadataInteger', '2**53'),
        (-2**53 - 1, 'MetadataInteger', '2**53'),
        (10**400, 'MetadataInteger', '2**53'),
        (np.int64(2**53 + 1), 'MetadataInteger', '2**53'),
        (np.uint64(2**64 - 1), 'MetadataInteger', '2**53'),
        (float('nan'), 'MetadataNotFinite', 'leave it out'),
        (float('inf'), 'MetadataNotFinite', 'leave it out'),
        (np.float32('nan'), 'MetadataNotFinite', 'leave it out'),
        ('\ud800', 'MetadataText', 'surrogate'),
        (['\ud800'], 'MetadataText', 'surrogate'),
    ])
def test_what_the_service_rejects_or_changes_is_refused(
    value, error_type, says):
  with pytest.raises(Refused) as refused:
    encoded({'field': value})
  assert refused.value.error_type == error_type
  assert says in refused.value.reason
  assert "'field'" in refused.value.reason


@pytest.mark.parametrize('key', ['$eq', '$', 1, None, '\ud800'])
def test_a_key_the_service_does_not_take_is_refused(key):
  with pytest.raises(Refused) as refused:
    MetadataKey(key)
  assert refused.value.error_type in ('MetadataKey', 'MetadataText')


@pytest.mark.parametrize('unit', ['x', 'ü', '"', '\n', '\x01', '€'])
def test_metadata_may_fill_the_limit_but_not_exceed_it(unit):
  unit_bytes = len(json.dumps(unit, ensure_ascii=False).encode()) - 2
  frame = len('{"k":"","r":""}')
  full, rest = divmod(MAX_METADATA_BYTES - frame, unit_bytes)
  metadata = {'k': unit * full, 'r': 'x' * rest}
  assert encoded(metadata)
  metadata['r'] += 'x'
  with pytest.raises(Refused) as refused:
    encoded(metadata)
  assert refused.value.error_type == 'MetadataTooLarge'
  assert '40961 bytes' in refused.value.reason
  assert "'k'" in refused.value.reason
