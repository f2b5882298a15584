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
"""`LookupPinecone`: the transform that fetches records by their ids."""

from __future__ import annotations

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
from beam_pinecone.decode.joins import JoinRecord
from beam_pinecone.encode.layout import check_field
from beam_pinecone.encode.layout import namespace_choice
from beam_pinecone.operations.fetches import FETCHES_PER_SECOND
from beam_pinecone.operations.fetches import FetchRecords
from beam_pinecone.operations.fetches import RecordKeys
from beam_pinecone.operations.namespaces import check_on_missing_namespace
from beam_pinecone.schema import check_index_name
from beam_pinecone.search import check_flag
from beam_pinecone.search import check_rate

__all__ = ['LookupPinecone', 'join_record', 'lookup_operation']


class LookupPinecone(beam.PTransform):
  """Adds to each element the record that has its id.

  Elements: `dict`, `beam.Row`, `NamedTuple`, dataclass, Beam's `EmbeddableItem`
  (`Chunk`), or `pyarrow.RecordBatch` for many ids at once.

  Output: the element and one more field, a `Record` (`id`, `values`,
  `sparse_values`, `metadata`), or None where the index has no record of that
  id. A dict stays a dict; Row, NamedTuple and dataclass become a `beam.Row`,
  with a schema where the input has one; an `EmbeddableItem` gets the field in
  its metadata; a RecordBatch gets a column of structs, in which metadata are
  JSON text. Windows and timestamps are kept. Vectors are read-only float32
  arrays of shape (dimension,).

  Delivery: a left join; every element comes out once, or is in `.failed`. An id
  is asked for once, within a bundle and among the requests under way in the
  process, and with `cache` not again while its answer is kept.

  Parallelism: as many bundles as the runner wants; those of one process share
  one connection, one limit of requests in flight and `requests_per_second`. A
  request has as many ids as fit into an answer of 4 MB, at most 1,000.

  Errors: what can be no id of a record is not sent but refused, with the
  reason; `on_error` says what becomes of it. A document index, an index that
  does not exist, a wrong key or an unreachable host fail the bundle. A
  namespace that does not exist would be answered with nothing; see
  `on_missing_namespace`.

  Example::

    import apache_beam as beam
    from beam_pinecone import LookupPinecone

    with beam.Pipeline() as p:
      (p | beam.Create([{'doc': 'a'}, {'doc': 'b'}])
         | LookupPinecone('docs', id_field='doc', include_values=False)
         | beam.Map(lambda row: (row['doc'], row['record']))
         | beam.Map(print))

  Pinecone's own page on fetching records:
  https://docs.pinecone.io/guides/manage-data/fetch-data

  Args:
    index: name of the index. Where `connection` names a host, it is only used
      in messages.
    id_field: field of the id.
    namespace: a constant ('' is the default namespace), a template such as
      '{tenant}', or a callable that is given the element's fields as a mapping.
    include_values: whether records carry their vectors. Pinecone sends them
      anyway; without, they are not read.
    include_metadata: whether records carry their metadata; likewise.
    output_field: field of the record.
    on_missing: what becomes of an element of whose id there is no record.
      'null': it gets None; 'separate': it goes to `.missing`; 'fail': it is
      refused.
    on_missing_namespace: 'fail' refuses an element whose namespace does not
      exist, and fails the bundle if the namespace is a constant; 'empty' takes
      its record for missing. A namespace exists from its first write on, once
      the index knows of it.
    cache: how long answers may be used again; None for not at all.
    on_error: 'fail', 'collect' (`.failed` must then be read), or Beam's
      `ErrorHandler`.
    requests_per_second: at most, per process. Pinecone documents 100 per index;
      give its number where your index has another, or None to send as many as
      are answered. `Tuning(quota_share=...)` takes a share.
    connection: a `PineconeConnection`, or the host of the index; by default
      everything comes from the environment variables of Pinecone's own client.
    tuning: `Tuning`; see there for what can be set.

  Returns:
    A `LookupResult`: the PCollection of elements with their records, with
    `.missing` and `.failed` besides.

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
      on_error: Any = 'fail',
      requests_per_second: Optional[float] = FETCHES_PER_SECOND,
      connection: Union[PineconeConnection, str, None] = None,
      tuning: Optional[Tuning] = None):
    super().__init__()
    self._operation = lookup_operation(
        index,
        id_field=id_field,
        namespace=namespace,
        include_values=include_values,
        include_metadata=include_metadata,
        output_field=output_field,
        on_missing_namespace=on_missing_namespace,
        requests_per_second=requests_per_second,
        connection=connection)
    self._lookup = LookupRecords(
        self._operation,
        join_record(self._operation),
        on_missing=on_missing,
        on_error=on_error,
        cache=cache,
        tuning=tuning,
        namespace='LookupPinecone',
        lineage=('pinecone', index))

  def expand(self, pcoll: PCollection) -> LookupResult:
    return pcoll | self._lookup

  def display_data(self) -> dict[str, Any]:
    keys = self._operation.keys
    data = {
        'index': self._operation.index,
        'namespace': str(keys.namespace),
        'id_field': keys.id,
    }
    if self._operation.connection.host is not None:
      data['host'] = self._operation.connection.host
    return data


def lookup_operation(
    index: str,
    *,
    id_field: str,
    namespace: Any,
    include_values: bool,
    include_metadata: bool,
    output_field: str,
    on_missing_namespace: str,
    requests_per_second: Optional[float],
    connection: Union[PineconeConnection, str, None]) -> FetchRecords:
  """The operation of a lookup, from what the user typed.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  check_index_name(index)
  check_field('id_field', id_field, required=True)
  check_field('output_field', output_field, required=True)
  if output_field == id_field:
    raise ValueError(
        f'output_field and id_field are both {id_field!r}: one field holds one '
        'thing')
  check_flag('include_values', include_values)
  check_flag('include_metadata', include_metadata)
  return FetchRecords(
      index,
      RecordKeys(namespace_choice(namespace), id_field, output_field),
      PineconeConnection.of(connection),
      include_values,
      include_metadata,
      check_on_missing_namespace(on_missing_namespace),
      check_rate('requests_per_second', requests_per_second))


def join_record(operation: FetchRecords) -> JoinRecord:
  """How the records of an operation are put to elements."""
  return JoinRecord(
      operation.keys, operation.include_values, operation.include_metadata)
