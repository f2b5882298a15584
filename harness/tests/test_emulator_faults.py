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
"""Each kind of fault as a client of either transport meets it."""

import http.client
import time

import grpc
import pytest
from emulator_toys.clients import Grpc
from emulator_toys.clients import Rest
from emulator_toys.clients import in_background

from beam_harness.emulators.handle import EmulatorError
from beam_harness.faults import FaultPlan
from beam_harness.faults import FaultRule


class Caller:
  """Calls either transport and says what came of it."""
  def __init__(self, emulator, transport):
    self.transport = transport
    self._client = (Rest if transport == 'rest' else Grpc)(emulator)

  def __enter__(self):
    self._client.__enter__()
    return self

  def __exit__(self, *exc):
    self._client.__exit__(*exc)

  def call(self, operation, body=b'', timeout=20.0):
    """Returns (ok or error code, text, retry-after), or (None, error, None)
    where no whole answer came."""
    try:
      if self.transport == 'rest':
        self._client._connection.timeout = timeout
        status, headers, text = self._client.call(f'/{operation}', body)
        return (
            'ok' if status == 200 else status, text, headers.get('retry-after'))
      call = self._client.call(f'/Toy/{operation.title()}', body, timeout)
      return 'ok', call.result(), None
    except (OSError, http.client.HTTPException) as e:
      return None, e, None
    except grpc.RpcError as e:
      trailers = dict(e.trailing_metadata() or ())
      lost = e.code().name in ('UNAVAILABLE', 'DEADLINE_EXCEEDED') and (
          'injected' not in e.details())
      return (
          None if lost else e.code().name,
          e if lost else e.details(),
          trailers.get('retry-after'))


@pytest.fixture(params=['rest', 'grpc'])
def caller(toy, request):
  with Caller(toy, request.param) as caller:
    yield caller


def one(rest, grpc, caller):
  return rest if caller.transport == 'rest' else grpc


def test_an_error_is_in_the_words_of_the_service(toy, caller):
  toy.faults([FaultRule('error', first=1)])
  code, text, retry_after = caller.call('put', b'a=1')
  assert (code, retry_after) == (one(503, 'UNAVAILABLE', caller), None)
  assert text == one(
      b'{"toy_error":"error (injected fault)"}',
      'error (injected fault)',
      caller)
  assert caller.call('put', b'a=1')[0] == 'ok'
  assert [(each.fault, each.applied, each.ok) for each in toy.log()
         ] == [('error', False, False), (None, True, True)]


@pytest.mark.parametrize('retry_after', [None, 0.5, 2.0])
def test_throttling_says_when_to_come_back_if_the_plan_does(
    toy, caller, retry_after):
  toy.faults([FaultRule('throttle', retry_after=retry_after)])
  code, _, header = caller.call('put', b'a=1')
  assert code == one(429, 'RESOURCE_EXHAUSTED', caller)
  assert header == {None: None, 0.5: '0.5', 2.0: '2'}[retry_after]


def test_a_rule_for_one_transport_leaves_the_other_alone(toy):
  toy.faults([FaultRule('error', transport='grpc')])
  with Caller(toy, 'rest') as rest, Caller(toy, 'grpc') as rpc:
    assert rest.call('put', b'a=1')[0] == 'ok'
    assert rpc.call('put', b'a=1')[0] == 'UNAVAILABLE'


def test_an_error_after_effect_leaves_the_record_written(toy, caller):
  toy.faults([FaultRule('error', after_effect=True)])
  assert caller.call('put', b'a=1')[0] == one(503, 'UNAVAILABLE', caller)
  assert toy.snapshot() == {'rows': {'a': '1'}}
  assert toy.log()[0].applied


def test_a_reset_breaks_the_connection_the_request_came_on(toy, caller):
  toy.faults([FaultRule('reset', first=1)])
  code, error, _ = caller.call('put', b'a=1')
  assert code is None
  assert 'reset' in str(error).lower()
  assert toy.snapshot() == {'rows': {}}
  assert caller.call('put', b'a=1')[0] == 'ok'
  broken, fine = toy.log()
  assert (broken.status, broken.fault, broken.applied) == (None, 'reset', False)
  assert broken.connection != fine.connection


