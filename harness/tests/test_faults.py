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
"""Fault plans: what they accept, and that they decide by seed, rule and n."""

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.injection import Faults
from beam_harness.faults import KINDS
from beam_harness.faults import FaultPlan
from beam_harness.faults import FaultRule


def hits(faults, n, operation='upsert', transport='grpc'):
  """Positions, of n requests, of those that a fault hit."""
  return [i for i in range(n) if faults.decide(operation, transport).kind]


RULES = st.builds(
    FaultRule,
    kind=st.sampled_from(sorted(set(KINDS) - {'poison', 'partial'})),
    operation=st.sampled_from(['*', 'upsert', 'query']),
    transport=st.sampled_from([None, 'rest', 'grpc']),
    probability=st.floats(0, 1),
    skip=st.integers(0, 5),
    first=st.none() | st.integers(1, 20),
    every=st.none() | st.integers(1, 5),
    count=st.none() | st.integers(1, 5),
    status=st.none() | st.integers(400, 599),
    grpc=st.none() | st.sampled_from(sorted(set(GRPC_CODES) - {'OK'})),
    retry_after=st.none() | st.floats(0, 10),
    seconds=st.floats(0, 1),
    jitter=st.floats(0, 1),
    after_effect=st.booleans())
PLANS = st.builds(
    FaultPlan, st.lists(RULES, max_size=4), seed=st.integers(0, 2**40))


@given(PLANS)
def test_a_plan_survives_json(plan):
  assert FaultPlan.from_json(json.dumps(plan.to_json())) == plan


@given(PLANS, st.lists(st.sampled_from(['upsert', 'query']), max_size=40))
def test_two_runs_of_one_plan_decide_alike(plan, operations):
  first, second = Faults(plan), Faults(plan)
  for operation in operations:
    assert first.decide(operation, 'grpc') == second.decide(operation, 'grpc')


@given(
    st.lists(st.sampled_from(['upsert', 'query', 'fetch']), max_size=60),
    st.integers(0, 9))
def test_requests_of_other_operations_change_nothing(operations, seed):
  plan = FaultPlan([FaultRule('error', 'upsert', probability=0.5)], seed)
  alone = hits(Faults(plan), 60)
  mixed = Faults(plan)
  seen = []
  for operation in operations:
    if mixed.decide(operation, 'grpc').kind:
      seen.append(operation)
  upserts = operations.count('upsert')
  assert seen == ['upsert'] * sum(i < upserts for i in alone)


def test_a_rule_decides_alike_whatever_rules_stand_behind_it():
  rule = FaultRule('error', probability=0.5)
  alone = hits(Faults(FaultPlan([rule], seed=3)), 50)
  more = Faults(FaultPlan([rule, FaultRule('reset', probability=0.5)], seed=3))
  kinds = [more.decide('upsert', 'grpc').kind for _ in range(50)]
  assert [i for i, kind in enumerate(kinds) if kind == 'error'] == alone


def test_threads_at_once_get_the_decisions_of_one_after_the_other():
  plan = FaultPlan([FaultRule('error', probability=0.3, count=40)], seed=1)
  expected = len(hits(Faults(plan), 800))
  faults = Faults(plan)
  found = []
  threads = [
      threading.Thread(target=lambda: found.extend(hits(faults, 100)))
      for _ in range(8)
  ]
  for each in threads:
    each.start()
  for each in threads:
    each.join()
  assert len(found) == expected == 40
  assert faults.hits() == [40]


def test_another_seed_hits_other_requests():
  rules = [FaultRule('error', probability=0.5)]
  assert hits(Faults(FaultPlan(rules, 1)),
              64) != hits(Faults(FaultPlan(rules, 2)), 64)


def test_probability_is_the_share_of_requests_hit():
  plan = FaultPlan([FaultRule('error', probability=0.1)], seed=5)
  assert 800 < len(hits(Faults(plan), 10_000)) < 1_200


@pytest.mark.parametrize(
    'rule, expected',
    [
        (FaultRule('error', first=3), [0, 1, 2]),
        (FaultRule('error', skip=2, first=3), [2, 3, 4]),
        (FaultRule('error', every=4), [0, 4, 8]),
        (FaultRule('error', skip=1, every=4), [1, 5, 9]),
        (FaultRule('error', skip=5, count=2), [5, 6]),
        (FaultRule('error', probability=0), []),
        (FaultRule('error', transport='rest'), []),
        (FaultRule('error', operation='query'), []),
    ])
def test_a_rule_picks_its_requests(rule, expected):
  assert hits(Faults(FaultPlan([rule])), 10) == expected


def test_delays_add_up_and_the_first_other_rule_decides():
  decision = Faults(
      FaultPlan([
          FaultRule('latency', seconds=0.25),
          FaultRule('throttle', retry_after=2),
          FaultRule('reset'),
          FaultRule('latency', seconds=0.5),
          FaultRule('latency', seconds=4, after_effect=True),
      ])).decide('upsert', 'rest')
  assert (decision.kind, decision.delay, decision.late) == ('throttle', 0.75, 4)


def test_jitter_stays_within_its_bounds_and_differs():
  faults = Faults(FaultPlan([FaultRule('latency', seconds=1, jitter=0.5)]))
  delays = {faults.decide('upsert', 'grpc').delay for _ in range(50)}
  assert len(delays) == 50 and min(delays) >= 1 and max(delays) < 1.5


