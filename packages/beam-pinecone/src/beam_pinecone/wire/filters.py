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
"""The metadata filter language: checked, and as the bytes of a Struct.

`$eq $ne` take a string, number or boolean; `$gt $gte $lt $lte` a number;
`$in $nin` a list of strings and numbers; `$exists` a boolean; `$and $or` a
list of filters. `{field: value}` means `$eq`, several fields side by side mean
all of them. What the service would reject is refused here, by the name of the
operator and the field. https://docs.pinecone.io/guides/search/filter-by-metadata
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from beam_pinecone.errors import Refused
from beam_pinecone.wire.metadata import MAX_INTEGER
from beam_pinecone.wire.protobuf import length_prefix

__all__ = ['MAX_DEPTH', 'Placeholder', 'filter_bytes', 'too_deep']

MAX_LIST_VALUES = 10_000  # of one $in or $nin; "Filter by metadata" page
# How deep $and and $or may be nested. The service's own limit is not
# documented; this one keeps a filter that refers to itself from going on.
MAX_DEPTH = 32

_COMPARISONS = ('$eq', '$ne', '$gt', '$gte', '$lt', '$lte', '$in', '$nin')
_OPERATORS = (*_COMPARISONS, '$exists')
_TEXT_OPERATORS = ('$match_phrase', '$match_all', '$match_any')

_pack_double = struct.Struct('<d').pack


class Placeholder:
  """Stands for a value that is not known yet, which may be any legal one."""


def filter_bytes(expression: Any) -> bytes:
  """A filter as the fields of a Struct, in the order of their names.

  Raises:
    Refused: the service would reject it; the reason says where and why.
  """
  return _filter(expression, 0)


def _filter(expression: Any, depth: int) -> bytes:
  """The fields of a filter's Struct; a placeholder is any legal value."""
  if not isinstance(expression, Mapping):
    raise _refused(f'{_shown(expression)} is {_a(expression)}, not a filter')
  if depth > MAX_DEPTH:
    raise too_deep()
  entries = {}
  for name, condition in expression.items():
    if not isinstance(name, str):
      raise _refused(
          f'{name!r} is {_a(name)}: the keys of a filter are fields and '
          'operators')
    if name in ('$and', '$or'):
      entries[name] = _logical(name, condition, depth)
    elif name.startswith('$'):
      raise _refused(_unknown(name, top_level=True))
    else:
      entries[name] = _field(name, condition)
  return _struct(entries)


def _logical(name: str, parts: Any, depth: int) -> bytes:
  if not isinstance(parts, (list, tuple)) or not parts:
    raise _refused(f'{name} takes a list of filters, not {_shown(parts)}')
  values = []
  for part in parts:
    if not isinstance(part, Mapping) or not part:
      raise _refused(
          f'{name} takes a list of filters, which holds '
          f'{_shown(part)}')
    values.append(_delimited(0x2a, _filter(part, depth + 1)))
  return _list_value(values)


def _field(field: str, condition: Any) -> bytes:
  if not isinstance(condition, Mapping):
    return _operand(field, '$eq', condition)
  if not condition:
    raise _refused(
        f'{field!r} has an empty condition: give it an operator, such as '
        "{'$eq': value}")
  entries = {}
  for operator, operand in condition.items():
    if operator not in _OPERATORS:
      raise _refused(f'{field!r}: {_unknown(operator)}')
    entries[operator] = _operand(field, operator, operand)
  return _delimited(0x2a, _struct(entries))


