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
"""What an emulator's log remembers, and what it must not."""

import json
import time

import pytest
from emulator_toys.clients import Grpc
from emulator_toys.clients import Rest
from emulator_toys.keyvalue import KEY

from beam_harness.emulators.core import Call
from beam_harness.emulators.core import without_secrets
from beam_harness.emulators.handle import EmulatorError
from beam_harness.emulators.requestlog import Capture
from beam_harness.emulators.requestlog import Counts
from beam_harness.emulators.requestlog import RequestLog
from beam_harness.faults import FaultRule


def test_an_entry_has_the_facts_of_its_request(toy_in_each_mode):
  toy = toy_in_each_mode
  before = time.monotonic()
  with Rest(toy) as client:
    client.call('/put?x=secret', b'a=1\nb=2', headers={'X-Request-Id': 'r-7'})
  after = time.monotonic()
  entry, = toy.log()
  # The same clock, even in another process.
  assert before < entry.started <= entry.ended < after
  assert (entry.number, entry.operation, entry.transport) == (0, 'put', 'rest')
  assert (entry.method, entry.path) == ('POST', '/put')
  assert (entry.status, entry.ok, entry.applied) == (200, True, True)
  assert (entry.records, entry.nbytes) == (2, 7)
  assert (entry.request_id, entry.fault) == ('r-7', None)
  assert entry.peer.startswith('127.0.0.1:')
  assert entry.headers is entry.body is None


def test_captured_headers_and_bodies_hold_no_secret(toy_in_each_mode):
  toy = toy_in_each_mode
  toy.capture(headers=True, bodies=True)
  body = b'a=\xff\x00'
  with Grpc(toy) as client:
    client.call('/Toy/Echo', body)
  entry, = toy.log()
  assert entry.body == body
  assert entry.headers['api-key'] == '***'
  assert entry.headers['user-agent'].startswith('grpc-python')
  assert entry.headers['host'] == toy.host
  toy.reset()
  with Rest(toy) as client:
    client.call('/echo', b'x')
  assert toy.log()[0].headers is None


@pytest.mark.parametrize(
    'name',
    [
        'api-key',
        'authorization',
        'proxy-authorization',
        'x-amz-security-token',
        'cookie',
        'x-client-secret',
        'x-signature',
    ])
def test_headers_that_may_be_secrets_are_blanked(name):
  assert without_secrets({
      name: KEY, 'content-type': 'x'
  }) == {
      name: '***', 'content-type': 'x'
  }


def test_nothing_the_emulator_says_holds_the_key(toy_in_each_mode):
  toy = toy_in_each_mode
  toy.capture(headers=True, bodies=True)
  with Rest(toy) as rest, Grpc(toy) as rpc:
    rest.call('/put', b'a=1')
    rest.call('/nowhere')
    rpc.call('/Toy/Put', b'a=1')
  said = [
      repr(toy.log()), toy.describe_last(9), json.dumps(toy.stats()), repr(toy)
  ]
  assert not [text for text in said if KEY in text]


def test_counts_sum_the_requests_of_an_operation(toy_in_each_mode):
  toy = toy_in_each_mode
  toy.faults([FaultRule('error', 'put', first=1), FaultRule('reset', 'get')])
  with Rest(toy) as rest, Grpc(toy) as rpc:
    rest.call('/put', b'a=1\nb=2')
    rest.call('/put', b'a=1\nb=2')
    rpc.call('/Toy/Put', b'c=3')
    with pytest.raises(OSError):
      rest.call('/get?id=a')
  assert toy.counts() == {
      'put':
          Counts(
              requests=3,
              ok=2,
              failed=1,
              max_in_flight=1,
              records=5,
              ok_records=3,
              nbytes=17,
              statuses={
                  'rest:503': 1, 'rest:200': 1, 'grpc:0': 1
              },
              faults={'error': 1}),
      'get':
          Counts(
              requests=1, unanswered=1, max_in_flight=1, faults={'reset': 1}),
  }
  assert toy.count('delete') == Counts()


def test_the_log_can_be_asked_in_parts(toy):
  with Rest(toy) as rest, Grpc(toy) as rpc:
    for i in range(4):
      rest.call('/put', b'a=%d' % i)
      rpc.call('/Toy/Get', b'a')
  assert [each.number for each in toy.log('get')] == [1, 3, 5, 7]
  assert [each.number for each in toy.log(transport='rest')] == [0, 2, 4, 6]
  assert [each.number for each in toy.log(after=5)] == [6, 7]
  assert [each.number for each in toy.last(3)] == [5, 6, 7]
  assert toy.log('put', fault='error') == []


