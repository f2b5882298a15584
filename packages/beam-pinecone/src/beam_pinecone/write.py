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
"""`WriteToPinecone`: the transform that upserts vectors."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

import apache_beam as beam
from apache_beam.pvalue import PCollection

from beam_connector_base.schema import Schema
from beam_connector_base.tuning import Tuning
from beam_connector_base.write import WriteRecords
from beam_connector_base.write import WriteResult
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.encode.layout import Layout
from beam_pinecone.lock import read_lock
from beam_pinecone.operations.upserts import UpsertVectors
from beam_pinecone.schema import check_index_name

__all__ = ['WriteToPinecone', 'WriteToPineconeResult']

#: `.written`, `.failed` and `.ledger` of a write.
WriteToPineconeResult = WriteResult


class WriteToPinecone(beam.PTransform):
  """Upserts the vectors of a PCollection into a Pinecone index.

  Elements: `dict`, `beam.Row`, `NamedTuple`, dataclass, Beam's `EmbeddableItem`
  (`Chunk`), or `pyarrow.RecordBatch` for many vectors at once. A record needs
  an id (1 to 512 ASCII characters) and dense values (as many numbers as the
  index has dimensions, kept as float32), sparse values, or both. All its other
  fields are metadata: strings, numbers, booleans and lists of strings; a field
  that is None is left out. Numpy arrays and Arrow columns of float32 go out as
  they lie in memory, and are never turned into Python lists.

  Delivery: at least once. An upsert replaces the vector that has the same id,
  so that a bundle tried again leaves the same index, provided that ids do not
  change between tries. In a bundle that succeeded, each record was
  acknowledged by Pinecone or is in `.failed`. Records of one id are written one
  after the other within a worker process, in the order they arrive there; a
  PCollection has no order beyond that. With `version_field` an older version
  does not replace a newer one that the process wrote.

  Parallelism: as many bundles as the runner wants; those of one process share
  one connection, one limit of requests in flight, and the documented rates of
  the service (50 MB/s and 100 requests/s per namespace), see
  `Tuning(quota_share=...)`.

  Errors: what Pinecone would reject or silently change (NaN, a zero vector,
  another dimension, metadata of other types, integers beyond 2**53 ...) is not
  sent but refused, with the reason. `on_error` says what becomes of refused
  records. An index that does not exist, a wrong key or an unreachable host
  fail the bundle instead.

  Example::

    import apache_beam as beam
    from beam_pinecone import WriteToPinecone

    with beam.Pipeline() as p:
      (p | beam.Create([{'id': 'a', 'values': [0.1, 0.2, 0.3], 'lang': 'en'}])
         | WriteToPinecone('docs', namespace='demo'))

  Pinecone's own page on upserts:
  https://docs.pinecone.io/guides/index-data/upsert-data

  Args:
    index: name of the index. Where `connection` names a host, it is only used
      in messages.
    namespace: a constant ('' is the default namespace), a template such as
      '{tenant}', or a callable that is given the record's fields as a mapping.
      Fields named by a template are not written as metadata, unless `keep`
      lists them.
    id_field: field of the id.
    values_field: field of the dense values; None if there are none.
    sparse_field: field of the sparse values, a mapping with `indices` and
      `values`, or a pair of both; None if there are none.
    metadata_field: a field whose mapping is merged into the metadata, as in the
      dicts that Pinecone's own client takes. Holds it anything else, it is
      metadata like any other field. None: it is a field like any other.
    content_key: metadata key under which the text of an `EmbeddableItem` is
      stored; None: it is not stored.
    keep: the only metadata to write, as a list of names.
    drop: metadata not to write, as a list of names.
    version_field: field of a number, text or time by which records with one id
      are put in order. It is not written as metadata, unless `keep` lists it.
    schema: the path of a schema lock (written by `python -m beam_pinecone lock
      INDEX FILE`), or what is in one. Workers compare it with the index when
      they open it; if they differ the bundle fails and names each difference.
    connection: a `PineconeConnection`, or the host of the index; by default
      everything comes from the environment variables of Pinecone's own client.
    on_error: 'fail', 'collect' (`.failed` must then be read), or Beam's
      `ErrorHandler`.
    tuning: `Tuning`; see there for what can be set.

  Returns:
    A `WriteToPineconeResult`: `.written` holds the elements that were written,
    `.failed` a `FailedRecord` for each refused one, both with their windows and
    timestamps.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  def __init__(
      self,
      index: str,
      *,
      namespace: Union[str, Callable[[Mapping[str, Any]], str]] = '',
      id_field: str = 'id',
      values_field: Optional[str] = 'values',
      sparse_field: Optional[str] = 'sparse_values',
      metadata_field: Optional[str] = 'metadata',
      content_key: Optional[str] = 'content',
      keep: Optional[Iterable[str]] = None,
      drop: Optional[Iterable[str]] = None,
      version_field: Optional[str] = None,
      schema: Union[Schema, str, None] = None,
      connection: Union[PineconeConnection, str, None] = None,
      on_error: Any = 'fail',
      tuning: Optional[Tuning] = None):
    super().__init__()
    check_index_name(index)
    layout = Layout.of(
        namespace=namespace,
        id_field=id_field,
        values_field=values_field,
        sparse_field=sparse_field,
        metadata_field=metadata_field,
        content_key=content_key,
        keep=keep,
        drop=drop,
        version_field=version_field)
    self._operation = UpsertVectors(
        index, layout, PineconeConnection.of(connection), read_lock(schema))
    self._write = WriteRecords(
        self._operation,
        on_error=on_error,
        tuning=tuning,
        namespace='WriteToPinecone',
        lineage=('pinecone', index))

  def expand(self, pcoll: PCollection) -> WriteToPineconeResult:
    return pcoll | self._write

  def display_data(self) -> dict[str, Any]:
    layout = self._operation.layout
    data = {
        'index': self._operation.index,
        'namespace': str(layout.namespace),
        'id_field': layout.id,
    }
    if self._operation.connection.host is not None:
      data['host'] = self._operation.connection.host
    return data