def _operand(field: str, operator: str, operand: Any) -> bytes:
  if isinstance(operand, Placeholder):
    return b'\x20\x01'
  where = f'{field!r}: {operator}'
  if operator in ('$in', '$nin'):
    if isinstance(operand, np.ndarray) and operand.ndim == 1:
      operand = operand.tolist()
    if not isinstance(operand, (list, tuple)):
      raise _refused(
          f'{where} takes a list of strings and numbers, not '
          f'{_shown(operand)}')
    if len(operand) > MAX_LIST_VALUES:
      raise _refused(
          f'{where} has {len(operand)} values, the limit is {MAX_LIST_VALUES}: '
          'ask several times')
    values = []
    for item in map(_plain, operand):
      if isinstance(item, Placeholder):
        continue
      if isinstance(item, bool) or not isinstance(item, (str, int, float)):
        raise _refused(
            f'{where} takes a list of strings and numbers, which holds '
            f'{_shown(item)}')
      values.append(_scalar(where, item))
    return _list_value(values)
  operand = _plain(operand)
  if operator == '$exists':
    if not isinstance(operand, bool):
      raise _refused(f'{where} takes True or False, not {_shown(operand)}')
  elif operator in ('$eq', '$ne'):
    if operand is None:
      raise _refused(
          f'{where} takes no None, which Pinecone does not keep: use '
          "{'$exists': False} for records without the field")
    if isinstance(operand, (list, tuple)):
      raise _refused(
          f'{where} takes one value, not {_shown(operand)}: use $in for one of '
          'several')
    if not isinstance(operand, (str, bool, int, float)):
      raise _refused(
          f'{where} takes a string, number or boolean, not {_shown(operand)}')
  elif isinstance(operand, bool) or not isinstance(operand, (int, float)):
    raise _refused(
        f'{where} takes a number, not {_shown(operand)}: store times as '
        'seconds since 1970 to compare them')
  return _scalar(where, operand)


def _plain(value: Any) -> Any:
  return value.item() if isinstance(value, np.generic) else value


def _scalar(where: str, value: Any) -> bytes:
  """A Value that holds a string, boolean or number."""
  if isinstance(value, str):
    return _delimited(0x1a, _utf8(where, value))
  if isinstance(value, bool):
    return b'\x20\x01' if value else b'\x20\x00'
  if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
    raise _refused(
        f'{where}: {value} is an integer beyond 2**53, which Pinecone would '
        'round')
  if not math.isfinite(value):
    raise _refused(f'{where}: {value} is no number to compare with')
  return b'\x11' + _pack_double(value)


def _struct(entries: Mapping[str, bytes]) -> bytes:
  out = []
  for name in sorted(entries):
    key = _delimited(0x0a, _utf8('a field', name))
    out.append(_delimited(0x0a, key + _delimited(0x12, entries[name])))
  return b''.join(out)


def _list_value(values: list[bytes]) -> bytes:
  return _delimited(0x32, b''.join(_delimited(0x0a, v) for v in values))


def _delimited(tag: int, data: bytes) -> bytes:
  return length_prefix(tag, len(data)) + data


def _utf8(where: str, text: str) -> bytes:
  try:
    return text.encode()
  except UnicodeEncodeError:
    raise _refused(
        f'{where} holds a lone surrogate, which is not text') from None


def _unknown(operator: Any, top_level: bool = False) -> str:
  if operator in _TEXT_OPERATORS:
    return (
        f'{operator} searches the text of document indexes, a vector index has '
        'none')
  if operator in ('$and', '$or'):
    return f'{operator} stands beside fields, not within one'
  if top_level and operator in _OPERATORS:
    return (
        f'{operator} belongs to a field, as in '
        f"{{'field': {{'{operator}': value}}}}")
  if not isinstance(operator, str) or not operator.startswith('$'):
    return (
        f'{operator!r} is no operator: metadata are not nested, and operators '
        f'are {", ".join(_OPERATORS)}')
  return (
      f'there is no operator {operator}: there are {", ".join(_OPERATORS)}, '
      '$and, $or')


def too_deep() -> Refused:
  """The refusal of what is nested without end."""
  return _refused(f'it is nested more than {MAX_DEPTH} levels deep')


def _refused(reason: str) -> Refused:
  return Refused('Filter', reason)


def _shown(value: Any) -> str:
  text = '{...}' if isinstance(value, Placeholder) else repr(value)
  return text if len(text) <= 80 else text[:77] + '...'


def _a(value: Any) -> str:
  return 'None' if value is None else f'a {type(value).__name__}'
