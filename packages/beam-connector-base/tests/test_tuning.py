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

from beam_connector_base.operation import Limits
from beam_connector_base.tuning import Tuning


class Limiter:
  """In the shape of Beam's RateLimiter."""
  def __init__(self, rate):
    self.rate = rate

  def allow(self, *, hits_added=1):
    return hits_added <= self.rate


@pytest.mark.parametrize(
    'field,value',
    [
        ('max_records', 0),
        ('max_records', 2.5),
        ('max_records', True),
        ('max_bytes', -1),
        ('in_flight', '8'),
        ('attempt_timeout', 0),
        ('attempt_timeout', float('nan')),
        ('deadline', float('inf')),
        ('deadline', True),
        ('open_deadline', -5),
        ('backoff', -0.1),
        ('backoff', 'fast'),
        ('quota_share', 0),
        ('quota_share', 1.01),
        ('pending_bytes', 0),
        ('in_flight_bytes', 0),
        ('across_bundles', 0),
        ('on_outage', 'ignore'),
        ('refusals_in_a_row', -1),
        ('refusals_in_a_row', 1.0),
        ('rate_limiter', object()),
    ])
def test_a_value_out_of_range_is_refused_by_name(field, value):
  with pytest.raises(ValueError, match=f'Tuning.{field} '):
    Tuning(**{field: value})


@pytest.mark.parametrize(
    'field,value',
    [
        ('max_records', 1),
        ('attempt_timeout', 0.5),
        ('backoff', 0),
        ('quota_share', 1),
        ('quota_share', 0.25),
        ('on_outage', 'collect'),
        ('refusals_in_a_row', 0),
    ])
def test_values_at_the_edge_are_accepted(field, value):
  assert getattr(Tuning(**{field: value}), field) == value


def test_without_settings_the_limits_of_the_service_hold():
  limits = Limits(max_records=7, max_bytes=100)
  assert Tuning().apply(limits) is limits


def test_settings_narrow_the_limits_and_never_widen_them():
  limits = Limits(max_records=100, max_bytes=1000, in_flight=8)
  narrow = Tuning(max_records=10, max_bytes=500).apply(limits)
  assert (narrow.max_records, narrow.max_bytes) == (10, 500)
  wide = Tuning(max_records=10_000, max_bytes=10_000).apply(limits)
  assert (wide.max_records, wide.max_bytes) == (100, 1000)
  assert Tuning(max_bytes=9).apply(Limits()).max_bytes == 9


def test_in_flight_is_a_cap_and_not_a_start():
  limits = Limits(in_flight=8, max_in_flight=64)
  few = Tuning(in_flight=2).apply(limits)
  assert (few.in_flight, few.max_in_flight) == (2, 2)
  many = Tuning(in_flight=200).apply(limits)
  assert (many.in_flight, many.max_in_flight) == (8, 200)


def test_times_are_the_users():
  limits = Tuning(attempt_timeout=1.5, deadline=2.5).apply(Limits())
  assert (limits.attempt_timeout, limits.deadline) == (1.5, 2.5)


def test_copies_stay_equal_after_pickling_also_with_a_rate_limiter():
  tuning = Tuning(max_records=3, rate_limiter=Limiter(5))
  copies = [pickle.loads(pickle.dumps(tuning)) for _ in range(2)]
  assert copies[0] == copies[1] == tuning
  assert len({hash(tuning), *map(hash, copies)}) == 1
  assert copies[0].rate_limiter(hits_added=5) is True
  assert copies[0].rate_limiter(hits_added=6) is False
