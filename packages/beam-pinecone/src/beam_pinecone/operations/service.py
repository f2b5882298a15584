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
"""Opening an index, and what the errors of the service mean."""

from __future__ import annotations

import dataclasses
import re

from beam_connector_base.credentials import CredentialError
from beam_connector_base.operation import FATAL
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Verdict
from beam_connector_base.retry import grpc_verdict
from beam_connector_base.retry import http_verdict
from beam_connector_base.retry import transport_verdict
from beam_connector_base.runtime import blocking
from beam_pinecone.client import PineconeClient
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.connection import documents_remedy
from beam_pinecone.errors import PineconeError
from beam_pinecone.schema import IndexSchema
from beam_pinecone.wire.responses import IndexStats
from beam_pinecone.wire.responses import index_stats

__all__ = [
    'OpenIndex', 'open_index', 'open_vectors', 'read_stats', 'verdict_of'
]


@dataclasses.dataclass(frozen=True)
class OpenIndex:
  """An index that answers.

  Args:
    client: a channel to it; whoever opened it closes it.
    schema: what it takes.
    stats: what it said of itself when it was opened.
  """
  client: PineconeClient
  schema: IndexSchema
  stats: IndexStats


async def open_index(connection: PineconeConnection, index: str) -> OpenIndex:
  """Finds an index and asks it for its statistics.

  Raises:
    PineconeError: what the service, or the way to it, answered.
    CredentialError: the key cannot be read.
    OSError: the control plane was not reached, or a file is missing.
  """
  # Both read files or sockets: not on the event loop.
  endpoint = await blocking(connection.locate, index)
  headers = await blocking(connection.headers)
  client = PineconeClient(
      endpoint, headers, connection.user_agent, connection.ca_certs)
  try:
    stats = await read_stats(client, connection.timeout)
  except BaseException:
    await client.close()
    raise
  return OpenIndex(client, IndexSchema.from_stats(index, stats), stats)


async def open_vectors(connection: PineconeConnection, index: str) -> OpenIndex:
  """As `open_index`, for what a document index answers with silence: reads.

  Raises:
    PineconeError: besides, that the index holds no vectors but documents.
  """
  opened = await open_index(connection, index)
  schema = opened.schema
  # A vector index has a dimension, or is sparse. Where the control plane was
  # asked for the host, it has told already.
  if schema.dimension is None and schema.vector_type != 'sparse':
    await opened.client.close()
    raise PineconeError('FAILED_PRECONDITION', documents_remedy(index))
  return opened


async def read_stats(client: PineconeClient, timeout: float) -> IndexStats:
  """The statistics of an open index.

  Args:
    client: a channel to it.
    timeout: seconds.

  Raises:
    PineconeError: what the service, or the way to it, answered.
  """
  try:
    return index_stats(await client.describe_index_stats(timeout))
  except ValueError as e:
    raise PineconeError(
        'INTERNAL', f'the statistics of the index are unreadable: {e}') from e


def verdict_of(error: BaseException, index: str) -> Verdict:
  """What an error of `open_index`, or of a request, means.

  Args:
    error: what was raised.
    index: name of the index, for messages.
  """
  if isinstance(error, PineconeError):
    return _of_service(error, index)
  if isinstance(error, CredentialError):
    return dataclasses.replace(FATAL, reason=str(error))
  if isinstance(error, FileNotFoundError):
    # The certificates: waiting does not make a file appear.
    return dataclasses.replace(
        FATAL, reason=f'ca_certs={error.filename!r} is not on the worker')
  verdict = transport_verdict(error)
  return verdict if verdict is not None else FATAL


def _of_service(error: PineconeError, index: str) -> Verdict:
  reason = str(error)
  if error.code.isdigit():
    return http_verdict(int(error.code), error.retry_after, reason)
  message = error.message
  if _TOO_LARGE.search(message):
    # Comes as OUT_OF_RANGE or RESOURCE_EXHAUSTED, which mean other things.
    return Verdict(Kind.TOO_LARGE, None, 413, reason)
  if _DOCUMENTS.search(message):
    remedy = documents_remedy(index)
    if remedy not in message:
      reason = f'{remedy} ({reason})'
    return Verdict(Kind.FATAL, None, 400, reason)
  if error.code == 'FAILED_PRECONDITION':
    # The state of the index, whatever the record.
    return Verdict(Kind.FATAL, None, 400, reason)
  advice = _REMEDIES.get(error.code)
  if advice:
    reason = f'{reason}: {advice}'
  return grpc_verdict(error.code, error.retry_after, reason)


_TOO_LARGE = re.compile(
    r'message length too large|message larger than max|request (size|body) '
    r'(is )?too large|exceeds the maximum (request|message) size',
    re.IGNORECASE)
_DOCUMENTS = re.compile(
    r'documents? api|documents[./ ]upsert|document[- ](schema )?index'
    r'|/documents/',
    re.IGNORECASE)
_REMEDIES = {
    'UNAUTHENTICATED':
        'the API key is not known to this index, check the key '
        'that PineconeConnection(api_key=...) refers to',
    'PERMISSION_DENIED':
        'the API key may not do this to the index, check its '
        'role and project',
    'NOT_FOUND': 'check the name of the index, or the host given',
    'UNIMPLEMENTED': 'this host is no Pinecone index, check the host given',
    'UNAVAILABLE':
        'the host of the index was not reached or had no capacity, '
        'check the host if one is given, and that the workers can reach it',
}