def test_a_reset_after_effect_leaves_the_record_written(toy, caller):
  toy.faults([FaultRule('reset', after_effect=True)])
  assert caller.call('put', b'a=1')[0] is None
  assert toy.snapshot() == {'rows': {'a': '1'}}


def test_a_reset_of_a_grpc_connection_ends_all_calls_on_it(toy):
  toy.faults([FaultRule('hang', 'get'), FaultRule('reset', 'put')])
  with Grpc(toy) as client:
    waiting = [client.start('/Toy/Get', b'a') for _ in range(5)]
    toy.wait_for(lambda counts: counts['get'].in_flight == 5)
    with pytest.raises(grpc.RpcError):
      client.call('/Toy/Put', b'a=1')
    assert {each.exception().code() for each in waiting
           } == {grpc.StatusCode.UNAVAILABLE}
  assert toy.count('get').unanswered == 5
  assert toy.connections == 1


@pytest.mark.parametrize('size', [0, 20, 200_000])
def test_a_truncated_answer_is_begun_and_never_ends(toy, caller, size):
  toy.faults([FaultRule('truncate', first=1)])
  code, error, _ = caller.call('echo', b'x' * size)
  assert code is None
  if caller.transport == 'rest' and size:
    assert isinstance(error, http.client.IncompleteRead)
    assert len(error.partial) == size // 2
  entry, = toy.log()
  assert (entry.status, entry.fault, entry.applied) == (None, 'truncate', True)
  assert caller.call('echo', b'y')[1] == b'y'


def test_a_hanging_request_ends_when_its_client_gives_up(toy, caller):
  toy.faults([FaultRule('hang', first=1)])
  assert caller.call('put', b'a=1', timeout=0.2)[0] is None
  toy.wait_for(lambda counts: counts['put'].unanswered == 1)
  assert toy.snapshot() == {'rows': {}}
  assert caller.call('put', b'a=1')[0] == 'ok'


def test_a_delay_holds_the_answer_back_for_its_time(toy, caller):
  toy.faults([FaultRule('latency', seconds=0.15)])
  begun = time.monotonic()
  assert caller.call('put', b'a=1')[0] == 'ok'
  assert time.monotonic() - begun >= 0.15
  entry, = toy.log()
  assert entry.ended - entry.started >= 0.15
  assert (entry.fault, entry.ok) == ('latency', True)


def test_a_client_that_leaves_during_a_delay_leaves_no_effect(toy, caller):
  toy.faults([FaultRule('latency', seconds=30)])
  assert caller.call('put', b'a=1', timeout=0.2)[0] is None
  toy.wait_for(lambda counts: counts['put'].unanswered == 1)
  assert toy.snapshot() == {'rows': {}}


def test_a_late_answer_has_its_effect_at_once(toy, caller):
  toy.faults([FaultRule('latency', seconds=30, after_effect=True)])
  assert caller.call('put', b'a=1', timeout=0.2)[0] is None
  toy.wait_for(lambda counts: counts['put'].unanswered == 1)
  assert toy.snapshot() == {'rows': {'a': '1'}}


def test_delayed_requests_are_in_flight_together(toy):
  toy.faults([FaultRule('latency', seconds=0.2)])
  begun = time.monotonic()
  with Grpc(toy) as client:
    calls = [client.start('/Toy/Put', b'k%d=1' % i) for i in range(100)]
    for each in calls:
      each.result()
  # One after the other they would take 20 s.
  assert time.monotonic() - begun < 5
  assert toy.max_in_flight('put') == 100


def test_a_slow_body_arrives_whole_in_its_time(toy, caller):
  toy.faults([FaultRule('slow_body', seconds=0.2)])
  body = bytes(range(256)) * 100
  begun = time.monotonic()
  assert caller.call('echo', body)[:2] == ('ok', body)
  assert time.monotonic() - begun >= 0.15
  assert toy.log()[0].ok


