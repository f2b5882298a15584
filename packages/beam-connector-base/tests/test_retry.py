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

import asyncio
import concurrent.futures
import datetime
import email.utils
import random
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from beam_connector_base.operation import Kind
from beam_connector_base.retry import MAX_BACKOFF_SECONDS
from beam_connector_base.retry import RetryPolicy
from beam_connector_base.retry import grpc_verdict
from beam_connector_base.retry import http_verdict
from beam_connector_base.retry import parse_retry_after
from beam_connector_base.retry import transport_verdict


@pytest.mark.parametrize(
    'kind,statuses',
    [
        (Kind.THROTTLED, [429]),
        (Kind.TOO_LARGE, [413]),
        (Kind.TRANSIENT, [408, 425, 500, 502, 503, 504, 507, 520, 529]),
        (Kind.PERMANENT, [400, 406, 409, 412, 415, 422, 428, 431]),
        (Kind.FATAL, [301, 307, 401, 402, 403, 404, 405, 410, 501, 505]),
    ])
def test_http_statuses(kind, statuses):
  for status in statuses:
    verdict = http_verdict(status, reason='because')
    assert verdict.kind is kind, status
    assert (verdict.status, verdict.reason) == (status, 'because')


@pytest.mark.parametrize(
    'code,kind,status',
    [
        ('RESOURCE_EXHAUSTED', Kind.THROTTLED, 429),
        ('UNAVAILABLE', Kind.TRANSIENT, 503),
        ('DEADLINE_EXCEEDED', Kind.TRANSIENT, 504),
        ('ABORTED', Kind.TRANSIENT, 409),
        ('INVALID_ARGUMENT', Kind.PERMANENT, 400),
        ('FAILED_PRECONDITION', Kind.PERMANENT, 400),
        ('UNAUTHENTICATED', Kind.FATAL, 401),
        ('PERMISSION_DENIED', Kind.FATAL, 403),
        ('NOT_FOUND', Kind.FATAL, 404),
        ('UNIMPLEMENTED', Kind.FATAL, 501),
        ('SOMETHING_NEW', Kind.FATAL, None),
    ])
def test_grpc_codes(code, kind, status):
  verdict = grpc_verdict(code)
  assert (verdict.kind, verdict.status) == (kind, status)


def test_every_grpc_code_has_a_verdict():
  grpc = pytest.importorskip('grpc')
  for code in grpc.StatusCode:
    if code is not grpc.StatusCode.OK:
      assert grpc_verdict(code.name).status is not None, code


@pytest.mark.parametrize('verdict', [http_verdict, grpc_verdict])
def test_the_wait_is_parsed_from_a_header_or_taken_as_seconds(verdict):
  code = 429 if verdict is http_verdict else 'RESOURCE_EXHAUSTED'
  assert verdict(code, '3').retry_after == 3.0
  assert verdict(code, 1.5).retry_after == 1.5
  assert verdict(code).retry_after is None
  assert verdict(code, 'soon').retry_after is None


@pytest.mark.parametrize(
    'error',
    [
        ConnectionResetError('reset by peer'),
        BrokenPipeError(),
        socket.gaierror('unknown host'),
        ssl.SSLError('handshake'),
        EOFError(),
        asyncio.IncompleteReadError(b'', 10),
        asyncio.TimeoutError(),
        concurrent.futures.TimeoutError(),
        TimeoutError('timed out'),
    ],
    ids=lambda error: type(error).__name__)
def test_errors_below_the_protocol_are_transient(error):
  verdict = transport_verdict(error)
  assert verdict.kind is Kind.TRANSIENT
  assert verdict.reason.startswith(type(error).__name__)
  assert not verdict.reason.endswith(': ')


@pytest.mark.parametrize('error', [ValueError(), KeyError('a'), RuntimeError()])
def test_other_errors_are_none_of_the_transports(error):
  assert transport_verdict(error) is None


@pytest.mark.parametrize(
    'text,seconds',
    [
        ('0', 0.0),
        ('120', 120.0),
        ('1.5', 1.5),
        ('-3', 0.0),
        ('', None),
        (None, None),
        ('soon', None),
        ('nan', None),
        ('inf', None),
        ('Wed, 21 Oct 2015 07:28:00 GMT', 0.0),
    ])
def test_retry_after(text, seconds):
  assert parse_retry_after(text) == seconds


def test_retry_after_as_a_date_is_the_time_until_then():
  when = datetime.datetime.now(
      datetime.timezone.utc) + datetime.timedelta(seconds=100)
  for text in (email.utils.format_datetime(when, usegmt=True),
               when.strftime('%a, %d %b %Y %H:%M:%S -0000')):
    assert 90 < parse_retry_after(text) <= 100


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.floats(0, 5),
    st.integers(1, 2000),
    st.one_of(st.none(), st.floats(0, 1000)),
    st.integers(0, 2**32))
def test_delays_are_full_jitter_on_top_of_what_was_asked_for(
    base, failures, retry_after, seed):
  policy = RetryPolicy(base=base)
  delay = policy.delay(failures, retry_after, random.Random(seed))
  floor = retry_after or 0.0
  window = min(MAX_BACKOFF_SECONDS, base * 2.0**min(failures - 1, 60))
  assert floor <= delay <= floor + window + 1e-9


def test_jitter_covers_the_whole_window():
  policy = RetryPolicy(base=1.0)
  rng = random.Random(1)
  delays = [policy.delay(3, None, rng) for _ in range(500)]
  assert min(delays) < 0.1 and max(delays) > 3.9
  assert 1.7 < sum(delays) / len(delays) < 2.3
