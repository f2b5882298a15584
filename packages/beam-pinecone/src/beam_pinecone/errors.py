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
"""The two errors of this package: what Pinecone said, and what we won't send.

Both hold plain text only: they are pickled when a worker reports them.
"""

from __future__ import annotations

from typing import Optional

__all__ = ['PineconeError', 'Refused']


class PineconeError(Exception):
  """Pinecone, or the way to it, answered with an error.

  Args:
    code: the name of the gRPC code ('UNAVAILABLE'), or the HTTP status as text
      ('404') where the control plane answered.
    message: what the service said.
    retry_after: seconds the service asked to wait, if it did.
    request_id: the service's own id of the request, for its support.
  """
  def __init__(
      self,
      code: str,
      message: str,
      retry_after: Optional[float] = None,
      request_id: Optional[str] = None):
    super().__init__(code, message, retry_after, request_id)
    self.code = code
    self.message = message
    self.retry_after = retry_after
    self.request_id = request_id

  def __str__(self) -> str:
    suffix = f' (request {self.request_id})' if self.request_id else ''
    return f'{self.code}: {self.message}{suffix}'


class Refused(ValueError):
  """A record the service would reject or change, so that it is not sent.

  Args:
    error_type: a short stable name of the check.
    reason: the field, what is wrong with it, and the remedy.
  """
  def __init__(self, error_type: str, reason: str):
    super().__init__(error_type, reason)
    self.error_type = error_type
    self.reason = reason

  def __str__(self) -> str:
    return self.reason
