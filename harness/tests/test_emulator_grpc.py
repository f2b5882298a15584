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
"""gRPC as an emulator speaks it: what grpcio and the bytes of HTTP/2 expect."""

import grpc
import hpack
import pytest
from emulator_toys.clients import Grpc
from emulator_toys.clients import Rest
from emulator_toys.clients import raw
from emulator_toys.keyvalue import KEY

from beam_harness.emulators.frames import END_HEADERS
from beam_harness.emulators.frames import END_STREAM
from beam_harness.emulators.frames import HEAD
from beam_harness.emulators.frames import LONG
from beam_harness.emulators.frames import PADDED
from beam_harness.emulators.frames import PREFACE
from beam_harness.emulators.frames import SETTING
from beam_harness.emulators.frames import WITH_PRIORITY
from beam_harness.emulators.frames import Code
from beam_harness.emulators.frames import Kind
from beam_harness.emulators.frames import frame
from beam_harness.faults import FaultRule


def test_a_message_reaches_the_service_and_its_answer_the_client(toy):
  with Grpc(toy) as client:
    call = client.call('/Toy/Put', b'a=1\nb=2')
    assert call.code() is grpc.StatusCode.OK
    assert ('toy-rows', '2') in call.trailing_metadata()
    assert client.call('/Toy/Get', b'b').result() == b'2'
  assert toy.snapshot() == {'rows': {'a': '1', 'b': '2'}}


def test_rest_and_grpc_share_the_port_and_the_state(toy):
  with Grpc(toy) as client, Rest(toy) as rest:
    client.call('/Toy/Put', b'a=1')
    assert rest.call('/get?id=a', method='GET')[2] == b'1'
  assert [each.transport for each in toy.log()] == ['grpc', 'rest']


# Around the default frame (16 KiB), the default window (64 KiB) in which the
# answer has to wait for the client, and our own frame (1 MiB).
@pytest.mark.parametrize(
    'size', [0, 1, 16_379, 16_380, 65_530, 65_536, 1_048_576, 9_000_000])