def test_a_log_of_a_hundred_thousand_comes_whole_and_in_order(toy):
  # More than ten pages. Put in by the side door: the wire is tested elsewhere.
  log = RequestLog()
  call = Call('rest', 'POST', '/put', headers={}, body=b'x')
  for _ in range(100_000):
    log.end(log.begin(call, 'put', 1, 1, 'peer'), 200)
  assert log.counts()['put'].ok_records == 100_000
  numbers, after = [], -1
  while page := log.entries(after=after, limit=10_000):
    numbers += [each.number for each in page]
    after = page[-1].number
  assert numbers == list(range(100_000))


def test_the_handle_reads_all_pages(toy):
  with Grpc(toy) as client:
    calls = [client.start('/Toy/Get', b'a') for _ in range(12_000)]
    for each in calls:
      each.result()
  assert [each.number for each in toy.log()] == list(range(12_000))


def test_a_full_log_drops_the_oldest_and_counts_all():
  log = RequestLog(capacity=10)
  call = Call('rest', 'POST', '/put', headers={}, body=b'x')
  for _ in range(25):
    log.end(log.begin(call, 'put', 1, 1, 'peer'), 200)
  assert [each.number for each in log.entries()] == list(range(15, 25))
  assert [each.number for each in log.entries(after=21)] == [22, 23, 24]
  assert [each.number for each in log.entries(after=16)] == list(range(17, 25))
  assert [each.number for each in log.last(2)] == [23, 24]
  assert (log.dropped, log.counts()['put'].requests) == (15, 25)


def test_a_request_of_before_a_reset_does_not_count_after_it():
  log = RequestLog()
  log.capture = Capture(bodies=True)
  call = Call('grpc', '/Toy/Put', '/Toy/Put', headers={}, body=b'x')
  old = log.begin(call, 'put', 1, 1, 'peer')
  log.reset()
  new = log.begin(call, 'put', 1, 1, 'peer')
  log.end(old, 0)
  counts = log.counts()['put']
  assert (counts.in_flight, counts.ok, log.max_in_flight) == (1, 0, 1)
  log.end(new, 0)
  log.end(new, 14)  # Ends once.
  assert log.counts()['put'].statuses == {'grpc:0': 1}


def test_state_can_be_seeded_read_and_reset(toy_in_each_mode):
  toy = toy_in_each_mode
  toy.seed({'rows': {'a': '1'}})
  toy.seed({'rows': {'b': '2'}})
  assert toy.snapshot() == {'rows': {'a': '1', 'b': '2'}}
  with pytest.raises(EmulatorError, match="the toy's state is"):
    toy.seed({'columns': {}})
  toy.reset()
  assert toy.snapshot() == {'rows': {}}


def test_clearing_the_log_leaves_state_and_faults(toy):
  toy.seed({'rows': {'a': '1'}})
  toy.faults([FaultRule('error')])
  with Rest(toy) as client:
    client.call('/put', b'b=1')
    toy.clear_log()
    assert toy.log() == []
    assert client.call('/put', b'b=1')[0] == 503
  assert toy.snapshot() == {'rows': {'a': '1'}}


def test_connections_are_those_that_clients_used(toy):
  assert (toy.connections, toy.open_connections) == (0, 0)  # None for admin.
  with Rest(toy) as first, Rest(toy) as second:
    for client in (first, second, first):
      client.call('/echo')
    assert (toy.connections, toy.open_connections) == (2, 2)
  with Rest(toy) as third:
    third.call('/echo')
    assert toy.connections == 3


def test_waiting_for_what_does_not_come_says_what_did(toy):
  with Rest(toy) as client:
    client.call('/echo')
  with pytest.raises(TimeoutError, match="'echo'"):
    toy.wait_for(lambda counts: counts['put'].requests, timeout=0.05)


def test_an_unknown_admin_request_is_an_error(toy):
  with Rest(toy) as client:
    assert client.call('/_harness/nothing')[0] == 404
    assert client.call('/_harness/log')[0] == 405
    assert client.call('/_harness/seed', b'{')[0] == 400
  assert toy.log() == []
