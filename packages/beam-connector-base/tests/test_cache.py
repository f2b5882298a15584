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
"""The cache: time to live, least recently used, and "not found"."""

import pytest

from beam_connector_base.cache import MISS
from beam_connector_base.cache import AnswerCache
from beam_connector_base.cache import Cache
from beam_connector_base.operation import MISSING


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return Clock()


def test_an_answer_is_used_until_its_time_is_over(clock):
  cache = AnswerCache(Cache(ttl=10), clock)
  cache.put('a', 1)
  clock.now = 9.9
  assert cache.get('a') == 1
  clock.now = 10
  assert cache.get('a') is MISS
  assert len(cache) == 0


def test_not_found_has_a_time_of_its_own(clock):
  cache = AnswerCache(Cache(ttl=10, missing_ttl=2), clock)
  cache.put('a', MISSING)
  cache.put('b', 1)
  assert cache.get('a') is MISSING
  clock.now = 2
  assert cache.get('a') is MISS
  assert cache.get('b') == 1


def test_not_found_is_not_kept_when_its_time_is_zero(clock):
  cache = AnswerCache(Cache(ttl=10, missing_ttl=0), clock)
  cache.put('a', MISSING)
  assert cache.get('a') is MISS


def test_the_least_recently_used_answer_goes_first(clock):
  cache = AnswerCache(Cache(ttl=10, max_entries=2), clock)
  cache.put('a', 1)
  cache.put('b', 2)
  cache.get('a')
  cache.put('c', 3)
  assert [cache.get(key) for key in 'abc'] == [1, MISS, 3]


@pytest.mark.parametrize(
    'setting',
    [{
        'ttl': 0
    }, {
        'ttl': True
    }, {
        'ttl': 1, 'max_entries': 0
    }, {
        'ttl': 1, 'missing_ttl': -1
    }, {
        'ttl': float('nan')
    }])
def test_a_setting_out_of_range_is_refused_by_name(setting):
  with pytest.raises(ValueError, match=f'Cache.{list(setting)[-1]}'):
    Cache(**setting)
