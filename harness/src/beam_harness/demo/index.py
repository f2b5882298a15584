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
"""Looking into the index over plain HTTP, as its public API documents it.

What the demo claims is checked through this door and not through the
connector that wrote: two programs that are wrong in the same way would agree.
"""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Sequence
from typing import Any
from typing import Optional

__all__ = ['IndexClient', 'create_index']

API_VERSION = '2026-04'  # the last one in which indexes hold plain vectors
MAX_FETCH_IDS = 100  # ids travel in the URL; the service allows 1,000
TIMEOUT_S = 30


class IndexClient:
  """One kept connection to an index. Not thread-safe.

  Args:
    host: 'host:port', or with 'http://' before it.
    api_key: sent as it is.
  """
  def __init__(self, host: str, api_key: str):
    self._netloc = _netloc(host)
    self._api_key = api_key
    self._connection: Optional[http.client.HTTPConnection] = None

  def fetch(self, ids: Sequence[str], namespace: str) -> dict[str, list[float]]:
    """Returns the vectors of those ids that the index holds."""
    held = {}
    for i in range(0, len(ids), MAX_FETCH_IDS):
      query = urllib.parse.urlencode([('namespace', namespace)] +
                                     [('ids', doc_id)
                                      for doc_id in ids[i:i + MAX_FETCH_IDS]])
      answer = self.request('GET', f'/vectors/fetch?{query}')
      for doc_id, record in answer['vectors'].items():
        held[doc_id] = record['values']
    return held

  def counts(self) -> dict[str, int]:
    """Returns the number of records of each namespace."""
    answer = self.request('POST', '/describe_index_stats', {})
    return {
        name: int(space.get('vectorCount', 0))
        for name, space in (answer.get('namespaces') or {}).items()
    }

  def request(self, method: str, path: str, body: Any = None) -> Any:
    """Sends one request and returns the decoded answer.

    Raises:
      RuntimeError: the service said something else than 2xx.
      OSError: it did not answer.
    """
    if self._connection is None:
      self._connection = http.client.HTTPConnection(
          self._netloc, timeout=TIMEOUT_S)
    headers = {'Api-Key': self._api_key, 'X-Pinecone-Api-Version': API_VERSION}
    data = None
    if body is not None:
      data = json.dumps(body)
      headers['Content-Type'] = 'application/json'
    try:
      self._connection.request(method, path, data, headers)
      response = self._connection.getresponse()
      content = response.read()
    except (OSError, http.client.HTTPException):
      self.close()
      raise
    if not 200 <= response.status < 300:
      text = content[:500].decode('utf-8', 'replace')
      where = path.partition('?')[0]
      raise RuntimeError(
          f'{method} {where} at {self._netloc} answered {response.status}: '
          f'{text}')
    return json.loads(content) if content else {}

  def close(self) -> None:
    if self._connection is not None:
      self._connection.close()
      self._connection = None


def create_index(
    control_host: str, api_key: str, name: str, dimension: int) -> str:
  """Creates a serverless cosine index and returns the host of its data."""
  control = IndexClient(control_host, api_key)
  try:
    made = control.request(
        'POST',
        '/indexes',
        {
            'name': name,
            'dimension': dimension,
            'metric': 'cosine',
            'spec': {
                'serverless': {
                    'cloud': 'aws', 'region': 'us-east-1'
                }
            },
        })
    return made['host']
  finally:
    control.close()


def _netloc(host: str) -> str:
  parts = urllib.parse.urlsplit(host if '://' in host else f'//{host}')
  if parts.scheme not in ('', 'http'):
    raise ValueError(f'only plain http to a local emulator, not {host!r}')
  return parts.netloc
