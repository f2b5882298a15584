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

import contextlib
import json
import pickle
import socket
import threading

import pytest
from fake_pinecone import API_KEY
from fake_pinecone import control_plane

from beam_connector_base import EnvSecret
from beam_connector_base import FileSecret
from beam_connector_base.credentials import CredentialError
from beam_pinecone.connection import API_VERSION
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.errors import PineconeError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  for name in ('PINECONE_CONTROLLER_HOST',
               'PINECONE_ADDITIONAL_HEADERS',
               'PINECONE_GRPC_SCHEME'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)


def test_construction_reads_nothing_and_holds_no_secret(monkeypatch):
  monkeypatch.delenv('PINECONE_API_KEY')
  connection = PineconeConnection()
  assert pickle.loads(pickle.dumps(connection)) == connection
  assert hash(connection) == hash(PineconeConnection())
  monkeypatch.setenv('PINECONE_API_KEY', API_KEY)
  assert connection.headers()['api-key'] == API_KEY
  assert API_KEY not in repr(connection)
  assert API_KEY.encode() not in pickle.dumps(connection)


@pytest.mark.parametrize(
    'arguments, error, says',
    [
        ({
            'api_key': API_KEY
        }, ValueError, 'api_key'),
        ({
            'api_key': 5
        }, TypeError, 'api_key'),
        ({
            'host': f'https://user:{API_KEY}@x'
        }, ValueError, 'host'),
        ({
            'host': 'not a host'
        }, ValueError, 'host'),
        ({
            'host': 'ftp://x'
        }, ValueError, 'host'),
        ({
            'host': 'https://x/path'
        }, ValueError, 'host'),
        ({
            'host': 5
        }, TypeError, 'host'),
        ({
            'control_host': '://'
        }, ValueError, 'control_host'),
        ({
            'tls': 'yes'
        }, TypeError, 'tls'),
        ({
            'timeout': 0
        }, ValueError, 'timeout'),
        ({
            'timeout': 'x'
        }, TypeError, 'timeout'),
    ],
    ids=lambda v: str(list(v)) if isinstance(v, dict) else '')
def test_a_mistake_is_named_and_a_key_is_not_repeated(arguments, error, says):
  with pytest.raises(error) as raised:
    PineconeConnection(**arguments)
  assert says in str(raised.value)
  assert API_KEY not in str(raised.value)


@pytest.mark.parametrize(
    'key', ['pcsk_abc_defghi', '01234567-89ab-cdef-0123-456789abcdef'])
def test_a_key_in_place_of_its_variable_is_refused_and_not_repeated(key):
  with pytest.raises(ValueError, match='api_key.*PINECONE_API_KEY') as raised:
    PineconeConnection(api_key=EnvSecret(key))
  assert key not in str(raised.value)


def test_a_connection_may_be_given_as_a_host():
  assert PineconeConnection.of('a.b') == PineconeConnection(host='a.b')
  assert PineconeConnection.of(None) == PineconeConnection()
  with pytest.raises(TypeError, match='connection'):
    PineconeConnection.of(5)


@pytest.mark.parametrize(
    'host, tls, scheme, address, encrypted',
    [
        ('docs.svc.io', None, None, 'docs.svc.io:443', True),
        ('https://docs.svc.io/', None, 'http', 'docs.svc.io:443', True),
        ('http://localhost:5081', None, None, 'localhost:5081', False),
        ('http://docs.svc.io', None, None, 'docs.svc.io:80', False),
        ('localhost:5081', None, 'http', 'localhost:5081', False),
        ('localhost:5081', True, 'http', 'localhost:5081', True),
        ('http://docs.svc.io', True, None, 'docs.svc.io:443', True),
        ('[::1]:5081', False, None, '[::1]:5081', False),
        ('[::1]', False, None, '[::1]:80', False),
    ])
def test_a_host_says_how_it_is_reached(
    monkeypatch, host, tls, scheme, address, encrypted):
  if scheme:
    monkeypatch.setenv('PINECONE_GRPC_SCHEME', scheme)
  endpoint = PineconeConnection(host=host, tls=tls).locate('docs')
  assert (endpoint.address, endpoint.tls) == (address, encrypted)


def test_a_missing_key_names_its_variable(monkeypatch):
  monkeypatch.delenv('PINECONE_API_KEY')
  with pytest.raises(CredentialError, match='PINECONE_API_KEY'):
    PineconeConnection().headers()
  with pytest.raises(CredentialError, match='/nowhere'):
    PineconeConnection(api_key=FileSecret('/nowhere/key')).headers()


@pytest.mark.parametrize('value', ['two\nlines', 'schl\u00fcssel', 'a\x00b'])
def test_what_can_be_no_key_is_refused_and_not_repeated(tmp_path, value):
  path = tmp_path / 'key'
  path.write_text(value)
  with pytest.raises(CredentialError, match='api_key') as raised:
    PineconeConnection(api_key=FileSecret(path)).headers()
  assert value not in str(raised.value)
  assert repr(value)[1:-1] not in str(raised.value)


@pytest.mark.parametrize(
    'header', [('a b', 'x'), ('a', 'secr\u00e9t'), ('', 'x')])
