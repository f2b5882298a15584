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

import numpy as np
import pytest
import query_messages as messages
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from beam_pinecone.wire import changes
from beam_pinecone.wire import listing


def read(name, data):
  return json_format.MessageToDict(
      messages.message(name).FromString(data), preserving_proto_field_name=True)


_ids = st.lists(st.text(st.characters(codec='ascii'), max_size=300), max_size=5)
_text = st.text(st.characters(codec='ascii'), max_size=200)


@given(_text, _text, _text, st.integers(0, 300))
def test_a_list_is_asked_for_as_protobuf_does(namespace, prefix, token, limit):
  request = messages.message('ListRequest')(namespace=namespace)
  for name, value in (
      ('prefix', prefix), ('pagination_token', token), ('limit', limit)):
    if value:
      setattr(request, name, value)
  assert listing.list_request(namespace, prefix, token,
                              limit) == request.SerializeToString()


@given(_ids, _text)
def test_ids_and_the_next_page_are_read(ids, token):
  response = messages.message('ListResponse')(namespace='n')
  response.usage.read_units = 1
  for id in ids:
    response.vectors.add(id=id)
  if token:
    response.pagination.next = token
  assert listing.list_answer(response.SerializeToString()) == (ids, token)


def test_namespaces_and_the_next_page_are_read():
  response = messages.message('ListNamespacesResponse')(total_count=7)
  response.namespaces.add(name='a', record_count=3)
  response.namespaces.add(name='__default__')
  response.pagination.next = 'more'
  data = response.SerializeToString()
  assert listing.list_namespaces_answer(data) == (['a', '__default__'], 'more')
  assert read(
      'ListNamespacesRequest',
      listing.list_namespaces_request('more', 100)) == {
          'pagination_token': 'more', 'limit': 100
      }
  assert listing.list_namespaces_request() == b''


@pytest.mark.parametrize('name', ['x', ''])
def test_a_namespace_is_named_and_so_is_the_default_one(name):
  data = listing.namespace_request(name)
  expected = {'namespace': name or '__default__'}
  assert read('DescribeNamespaceRequest', data) == expected
  assert read('DeleteNamespaceRequest', data) == expected


def test_records_are_asked_for_by_metadata():
  filter = messages.Struct()
  filter.update({'lang': 'en'})
  data = listing.fetch_by_metadata_request(
      'x', filter.SerializeToString(), 'more', 50)
  assert read('FetchByMetadataRequest', data) == {
      'namespace': 'x',
      'filter': {
          'lang': 'en'
      },
      'limit': 50,
      'pagination_token': 'more'
  }


def test_the_page_after_records_by_metadata_is_read():
  response = messages.message('FetchByMetadataResponse')(namespace='x')
  messages.fill_vector(response.vectors['a'], [1.0])
  assert listing.next_page(response.SerializeToString()) == ''
  response.pagination.next = 'more'
  assert listing.next_page(response.SerializeToString()) == 'more'


@pytest.mark.parametrize(
    'reader', [listing.list_answer, listing.next_page, changes.matched_records])
def test_bytes_that_are_no_message_are_a_value_error(reader):
  with pytest.raises(ValueError):
    reader(b'\x0a\x05abc')


# -------------------------------------------------------------------- changes


@given(st.lists(_text.filter(bool), max_size=5), _text)
def test_ids_are_deleted_as_protobuf_says_it(ids, namespace):
  rows = [changes.delete_row(id.encode()) for id in ids]
  expected = messages.message('DeleteRequest')(ids=ids, namespace=namespace)
  data = changes.delete_request(rows, namespace)
  assert data == expected.SerializeToString()
  assert len(data) == sum(map(len, rows)) + len(changes.delete_frame(namespace))


def test_other_deletes():
  filter = messages.Struct()
  filter.update({'lang': 'en'})
  assert read(
      'DeleteRequest',
      changes.delete_by_filter_request(filter.SerializeToString(), 'x')) == {
          'namespace': 'x', 'filter': {
              'lang': 'en'
          }
      }
  assert read('DeleteRequest', changes.delete_all_request('')) == {
      'delete_all': True
  }


def test_an_update_by_id():
  metadata = messages.Struct()
  metadata.update({'n': 1})
  sparse = messages.message('SparseValues')(indices=[3], values=[0.5])
  values = np.array([1, 2], '<f4')
  data = changes.update_by_id(
      b'a',
      values.data,
      8,
      metadata.SerializeToString(),
      sparse.SerializeToString()) + changes.update_frame('x')
  assert read('UpdateRequest', data) == {
      'id': 'a',
      'values': [1.0, 2.0],
      'set_metadata': {
          'n': 1.0
      },
      'namespace': 'x',
      'sparse_values': {
          'indices': [3], 'values': [0.5]
      }
  }
  assert read('UpdateRequest', changes.update_by_id(b'a', b'', 0, b'',
                                                    b'')) == {
                                                        'id': 'a'
                                                    }


@pytest.mark.parametrize('dry_run', [False, True])
def test_an_update_by_filter(dry_run):
  struct = messages.Struct()
  struct.update({'n': 1})
  data = changes.update_by_filter(
      struct.SerializeToString(), struct.SerializeToString(), dry_run)
  expected = {'filter': {'n': 1.0}, 'set_metadata': {'n': 1.0}}
  if dry_run:
    expected['dry_run'] = True
  assert read('UpdateRequest', data) == expected
  assert changes.update_frame('') == b''


@pytest.mark.parametrize('matched', [None, 0, 1, 300])
def test_matched_records_are_read(matched):
  response = messages.message('UpdateResponse')(matched_records=matched)
  assert changes.matched_records(response.SerializeToString()) == matched
