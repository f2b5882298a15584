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
"""What searches and lookups read of an element besides their question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from typing import Optional

import pyarrow as pa

from beam_connector_base.rows import as_mapping
from beam_connector_base.values import Chosen
from beam_connector_base.values import MissingField
from beam_pinecone.encode.columns import Refusals
from beam_pinecone.encode.layout import Layout
from beam_pinecone.encode.records import Checks
from beam_pinecone.encode.records import is_embeddable
from beam_pinecone.errors import Refused

__all__ = ['NamespaceReader', 'block_refusal', 'fields_of', 'output_taken']


def fields_of(element: Any) -> Mapping[str, Any]:
  """The fields of a record; those of a chunk are its metadata and its id.

  Raises:
    Refused: it has none.
  """
  if type(element) is dict:
    return element
  if is_embeddable(element):
    return {**(element.metadata or {}), 'id': element.id}
  try:
    return as_mapping(element)
  except TypeError as e:
    raise Refused('ElementType', str(e)) from None


class NamespaceReader:
  """Chooses the namespace of each record; belongs to one session.

  Args:
    chosen: how.
  """
  def __init__(self, chosen: Chosen):
    self._chosen = chosen
    self._checks = Checks(Layout(chosen))
    #: The namespace where it is the same for all records, else None.
    self.constant: Optional[str] = (
        chosen.constant if chosen.is_constant else None)

  def of(self, fields: Mapping[str, Any]) -> str:
    """The namespace of one record.

    Raises:
      Refused: there is none, or the service would not take it.
    """
    try:
      return self._checks.namespace(self._chosen.of(fields))
    except MissingField as missing:
      return self._checks.namespace(missing)

  def column(self, batch: pa.RecordBatch, bad: Refusals) -> list[Any]:
    """One per row; None where it is refused."""
    n = batch.num_rows
    if self.constant is not None:
      return [self.constant] * n
    out: list[Any] = []
    for i, name in enumerate(self._chosen.column(batch, n)):
      try:
        out.append(self._checks.namespace(name))
      except Refused as refused:
        bad.setdefault(i, refused)
        out.append(None)
    return out


def output_taken(field: str) -> Refused:
  """The refusal of a record that has the field of the answer already."""
  return Refused(
      'OutputFieldTaken',
      f'the record has a field {field!r} already, where the answer would go: '
      'set output_field= to another name')


def block_refusal(names: list[str], output: str) -> Optional[Refused]:
  """Why no row of a RecordBatch with these columns can be joined, if so."""
  if len(set(names)) < len(names):
    twice = next(name for name in names if names.count(name) > 1)
    return Refused(
        'DuplicateColumn',
        f'the RecordBatch has two columns {twice!r}: rename one')
  return output_taken(output) if output in names else None
