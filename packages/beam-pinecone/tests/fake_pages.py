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
"""An index that is listed and changed: the rest of Pinecone over gRPC."""

import grpc
import query_messages as messages
from fake_reads import FakeReads
from google.protobuf import json_format

_METHODS = (
    'List',
    'ListNamespaces',
    'DescribeNamespace',
    'FetchByMetadata',
    'Update',
    'Delete',
    'DeleteNamespace')


class FakePages(FakeReads):
  """An index whose records are given; changes are noted and not made.

  Filters are not looked at, the emulator does that.

  Attributes:
    calls: [(method, request as plain data)] in order of arrival.
    fails: {method: [(code name, text, trailers), ...]}, of its next requests.
    unknown: methods that the server does not have.
    replies: {method: bytes}, instead of the answer.
    page: items of a page, whatever is asked for.
    matched: what an update answers.
  """
  def __init__(self, **description):
    super().__init__(**description)
    self.calls = []
    self.fails = {}
    self.unknown = set()
    self.replies = {}
    self.page = 2
    self.matched = None
    self._server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(
            'VectorService',
            {
                name: grpc.unary_unary_rpc_method_handler(self._handler(name))
                for name in _METHODS
            }),))

  def asked(self, method):
    """The requests of one method."""
    return [request for name, request in self.calls if name == method]

  def _handler(self, name):
    request_class = messages.message(f'{name}Request')
    answer = getattr(self, f'_{name}')

    def handle(data, context):
      self._authorize(context)
      request = request_class.FromString(data)
      with self._lock:
        self.calls.append((
            name,
            json_format.MessageToDict(
                request, preserving_proto_field_name=True)))
        failures = self.fails.get(name)
        failure = failures.pop(0) if failures else None
      if failure is not None:
        self._abort(context, *failure)
      if name in self.unknown:
        self._abort(context, 'UNIMPLEMENTED', 'unknown method')
      if name in self.replies:
        return self.replies[name]
      response = answer(request, context)
      return b'' if response is None else response.SerializeToString()

    return handle

  def _paged(self, items, token, response):
    start = int(token or 0)
    if start + self.page < len(items):
      response.pagination.next = str(start + self.page)
    return items[start:start + self.page]

  def _List(self, request, context):
    response = messages.message('ListResponse')(namespace=request.namespace)
    ids = sorted(
        id for id in self.records.get(request.namespace, ())
        if id.startswith(request.prefix))
    for id in self._paged(ids, request.pagination_token, response):
      response.vectors.add(id=id)
    return response

  def _ListNamespaces(self, request, context):
    response = messages.message('ListNamespacesResponse')()
    names = sorted(name or '__default__' for name in self.records)
    for name in self._paged(names, request.pagination_token, response):
      response.namespaces.add(name=name, record_count=1)
    return response

  def _DescribeNamespace(self, request, context):
    if request.namespace not in self.records:
      self._abort(context, 'NOT_FOUND', 'Namespace not found')
    return messages.message('NamespaceDescription')(name=request.namespace)

  def _FetchByMetadata(self, request, context):
    response = messages.message('FetchByMetadataResponse')(
        namespace=request.namespace)
    records = self.records.get(request.namespace, {})
    for id in self._paged(sorted(records), request.pagination_token, response):
      record = records[id]
      response.vectors[id].id = id
      messages.fill_vector(
          response.vectors[id], record['values'], record.get('metadata'))
    return response

  def _Update(self, request, context):
    return messages.message('UpdateResponse')(matched_records=self.matched)

  def _Delete(self, request, context):
    if request.namespace not in self.records:
      self._abort(context, 'NOT_FOUND', 'Namespace not found')

  _DeleteNamespace = _Delete
