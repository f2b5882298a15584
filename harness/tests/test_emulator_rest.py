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
"""REST as an emulator speaks it: HTTP/1.1 as clients and breakers use it."""

import socket

import pytest
from emulator_toys.clients import Rest
from emulator_toys.clients import raw
from emulator_toys.keyvalue import KEY


def test_a_request_reaches_the_service_and_its_answer_the_client(toy):
  with Rest(toy) as client:
    status, headers, _ = client.call('/put', b'a=1\nb=2')
    assert (status, headers['toy-rows']) == (200, '2')
    assert client.call('/get?id=b', method='GET')[2] == b'2'
  assert toy.snapshot() == {'rows': {'a': '1', 'b': '2'}}


def test_one_connection_serves_many_requests(toy):
  with Rest(toy) as client:
    for i in range(20):
      client.call('/put', b'k=%d' % i)
  assert toy.connections == 1
  assert toy.count('put').ok == 20


def test_query_and_headers_arrive_decoded_with_repeats_kept(toy):
  toy.capture(headers=True)
  with Rest(toy) as client:
    client.call('/put', 'ключ=1'.encode())
    assert client.call(
        '/get?id=%D0%BA%D0%BB%D1%8E%D1%87', method='GET')[2] == (b'1')
    client.call('/get?a+b=c%2Fd&a+b=', method='GET', headers={'X-One': '1'})
  assert toy.log('get')[-1].headers['x-one'] == '1'
  assert toy.log('get')[-1].path == '/get'


@pytest.mark.parametrize('size', [0, 1, 65_536, 3_000_000])
def test_a_body_of_any_size_comes_back_whole(toy, size):
  body = bytes(range(256)) * (size // 256 + 1)
  with Rest(toy) as client:
    assert client.call('/echo', body[:size])[2] == body[:size]


def test_a_chunked_body_is_put_together(toy):
  with Rest(toy) as client:
    pieces = iter([b'a' * 10, b'b' * 100_000, b'c'])
    assert client.call('/echo',
                       pieces)[2] == (b'a' * 10 + b'b' * 100_000 + b'c')


def test_requests_sent_ahead_are_answered_in_order(toy):
  request = (
      'POST /echo HTTP/1.1\r\nhost: x\r\napi-key: {}\r\n'
      'content-length: 1\r\n{}\r\n{}')
  answer = raw(
      toy,
      b''.join(
          request.format(KEY, last, body).encode()
          for body, last in (('1', ''), ('2', ''),
                             ('3', 'connection: close\r\n'))))
  assert [part[-1:] for part in answer.split(b'HTTP/1.1 200')[1:]
         ] == [b'1', b'2', b'3']


def test_a_client_that_expects_100_continue_gets_it(toy):
  head = (
      f'POST /echo HTTP/1.1\r\nhost: x\r\napi-key: {KEY}\r\n'
      'expect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n')
  host, _, port = toy.host.rpartition(':')
  with socket.create_connection((host, int(port)), 20) as sock:
    sock.sendall(head.encode())
    assert sock.recv(100).startswith(b'HTTP/1.1 100 ')
    sock.sendall(b'ok')
    assert sock.recv(1000).startswith(b'HTTP/1.1 200 ')


def test_a_request_line_that_comes_in_pieces_is_not_taken_for_grpc(toy):
  # 'P' could still begin the preface of HTTP/2.
  answer = raw(
      toy,
      b'P',
      b'OST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n',
      f'api-key: {KEY}\r\ncontent-length: 2\r\n\r\nok'.encode())
  assert answer.startswith(b'HTTP/1.1 200') and answer.endswith(b'ok')


@pytest.mark.parametrize(
    'data, status',
    [
        (b'nonsense\r\n\r\n', b'400'),
        (b'GET / HTTP/1.1\r\n\r\n', b'400'),
        (b'GET / HTTP/1.1\r\nhost: x\r\nx: ' + b'y' * 70_000, b'431'),
        (
            b'POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n'
            b'zz\r\n',
            b'400'),
    ])
def test_what_is_not_http_is_refused_and_the_connection_closed(
    toy, data, status):
  assert raw(toy, data).startswith(b'HTTP/1.1 ' + status)
  assert toy.log() == []


def test_an_unknown_path_gets_the_services_own_error(toy):
  with Rest(toy) as client:
    status, headers, body = client.call('/nowhere')
  assert (status, headers['content-type']) == (404, 'application/json')
  assert body == b'{"toy_error":"no such operation: nowhere"}'


def test_a_wrong_key_is_refused_by_the_service(toy):
  with Rest(toy) as client:
    assert client.call('/put', b'a=1', headers={'api-key': 'wrong'})[0] == 401
  assert toy.snapshot() == {'rows': {}}
