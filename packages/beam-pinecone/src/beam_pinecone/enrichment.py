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
"""Searches and lookups as handlers of Beam's `Enrichment` transform.

`SearchPinecone` and `LookupPinecone` keep event times, have dead letters and
send many requests at once; these are for pipelines that use `Enrichment`
already. Needs `pip install 'beam-pinecone[enrichment]'`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

from beam_connector_base.cache import Cache
from beam_connector_base.enrichment import LookupHandler
from beam_connector_base.operation import MISSING
from beam_connector_base.operation import Operation
from beam_connector_base.tuning import Tuning
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.decode.joins import JoinMatches
from beam_pinecone.decode.joins import JoinRecord
from beam_pinecone.lookup import join_record
from beam_pinecone.lookup import lookup_operation
from beam_pinecone.operations.fetches import FETCHES_PER_SECOND
from beam_pinecone.operations.queries import QUERIES_PER_SECOND
from beam_pinecone.search import check_flag
from beam_pinecone.search import search_operation
from beam_pinecone.search import search_tuning
from beam_pinecone.wire.answers import Match
from beam_pinecone.wire.answers import Record

__all__ = ['PineconeLookupEnrichmentHandler', 'PineconeSearchEnrichmentHandler']

#: Metadata key of a chunk under which Beam's own handlers put what they found.
ENRICHMENT_DATA = 'enrichment_data'


class _Handler(LookupHandler):
  """What both handlers have in common: rows or chunks.

  Args:
    use_custom_types: whether requests are chunks.
  """
  def __init__(
      self,
      operation: Operation,
      join: Union[JoinMatches, JoinRecord],
      use_custom_types: bool,
      **arguments: Any):
    super().__init__(operation, **arguments)
    check_flag('use_custom_types', use_custom_types)
    self._join = join
    if use_custom_types:
      # Both are read by Enrichment, which has arguments of its own for them
      # where a handler has not.
      self.use_custom_types = True
      self.join_fn = join_chunk

  def key(self, request: Any) -> str:
    return self._join.key(request, 0)

  def __call__(self, request: Any, *args: Any, **kwargs: Any) -> Any:
    answered = super().__call__(request, *args, **kwargs)
    if not getattr(self, 'use_custom_types', False):
      return answered
    # Chunks are joined with plain mappings, as from Beam's own handlers.
    if isinstance(answered, list):
      return [(chunk, vars(response).copy()) for chunk, response in answered]
    chunk, response = answered
    return chunk, vars(response).copy()


def join_chunk(chunk: Any, found: Mapping[str, Any]) -> Any:
  """A copy of the chunk with what was found in its metadata."""
  metadata = {**(chunk.metadata or {}), ENRICHMENT_DATA: dict(found)}
  return dataclasses.replace(chunk, metadata=metadata)


class PineconeSearchEnrichmentHandler(_Handler):
  """Finds, for each row or chunk, the vectors that are nearest to it.

  With `Enrichment`, a `beam.Row` gets a field `output_field` with its `Match`es,
  best first. With `use_custom_types=True` requests are Beam's `EmbeddableItem`
  (`Chunk`), searched for by their embeddings; a copy of each gets
  `metadata['enrichment_data']`, in the shape of Beam's Milvus handler: lists
  `id`, `distance` (the score) and `fields` (the metadata), best first, and
  `values` where they were asked for.

  Delivery, errors and metrics are those of `Enrichment`: a refused or failed
  request fails the bundle, with the reason. Retries, timeouts and throttling
  are the connector's own; give `Enrichment` no repeater. Unbatched, a bundle
  sends one query after the other: `SearchPinecone` is many times as fast.

  Example::

    import apache_beam as beam
    from apache_beam.transforms.enrichment import Enrichment
    from beam_pinecone import PineconeSearchEnrichmentHandler

    with beam.Pipeline() as p:
      (p | beam.Create([beam.Row(question='q1', vector=[0.1, 0.2, 0.3])])
         | Enrichment(PineconeSearchEnrichmentHandler('docs', top_k=3))
         | beam.Map(print))

  Args:
    index, top_k, namespace, vector_field, id_field, sparse_field, filter,
      include_values, include_metadata, output_field, cache,
      on_missing_namespace, queries_per_second, connection, tuning: as those of
      `SearchPinecone`.
    on_missing: 'null' answers with no matches where nothing was found, 'fail'
      raises.
    use_custom_types: whether requests are chunks.
    min_batch_size, max_batch_size, max_batch_duration_secs: opt in to Beam's
      batching, which moves every timestamp to the end of its window.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  def __init__(
      self,
      index: str,
      top_k: int = 10,
      *,
      namespace: Union[str, Callable[[Mapping[str, Any]], str]] = '',
      vector_field: Optional[str] = 'vector',
      id_field: Optional[str] = None,
      sparse_field: Optional[str] = None,
      filter: Union[Mapping[str, Any], Callable[[Mapping[str, Any]], Any],
                    None] = None,
      include_values: bool = False,
      include_metadata: bool = True,
      output_field: str = 'matches',
      cache: Optional[Cache] = None,
      on_missing: str = 'null',
      on_missing_namespace: str = 'fail',
      queries_per_second: Optional[float] = QUERIES_PER_SECOND,
      connection: Union[PineconeConnection, str, None] = None,
      tuning: Optional[Tuning] = None,
      use_custom_types: bool = False,
      min_batch_size: Optional[int] = None,
      max_batch_size: Optional[int] = None,
      max_batch_duration_secs: Optional[float] = None):
    side_by_side, tuning = search_tuning(tuning)
    operation = search_operation(
        index,
        top_k,
        namespace=namespace,
        vector_field=vector_field,
        id_field=id_field,
        sparse_field=sparse_field,
        filter=filter,
        include_values=include_values,
        include_metadata=include_metadata,
        output_field=output_field,
        on_missing_namespace=on_missing_namespace,
        queries_per_second=queries_per_second,
        connection=connection,
        side_by_side=side_by_side)
    super().__init__(
        operation,
        JoinMatches(operation.question),
        use_custom_types,
        name='PineconeSearchEnrichmentHandler',
        on_missing=on_missing,
        cache=cache,
        tuning=tuning,
        min_batch_size=min_batch_size,
        max_batch_size=max_batch_size,
        max_batch_duration_secs=max_batch_duration_secs)
    self._question = operation.question

  def response(self, request: Any, answer: Any) -> Mapping[str, Any]:
    matches: list[Match] = [] if answer is MISSING else answer[:]
    if not getattr(self, 'use_custom_types', False):
      return {self._question.output: matches}
    found: dict[str, Any] = {
        'id': [match.id for match in matches],
        'distance': [match.score for match in matches],
        'fields': [match.metadata or {} for match in matches],
    }
    if self._question.include_values:
      found['values'] = [match.values for match in matches]
    return found