def test_a_slow_body_begins_before_it_ends(toy):
  toy.faults([FaultRule('slow_body', seconds=4)])
  connection = http.client.HTTPConnection(toy.host, timeout=20)
  connection.request('POST', '/echo', b'abcdefgh', {'api-key': 'wrong'})
  response = connection.getresponse()
  assert response.status == 401
  assert response.read(1) == b'{'
  response.close()
  connection.close()
  toy.wait_for(lambda counts: counts['echo'].unanswered == 1)


def test_poison_refuses_a_whole_request_and_spares_the_others(toy, caller):
  toy.faults([FaultRule('poison', records='^bad$')])
  assert caller.call('put',
                     b'a=1\nbad=2')[0] == one(400, 'INVALID_ARGUMENT', caller)
  assert caller.call('put', b'b=1\nnot-bad=2')[0] == 'ok'
  assert toy.snapshot() == {'rows': {'b': '1', 'not-bad': '2'}}
  assert toy.count('put').faults == {'poison': 1}


@pytest.mark.parametrize('kind', ['reset', 'truncate', 'slow_body'])
def test_a_poisoned_record_is_stored_by_no_other_fault(toy, caller, kind):
  toy.faults([
      FaultRule(kind, after_effect=True), FaultRule('poison', records='^bad$')
  ])
  assert caller.call('put',
                     b'a=1\nbad=2')[0] == one(400, 'INVALID_ARGUMENT', caller)
  assert toy.snapshot() == {'rows': {}}


def test_a_partial_failure_is_the_services_own_and_spares_the_others(
    toy, caller):
  toy.faults([FaultRule('partial', records='b')])
  assert caller.call('put', b'a=1\nb=2\nc=3')[:2] == ('ok', b'b')
  assert toy.snapshot() == {'rows': {'a': '1', 'c': '3'}}


def test_a_partial_rule_for_all_passes_by_operations_without_partial_answers(
    toy, caller):
  toy.faults([FaultRule('partial')])
  assert caller.call('echo', b'a=1')[:2] == ('ok', b'a=1')


def test_a_plan_that_the_service_cannot_carry_out_is_refused(toy):
  toy.faults([FaultRule('error')])
  with pytest.raises(EmulatorError, match="answers 'get' as a whole"):
    toy.faults([FaultRule('partial', 'get')])
  with Caller(toy, 'rest') as caller:
    assert caller.call('put', b'a=1')[0] == 503  # The plan before goes on.


def test_one_plan_hits_the_same_requests_each_time(toy_in_each_mode):
  toy = toy_in_each_mode
  plan = FaultPlan([
      FaultRule('error', 'put', probability=0.3),
      FaultRule('reset', 'put', probability=0.1)
  ],
                   seed=11)

  def run():
    toy.faults(plan)
    with Caller(toy, 'rest') as caller:
      return [caller.call('put', b'a=1')[0] for _ in range(60)]

  first = run()
  assert run() == first
  assert {503, None, 'ok'} == set(first)
  assert toy.fault_hits[0] == first.count(503)


def test_a_defect_of_the_service_is_told_from_a_fault(toy, caller):
  code, _, _ = caller.call('put', b'=broken=')
  assert code == one(500, 'INTERNAL', caller)
  assert 'the toy is broken' in toy.defects[0]
  assert caller.call('put', b'a=1')[0] == 'ok'
  toy.reset()  # Or the fixture would fail this test, as it should.


def test_a_reset_of_the_emulator_lets_nothing_in_flight_touch_the_new_state(
    toy):
  toy.faults([FaultRule('latency', seconds=0.1)])
  with Caller(toy, 'grpc') as caller:
    waiting = in_background(caller.call, 'put', b'old=1')
    toy.wait_for(lambda counts: counts['put'].in_flight == 1)
    toy.reset()
    assert waiting.result(20)[0] is None
    assert caller.call('put', b'new=1')[0] == 'ok'
  assert toy.snapshot() == {'rows': {'new': '1'}}
  entry, = toy.log()
  assert (entry.number, entry.ok) == (0, True)
  assert toy.max_in_flight() == 1
