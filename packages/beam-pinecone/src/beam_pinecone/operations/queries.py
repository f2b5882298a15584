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
"""The operation of a search: one request per query, several side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any
from typing import Optional
from typing import Union

import pyarrow as pa

from beam_connector_base.operation import MISSING
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Rate
from beam_connector_base.operation import Replies
from beam_connector_base.operation import Reply
from beam_connector_base.operation import Session
from beam_connector_base.operation import Verdict
from beam_pinecone.client import PineconeClient
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.encode.questions import Question
from beam_pinecone.encode.questions import QuestionEncoder
from beam_pinecone.errors import PineconeError
from beam_pinecone.operations.namespaces import NamespaceNotFound
from beam_pinecone.operations.namespaces import Namespaces
from beam_pinecone.operations.service import open_vectors
from beam_pinecone.operations.service import verdict_of
from beam_pinecone.schema import IndexSchema
from beam_pinecone.wire.answers import Match
from beam_pinecone.wire.answers import query_answer

__all__ = ['MAX_TOP_K', 'QueryVectors']

# Operation limits page.
MAX_TOP_K = 10_000
MAX_ANSWER_BYTES = 4_000_000
# Of one request, as reports of oversized messages have it.
MAX_REQUEST_BYTES = 4_000_000
# Rate limits page: queries per second and namespace.
QUERIES_PER_SECOND = 100.0

#: Queries that one delivery of the engine sends side by side. The service
#: takes one query a request; what the engine does per delivery (120 us, half
#: of what gRPC costs) is shared by so many.
SIDE_BY_SIDE = 8
# Deliveries in flight to start with, and at most.
_IN_FLIGHT = 4
_MAX_IN_FLIGHT = 16
# Answers of all deliveries in flight may take so much memory together.
_ANSWERS_BYTES = 128 << 20
# A match with a vector has these bytes besides, at least: tags, lengths, an id
# of one character and a score.
_MATCH_BYTES = 16


@dataclasses.dataclass(frozen=True)
class QueryVectors(Operation):
  """Finds the vectors that are most similar to another.

  Args:
    index: name of the index.
    question: what is asked for each element.
    connection: where the index is.
    on_missing_namespace: 'fail' or 'empty'.
    queries_per_second: at most, per namespace; None for as many as are taken.
    side_by_side: queries of one delivery.
  """
  index: str
  question: Question
  connection: PineconeConnection
  on_missing_namespace: str = 'fail'
  queries_per_second: Optional[float] = QUERIES_PER_SECOND
  side_by_side: int = SIDE_BY_SIDE

  @property
  def target(self) -> str:
    return f'Pinecone index {self.index!r}'

  async def open(self) -> QuerySession:
    index = await open_vectors(self.connection, self.index)
    try:
      check_answer_size(self.question, index.schema)
    except BaseException:
      await index.client.close()
      raise
    return QuerySession(self, index.client, index.schema)

  def classify(self, error: BaseException) -> Verdict:
    if isinstance(error, NamespaceNotFound):
      return error.verdict
    verdict = verdict_of(error, self.index)
    if verdict.kind is Kind.TOO_LARGE:
      return dataclasses.replace(
          verdict,
          reason=f'{verdict.reason}: ask for fewer matches (top_k=) or less of '
          'them (include_values=, include_metadata=)')
    return verdict


def check_answer_size(question: Question, schema: IndexSchema) -> None:
  """Raises PineconeError if the vectors asked for fit into no answer."""
  if not question.include_values or not schema.dimension:
    return
  each = 4 * schema.dimension + _MATCH_BYTES
  most = MAX_ANSWER_BYTES // each
  if question.top_k > most:
    raise PineconeError(
        'FAILED_PRECONDITION',
        f'top_k={question.top_k} with include_values=True makes answers of '
        f'{question.top_k * each / 1e6:.1f} MB from index {schema.index!r} '
        f'(dimension {schema.dimension}), Pinecone answers with 4 MB at most: '
        f'set top_k={most} or less, or include_values=False')


class QuerySession(Session):
  """An open channel to one index that is searched.

  Args:
    operation: whose session it is.
    client: owned by the session.
    schema: of the index.
  """
  def __init__(
      self,
      operation: QueryVectors,
      client: PineconeClient,
      schema: IndexSchema):
    question = operation.question
    self.schema = schema
    self._operation = operation
    self._client = client
    self._timeout = operation.connection.timeout
    self._ascending = schema.metric == 'euclidean'
    self._namespaces = Namespaces(
        client,
        schema,
        self._timeout,
        for_all=question.namespace.is_constant,
        on_missing=operation.on_missing_namespace)
    encoder = QuestionEncoder(question, schema)
    self._encode = encoder.encode
    self._encode_batch = encoder.encode_batch
    side_by_side = operation.side_by_side
    rate = operation.queries_per_second
    self.limits = Limits(
        max_records=side_by_side,
        max_bytes=MAX_REQUEST_BYTES,
        in_flight=_IN_FLIGHT,
        max_in_flight=_most_in_flight(question, schema, side_by_side),
        # A delivery is as many requests as it has records.
        rates=() if rate is None else
        (Rate(records=rate, scope='destination'),),
        answers=True,
        side_by_side=True)

  def encode(self, element: Any) -> Iterable[Union[Block, Invalid]]:
    if isinstance(element, pa.RecordBatch):
      return self._encode_batch(element)
    return (self._encode(element),)

  async def send(self, batch: Batch) -> Replies:
    answers = await self._client.call_each('Query', map(bytes, batch.rows()))
    replies: list[Union[Done, PineconeError]] = []
    for answer in answers:
      if isinstance(answer, bytes):
        replies.append(await self._reply(answer, str(batch.destination)))
      else:
        replies.append(answer)
    return settled(replies, self._operation)

  async def _reply(self, answer: bytes,
                   namespace: str) -> Union[Done, PineconeError]:
    try:
      matches = query_answer(answer)
    except ValueError as e:
      return PineconeError('INTERNAL', f'the answer is unreadable: {e}')
    if not matches:
      try:
        return await self._namespaces.missing(namespace) or Done(MISSING)
      except PineconeError as e:
        return e
    self._namespaces.found(namespace)
    return Done(best_first(matches, self._ascending))

  async def check(self) -> None:
    await self._client.describe_index_stats(self._timeout)

  async def close(self) -> None:
    await self._client.close()


def _most_in_flight(
    question: Question, schema: IndexSchema, side_by_side: int) -> int:
  """Deliveries whose answers may be in memory at once."""
  each = 0
  if question.include_values:
    each += 4 * (schema.dimension or 0)
  if question.include_metadata:
    each += 1_000
  answer = min(question.top_k * (each + 64), MAX_ANSWER_BYTES)
  return max(1, min(_MAX_IN_FLIGHT, _ANSWERS_BYTES // (answer * side_by_side)))


def settled(replies: list[Union[Done, PineconeError]],
            operation: Operation) -> list[Reply]:
  """The replies to requests that were sent side by side.

  Raises:
    PineconeError: nothing can be answered until somebody acts, or none of them
      was: then it is as if the one request of a batch had failed, and the
      engine counts, waits or looks at them one by one.
  """
  out: list[Reply] = []
  errors: list[tuple[PineconeError, Verdict]] = []
  for reply in replies:
    if isinstance(reply, Done):
      out.append(reply)
      continue
    verdict = operation.classify(reply)
    if verdict.kind is Kind.FATAL:
      raise reply
    errors.append((reply, verdict))
    out.append(
        Failed(verdict, verdict.reason or str(reply), verdict.kind.value))
  if errors and len(errors) == len(replies):
    for error, verdict in errors:
      if verdict.kind is Kind.THROTTLED:
        raise error
    raise errors[0][0]
  return out


def best_first(matches: list[Match], ascending: bool) -> list[Match]:
  """The matches by score; the service promises no order.

  Args:
    matches: as they came; those of one score keep their order.
    ascending: whether less is better.
  """
  scores = [match.score for match in matches]
  ordered = sorted(scores, reverse=not ascending)
  if scores != ordered:
    matches.sort(key=_score, reverse=not ascending)
  return matches


def _score(match: Match) -> float:
  return match.score