class PineconeLookupEnrichmentHandler(_Handler):
  """Adds to each row or chunk the record that has its id.

  With `Enrichment`, a `beam.Row` gets a field `output_field` with the `Record`,
  or None. With `use_custom_types=True` requests are Beam's `EmbeddableItem`
  (`Chunk`); a copy of each gets `metadata['enrichment_data']` with `id`,
  `values`, `sparse_values` and `metadata` of the record, each None where the
  index has no record of that id.

  Delivery, errors and metrics are those of `Enrichment`: a refused or failed
  request fails the bundle, with the reason. Retries, timeouts and throttling
  are the connector's own; give `Enrichment` no repeater. Unbatched, each
  request has one id: `LookupPinecone` is many times as fast.

  Example::

    import apache_beam as beam
    from apache_beam.transforms.enrichment import Enrichment
    from beam_pinecone import PineconeLookupEnrichmentHandler

    with beam.Pipeline() as p:
      (p | beam.Create([beam.Row(doc='a')])
         | Enrichment(PineconeLookupEnrichmentHandler('docs', id_field='doc'))
         | beam.Map(print))

  Args:
    index, id_field, namespace, include_values, include_metadata, output_field,
      on_missing_namespace, cache, requests_per_second, connection, tuning: as
      those of `LookupPinecone`.
    on_missing: 'null' answers with None where there is no record, 'fail'
      raises.
    use_custom_types: whether requests are chunks.
    min_batch_size, max_batch_size, max_batch_duration_secs: opt in to Beam's
      batching, which moves every timestamp to the end of its window.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  def __init__(
      self,
      index: str,
      *,
      id_field: str = 'id',
      namespace: Union[str, Callable[[Mapping[str, Any]], str]] = '',
      include_values: bool = True,
      include_metadata: bool = True,
      output_field: str = 'record',
      on_missing: str = 'null',
      on_missing_namespace: str = 'fail',
      cache: Optional[Cache] = None,
      requests_per_second: Optional[float] = FETCHES_PER_SECOND,
      connection: Union[PineconeConnection, str, None] = None,
      tuning: Optional[Tuning] = None,
      use_custom_types: bool = False,
      min_batch_size: Optional[int] = None,
      max_batch_size: Optional[int] = None,
      max_batch_duration_secs: Optional[float] = None):
    operation = lookup_operation(
        index,
        id_field=id_field,
        namespace=namespace,
        include_values=include_values,
        include_metadata=include_metadata,
        output_field=output_field,
        on_missing_namespace=on_missing_namespace,
        requests_per_second=requests_per_second,
        connection=connection)
    super().__init__(
        operation,
        join_record(operation),
        use_custom_types,
        name='PineconeLookupEnrichmentHandler',
        on_missing=on_missing,
        cache=cache,
        tuning=tuning,
        min_batch_size=min_batch_size,
        max_batch_size=max_batch_size,
        max_batch_duration_secs=max_batch_duration_secs)
    self._output = output_field

  def response(self, request: Any, answer: Any) -> Mapping[str, Any]:
    record: Optional[Record] = None if answer is MISSING else answer
    if not getattr(self, 'use_custom_types', False):
      return {self._output: record}
    if record is None:
      return dict.fromkeys(Record._fields)
    return record._asdict()