def test_an_additional_header_that_cannot_be_sent_is_named(monkeypatch, header):
  monkeypatch.setenv('PINECONE_ADDITIONAL_HEADERS', json.dumps(dict([header])))
  with pytest.raises(ValueError, match=repr(header[0])) as raised:
    PineconeConnection().headers()
  assert 'PINECONE_ADDITIONAL_HEADERS' in str(raised.value)
  assert 'secr' not in str(raised.value)


def test_additional_headers_come_from_the_environment(monkeypatch):
  monkeypatch.setenv(
      'PINECONE_ADDITIONAL_HEADERS', '{"X-Project": "p", "api-key": "no"}')
  headers = PineconeConnection().headers()
  assert headers['x-project'] == 'p'
  assert headers['api-key'] == API_KEY
  assert headers['x-pinecone-api-version'] == API_VERSION
  for broken in ('secret text', '["a"]'):
    monkeypatch.setenv('PINECONE_ADDITIONAL_HEADERS', broken)
    with pytest.raises(ValueError) as raised:
      PineconeConnection().headers()
    assert 'PINECONE_ADDITIONAL_HEADERS' in str(raised.value)
    assert 'secret' not in str(raised.value)


def test_a_source_tag_is_written_as_pinecones_clients_do():
  agent = PineconeConnection(source_tag='My  App! v2:x').user_agent
  assert agent.startswith('beam-pinecone/')
  assert agent.endswith(' source_tag=my_app_v2:x')


def described(**changes):
  return 200, {
      'name': 'docs',
      'host': 'http://127.0.0.1:5081',
      'status': {
          'ready': True, 'state': 'Ready'
      },
      'schema': {
          'fields': {
              '_values': {
                  'type': 'dense_vector'
              }
          }
      },
  } | changes


@pytest.mark.parametrize('by', ['argument', 'environment'])
def test_the_host_of_an_index_is_looked_up_by_its_name(monkeypatch, by):
  with control_plane({'/indexes/docs': described()}) as (url, requests):
    if by == 'argument':
      connection = PineconeConnection(control_host=url, source_tag='t')
    else:
      monkeypatch.setenv('PINECONE_CONTROLLER_HOST', url + '/')
      connection = PineconeConnection(source_tag='t')
    endpoint = connection.locate('docs')
  assert (endpoint.address, endpoint.tls) == ('127.0.0.1:5081', False)
  ((path, headers),) = requests
  assert headers['api-key'] == API_KEY
  assert headers['x-pinecone-api-version'] == API_VERSION
  assert headers['user-agent'] == connection.user_agent


@pytest.mark.parametrize(
    'answer, code, says',
    [
        ((401, 'Unauthorized'), '401', 'api_key'),
        ((403, {}), '403', 'role'),
        ((404, {}), '404', "no index 'docs'"),
        ((500, 'broken'), '500', 'broken'),
        ((429, '', ('Retry-After', '7')), '429', 'docs'),
        ((302, '', ('Location', 'http://127.0.0.1:1/')), '302', 'control_host'),
        ((200, 'no JSON'), 'UNAVAILABLE', 'answered'),
        ((200, []), 'UNAVAILABLE', 'answered'),
        (described(host=None), 'UNAVAILABLE', 'no host'),
        (
            described(status={
                'ready': False, 'state': 'Initializing'
            }),
            'UNAVAILABLE',
            'Initializing'),
        (
            described(status={
                'ready': False, 'state': 'Terminating'
            }),
            'FAILED_PRECONDITION',
            'Terminating'),
        (
            described(schema={'fields': {
                'title': {
                    'type': 'string'
                }
            }}),
            'FAILED_PRECONDITION',
            'document index'),
    ],
    ids=lambda v: str(v)[:30])
def test_what_the_control_plane_says_is_told_with_a_remedy(answer, code, says):
  with control_plane({'/indexes/docs': answer}) as (url, _):
    with pytest.raises(PineconeError) as raised:
      PineconeConnection(control_host=url).locate('docs')
  error = raised.value
  assert error.code == code
  assert says in error.message
  assert API_KEY not in str(error)
  assert error.retry_after == (7 if code == '429' else None)
  copy = pickle.loads(pickle.dumps(error))
  assert str(copy) == str(error)


def test_a_control_plane_that_is_not_there_is_named():
  with pytest.raises(ConnectionError, match='PINECONE_CONTROLLER_HOST'):
    PineconeConnection(control_host='http://127.0.0.1:9').locate('docs')


@contextlib.contextmanager
def answering(data):
  """A server that answers one request with these bytes and hangs up."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    done = threading.Event()

    def serve():
      connection, _ = server.accept()
      with connection:
        connection.recv(65536)
        connection.sendall(data)
        done.wait(0 if data else 10)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{server.getsockname()[1]}'
    done.set()
    thread.join()


@pytest.mark.parametrize(
    'data', [b'', b'220 mail.example.org SMTP\r\n'], ids=['silent', 'no HTTP'])
def test_a_control_plane_that_does_not_answer_is_named(data):
  with answering(data) as url:
    with pytest.raises(ConnectionError, match='control_host') as raised:
      PineconeConnection(control_host=url, timeout=0.3).locate('docs')
  assert url in str(raised.value)


def test_equal_connections_refer_to_equal_secrets():
  one = PineconeConnection(api_key=EnvSecret('A'))
  assert one == PineconeConnection(api_key=EnvSecret('A'))
  assert one != PineconeConnection(api_key=EnvSecret('B'))
