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
"""Pages of ids, of namespaces and of records by metadata: requests and answers.

Each answer says how the next page is asked for, or nothing on the last one.
"""

from __future__ import annotations

from beam_pinecone.wire.protobuf import LENGTH
from beam_pinecone.wire.protobuf import fields
from beam_pinecone.wire.protobuf import length_prefix
from beam_pinecone.wire.protobuf import varint

__all__ = [
    'DEFAULT_NAMESPACE',
    'fetch_by_metadata_request',
    'list_answer',
    'list_namespaces_answer',
    'list_namespaces_request',
    'list_request',
    'namespace_request',
    'next_page',
]

#: How requests that are about a namespace itself name the default one.
DEFAULT_NAMESPACE = '__default__'

# ListRequest
_PREFIX = 0x0a
_LIST_LIMIT = b'\x10'
_LIST_TOKEN = 0x1a
_LIST_NAMESPACE = 0x22
# ListNamespacesRequest
_NAMESPACES_TOKEN = 0x0a
_NAMESPACES_LIMIT = b'\x10'
# FetchByMetadataRequest
_FETCH_NAMESPACE = 0x0a
_FETCH_FILTER = 0x12
_FETCH_LIMIT = b'\x18'
_FETCH_TOKEN = 0x22
# DescribeNamespaceRequest, DeleteNamespaceRequest
_NAMESPACE = 0x0a
# Numbers of `pagination` in the answers.
_LIST_PAGINATION = 2
_FETCH_PAGINATION = 4


def list_request(
    namespace: str, prefix: str = '', token: str = '', limit: int = 0) -> bytes:
  """A ListRequest.

  Args:
    namespace: ASCII; '' for the default one.
    prefix: of the ids; '' for all.
    token: of the page before; '' for the first page.
    limit: ids in a page; 0 for the service's own number.
  """
  return (
      _text(_PREFIX, prefix) + _number(_LIST_LIMIT, limit) +
      _text(_LIST_TOKEN, token) + _text(_LIST_NAMESPACE, namespace))


def list_answer(message: bytes) -> tuple[list[str], str]:
  """Reads a ListResponse.

  Returns:
    The ids, and the token of the next page; '' if this is the last one.

  Raises:
    ValueError: the bytes are no complete ListResponse.
  """
  ids = []
  token = ''
  for number, kind, value in fields(message):
    if kind != LENGTH:
      continue
    if number == 1:
      ids.append(_first_text(value))
    elif number == _LIST_PAGINATION:
      token = _first_text(value)
  return ids, token


def list_namespaces_request(token: str = '', limit: int = 0) -> bytes:
  """A ListNamespacesRequest; arguments as for `list_request`."""
  return _text(_NAMESPACES_TOKEN, token) + _number(_NAMESPACES_LIMIT, limit)


def list_namespaces_answer(message: bytes) -> tuple[list[str], str]:
  """Reads a ListNamespacesResponse.

  Returns:
    The names as the service spells them, and the token of the next page.

  Raises:
    ValueError: the bytes are no complete ListNamespacesResponse.
  """
  return list_answer(message)


def namespace_request(namespace: str) -> bytes:
  """A DescribeNamespaceRequest, or a DeleteNamespaceRequest.

  Args:
    namespace: ASCII; '' for the default one.
  """
  return _text(_NAMESPACE, namespace or DEFAULT_NAMESPACE)


def fetch_by_metadata_request(
    namespace: str, filter: bytes, token: str = '', limit: int = 0) -> bytes:
  """A FetchByMetadataRequest; its answer's records are those of a fetch.

  Args:
    namespace: ASCII; '' for the default one.
    filter: the fields of a Struct.
    token: of the page before; '' for the first page.
    limit: records in a page; 0 for the service's own number.
  """
  return (
      _text(_FETCH_NAMESPACE, namespace) +
      length_prefix(_FETCH_FILTER, len(filter)) + filter +
      _number(_FETCH_LIMIT, limit) + _text(_FETCH_TOKEN, token))


def next_page(message: bytes) -> str:
  """The token of the page after a FetchByMetadataResponse; '' for none.

  Raises:
    ValueError: the bytes are no complete FetchByMetadataResponse.
  """
  for number, kind, value in fields(message):
    if number == _FETCH_PAGINATION and kind == LENGTH:
      return _first_text(value)
  return ''


def _text(tag: int, text: str) -> bytes:
  if not text:
    return b''
  raw = text.encode()
  return length_prefix(tag, len(raw)) + raw


def _number(tag: bytes, n: int) -> bytes:
  return tag + varint(n) if n else b''


def _first_text(message: memoryview) -> str:
  """The field 1 of a message that has little else."""
  # ListItem and Pagination are one short string.
  if len(message) > 1 and message[0] == 0x0a and message[1] == len(message) - 2:
    return str(message[2:], 'utf-8')
  text = ''
  for number, kind, value in fields(message):
    if number == 1 and kind == LENGTH:
      text = str(value, 'utf-8')
  return text
