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
"""The rows of a RecordBatch one by one, for what is one record a request.

Where a request holds one record the service's rate makes columns pointless:
the rows are read as mappings, and refused or sent as single records are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Union

import pyarrow as pa

from beam_connector_base.operation import Block
from beam_connector_base.operation import Invalid
from beam_pinecone.decode.exported import holds_json
from beam_pinecone.decode.exported import json_mapping
from beam_pinecone.encode.blocks import arrow_flaw
from beam_pinecone.encode.elements import fields_of
from beam_pinecone.errors import Refused

__all__ = ['any_fields', 'encode_rows']

types = pa.types


def any_fields(element: Any) -> Mapping[str, Any]:
  """The fields of an element; none if it has none, which may not matter."""
  try:
    return fields_of(element)
  except Refused:
    return {}


def encode_rows(
    batch: pa.RecordBatch,
    encode: Callable[[Mapping[str, Any]], Union[Block, Invalid]]
) -> Iterator[Union[Block, Invalid]]:
  """Encodes the rows of a batch as single records.

  Args:
    batch: the rows.
    encode: makes a block of one row, or an `Invalid`, of a mapping.
  """
  names = batch.schema.names
  if len(set(names)) < len(names):
    twice = next(name for name in names if names.count(name) > 1)
    for i in range(batch.num_rows):
      yield Invalid(
          i,
          f'the RecordBatch has two columns {twice!r}: rename one',
          '',
          'DuplicateColumn')
    return
  flawed = arrow_flaw(batch) is not None
  for i in range(batch.num_rows):
    try:
      flaw = arrow_flaw(batch.slice(i, 1)) if flawed else None
      if flaw is not None:
        raise Refused(
            'InvalidArrow',
            f'the row is not valid Arrow data: {flaw}; clean it where the '
            'RecordBatch is made')
      row = _row(batch, i)
    except Refused as refused:
      yield Invalid(i, refused.reason, '', refused.error_type)
      continue
    item = encode(row)
    if isinstance(item, Invalid):
      yield dataclasses.replace(item, row=i)
    else:
      item.row_ids = (i,)
      yield item


def _row(batch: pa.RecordBatch, i: int) -> dict[str, Any]:
  row: dict[str, Any] = {}
  for field, column in zip(batch.schema, batch.columns, strict=True):
    scalar = column[i]
    if not scalar.is_valid:
      row[field.name] = None
    elif _holds_numbers(field.type):
      # A vector stays in Arrow's memory.
      row[field.name] = scalar
    elif holds_json(field):
      row[field.name] = json_mapping(scalar.as_py(), field.name)
    else:
      row[field.name] = scalar.as_py()
  return row


def _holds_numbers(kind: Any) -> bool:
  if not (types.is_list(kind) or types.is_large_list(kind)
          or types.is_fixed_size_list(kind)):
    return False
  return types.is_floating(kind.value_type)
