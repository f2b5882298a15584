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
"""`UpdatePinecone`: the transform that changes records that exist."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

import apache_beam as beam
from apache_beam.pvalue import PCollection

from beam_connector_base.operation import Operation
from beam_connector_base.tuning import Tuning
from beam_connector_base.values import ByValue
from beam_connector_base.write import WriteRecords
from beam_connector_base.write import WriteResult
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.encode.filters import Filter
from beam_pinecone.encode.layout import Layout
from beam_pinecone.errors import Refused
from beam_pinecone.operations.updates import UpdateMatching
from beam_pinecone.operations.updates import UpdateVectors
from beam_pinecone.operations.updates import metadata_bytes
from beam_pinecone.schema import check_index_name

__all__ = ['UpdatePinecone', 'UpdatePineconeResult']

#: `.written`, `.failed`, `.ledger` and, by filter, `.answers`.
UpdatePineconeResult = WriteResult


class UpdatePinecone(beam.PTransform):
  """Changes records of a Pinecone index: some of their fields, by id or filter.

  By id, an element has the fields of an element of `WriteToPinecone`: an id,
  and what is to change. Values that are given replace the record's, and
  metadata that is given is merged into the record's, key by key; all else stays
  as it is. None means that nothing changes: Pinecone cannot take a key away. An
  id that does not exist is *silently ignored by the service*, which does not
  tell: such an element comes out of `.written` like the others.

  With `filter`, an element sets metadata of all records that match: its own
  fields (without those that `namespace` and `filter` are made of), or what
  `set_metadata` says. `.answers` then holds `(element, count)`, the number of
  records that matched, which may be 0. With `dry_run` they are counted and not
  changed.

  Delivery: at least once, and idempotent: an update tried again sets the same
  values. In a bundle that succeeded, each element was acknowledged by Pinecone
  or is in `.failed`. Updates of one id are sent one after the other within a
  worker process, in the order they arrive there; a PCollection has no order
  beyond that.

  Parallelism: as many bundles as the runner wants. The service takes one update
  a request, at most 100 per second and namespace, and 5 per second and
  namespace by filter (500 per index); these rates hold per process, see
  `Tuning(quota_share=...)`. Where most of a record changes, `WriteToPinecone`
  is many times faster.

  Errors: what Pinecone would reject or silently change is not sent but refused,
  as by `WriteToPinecone`; so are elements with nothing to update, and filters
  that are none. `on_error` says what becomes of refused elements. An index that
  does not exist or holds documents, a wrong key or an unreachable host fail the
  bundle.

  Example::

    import apache_beam as beam
    from beam_pinecone import UpdatePinecone

    with beam.Pipeline() as p:
      (p | 'One' >> beam.Create([{'id': 'a', 'lang': 'de'}])
         | 'ById' >> UpdatePinecone('docs', namespace='demo'))
      result = (
          p | 'Many' >> beam.Create([{'old': 'de', 'lang': 'de-AT'}])
            | UpdatePinecone('docs', filter={'lang': '{old}'}, dry_run=True))
      result.answers | beam.Map(print)

  Pinecone's own page on updates:
  https://docs.pinecone.io/guides/manage-data/update-data

  Args:
    index: name of the index.
    namespace: a constant ('' is the default namespace), a template such as
      '{tenant}', or a callable that is given the element's fields as a mapping.
    id_field: field of the id.
    values_field: field of the dense values; None if there are none.
    sparse_field: field of the sparse values; None if there are none.
    metadata_field: a field whose mapping is merged into the metadata, as for
      `WriteToPinecone`.
    keep: the only metadata to set, as a list of names.
    drop: metadata not to set, as a list of names.
    filter: None to update by id; or a filter of Pinecone's language, in which
      '{field}' stands for the value of a field; or a callable of the element's
      fields that returns one.
    set_metadata: with `filter`, the metadata to set: a mapping for all elements
      or a callable of the element's fields. None: the element's own fields.
    dry_run: with `filter`, whether to count only.
    connection: a `PineconeConnection`, or the host of the index; by default
      everything comes from the environment variables of Pinecone's own client.
    on_error: 'fail', 'collect' (`.failed` must then be read), or Beam's
      `ErrorHandler`.
    tuning: `Tuning`; see there for what can be set.

  Returns:
    An `UpdatePineconeResult`: `.written` holds the elements that the service
      acknowledged, `.failed` a `FailedRecord` for each refused one, `.answers`
      the counts of updates by filter; all with windows and timestamps.

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
      keep: Optional[Iterable[str]] = None,
      drop: Optional[Iterable[str]] = None,
      filter: Any = None,
      set_metadata: Union[Mapping[str, Any],
                          Callable[[Mapping[str, Any]], Mapping[str, Any]],
                          None] = None,
      dry_run: bool = False,
      connection: Union[PineconeConnection, str, None] = None,
      on_error: Any = 'fail',
      tuning: Optional[Tuning] = None):
    super().__init__()
    check_index_name(index)
    if not isinstance(dry_run, bool):
      raise TypeError('dry_run is True or False')
    chosen = Filter.of(filter)
    if filter is None:
      if set_metadata is not None:
        raise ValueError('set_metadata needs filter=: by id, set fields')
      if dry_run:
        raise ValueError('dry_run needs filter=: by id nothing is counted')
    elif chosen.kind == 'none':
      raise ValueError(
          'filter is empty, which Pinecone does not take: it would mean every '
          'record')
    elif set_metadata is not None and (keep is not None or drop is not None):
      raise ValueError('set_metadata excludes keep and drop: give one of them')
    if chosen.fields and keep is None:
      drop = [*(() if drop is None else drop), *chosen.fields]
    layout = Layout.of(
        namespace=namespace,
        id_field=id_field,
        values_field=values_field,
        sparse_field=sparse_field,
        metadata_field=metadata_field,
        content_key=None,
        keep=keep,
        drop=drop)
    where = PineconeConnection.of(connection)
    self._operation: Operation
    if filter is None:
      self._operation = UpdateVectors(index, layout, where)
    else:
      made, constant = _set_metadata(set_metadata)
      self._operation = UpdateMatching(
          index, layout, where, chosen, made, constant, dry_run)
    self._write = WriteRecords(
        self._operation,
        on_error=on_error,
        tuning=tuning,
        namespace='UpdatePinecone',
        lineage=('pinecone', index))
    self._shown: dict[str, Any] = {
        'index': index,
        'namespace': str(layout.namespace),
    }
    if filter is not None:
      self._shown['filter'] = str(chosen)
      self._shown['dry_run'] = dry_run
    if where.host is not None:
      self._shown['host'] = where.host

  def expand(self, pcoll: PCollection) -> UpdatePineconeResult:
    return pcoll | self._write

  def display_data(self) -> dict[str, Any]:
    return self._shown


def _set_metadata(value: Any) -> tuple[Optional[ByValue], Optional[bytes]]:
  """The callable, or the constant, of `set_metadata`."""
  if value is None:
    return None, None
  if not isinstance(value, Mapping):
    if callable(value):
      return ByValue(value), None
    raise TypeError(
        f'set_metadata is a {type(value).__name__}: it is a mapping from names '
        'to values, or a callable of the element')
  try:
    constant = metadata_bytes(value)
  except Refused as e:
    raise ValueError(f'set_metadata: {e.reason}') from None
  if not constant:
    raise ValueError('set_metadata has no value that is not None')
  return None, constant
