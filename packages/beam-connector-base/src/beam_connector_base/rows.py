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
"""One way to read the fields of every kind of element.

Users bring dicts, `beam.Row`, NamedTuples, dataclasses (among them Beam's
`EmbeddableItem`) and blocks of rows as `pyarrow.RecordBatch`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from apache_beam.pvalue import Row

__all__ = ['ACCEPTED', 'as_mapping', 'is_block', 'nested']

#: For messages about an element that is none of these.
ACCEPTED = (
    'a dict, a beam.Row, a NamedTuple, a dataclass or a pyarrow.RecordBatch')


def is_block(element: Any) -> bool:
  """Whether the element is a block of rows rather than one record."""
  return isinstance(element, pa.RecordBatch)


def as_mapping(element: Any) -> Mapping[str, Any]:
  """The fields of one record by name, shallow: values are as they are.

  The mapping may be the element itself; it is not to be changed.

  Raises:
    TypeError: the element has no named fields; the message says what has.
  """
  cls = type(element)
  if cls is dict:
    return element
  read = _readers.get(cls)
  if read is None:
    read = _readers[cls] = _reader(cls)
  return read(element)


def nested(value: Any) -> Any:
  """A record within a record as a mapping; anything else as it is.

  Rows that come from YAML, or from another language, hold rows and named tuples
  where others have dicts. Dataclasses stay: values may be such.
  """
  cls = type(value)
  if cls is dict or cls is str:
    return value
  if issubclass(cls, Row) or (issubclass(cls, tuple)
                              and hasattr(cls, '_fields')):
    return as_mapping(value)
  return value


_readers: dict[type, Callable[[Any], Mapping[str, Any]]] = {}


def _reader(cls: type) -> Callable[[Any], Mapping[str, Any]]:
  if issubclass(cls, Mapping):
    return _itself
  if issubclass(cls, Row):
    # What as_dict() copies, without the copy.
    return vars
  if issubclass(cls, tuple) and hasattr(cls, '_fields'):
    fields = cls._fields
    return lambda element: dict(zip(fields, element, strict=True))
  if dataclasses.is_dataclass(cls):
    names = tuple(field.name for field in dataclasses.fields(cls))
    return lambda element: {name: getattr(element, name) for name in names}
  raise TypeError(
      f'an element must be {ACCEPTED}, not {cls.__module__}.{cls.__qualname__}')


def _itself(element: Any) -> Mapping[str, Any]:
  return element
