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
"""`SearchPinecone`: the transform that finds the nearest vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

import apache_beam as beam
from apache_beam.pvalue import PCollection

from beam_connector_base.cache import Cache
from beam_connector_base.lookup import LookupRecords
from beam_connector_base.lookup import LookupResult
from beam_connector_base.tuning import Tuning
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.decode.joins import JoinMatches
from beam_pinecone.encode.filters import Filter
from beam_pinecone.encode.layout import check_field
from beam_pinecone.encode.layout import namespace_choice
from beam_pinecone.encode.questions import Question
from beam_pinecone.operations.namespaces import check_on_missing_namespace
from beam_pinecone.operations.queries import MAX_TOP_K
from beam_pinecone.operations.queries import QUERIES_PER_SECOND
from beam_pinecone.operations.queries import SIDE_BY_SIDE
from beam_pinecone.operations.queries import QueryVectors
from beam_pinecone.schema import check_index_name

__all__ = ['SearchPinecone', 'search_operation', 'search_tuning']


class SearchPinecone(beam.PTransform):
  """Finds, for each element, the vectors of an index that are nearest to it.

  Elements: `dict`, `beam.Row`, `NamedTuple`, dataclass, Beam's `EmbeddableItem`
  (`Chunk`), or `pyarrow.RecordBatch` for a query per row. An element is
  searched for by its dense vector (list, tuple, array, numpy array or Arrow
  list; as many numbers as the index has dimensions), by its sparse vector, by
  both (hybrid, on an index with metric dotproduct), or by the id of a vector
  that the index holds.

  Output: the element and one more field, a list of at most `top_k` `Match`es
  (`id`, `score`, `metadata`, `values`, `sparse_values`), best first; empty if
  nothing was found. A dict stays a dict; Row, NamedTuple and dataclass become a
  `beam.Row`, with a schema where the input has one; an `EmbeddableItem` gets
  the field in its metadata; a RecordBatch gets a column of lists of structs, in
  which metadata are JSON text. Windows and timestamps are kept. Vectors are
  read-only float32 arrays.

  Delivery: a left join; every element comes out once, or is in `.failed`. Equal
  queries are sent once, within a bundle and among those under way in the
  process, and with `cache` not again while their answer is kept.

  Parallelism: as many bundles as the runner wants; those of one process share
  one connection, one limit of requests in flight and `queries_per_second`.
  Pinecone takes one query a request; the engine hands over up to eight at once,
  which settle together.

  Errors: a vector of another dimension, NaN, a filter that Pinecone would
  reject and the like are not sent but refused, with the reason; `on_error` says
  what becomes of them. A document index, an index that does not exist, a wrong
  key or an unreachable host fail the bundle. A namespace that does not exist
  would be answered with nothing; see `on_missing_namespace`.

  Example::

    import apache_beam as beam
    from beam_pinecone import SearchPinecone

    with beam.Pipeline() as p:
      (p | beam.Create([{'question': 'q1', 'vector': [0.1, 0.2, 0.3]}])
         | SearchPinecone('docs', top_k=3, filter={'lang': {'$eq': 'en'}})
         | beam.Map(lambda row: [match.id for match in row['matches']])
         | beam.Map(print))

  Pinecone's own page on queries:
  https://docs.pinecone.io/guides/search/semantic-search

  Args:
    index: name of the index. Where `connection` names a host, it is only used
      in messages.
    top_k: matches per query, 1 to 10,000. An answer has at most 4 MB: with
      `include_values` that is 4,000,000 / (4 * dimension + 16) matches.
    namespace: a constant ('' is the default namespace), a template such as
      '{tenant}', or a callable that is given the element's fields as a mapping.
    vector_field: field of the dense vector; None if there is none. Not used for
      an `EmbeddableItem`, which has its own.
    id_field: field of the id of a stored vector. Elements that have one are
      searched for by it, the others by their vectors. For an `EmbeddableItem`
      any name stands for its id.
    sparse_field: field of the sparse vector, a mapping with `indices` and
      `values`, or a pair of both. For an `EmbeddableItem` any name stands for
      its sparse embedding, which is not used without.
    filter: a metadata filter such as `{'year': {'$gte': 2020}}`. `{field}` in
      its strings stands for a field of the element; a string that is
      `'{field}'` and nothing else for its value as it is, number or list. Or a
      callable that is given the element's fields and returns a filter or None.
    include_values: whether matches carry their vectors.
    include_metadata: whether matches carry their metadata.
    output_field: field of the matches.
    cache: how long answers may be used again; None for not at all.
    on_missing: what becomes of an element for which nothing was found. 'null':
      it gets an empty list; 'separate': it goes to `.missing`; 'fail': it is
      refused.
    on_missing_namespace: 'fail' refuses an element whose namespace does not
      exist, and fails the bundle if the namespace is a constant; 'empty' takes
      the empty answer for one. A namespace exists from its first write on, once
      the index knows of it.
    on_error: 'fail', 'collect' (`.failed` must then be read), or Beam's
      `ErrorHandler`.
    queries_per_second: at most, per namespace and process. Pinecone documents
      100 per namespace; give its number where your index has another, or None
      to send as many as are answered. `Tuning(quota_share=...)` takes a share.
    connection: a `PineconeConnection`, or the host of the index; by default
      everything comes from the environment variables of Pinecone's own client.
    tuning: `Tuning`; see there for what can be set.

  Returns:
    A `LookupResult`: the PCollection of elements with their matches, with
    `.missing` and `.failed` besides.

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
      on_error: Any = 'fail',
      queries_per_second: Optional[float] = QUERIES_PER_SECOND,
      connection: Union[PineconeConnection, str, None] = None,
      tuning: Optional[Tuning] = None):
    super().__init__()
    side_by_side, tuning = search_tuning(tuning)
    self._operation = search_operation(
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
    self._lookup = LookupRecords(
        self._operation,
        JoinMatches(self._operation.question),
        on_missing=on_missing,
        on_error=on_error,
        cache=cache,
        tuning=tuning,
        namespace='SearchPinecone',
        lineage=('pinecone', index))

  def expand(self, pcoll: PCollection) -> LookupResult:
    return pcoll | self._lookup

  def display_data(self) -> dict[str, Any]:
    question = self._operation.question
    data = {
        'index': self._operation.index,
        'namespace': str(question.namespace),
        'top_k': question.top_k,
    }
    if question.filter.kind != 'none':
      data['filter'] = str(question.filter)
    if self._operation.connection.host is not None:
      data['host'] = self._operation.connection.host
    return data


def search_operation(
    index: str,
    top_k: int,
    *,
    namespace: Any,
    vector_field: Optional[str],
    id_field: Optional[str],
    sparse_field: Optional[str],
    filter: Any,
    include_values: bool,
    include_metadata: bool,
    output_field: str,
    on_missing_namespace: str,
    queries_per_second: Optional[float],
    connection: Union[PineconeConnection, str, None],
    side_by_side: int = SIDE_BY_SIDE) -> QueryVectors:
  """The operation of a search, from what the user typed.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  check_index_name(index)
  if isinstance(top_k, bool) or not isinstance(top_k, int):
    raise TypeError(f'top_k is a {type(top_k).__name__}: it is an int')
  if not 1 <= top_k <= MAX_TOP_K:
    raise ValueError(
        f'top_k is {top_k}: a query has 1 to {MAX_TOP_K:,} matches')
  check_field('vector_field', vector_field)
  check_field('id_field', id_field)
  check_field('sparse_field', sparse_field)
  check_field('output_field', output_field, required=True)
  if vector_field is None and id_field is None and sparse_field is None:
    raise ValueError(
        'vector_field, id_field and sparse_field are all None: there is '
        'nothing to search by')
  read = [f for f in (vector_field, id_field, sparse_field) if f is not None]
  if len(set(read)) < len(read):
    raise ValueError(
        f'two of vector_field, id_field and sparse_field are '
        f'{max(read, key=read.count)!r}: one field holds one thing')
  if output_field in read:
    raise ValueError(
        f'output_field is {output_field!r}, which is a field to search by')
  check_flag('include_values', include_values)
  check_flag('include_metadata', include_metadata)
  question = Question(
      namespace_choice(namespace),
      vector_field,
      id_field,
      sparse_field,
      Filter.of(filter),
      top_k,
      include_values,
      include_metadata,
      output_field)
  return QueryVectors(
      index,
      question,
      PineconeConnection.of(connection),
      check_on_missing_namespace(on_missing_namespace),
      check_rate('queries_per_second', queries_per_second),
      side_by_side)


def search_tuning(tuning: Optional[Tuning]) -> tuple[int, Optional[Tuning]]:
  """Queries to send side by side, and the tuning of deliveries of so many.

  What a user calls a request is one query; the engine's requests are
  deliveries.
  """
  most = SIDE_BY_SIDE
  if not isinstance(tuning, Tuning):
    return most, tuning
  if tuning.max_records is not None:
    most = min(most, tuning.max_records)
  in_flight = tuning.in_flight
  if in_flight is None:
    return most, tuning
  # As many in flight as may be, in as large deliveries as that allows.
  side_by_side = max(range(1, most + 1), key=lambda n: (in_flight // n * n, n))
  deliveries = max(1, in_flight // side_by_side)
  return side_by_side, dataclasses.replace(tuning, in_flight=deliveries)


def check_flag(parameter: str, value: Any) -> None:
  """Raises TypeError unless the argument is True or False."""
  if not isinstance(value, bool):
    raise TypeError(f'{parameter} is {value!r}: it is True or False')


def check_rate(parameter: str, value: Any) -> Optional[float]:
  """The argument, a number per second or None, checked."""
  if value is None:
    return None
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise TypeError(
        f'{parameter} is a {type(value).__name__}: it is a number, or None')
  if not 0 < value < float('inf'):
    raise ValueError(f'{parameter} is {value!r}: it is a number above 0')
  return float(value)
