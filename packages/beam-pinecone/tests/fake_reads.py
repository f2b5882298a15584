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
"""An index that is read: a few lines of Pinecone's Query and Fetch over gRPC."""

import threading

import grpc
import numpy as np
import pinecone_messages
import query_messages as messages
from fake_pinecone import FakeIndex


class FakeReads(FakeIndex):
  """An index whose records are given, on a free port of 127.0.0.1.

  Scores are dot products; filters are not looked at, the emulator does that.

  Attributes:
    records: {namespace: {id: {'values', 'metadata', 'sparse'}}}.
    queries, fetches: the requests in order of arrival, as messages.
    errors: of the next queries and fetches: (code name, text, trailers), or
      None for one that goes well.
    refuses: ids and values of the first number of a vector that make a request
      an INVALID_ARGUMENT.
    reply: replaces the bytes of an answer.
    order: puts matches in the order they are sent in.
    looks: how many times statistics were asked for.
    most_ids: more in a fetch make an answer that is too large.
  """
  def __init__(self, **description):
    super().__init__(**description)
    self.records = {}
    self.queries = []
    self.fetches = []
    self.looks = 0
    self.reply = None
    self.order = None
    self.most_ids = None
    self.gate = threading.Event()
    self.gate.set()
    self.in_flight = 0
    self.most_in_flight = 0
    self._server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(
            'VectorService',
            {
                'Query': grpc.unary_unary_rpc_method_handler(self._query),
                'Fetch': grpc.unary_unary_rpc_method_handler(self._fetch),
            }),))

  def _stats(self, request, context):
    self.looks += 1
    response = pinecone_messages.DescribeIndexStatsResponse.FromString(
        super()._stats(request, context))
    for name, records in self.records.items():
      shown = name or '__default__'
      response.namespaces[shown].vector_count = len(records)
    return response.SerializeToString()

  def _query(self, request, context):
    query = messages.QueryRequest.FromString(request)
    self._begin(self.queries, query, context)
    if set(query.vector[:1]) & self.refuses or query.id in self.refuses:
      self._abort(context, 'INVALID_ARGUMENT', 'the query is poisoned')
    records = self.records.get(query.namespace, {})
    vector = np.array(query.vector)
    if query.id:
      if query.id not in records:
        records = {}
      else:
        vector = np.array(records[query.id]['values'])
    scores = {
        key: float(np.dot(record['values'], vector)) if len(vector) else 1.0
        for key, record in records.items()
    }
    best = sorted(scores, key=scores.get, reverse=True)[:query.top_k]
    response = messages.QueryResponse(namespace=query.namespace)
    for key in best if self.order is None else self.order(best):
      record = records[key]
      messages.fill_vector(
          response.matches.add(id=key, score=scores[key]),
          record['values'] if query.include_values else (),
          record.get('metadata') if query.include_metadata else None,
          record.get('sparse') if query.include_values else None)
    return self._end(response)

  def _fetch(self, request, context):
    fetch = messages.FetchRequest.FromString(request)
    self._begin(self.fetches, fetch, context)
    if self.refuses & set(fetch.ids):
      self._abort(context, 'INVALID_ARGUMENT', 'an id is poisoned')
    if self.most_ids is not None and len(fetch.ids) > self.most_ids:
      self._abort(
          context,
          'OUT_OF_RANGE',
          'Error, message length too large: found 5000000 bytes, the limit is: '
          '4000000 bytes')
    records = self.records.get(fetch.namespace, {})
    response = messages.FetchResponse(namespace=fetch.namespace)
    for key in fetch.ids:
      if key in records:
        record = records[key]
        response.vectors[key].id = key
        messages.fill_vector(
            response.vectors[key],
            record['values'],
            record.get('metadata'),
            record.get('sparse'))
    return self._end(response)

  def _begin(self, log, request, context):
    self._authorize(context)
    with self._lock:
      log.append(request)
      error = self.errors.pop(0) if self.errors else None
      self.in_flight += 1
      self.most_in_flight = max(self.most_in_flight, self.in_flight)
    self.gate.wait(10)
    with self._lock:
      self.in_flight -= 1
    if error is not None:
      self._abort(context, *error)

  def _end(self, response):
    return response.SerializeToString() if self.reply is None else self.reply
