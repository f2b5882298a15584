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
"""Indexes of the emulated Pinecone: made, described, reached, deleted."""

from __future__ import annotations

import http.client
import json

import pytest
from pinecone import Pinecone
from pinecone import ServerlessSpec
from pinecone import errors
from pinecone_official import KEY
from pinecone_official import create
from pinecone_official import forget_past_failures
from pinecone_official import open_index

from beam_harness.emulators.launch import start
from beam_harness.emulators.pinecone.addresses import Door
from beam_harness.faults import FaultRule

SERVERLESS = {'serverless': {'cloud': 'aws', 'region': 'us-east-1'}}


@pytest.fixture(autouse=True)
def _no_memory():
  forget_past_failures()


@pytest.fixture
def client(pinecone):
  return Pinecone(api_key=KEY, host=pinecone.url)


def ask(emulator, method, path, body=None, version=None, **headers):
  """One REST request; the status and the JSON or the bytes of its answer."""
  headers = {'api-key': KEY, **headers}
  if version:
    headers['x-pinecone-api-version'] = version
  connection = http.client.HTTPConnection(emulator.host, timeout=10)
  try:
    connection.request(
        method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    data = response.read()
  finally:
    connection.close()
  if response.headers.get('content-type') == 'application/json':
    return response.status, json.loads(data)
  return response.status, data


def test_client_makes_describes_lists_and_deletes_an_index(client, pinecone):
  made = client.indexes.create(
      name='films',
      dimension=8,
      metric='euclidean',
      spec=ServerlessSpec(cloud='gcp', region='us-central1'),
      tags={'team': 'a'})
  assert made.status.ready
  described = client.indexes.describe('films')
  assert described.host == pinecone.url
  assert (described.dimension, described.metric) == (8, 'euclidean')
  assert set(described.schema.fields) == {'_values'}
  assert (described.deployment.cloud,
          described.deployment.region) == ('gcp', 'us-central1')
  assert described.tags == {'team': 'a'}
  assert [each.name for each in client.indexes.list()] == ['films']
  assert client.indexes.exists('films')
  client.indexes.delete('films')
  assert not client.indexes.exists('films')
  with pytest.raises(errors.NotFoundError, match='Index films not found'):
    client.indexes.describe('films')


def test_client_finds_an_index_by_its_name(client):
  client.indexes.create(
      name='films',
      schema={
          'fields': {
              '_values': {
                  'type': 'dense_vector', 'dimension': 2, 'metric': 'cosine'
              }
          }
      })
  index = client.index(name='films')
  index.upsert(vectors=[('a', [1, 2])])
  assert list(index.fetch(ids=['a']).vectors) == ['a']


def test_index_is_shown_in_the_shape_of_each_version(pinecone):
  body = {'name': 'one', 'dimension': 3, 'metric': 'dotproduct'}
  status, old = ask(
      pinecone, 'POST', '/indexes', {**body, 'spec': SERVERLESS}, '2026-04')
  assert status == 201
  assert old == {
      'name': 'one',
      'dimension': 3,
      'metric': 'dotproduct',
      'vector_type': 'dense',
      'host': pinecone.url,
      'status': {
          'ready': True, 'state': 'Ready'
      },
      'deletion_protection': 'disabled',
      'tags': None,
      'spec': {
          'serverless': {
              'cloud': 'aws',
              'region': 'us-east-1',
              'read_capacity': {
                  'mode': 'OnDemand', 'status': {
                      'state': 'Ready'
                  }
              },
          }
      },
  }
  assert ask(pinecone, 'GET', '/indexes/one', version='2026-04') == (200, old)
  status, new = ask(pinecone, 'GET', '/indexes/one', version='2026-07')
  assert status == 200
  assert new['schema'] == {
      'fields': {
          '_values': {
              'type': 'dense_vector', 'dimension': 3, 'metric': 'dotproduct'
          }
      }
  }
  assert new['deployment']['deployment_type'] == 'managed'
  assert 'spec' not in new and 'dimension' not in new
  status, listed = ask(pinecone, 'GET', '/indexes', version='2026-07')
  assert (status, listed) == (200, {'indexes': [new]})


def test_sparse_index_in_both_shapes(pinecone):
  create(pinecone, 'old', vector_type='sparse')
  body = {
      'name': 'new',
      'schema': {
          'fields': {
              '_sparse_values': {
                  'type': 'sparse_vector'
              }
          }
      }
  }
  assert ask(pinecone, 'POST', '/indexes', body, '2026-07')[0] == 201
  for name in ('old', 'new'):
    _, old = ask(pinecone, 'GET', f'/indexes/{name}', version='2026-04')
    assert (old['vector_type'], old['metric']) == ('sparse', 'dotproduct')
    assert 'dimension' not in old
    _, new = ask(pinecone, 'GET', f'/indexes/{name}', version='2026-07')
    assert new['schema']['fields'] == {
        '_sparse_values': {
            'type': 'sparse_vector'
        }
    }


OLD = {'name': 'one', 'dimension': 3, 'metric': 'cosine', 'spec': SERVERLESS}
DENSE = {'type': 'dense_vector', 'dimension': 3, 'metric': 'cosine'}


def with_fields(**fields):
  return {'name': 'one', 'schema': {'fields': fields}}


@pytest.mark.parametrize(
    'version, body, status, message',
    [
        ('2026-04', {**OLD, 'name': 'One'}, 400, 'lowercase alphanumeric'),
        ('2026-04', {**OLD, 'name': '-one'}, 400, 'begin or end with a hyphen'),
        ('2026-04', {**OLD, 'name': 'x' * 46}, 400, '1 to 45 characters'),
        ('2026-04', {**OLD, 'dimension': 0}, 400, 'between 1 and 20000'),
        ('2026-04', {**OLD, 'dimension': 20_001}, 400, 'between 1 and 20000'),
        ('2026-04', {**OLD, 'metric': 'l2'}, 400, 'Invalid metric l2'),
        ('2026-04', {**OLD, 'spec': {}}, 400, 'one of serverless, pod and byoc'),
        ('2026-04', {**OLD, 'spec': None}, 422, 'missing field `spec`'),
        ('2026-04', {**OLD, 'name': None}, 422, 'missing field `name`'),
        ('2026-04', {**OLD, 'dimension': None}, 422, 'missing field `dimension`'),
        (
            '2026-04', {**OLD, 'spec': {'serverless': {'cloud': 'aws'}}},
            422, 'missing field `region`'),
        (
            '2026-04', {**OLD, 'vector_type': 'sparse'},
            400, 'Dimension must not be given'),
        ('2026-04', with_fields(_values=DENSE), 422, 'missing field `spec`'),
        ('2026-07', OLD, 422, 'missing field `schema`'),
        ('2026-07', with_fields(), 400, 'at least one field'),
        ('2026-07', with_fields(_other=DENSE), 400, "'_other' is reserved"),
        ('2026-07', with_fields(x={'type': 'int'}), 400, 'must have a type'),
        ('2026-07', with_fields(x=DENSE, y=DENSE), 400, 'at most one dense'),
        (
            '2026-07', with_fields(_values={'type': 'sparse_vector'}),
            400, "'_values' must be a dense_vector"),
        (
            '2026-07', with_fields(_values={**DENSE, 'dimension': None}),
            400, 'between 1 and 20000'),
        (
            '2026-07',
            {
                **with_fields(_values=DENSE),
                'deployment': {'deployment_type': 'serverless'}
            },
            422, 'deployment_type must be managed, pod or byoc'),
        (
            '2026-07',
            {
                **with_fields(_values=DENSE),
                'deployment': {
                    'deployment_type': 'managed', 'cloud': 'aws',
                    'region': 'us-east-1', 'zone': 'a'
                }
            },
            422, 'unknown field `zone`'),
        (
            '2026-07', {**with_fields(_values=DENSE), 'tags': {'a': 1}},
            400, 'tags must be an object of strings'),
    ])  # yapf: disable
def test_index_that_cannot_be_made_is_refused(
    pinecone, version, body, status, message):
  found, value = ask(pinecone, 'POST', '/indexes', body, version)
  assert found == value['status'] == status
  assert value['error']['code'] == {
      400: 'INVALID_ARGUMENT', 422: 'UNPROCESSABLE_ENTITY'
  }[status]
  assert message in value['error']['message']
  assert pinecone.snapshot() == {}


def test_second_index_of_a_name_is_refused(client, pinecone):
  create(pinecone, 'one')
  with pytest.raises(errors.ConflictError, match='already exists'):
    client.indexes.create(
        name='one',
        dimension=3,
        spec=ServerlessSpec(cloud='aws', region='us-east-1'))


def test_configure_changes_tags_and_protection(client, pinecone):
  create(pinecone, 'one', tags={'a': '1', 'b': '2'})
  client.indexes.configure(
      'one', tags={
          'a': '', 'c': '3'
      }, deletion_protection='enabled')
  described = client.indexes.describe('one')
  assert described.tags == {'b': '2', 'c': '3'}
  assert described.deletion_protection == 'enabled'
  with pytest.raises(errors.ForbiddenError, match='Deletion protection'):
    client.indexes.delete('one')
  client.indexes.configure('one', deletion_protection='disabled')
  client.indexes.delete('one')


def test_new_index_can_take_a_while_to_be_ready(pinecone):
  pinecone.seed({'$options': {'describes_until_ready': 2}})
  create(pinecone, 'one')
  states = []
  for _ in range(3):
    _, value = ask(pinecone, 'GET', '/indexes/one')
    states.append((value['status']['ready'], value['status']['state']))
  assert states == [(False, 'Initializing')] * 2 + [(True, 'Ready')]


@pytest.mark.parametrize('kind', ['rest', 'grpc'])
def test_several_indexes_have_addresses_that_lead_to_each(pinecone, kind):
  names = ['one', 'two', 'three']
  hosts = [create(pinecone, name) for name in names]
  assert hosts[0] == pinecone.url
  assert len(set(hosts)) == 3
  for name, host in zip(names, hosts, strict=True):
    index = open_index(kind, host)
    index.upsert(vectors=[(f'in-{name}', [1, 2, 3])])
    index.close()
  assert {
      name: list(namespaces[''])
      for name, namespaces in pinecone.snapshot().items()
  } == {
      name: [f'in-{name}'] for name in names
  }
  # A door is as good as the emulator's own address for the control plane.
  client = Pinecone(api_key=KEY, host=hosts[1])
  assert [client.indexes.describe(name).host for name in names] == hosts


def test_index_is_found_by_a_name_below_localhost(pinecone):
  pinecone.seed({'$options': {'hosts': 'names'}})
  hosts = [create(pinecone, name) for name in ('one', 'two')]
  assert hosts == [
      f'http://{name}.localhost:{pinecone.port}' for name in ('one', 'two')
  ]
  status, _ = ask(
      pinecone,
      'POST',
      '/vectors/upsert', {'vectors': [{
          'id': 'a', 'values': [1, 2, 3]
      }]},
      host=f'two.localhost:{pinecone.port}')
  assert status == 200
  assert pinecone.snapshot()['two'] != {}
  status, value = ask(
      pinecone,
      'POST',
      '/describe_index_stats', {},
      host=f'three.localhost:{pinecone.port}')
  assert (status, value['message']) == (404, 'Index not found')


def test_shared_address_leads_to_the_default_index(pinecone):
  pinecone.seed({'$options': {'hosts': 'shared'}})
  assert create(pinecone, 'one') == create(pinecone, 'two') == pinecone.url
  for default, dimension in ((None, 3), ('two', 5)):
    if default:
      pinecone.seed({'$options': {'default_index': default}})
      ask(pinecone, 'DELETE', '/indexes/two')
      create(pinecone, 'two', dimension=dimension)
    _, stats = ask(pinecone, 'POST', '/describe_index_stats', {})
    assert stats['dimension'] == dimension


def test_own_address_is_free_again_when_its_index_is_gone(pinecone):
  assert create(pinecone, 'one') == pinecone.url
  assert ask(pinecone, 'DELETE', '/indexes/one') == (202, b'')
  assert create(pinecone, 'two') == pinecone.url


def test_door_resets_what_the_emulator_resets(pinecone):
  create(pinecone, 'one')
  host = create(pinecone, 'two').removeprefix('http://')
  pinecone.faults([FaultRule('reset', 'describe_index_stats')])
  connection = http.client.HTTPConnection(host, timeout=10)
  connection.request('POST', '/describe_index_stats', '{}', {'api-key': KEY})
  with pytest.raises(ConnectionResetError):
    connection.getresponse()
  connection.close()


def test_closed_door_is_shut(pinecone):
  door = Door('127.0.0.1', pinecone.port)
  connection = http.client.HTTPConnection('127.0.0.1', door.port, timeout=10)
  connection.request('GET', '/_harness/ready')
  assert connection.getresponse().status == 200
  door.close()
  with pytest.raises(OSError):
    http.client.HTTPConnection(
        '127.0.0.1', door.port, timeout=10).request('GET', '/')
  connection.close()


def test_environment_points_the_client_at_the_emulator(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  client = Pinecone()
  client.indexes.create(
      name='one',
      dimension=3,
      spec=ServerlessSpec(cloud='aws', region='us-east-1'))
  index = client.index(name='one', grpc=True)
  index.upsert(vectors=[('a', [1, 2, 3])])
  assert list(pinecone.snapshot()['one']['']) == ['a']
  assert pinecone.log('upsert')[0].transport == 'grpc'
  index.close()


def test_options_hold_after_a_reset():
  with start('pinecone', options={'api_keys': ['k1']}) as emulator:
    emulator.seed({'$options': {'api_keys': ['k2']}})
    assert ask(emulator, 'GET', '/indexes', **{'api-key': 'k2'})[0] == 200
    emulator.reset()
    assert ask(emulator, 'GET', '/indexes', **{'api-key': 'k2'})[0] == 401
    assert ask(emulator, 'GET', '/indexes', **{'api-key': 'k1'})[0] == 200
    assert emulator.environment()['PINECONE_API_KEY'] == 'k1'


def test_emulator_runs_as_a_process_of_its_own():
  with start('pinecone', mode='process',
             options={'duplicate_ids': 'refuse'}) as emulator:
    index = open_index('rest', create(emulator))
    with pytest.raises(errors.ApiError, match='more than once'):
      index.upsert(vectors=[('a', [1, 2, 3]), ('a', [1, 2, 3])])
    index.close()
