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
"""A few lines of Pinecone: one index over gRPC, and its description over HTTP.

What it checks and what goes wrong is up to the test; the emulator of the
harness is the faithful one.
"""

import concurrent.futures
import contextlib
import http.server
import json
import threading

import grpc
import pinecone_messages as messages

API_KEY = 'key-4711-very-secret'


class FakeIndex:
  """An index on a free port of 127.0.0.1.

  Attributes:
    dimension, metric, vector_type: what the statistics say; None: not told.
    rows: {namespace: {id: vector}}, as `read_request` gives them.
    requests: the upserts in order of arrival, as bytes.
    metadata: the headers of each call.
    errors: of the next upserts: (code name, text, trailers), or None for one
      that goes well.
    refuses: ids that make the whole request an INVALID_ARGUMENT.
    answer: replaces the answer to an upsert.
  """
  def __init__(self, dimension=2, metric='dotproduct', vector_type='dense'):
    self.dimension = dimension
    self.metric = metric
    self.vector_type = vector_type
    self.rows = {}
    self.requests = []
    self.metadata = []
    self.errors = []
    self.refuses = set()
    self.answer = None
    self.stats_error = None
    self._lock = threading.Lock()
    self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    self._server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(
            'VectorService',
            {
                'Upsert':
                    grpc.unary_unary_rpc_method_handler(self._upsert),
                'DescribeIndexStats':
                    grpc.unary_unary_rpc_method_handler(self._stats),
            }),))
    self.port = self._server.add_insecure_port('127.0.0.1:0')

  @property
  def host(self):
    return f'http://127.0.0.1:{self.port}'

  def __enter__(self):
    self._server.start()
    return self

  def __exit__(self, *exc):
    self._server.stop(None).wait()

  def ids(self, namespace=''):
    return sorted(self.rows.get(namespace, ()))

  def _stats(self, request, context):
    self._authorize(context)
    if self.stats_error is not None:
      self._abort(context, *self.stats_error)
    response = messages.DescribeIndexStatsResponse()
    for name in ('dimension', 'metric', 'vector_type'):
      value = getattr(self, name)
      if value is not None:
        setattr(response, name, value)
    return response.SerializeToString()

  def _upsert(self, request, context):
    self._authorize(context)
    namespace, vectors = messages.read_request(request)
    with self._lock:
      self.requests.append(request)
      error = self.errors.pop(0) if self.errors else None
    if error is not None:
      self._abort(context, *error)
    bad = sorted(self.refuses & set(vectors))
    if bad:
      self._abort(context, 'INVALID_ARGUMENT', f'vector {bad[0]} is poisoned')
    with self._lock:
      self.rows.setdefault(namespace, {}).update(vectors)
    if self.answer is not None:
      return self.answer
    return messages.UpsertResponse(
        upserted_count=len(vectors)).SerializeToString()

  def _authorize(self, context):
    headers = dict(context.invocation_metadata())
    self.metadata.append(headers)
    if headers.get('api-key') != API_KEY:
      self._abort(context, 'UNAUTHENTICATED', 'Unauthorized')

  def _abort(self, context, code, text, trailers=()):
    context.set_trailing_metadata((('x-request-id', 'r-1'), *trailers))
    context.abort(grpc.StatusCode[code], text)


@contextlib.contextmanager
def control_plane(answers):
  """Answers GET requests by path with (status, body); yields (URL, requests).

  A body that is no text is sent as JSON.
  """
  requests = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      requests.append(
          (self.path, {
              k.lower(): v for k, v in self.headers.items()
          }))
      status, body, *headers = answers.get(
          self.path, (404, {
              'status': 404,
              'error': {
                  'code': 'NOT_FOUND', 'message': 'Resource not found'
              }
          }))
      data = (body if isinstance(body, str) else json.dumps(body)).encode()
      self.send_response(status)
      for name, value in headers:
        self.send_header(name, value)
      self.send_header('Content-Length', str(len(data)))
      self.end_headers()
      self.wfile.write(data)

    def log_message(self, *args):
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield f'http://127.0.0.1:{server.server_port}', requests
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
