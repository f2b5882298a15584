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
"""`DeleteFromPinecone`: the transform that deletes records."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

import apache_beam as beam
from apache_beam.pvalue import PCollection

from beam_connector_base.operation import Operation
from beam_connector_base.tuning import Tuning
from beam_connector_base.write import WriteRecords
from beam_connector_base.write import WriteResult
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.encode.filters import Filter
from beam_pinecone.encode.layout import check_field
from beam_pinecone.encode.layout import namespace_choice
from beam_pinecone.operations.deletes import DeleteByIds
from beam_pinecone.operations.deletes import DeleteMatching
from beam_pinecone.operations.deletes import DeleteNamespaces
from beam_pinecone.schema import check_index_name

__all__ = ['DeleteFromPinecone', 'DeleteFromPineconeResult']

#: `.written` (what was deleted), `.failed` and `.ledger`.
DeleteFromPineconeResult = WriteResult

_MISSING_NAMESPACE = ('ok', 'fail')


class DeleteFromPinecone(beam.PTransform):
  """Deletes records of a Pinecone index: by id, by filter, or all of them.

  What an element means:

  * by default, one record to delete: its id as text, or a `dict`, `beam.Row`,
    `NamedTuple`, dataclass or `pyarrow.RecordBatch` with an id field. Up to
    1,000 ids go into a request. Ids that do not exist are no error.
  * with `filter`, all records that match: the element says by its fields which.
  * with `delete_all=True`, all records of the namespace that `namespace` names;
    with `delete_namespace=True` the namespace as well. Elements only say when
    and, by their fields, where; `namespace` must be given.

  Delivery: at least once, and idempotent. In a bundle that succeeded, each
  element was acknowledged by Pinecone or is in `.failed`. A namespace that does
  not exist is answered with an error by the service; by default it counts as
  deleted already, so that a bundle tried again succeeds. Deletes and writes of
  one pipeline have no order but the one you give them, with
  `beam.util.WaitOn(result.written)`.

  Parallelism: as many bundles as the runner wants; those of one process share
  one connection, one limit of requests in flight and the documented rates (100
  requests and 5,000 records per second and namespace; by filter 5 requests),
  see `Tuning(quota_share=...)`.

  Errors: ids, namespaces and filters that the service would reject are refused,
  with the reason; an empty filter, which would mean everything, is one of them.
  `on_error` says what becomes of refused elements. An index that does not exist
  or holds documents, a wrong key or an unreachable host fail the bundle.

  Example::

    import apache_beam as beam
    from beam_pinecone import DeleteFromPinecone

    with beam.Pipeline() as p:
      (p | 'Ids' >> beam.Create(['a', 'b'])
         | 'ById' >> DeleteFromPinecone('docs', namespace='demo'))
      (p | 'Tenants' >> beam.Create([{'tenant': 'acme'}])
         | DeleteFromPinecone('docs', filter={'tenant': '{tenant}'}))

  Pinecone's own page on deleting:
  https://docs.pinecone.io/guides/manage-data/delete-data

  Args:
    index: name of the index.
    namespace: a constant ('' is the default namespace), a template such as
      '{tenant}', or a callable that is given the element's fields as a mapping.
      None: the default namespace, or with `delete_all` and `delete_namespace`
      an error.
    id_field: field of the id.
    filter: a filter of Pinecone's language, in which '{field}' stands for the
      value of a field, or a callable of the element's fields that returns one.
    delete_all: whether all records of the namespace are deleted.
    delete_namespace: whether the namespace itself is deleted.
    missing_namespace: 'ok' if a namespace that does not exist counts as
      deleted, 'fail' if the element is refused then.
    connection: a `PineconeConnection`, or the host of the index; by default
      everything comes from the environment variables of Pinecone's own client.
    on_error: 'fail', 'collect' (`.failed` must then be read), or Beam's
      `ErrorHandler`.
    tuning: `Tuning`; see there for what can be set.

  Returns:
    A `DeleteFromPineconeResult`: `.written` holds the elements whose delete was
    acknowledged, `.failed` a `FailedRecord` for each refused one, both with
    their windows and timestamps.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  def __init__(
      self,
      index: str,
      *,
      namespace: Union[str, Callable[[Mapping[str, Any]], str], None] = None,
      id_field: str = 'id',
      filter: Any = None,
      delete_all: bool = False,
      delete_namespace: bool = False,
      missing_namespace: str = 'ok',
      connection: Union[PineconeConnection, str, None] = None,
      on_error: Any = 'fail',
      tuning: Optional[Tuning] = None):
    super().__init__()
    check_index_name(index)
    check_field('id_field', id_field, required=True)
    for name, value in (('delete_all', delete_all),
                        ('delete_namespace', delete_namespace)):
      if not isinstance(value, bool):
        raise TypeError(f'{name} is True or False')
    if (filter is not None) + delete_all + delete_namespace > 1:
      raise ValueError(
          'filter, delete_all and delete_namespace exclude one another: give '
          'one of them, or none to delete by id')
    if missing_namespace not in _MISSING_NAMESPACE:
      raise ValueError(
          f'missing_namespace must be one of {_MISSING_NAMESPACE}, not '
          f'{missing_namespace!r}')
    if namespace is None:
      if delete_all or delete_namespace:
        raise ValueError(
            'namespace must be given to delete all of it; "" is the default '
            'namespace')
      namespace = ''
    chosen = Filter.of(filter)
    if filter is not None and chosen.kind == 'none':
      raise ValueError(
          'filter is empty, which would delete every record: use '
          'delete_all=True if that is meant')
    where = PineconeConnection.of(connection)
    place = namespace_choice(namespace)
    common = (index, where, place, missing_namespace == 'ok')
    self._operation: Operation
    if filter is not None:
      self._operation = DeleteMatching(*common, chosen)
    elif delete_all or delete_namespace:
      self._operation = DeleteNamespaces(*common, delete_namespace)
    else:
      self._operation = DeleteByIds(*common, id_field)
    self._write = WriteRecords(
        self._operation,
        on_error=on_error,
        tuning=tuning,
        namespace='DeleteFromPinecone',
        lineage=('pinecone', index))
    self._shown: dict[str, Any] = {'index': index, 'namespace': str(place)}
    if filter is not None:
      self._shown['filter'] = str(chosen)
    if delete_all or delete_namespace:
      self._shown[
          'deletes'] = 'namespace' if delete_namespace else 'all records'
    if where.host is not None:
      self._shown['host'] = where.host

  def expand(self, pcoll: PCollection) -> DeleteFromPineconeResult:
    return pcoll | self._write

  def display_data(self) -> dict[str, Any]:
    return self._shown