def test_a_message_of_any_size_comes_back_whole(toy, size):
  message = (bytes(range(256)) * (size // 256 + 1))[:size]
  with Grpc(toy) as client:
    assert client.call('/Toy/Echo', message).result() == message


def test_many_large_answers_share_the_windows_of_one_connection(toy):
  messages = [bytes([i]) * 700_000 for i in range(24)]
  with Grpc(toy) as client:
    calls = [client.start('/Toy/Echo', each) for each in messages]
    assert [each.result() for each in calls] == messages
  assert toy.connections == 1


def test_more_bytes_than_a_window_pass_through_one_connection(toy):
  # The stream's window is 64 MiB; a message of 100 MB needs more granted.
  message = bytes(100_000_000)
  with Grpc(toy, **{'grpc.max_send_message_length': -1}) as client:
    assert client.call('/Toy/Put', message).code() is grpc.StatusCode.OK
  assert toy.count('put').nbytes == len(message)


def test_a_refusal_has_code_text_and_no_message(toy):
  with Grpc(toy) as client:
    with pytest.raises(grpc.RpcError) as caught:
      client.call('/Toy/Put', b'a=1', key='wrong')
  assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
  assert caught.value.details() == 'Unauthorized'


def test_a_status_text_may_hold_any_character(toy):
  text = 'Größe 100 % überschritten — \n zweite Zeile'
  toy.faults([FaultRule('error', message=text)])
  with Grpc(toy) as client:
    with pytest.raises(grpc.RpcError) as caught:
      client.call('/Toy/Put', b'a=1')
  assert caught.value.details() == text


def test_a_compressed_message_is_understood(toy):
  with Grpc(toy) as client:
    message = b'k=' + b'v' * 50_000
    client.call('/Toy/Put', message, compression=grpc.Compression.Gzip)
    client.call('/Toy/Put', message, compression=grpc.Compression.Deflate)
  assert [each.nbytes for each in toy.log('put')] == [len(message)] * 2


def test_a_call_that_its_client_cancels_ends_without_an_answer(toy):
  toy.faults([FaultRule('hang')])
  with Grpc(toy) as client:
    call = client.start('/Toy/Echo', b'x')
    toy.wait_for(lambda counts: counts['echo'].in_flight == 1)
    call.cancel()
    toy.wait_for(lambda counts: counts['echo'].unanswered == 1)
    toy.faults(None)
    # The connection goes on.
    assert client.call('/Toy/Echo', b'y').result() == b'y'
  assert toy.connections == 1


# ------------------------------------------------------------ byte by byte


def request(*, path='/Toy/Echo', content_type='application/grpc', **more):
  """A header block as a client would send it."""
  return hpack.Encoder().encode([(':method', 'POST'), (':scheme', 'http'),
                                 (':path', path), (':authority', 'x'),
                                 ('content-type', content_type),
                                 ('api-key', KEY),
                                 *more.items()])


def message(body):
  return b'\0' + LONG.pack(len(body)) + body


def frames(data):
  """Kind, flags, stream and payload of the frames in some bytes."""
  at = 0
  while at < len(data):
    high, low, kind, flags, number = HEAD.unpack_from(data, at)
    at += HEAD.size + (high << 8 | low)
    yield kind, flags, number, data[at - (high << 8 | low):at]


def talk(toy, *sent):
  """Frames that come back until the server closes.

  The bytes end with one that no server may accept, so it closes soon.
  """
  settings = frame(Kind.SETTINGS, 0, 0)
  end = frame(Kind.PUSH, 0, 0)
  return list(frames(raw(toy, PREFACE + settings + b''.join(sent) + end)))


def data_of(answer, number):
  return b''.join(
      payload for kind, _, stream, payload in answer
      if kind == Kind.DATA and stream == number)


def trailers_of(answer):
  """Status fields of the last headers of the answer, by stream."""
  decoder = hpack.Decoder()
  found = {}
  for kind, flags, number, payload in answer:
    if kind == Kind.HEADERS:
      headers = dict(decoder.decode(payload))
      if flags & END_STREAM:
        found[number] = headers
  return found


def test_padding_priority_and_continuation_are_taken_off(toy):
  block = request()
  answer = talk(
      toy,
      frame(
          Kind.HEADERS,
          PADDED | WITH_PRIORITY,
          1,
          b'\x03' + bytes(5) + block[:7] + bytes(3)),
      frame(Kind.CONTINUATION, 0, 1, block[7:9]),
      frame(Kind.CONTINUATION, END_HEADERS, 1, block[9:]),
      frame(Kind.DATA, PADDED, 1, b'\x02' + message(b'hello')[:6] + bytes(2)),
      frame(Kind.DATA, 0, 1),
      frame(Kind.DATA, END_STREAM, 1, message(b'hello')[6:]))
  assert data_of(answer, 1) == message(b'hello')


def test_frames_may_arrive_a_byte_at_a_time(toy):
  data = (
      PREFACE + frame(Kind.SETTINGS, 0, 0) +
      frame(Kind.HEADERS, END_HEADERS, 1, request()) +
      frame(Kind.DATA, END_STREAM, 1, message(b'hello')) +
      frame(Kind.PUSH, 0, 0))
  answer = raw(toy, *(data[i:i + 1] for i in range(len(data))))
  assert data_of(list(frames(answer)), 1) == message(b'hello')


def test_an_answer_waits_for_the_window_and_goes_on_when_it_grows(toy):
  body = bytes(100)
  answer = talk(
      toy,
      frame(Kind.SETTINGS, 0, 0, SETTING.pack(0x4, 10)),
      frame(Kind.HEADERS, END_HEADERS, 1, request()),
      frame(Kind.DATA, END_STREAM, 1, message(body)),
      frame(Kind.WINDOW_UPDATE, 0, 1, LONG.pack(25)),
      frame(Kind.SETTINGS, 0, 0, SETTING.pack(0x4, 1_000)))
  sizes = [len(payload) for kind, _, _, payload in answer if kind == Kind.DATA]
  assert sizes == [10, 25, 70]
  assert trailers_of(answer)[1]['grpc-status'] == '0'


def test_a_ping_is_answered_with_its_own_bytes(toy):
  answer = talk(toy, frame(Kind.PING, 0, 0, b'12345678'))
  assert (Kind.PING, 1, 0, b'12345678') in answer


@pytest.mark.parametrize(
    'sent, code',
    [
        (frame(Kind.HEADERS, END_HEADERS, 2, request()), Code.PROTOCOL_ERROR),
        (frame(Kind.DATA, 0, 1, b'x'), Code.PROTOCOL_ERROR),
        (frame(Kind.CONTINUATION, 0, 1, b'x'), Code.PROTOCOL_ERROR),
        (
            frame(Kind.HEADERS, 0, 1, b'') + frame(Kind.PING, 0, 0, bytes(8)),
            Code.PROTOCOL_ERROR),
        (
            frame(Kind.HEADERS, END_HEADERS, 1, b'\xff\xff\xff\xff'),
            Code.COMPRESSION_ERROR),
        (HEAD.pack(0xffff, 0xff, Kind.DATA, 0, 1), Code.FRAME_SIZE_ERROR),
        (frame(Kind.WINDOW_UPDATE, 0, 0, b'x'), Code.FRAME_SIZE_ERROR),
        (
            frame(Kind.SETTINGS, 0, 0, SETTING.pack(0x4, 1 << 31)),
            Code.FLOW_CONTROL_ERROR),
        (
            frame(Kind.HEADERS, END_HEADERS | PADDED, 1, b'\x09x'),
            Code.PROTOCOL_ERROR),
    ])
def test_a_client_that_breaks_the_protocol_is_told_and_cut_off(toy, sent, code):
  kind, _, _, payload = talk(toy, sent)[-1]
  assert kind == Kind.GOAWAY
  assert LONG.unpack_from(payload, 4)[0] == code


@pytest.mark.parametrize(
    'body, more, status',
    [
        (b'', {}, '13'),
        (b'\0\0\0\0\x05abc', {}, '13'),
        (message(b'a') * 2, {}, '13'),
        (b'\1' + message(b'abc')[1:], {
            'grpc-encoding': 'zstd'
        }, '12'),
        (b'\1' + message(b'abc')[1:], {
            'grpc-encoding': 'gzip'
        }, '13'),
    ])
def test_a_malformed_message_is_refused_alone(toy, body, more, status):
  answer = talk(
      toy,
      frame(Kind.HEADERS, END_HEADERS, 1, request(**more)),
      frame(Kind.DATA, END_STREAM, 1, body),
      frame(Kind.HEADERS, END_HEADERS, 3, request()),
      frame(Kind.DATA, END_STREAM, 3, message(b'fine')))
  trailers = trailers_of(answer)
  assert trailers[1]['grpc-status'] == status
  assert trailers[3]['grpc-status'] == '0'


def test_what_is_not_grpc_gets_415(toy):
  answer = talk(
      toy,
      frame(
          Kind.HEADERS,
          END_HEADERS | END_STREAM,
          1,
          request(content_type='application/json')))
  assert trailers_of(answer)[1] == {':status': '415'}
