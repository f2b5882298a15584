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
"""What the emulated Pinecone refuses, word for word, on both transports."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from google.protobuf import json_format

from beam_harness.emulators.core import Call
from beam_harness.emulators.pinecone import create_service
from beam_harness.emulators.pinecone.messages import plain

HOST = '127.0.0.1:5080'
KEY = {'api-key': 'test-key', 'host': HOST}

PATHS = {
    'Upsert': '/vectors/upsert',
    'Query': '/query',
    'Delete': '/vectors/delete',
    'Update': '/vectors/update',
    'FetchByMetadata': '/vectors/fetch_by_metadata',
    'DescribeIndexStats': '/describe_index_stats',
    'CreateNamespace': '/namespaces',
}


def service_with(options=None, **index):
  service = create_service(**(options or {}))
  service.seed({'$indexes': {'one': index or {'dimension': 3}}})
  return service


def rest(service, method, path, body=b'', headers=KEY, query=()):
  if not isinstance(body, bytes):
    body = json.dumps(body).encode()
  call = Call('rest', method, path, list(query), dict(headers), body)
  operation = service.operation(call)
  service.count(call, operation)
  answer = service.handle(call)
  kind = answer.headers.get('content-type')
  value = json.loads(answer.body) if kind == 'application/json' else answer.body
  return answer.status, value


def grpc(service, method, message=b'', headers=KEY):
  body = message if isinstance(message, bytes) else message.SerializeToString()
  name = f'/VectorService/{method}'
  call = Call('grpc', name, name, [], dict(headers), body)
  service.count(call, service.operation(call))
  answer = service.handle(call)
  return answer.status, answer.message


def refused(service, transport, method, fields):
  """The text of a refusal, after a look at what it comes in."""
  if transport == 'rest':
    status, value = rest(service, 'POST', PATHS[method], fields)
    assert set(value) == {'code', 'message', 'details'}, value
    assert value['details'] == []
    return status, value['code'], value['message']
  message = json_format.ParseDict(fields, plain(f'{method}Request')())
  code, text = grpc(service, method, message)
  return {3: 400, 5: 404, 6: 409, 11: 400}[code], code, text


BOTH = pytest.mark.parametrize('transport', ['rest', 'grpc'])


def vector(values=(1, 2, 3), record_id='a', **more):
  return {'vectors': [{'id': record_id, 'values': list(values), **more}]}


def with_metadata(**metadata):
  return vector(metadata=metadata)


def with_sparse(indices, values):
  return vector(sparseValues={'indices': indices, 'values': values})


UPSERTS = {
    'no vectors': ({}, 'At least one vector must be given'),
    'wrong dimension': (
        vector([1, 2]),
        'Vector dimension 2 does not match the dimension of the index 3'),
    'no values': (
        vector([]),
        'Vector dimension 0 does not match the dimension of the index 3'),
    'only zeros': (
        vector([0, 0, 1e-9]),
        'Dense vectors must contain at least one non-zero value. Vector ID '
        "'a' contains only zeros"),
    'no id': (vector(record_id=''), 'Vector ID must not be empty'),
    'foreign id':
        (vector(record_id='größe'), "Vector ID must be ASCII, but got 'größe'"),
    'id with NUL':
        (vector(record_id='a\0'), "Vector ID must be ASCII, but got 'a\0'"),
    'long id': (
        vector(record_id='a' * 513),
        'Vector ID must be at most 512 characters, but got 513'),
    'null in metadata': (
        with_metadata(x=None),
        'Metadata value must be a string, number, boolean or list of strings, '
        "got 'null' for field 'x'"),
    'object in metadata': (
        with_metadata(x={'y': 'z'}),
        'Metadata value must be a string, number, boolean or list of strings, '
        'got \'{"y":"z"}\' for field \'x\''),
    'numbers in a list': (
        with_metadata(x=[1758694138, 0.5]),
        'Metadata value must be a string, number, boolean or list of strings, '
        "got '[1758694138.0,0....' for field 'x'"),
    'mixed list': (
        with_metadata(x=['a', True]),
        'Metadata value must be a string, number, boolean or list of strings, '
        'got \'["a",true]\' for field \'x\''),
    'operator as a key': (
        with_metadata(**{'$x': 1}),
        "Metadata key must not start with '$', but got '$x'"),
    'much metadata': (
        with_metadata(x='y' * 40_953),
        'metadata size is 40961 bytes, which exceeds the limit of 40960 bytes '
        'per vector'),
    'sparse without values':
        (with_sparse([], []), 'Sparse vector must contain at least one value'),
    'sparse of two lengths': (
        with_sparse([1, 2], [1]),
        'Sparse vector must have as many indices as values, but got 2 and 1'),
    'sparse with an index twice': (
        with_sparse([1, 1], [1, 2]),
        'Sparse vector must not contain duplicate indices'),
    'long sparse': (
        with_sparse(list(range(2049)), [1] * 2049),
        'Sparse vector must have at most 2048 values, but got 2049'),
    'too many vectors':
        ({
            'vectors': [{
                'id': str(i), 'values': [1, 2, 3]
            } for i in range(1001)]
        },
         'Number of vectors must be at most 1000, but got 1001'),
    'long namespace': ({
        **vector(), 'namespace': 'n' * 513
    },
                       'Namespace must be at most 512 characters, but got 513'),
    'foreign namespace': ({
        **vector(), 'namespace': 'ñ'
    },
                          "Namespace must be ASCII, but got 'ñ'"),
}


@BOTH
@pytest.mark.parametrize('case', UPSERTS)
def test_upsert_is_refused(transport, case):
  fields, message = UPSERTS[case]
  service = service_with()
  assert refused(service, transport, 'Upsert', fields) == (400, 3, message)
  assert service.snapshot() == {'one': {}}


@BOTH
def test_upsert_with_one_bad_vector_is_refused_whole(transport):
  service = service_with()
  good, bad = vector()['vectors'] + vector([0, 0, 0], 'b')['vectors']
  status, _, message = refused(
      service, transport, 'Upsert', {'vectors': [good, bad]})
  assert status == 400 and "'b' contains only zeros" in message
  assert service.snapshot() == {'one': {}}


@BOTH
@pytest.mark.parametrize(
    'method, fields, message',
    [
        (
            'Query', {'vector': [1, 2, 3]},
            'top_k must be between 1 and 10000, but got 0'),
        (
            'Query', {'vector': [1, 2, 3], 'topK': 10_001},
            'top_k must be between 1 and 10000, but got 10001'),
        (
            'Query', {'topK': 1},
            'Vector dimension 0 does not match the dimension of the index 3'),
        (
            'Query', {'topK': 1, 'vector': [1]},
            'Vector dimension 1 does not match the dimension of the index 3'),
        (
            'Query', {'topK': 1, 'vector': [1, 2, 3], 'id': 'a'},
            'A query takes either an id or a vector, not both'),
        (
            'Query', {
                'topK': 1, 'vector': [1, 2, 3],
                'sparseVector': {'indices': [1], 'values': [1]}
            },
            'Index configuration does not support sparse values'),
        (
            'Query', {
                'topK': 1, 'vector': [1, 2, 3], 'filter': {'a': {'$x': 1}}
            },
            'illegal condition for field a, got {"$x":1'),
        (
            'Delete', {},
            'Exactly one of ids, delete_all and filter must be given'),
        (
            'Delete', {'ids': ['a'], 'deleteAll': True},
            'Exactly one of ids, delete_all and filter must be given'),
        ('Delete', {'filter': {}}, 'filter must not be empty'),
        (
            'Delete', {'ids': [str(i) for i in range(1001)]},
            'Number of IDs must be at most 1000, but got 1001'),
        ('Update', {}, 'Exactly one of id and filter must be given'),
        (
            'Update', {'id': 'a', 'values': [1]},
            'Vector dimension 1 does not match the dimension of the index 3'),
        (
            'Update', {'id': 'a', 'setMetadata': {'x': None}},
            "got 'null' for field 'x'"),
        (
            'Update', {'filter': {'a': 1}, 'values': [1, 2, 3]},
            'An update by filter can only set metadata'),
        (
            'Update', {'filter': {}, 'setMetadata': {'x': 1}},
            'filter must not be empty'),
        ('FetchByMetadata', {'filter': {}}, 'filter must not be empty'),
        (
            'FetchByMetadata', {'filter': {'a': 1}, 'limit': 10_001},
            'limit must be between 1 and 10000, but got 10001'),
        (
            'FetchByMetadata', {'filter': {'a': 1}, 'paginationToken': '?'},
            'Invalid pagination token'),
        (
            'DescribeIndexStats', {'filter': {'a': 1}},
            'Serverless and Starter indexes do not support describing index '
            'stats with metadata filtering'),
        (
            'CreateNamespace', {'name': '__default__'},
            'The default namespace cannot be created explicitly'),
    ])  # yapf: disable
def test_request_is_refused(transport, method, fields, message):
  status, code, text = refused(service_with(), transport, method, fields)
  assert (status, code) == (400, 3)
  assert message in text


@BOTH
@pytest.mark.parametrize(
    'fields', [{
        'ids': ['a']
    }, {
        'deleteAll': True
    }, {
        'filter': {
            'a': 1
        }
    }])
def test_delete_in_a_namespace_that_is_not_there_is_404(transport, fields):
  fields['namespace'] = 'nowhere'
  assert refused(service_with(), transport, 'Delete',
                 fields) == (404, 5, 'Namespace not found')


@BOTH
def test_index_that_is_not_there_is_404(transport):
  assert refused(create_service(), transport, 'Upsert',
                 vector()) == (404, 5, 'Index not found')


@BOTH
def test_wrong_key_is_refused_before_anything_else(transport):
  service = service_with()
  for headers in ({'host': HOST}, {**KEY, 'api-key': 'other'}):
    if transport == 'rest':
      for method, path in (('POST', '/query'), ('GET', '/nothing')):
        assert rest(service, method, path, b'{',
                    headers) == (401, b'Unauthorized')
      assert rest(service, 'GET', '/indexes', b'', headers) == (
          401,
          {
              'status': 401,
              'error': {
                  'code': 'UNAUTHENTICATED', 'message': 'Invalid API key.'
              }
          })
    else:
      for method in ('Query', 'Nothing'):
        assert grpc(service, method, b'', headers) == (16, 'Unauthorized')


def test_accepted_keys_are_an_option():
  service = service_with({'api_keys': ['k1', 'k2']})
  for key, status in (('k1', 200), ('k2', 200), ('test-key', 401)):
    headers = {**KEY, 'api-key': key}
    assert rest(service, 'POST', '/describe_index_stats', {},
                headers)[0] == status


@pytest.mark.parametrize(
    'body, message',
    [
        (b'{', 'Could not parse the JSON body'),
        (b'[]', 'The JSON body must be an object'),
        (b'{"vectors": [{"id": "a", "values": [NaN]}]}', 'NaN is not JSON'),
        (
            b'{"vectors": [{"id": "a", "values": [1, null, 3]}]}',
            'vectors[0].values[1]: expected a number, got null'),
        (
            b'{"vectors": [{"id": "a", "values": [1, true, 3]}]}',
            'vectors[0].values[1]: expected a number, got true'),
        (
            b'{"vectors": [{"id": "a", "values": [1, 1e300, 3]}]}',
            "Dense vectors must contain finite values. Vector ID 'a'"),
        (
            b'{"vectors": [{"id": "a", "values": [1, 1e999, 3]}]}',
            "Dense vectors must contain finite values. Vector ID 'a'"),
        (
            b'{"vectors": [{"id": 7, "values": [1, 2, 3]}]}',
            'vectors[0].id: expected a string'),
        (
            b'{"vectors": [{"id": "a", "valeus": [1, 2, 3]}]}',
            'vectors[0]: invalid name valeus: Cannot find field.'),
        (
            b'{"vectors": [{"id": "\\ud800", "values": [1, 2, 3]}]}',
            'Could not parse the JSON body'),
        (b'[' * 100_000, 'Could not parse the JSON body'),
    ])
def test_json_that_is_no_upsert_is_refused(body, message):
  status, value = rest(service_with(), 'POST', '/vectors/upsert', body)
  assert (status, value['code']) == (400, 3)
  assert message in value['message']


def test_filter_that_is_a_list_is_refused_as_the_gateway_does():
  _, value = rest(
      service_with(), 'POST', '/query', {
          'topK': 1, 'vector': [1, 2, 3], 'filter': []
      })
  assert 'Proto field is not repeating, cannot start list.' in value['message']


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_value_that_is_no_number_is_refused_on_grpc(value):
  service = service_with()
  message = plain('UpsertRequest')()
  message.vectors.add(id='a').values.extend([1, value, 3])
  assert grpc(service, 'Upsert', message) == (
      3,
      "Dense vectors must contain finite values. Vector ID 'a' contains others")
  message = plain('UpsertRequest')()
  stored = message.vectors.add(id='a')
  stored.values.extend([1, 2, 3])
  stored.metadata['x'] = value
  code, text = grpc(service, 'Upsert', message)
  assert code == 3 and "for field 'x'" in text


def test_message_that_is_none_is_refused():
  code, text = grpc(service_with(), 'Upsert', b'\x0a\xff')
  assert code == 13 and text.startswith('failed to decode Protobuf message')


def test_unknown_method_and_path_are_refused():
  service = service_with()
  assert grpc(service, 'Import')[0] == 12
  assert rest(service, 'GET', '/vectors/upsert')[0] == 404
  assert rest(
      service, 'GET',
      '/nothing') == (404, {
          'code': 5, 'message': 'Not Found', 'details': []
      })
  status, value = rest(service, 'POST', '/namespaces/n/documents/upsert', {})
  assert (status, value['code']) == (501, 12)


@BOTH
def test_sizes_are_counted_in_bytes_of_the_transport(transport):
  service = service_with({'max_upsert_bytes': 300})
  fields = {
      'vectors': [{
          'id': f'{i:03d}', 'values': [1, 2, 3]
      } for i in range(20)]
  }
  if transport == 'rest':
    body = json.dumps(fields).encode()
    status, value = rest(service, 'POST', '/vectors/upsert', body)
    assert (status, value['code']) == (400, 11)
    text = value['message']
  else:
    body = json_format.ParseDict(fields,
                                 plain('UpsertRequest')()).SerializeToString()
    code, text = grpc(service, 'Upsert', body)
    assert code == 11
  assert text == (
      f'Error, message length too large: found {len(body)} bytes, the limit '
      'is: 300 bytes')


@pytest.mark.parametrize(
    'how, status, code', [('413', 413, 8), ('invalid_argument', 400, 3)])
def test_oversized_request_can_be_refused_in_other_ways(how, status, code):
  service = service_with({'max_upsert_bytes': 10, 'too_large': how})
  answer = rest(service, 'POST', '/vectors/upsert', vector())
  assert (answer[0], answer[1]['code']) == (status, code)
  assert grpc(service, 'Upsert', b'\0' * 11)[0] == code


def test_just_two_megabytes_are_accepted_on_grpc():
  service = service_with({}, dimension=1000)
  message = plain('UpsertRequest')()
  rng = np.random.default_rng(0)
  for i in range(490):
    v = message.vectors.add(id=f'{i:04d}')
    v.values.extend(rng.standard_normal(1000, dtype=np.float32).tolist())
  pad = 2_000_000 - message.ByteSize()
  for i in range(3):
    message.vectors[i].metadata['x'] = 'y' * (pad // 3 - 30)
  message.vectors[0].metadata['x'] += 'z' * (2_000_000 - message.ByteSize() - 4)
  body = message.SerializeToString()
  assert 1_999_990 <= len(body) <= 2_000_000
  assert grpc(service, 'Upsert', body) == (0, '')
  message.vectors[1].metadata['w'] = 'y' * 10
  code, text = grpc(service, 'Upsert', message)
  assert code == 11 and 'the limit is: 2000000 bytes' in text


@BOTH
def test_result_over_four_megabytes_is_refused(transport):
  service = service_with({'max_result_bytes': 1_000})
  service.seed({
      'one': {
          '': {
              str(i): {
                  'values': [1, 2, i], 'metadata': {
                      'x': 'y' * 80
                  }
              } for i in range(20)
          }
      }
  })
  fields = {'topK': 20, 'vector': [1, 2, 3], 'includeMetadata': True}
  status, code, text = refused(service, transport, 'Query', fields)
  assert (status, code) == (400, 11)
  assert 'the limit is: 1000 bytes' in text


@BOTH
def test_null_metadata_can_be_stripped(transport):
  service = service_with({'null_metadata': 'strip'})
  fields = with_metadata(x=None, y='z')
  if transport == 'rest':
    assert rest(service, 'POST', '/vectors/upsert', fields)[0] == 200
  else:
    message = json_format.ParseDict(fields, plain('UpsertRequest')())
    assert grpc(service, 'Upsert', message)[0] == 0
  assert service.snapshot()['one']['']['a']['metadata'] == {'y': 'z'}


@BOTH
def test_same_id_twice_in_a_request_is_a_switch(transport):
  fields = {
      'vectors': vector([1, 1, 1])['vectors'] + vector([2, 2, 2])['vectors']
  }
  service = service_with({'duplicate_ids': 'refuse'})
  assert refused(service, transport, 'Upsert',
                 fields)[2] == ("Vector ID 'a' appears more than once")
  service = service_with()
  if transport == 'rest':
    assert rest(service, 'POST', '/vectors/upsert',
                fields) == (200, {
                    'upsertedCount': 2
                })
  else:
    message = json_format.ParseDict(fields, plain('UpsertRequest')())
    assert grpc(service, 'Upsert', message)[0] == 0
  assert service.snapshot()['one']['']['a']['values'] == [2, 2, 2]


def test_default_namespace_by_name_needs_a_newer_version():
  service = service_with()
  fields = {**vector(), 'namespace': '__default__'}
  for version, status in (('2025-01', 400), ('2025-04', 200), ('2026-07', 200)):
    headers = {**KEY, 'x-pinecone-api-version': version}
    answer = rest(service, 'POST', '/vectors/upsert', fields, headers)
    assert answer[0] == status, answer
  assert list(service.snapshot()['one']) == ['']


@BOTH
def test_document_index_takes_no_vectors_and_says_where_to_go(transport):
  service = service_with({},
                         schema={
                             'fields': {
                                 'embedding': {
                                     'type': 'dense_vector',
                                     'dimension': 3,
                                     'metric': 'cosine'
                                 },
                                 'title': {
                                     'type': 'string', 'filterable': True
                                 },
                             }
                         })
  status, code, text = refused(service, transport, 'Upsert', vector())
  assert (status, code) == (400, 3)
  assert 'documents API' in text and '/documents/upsert' in text


def test_document_index_answers_reads_of_vectors_with_nothing():
  service = service_with(
      {},
      schema={'fields': {
          'title': {
              'type': 'string', 'full_text_search': {}
          }
      }})
  status, value = rest(
      service, 'POST', '/query', {'topK': 1, 'vector': [1, 2, 3]})
  assert (status, value['matches']) == (200, [])
  status, value = rest(service, 'GET', '/vectors/fetch', query=[('ids', 'a')])
  assert (status, value['vectors']) == (200, {})
  status, value = rest(service, 'POST', '/describe_index_stats', {})
  assert (status, value['totalVectorCount']) == (200, 0)


def test_sparse_index_takes_no_dense_values():
  service = service_with({}, vector_type='sparse')
  status, value = rest(service, 'POST', '/vectors/upsert', vector())
  assert (status, value['message']) == (
      400, 'Index configuration does not support dense values')
  status, value = rest(
      service, 'POST', '/vectors/upsert', {'vectors': [{'id': 'a'}]})
  assert status == 400 and 'at least one value' in value['message']


@pytest.mark.parametrize('accepts', [True, False])
def test_sparse_values_where_no_query_can_use_them_are_a_switch(accepts):
  service = service_with({'sparse_on_any_metric': accepts})
  status, value = rest(
      service, 'POST', '/vectors/upsert', with_sparse([1], [1]))
  assert status == (200 if accepts else 400)
  if not accepts:
    assert value['message'] == (
        'Index configuration does not support sparse values')


@pytest.mark.parametrize(
    'options, message',
    [
        ({
            'limit': 3
        }, 'unknown option limit'),
        ({
            'match_order': 'random'
        }, 'match_order must be one of'),
        ({
            'api_keys': 'test-key'
        }, 'api_keys must be a collection'),
    ])
def test_wrong_option_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    create_service(**options)
  with pytest.raises(ValueError, match=message):
    create_service().seed({'$options': options})


@pytest.mark.parametrize(
    'state',
    [
        {
            'one': {
                '': {
                    'a': {
                        'values': [0, 0, 0]
                    }
                }
            }
        },
        {
            'one': {
                '': {
                    'ä': {
                        'values': [1, 0, 0]
                    }
                }
            }
        },
        {
            'one': {
                '': {
                    'a': {
                        'values': [1]
                    }
                }
            }
        },
        {
            'one': {
                '': ['a']
            }
        },
        {
            'one': 7
        },
        {
            'Bad_Name': {
                '': {
                    'a': {
                        'values': [1]
                    }
                }
            }
        },
        {
            '$indexes': {
                'two': {
                    'dimension': 0
                }
            }
        },
    ])
def test_seed_the_service_would_refuse_is_refused(state):
  with pytest.raises(ValueError):
    service_with().seed(state)