def test_poison_hits_requests_that_hold_a_matching_record_and_no_others():
  faults = Faults(FaultPlan([FaultRule('poison', records='^bad-', count=2)]))
  outcomes = [
      faults.decide('upsert', 'grpc', lambda ids=ids: ids).message
      for ids in (['a'], ['a', 'bad-1'], ['not-bad-2'], ['bad-3'], ['bad-4'])
  ]
  assert outcomes == [
      '',
      "record 'bad-1' is refused (injected fault)",
      '',
      "record 'bad-3' is refused (injected fault)",
      ''
  ]


@pytest.mark.parametrize(
    'rule',
    [
        FaultRule('reset', after_effect=True, count=1),
        FaultRule('error', after_effect=True, count=1),
        FaultRule('hang', after_effect=True, count=1),
        FaultRule('truncate', count=1),
        FaultRule('slow_body', seconds=1, count=1),
    ],
    ids=lambda rule: rule.kind)
def test_a_fault_that_lets_a_request_through_gives_way_to_poison(rule):
  faults = Faults(FaultPlan([rule, FaultRule('poison', records='^bad')]))
  poisoned = faults.decide('put', 'rest', lambda: ['a', 'bad'])
  assert (poisoned.kind, poisoned.applies) == ('poison', False)
  # It has not happened yet: the next request meets it.
  assert faults.hits() == [0, 1]
  assert faults.decide('put', 'rest', lambda: ['a']).kind == rule.kind
  assert faults.hits() == [1, 1]


def test_a_fault_that_keeps_a_request_out_comes_before_poison():
  faults = Faults(
      FaultPlan(
          [FaultRule('reset', count=1), FaultRule('poison', records='^bad')]))
  outcomes = [faults.decide('put', 'rest', lambda: ['bad']) for _ in range(2)]
  assert [each.kind for each in outcomes] == ['reset', 'poison']


def test_poison_comes_before_a_partial_failure():
  rules = [
      FaultRule('partial', records='0$'), FaultRule('poison', records='^bad')
  ]
  faults = Faults(FaultPlan(rules))
  kinds = [
      faults.decide('put', 'rest', lambda ids=ids: ids,
                    can_be_partial=True).kind
      for ids in (['a0', 'bad'], ['a0', 'b'])
  ]
  assert kinds == ['poison', 'partial']


def test_partial_refuses_matching_records_or_a_share_by_draw():
  ids = [f'r{i}' for i in range(100)]
  by_name = Faults(FaultPlan([FaultRule('partial', records='r7')])).decide(
      'put', 'rest', lambda: ids, can_be_partial=True)
  assert [i for i, each in enumerate(ids) if by_name.refuse(i, each)
         ] == [7, *range(70, 80)]
  by_draw = Faults(FaultPlan([FaultRule('partial', share=0.3)])).decide(
      'put', 'rest', lambda: ids, can_be_partial=True)
  assert 15 < sum(by_draw.refuse(i, each) for i, each in enumerate(ids)) < 45


def test_record_ids_are_not_asked_for_without_a_record_rule():
  def never():
    raise AssertionError('asked for record ids')

  faults = Faults(FaultPlan([FaultRule('error', probability=0)]))
  assert faults.decide('upsert', 'grpc', never).kind is None


def test_a_partial_rule_needs_an_operation_that_can_be_partial():
  faults = Faults(FaultPlan([FaultRule('partial', 'upsert')]))
  with pytest.raises(ValueError, match="answers 'upsert' as a whole"):
    faults.check(['put'])
  faults.check(['upsert'])
  with pytest.raises(ValueError, match='possible for: none'):
    Faults(FaultPlan([FaultRule('partial')])).check([])


@pytest.mark.parametrize(
    'rule, http, grpc',
    [
        (FaultRule('error'), 503, 'UNAVAILABLE'),
        (FaultRule('throttle'), 429, 'RESOURCE_EXHAUSTED'),
        (FaultRule('poison', records='x'), 400, 'INVALID_ARGUMENT'),
        (FaultRule('error', status=500), 500, 'INTERNAL'),
        (FaultRule('error', grpc='ABORTED'), 503, 'ABORTED'),
        (FaultRule('error', status=418), 418, 'UNKNOWN'),
    ])
def test_error_statuses_have_the_defaults_of_their_kind(rule, http, grpc):
  assert rule.http_status() == http
  assert rule.grpc_status() == GRPC_CODES[grpc]


@pytest.mark.parametrize(
    'fields, message',
    [
        ({
            'kind': 'explode'
        }, 'kind must be one of'),
        ({}, 'needs a kind'),
        ({
            'kind': 'error', 'probabilty': 1
        }, 'no field probabilty'),
        ({
            'kind': 'error', 'probability': 1.5
        }, 'probability must be'),
        ({
            'kind': 'error', 'status': 200
        }, 'status must be'),
        ({
            'kind': 'error', 'grpc': 'OK'
        }, 'grpc must be'),
        ({
            'kind': 'error', 'transport': 'smoke'
        }, 'transport must be'),
        ({
            'kind': 'error', 'first': 0
        }, 'first must be'),
        ({
            'kind': 'latency', 'seconds': -1
        }, 'seconds must be'),
        ({
            'kind': 'poison'
        }, 'records must be given'),
        ({
            'kind': 'poison', 'records': '('
        }, 'no regular expression'),
        ({
            'kind': 'error', 'records': 'a'
        }, 'poison or partial'),
    ])
def test_a_bad_rule_is_refused_with_the_field_named(fields, message):
  with pytest.raises(ValueError, match=message):
    FaultRule.from_json(fields)


@pytest.mark.parametrize('text', ['[]', '{"rule": []}', 'not json'])
def test_what_is_no_plan_is_refused(text):
  with pytest.raises(ValueError):
    FaultPlan.from_json(text)
