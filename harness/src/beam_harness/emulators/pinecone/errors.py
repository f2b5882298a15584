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
"""The service's refusals, in the body each of its interfaces gives them."""

from __future__ import annotations

import json

from beam_harness.emulators.core import GRPC_CODES
from beam_harness.emulators.core import Answer

__all__ = [
    'ServiceError',
    'control_error',
    'data_error',
    'grpc_error',
    'invalid',
    'not_found',
    'unauthorized',
]

#: HTTP status of a gRPC code number, as the data plane pairs them.
_HTTP_OF_GRPC = {
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}

#: gRPC code number in the body of an HTTP status.
_GRPC_OF_HTTP = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    408: 4,
    409: 6,
    412: 9,
    413: 11,
    429: 8,
    499: 1,
    500: 13,
    501: 12,
    502: 14,
    503: 14,
    504: 4,
}

#: The control plane's name of an HTTP status.
_ENUM_OF_HTTP = {
    400: 'INVALID_ARGUMENT',
    401: 'UNAUTHENTICATED',
    402: 'PAYMENT_REQUIRED',
    403: 'FORBIDDEN',
    404: 'NOT_FOUND',
    409: 'ALREADY_EXISTS',
    412: 'FAILED_PRECONDITION',
    413: 'PAYLOAD_TOO_LARGE',
    422: 'UNPROCESSABLE_ENTITY',
    429: 'RESOURCE_EXHAUSTED',
    500: 'INTERNAL',
    503: 'UNAVAILABLE',
}


class ServiceError(Exception):
  """The service refuses a request.

  Attributes:
    code: gRPC status number.
    message: the service's text.
    http: HTTP status; that of `code` unless given.
  """
  def __init__(self, code: int, message: str, http: int | None = None):
    super().__init__(message)
    self.code = code
    self.message = message
    self.http = _HTTP_OF_GRPC.get(code, 500) if http is None else http


def invalid(message: str) -> ServiceError:
  """A refusal of the request's content (400, INVALID_ARGUMENT)."""
  return ServiceError(GRPC_CODES['INVALID_ARGUMENT'], message)


def not_found(message: str) -> ServiceError:
  """A refusal because something is missing (404, NOT_FOUND)."""
  return ServiceError(GRPC_CODES['NOT_FOUND'], message)


def data_error(status: int, message: str, code: int | None = None) -> Answer:
  """A REST error of the data plane."""
  if status == 401:
    return unauthorized()
  if code is None:
    code = _GRPC_OF_HTTP.get(status, 13 if status >= 500 else 3)
  return Answer.json(status, {'code': code, 'message': message, 'details': []})


def control_error(status: int, message: str) -> Answer:
  """A REST error of the control plane."""
  enum = _ENUM_OF_HTTP.get(
      status, 'INTERNAL' if status >= 500 else 'INVALID_ARGUMENT')
  return Answer.json(
      status, {
          'status': status, 'error': {
              'code': enum, 'message': message
          }
      })


def unauthorized() -> Answer:
  """The data plane's 401, whose body is a bare word."""
  return Answer(401, b'Unauthorized', {'content-type': 'text/plain'})


def grpc_error(code: int, message: str) -> Answer:
  """A gRPC error."""
  return Answer(code, message=message)


def shown(value: object, length: int = 16) -> str:
  """A JSON value as the service quotes it: compact, cut after `length`."""
  text = value if isinstance(value, str) else json.dumps(
      value, ensure_ascii=False, separators=(',', ':'))
  return text if len(text) <= length else text[:length] + '...'
