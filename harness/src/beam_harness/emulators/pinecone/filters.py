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
"""The metadata filter language: a filter becomes a predicate on metadata.

`$eq $ne` take a number, string or boolean; `$gt $gte $lt $lte` a number;
`$in $nin` a list of numbers and strings; `$exists` a boolean; `$and $or` a
list of filters. `{field: value}` means `$eq`, several fields side by side mean
all of them. A list in the metadata satisfies `$eq` and `$in` when one of its
elements does.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from beam_harness.emulators.pinecone.errors import invalid

__all__ = ['MAX_LIST_VALUES', 'Predicate', 'compile_filter']

#: Whether a record with this metadata (None: without any) is meant.
Predicate = Callable[[Mapping[str, Any] | None], bool]

#: Values in one `$in` or `$nin`; "Filter by metadata" page.
MAX_LIST_VALUES = 10_000

#: How deep `$and` and `$or` may be nested. The service's limit is not known.
_MAX_DEPTH = 50

_ORDER = {
    '$gt': operator.gt,
    '$gte': operator.ge,
    '$lt': operator.lt,
    '$lte': operator.le,
}

_MISSING = object()


def compile_filter(
    expression: Mapping[str, Any],
    *,
    negation_matches_missing: bool = True) -> Predicate:
  """The predicate of a filter.

  Args:
    expression: the filter as parsed JSON. `{}` is true for every record.
    negation_matches_missing: whether `$ne` and `$nin` are true for a record
      that lacks the field. The service does not document it.

  Raises:
    ServiceError: the service would refuse the filter (400).
  """
  return _compiled(expression, negation_matches_missing, 0)


def _compiled(
    expression: Mapping[str, Any], lenient: bool, depth: int) -> Predicate:
  if not isinstance(expression, Mapping):
    raise invalid(f'filter must be an object, got {_shown(expression)}')
  if depth > _MAX_DEPTH:
    raise invalid('filter is nested too deeply')
  tests = [
      _logical(name, value, lenient, depth)
      if name in ('$and', '$or') else _field(name, value, lenient)
      for name, value in expression.items()
  ]
  return _all(tests)


def _logical(name: str, value: Any, lenient: bool, depth: int) -> Predicate:
  if not isinstance(value, list) or not value:
    raise invalid(
        f'{name} must be a non-empty list of filters, got {_shown(value)}')
  for part in value:
    if not isinstance(part, Mapping) or not part:
      raise invalid(f'{name} must hold filters, got {_shown(part)}')
  tests = [_compiled(part, lenient, depth + 1) for part in value]
  if name == '$and':
    return _all(tests)
  return lambda metadata: any(test(metadata) for test in tests)


def _all(tests: list[Predicate]) -> Predicate:
  if len(tests) == 1:
    return tests[0]
  return lambda metadata: all(test(metadata) for test in tests)


def _field(field: str, condition: Any, lenient: bool) -> Predicate:
  if field.startswith('$'):
    raise invalid(
        f'invalid operator {field}: only $and and $or may stand at the top '
        f'level of a filter, got {_shown({field: condition})}')
  if not isinstance(condition, Mapping):
    condition = {'$eq': condition}
    if not _is_scalar(condition['$eq']):
      raise _illegal(field, condition['$eq'])
  if not condition:
    raise _illegal(field, condition)
  tests = []
  for name, operand in condition.items():
    test = _value_test(field, name, operand)
    if name in ('$ne', '$nin'):
      tests.append(_negated(field, test, lenient))
    elif name == '$exists':
      tests.append(_exists(field, operand))
    else:
      tests.append(_present(field, test))
  return _all(tests)


def _value_test(field: str, name: str, operand: Any) -> Callable[[Any], bool]:
  """The test of one metadata value; for `$ne` and `$nin` what they negate."""
  if name in ('$eq', '$ne'):
    if not _is_scalar(operand):
      raise _illegal(field, {name: operand})
    wanted = _key(operand)
    return lambda value: _any_key(value, {wanted})
  if name in _ORDER:
    if not _is_number(operand):
      raise _illegal(field, {name: operand})
    compare = _ORDER[name]
    limit = _double(operand)
    return lambda value: _is_number(value) and compare(value, limit)
  if name in ('$in', '$nin'):
    if not isinstance(operand, list) or not all(
        isinstance(item, str) or _is_number(item) for item in operand):
      raise _illegal(field, {name: operand})
    if len(operand) > MAX_LIST_VALUES:
      raise invalid(
          f'{name} for field {field} has {len(operand)} values, which exceeds '
          f'the limit of {MAX_LIST_VALUES}')
    keys = {_key(item) for item in operand}
    return lambda value: _any_key(value, keys)
  if name == '$exists':
    if not isinstance(operand, bool):
      raise _illegal(field, {name: operand})
    return lambda value: True
  raise _illegal(field, {name: operand})


def _present(field: str, test: Callable[[Any], bool]) -> Predicate:
  def predicate(metadata):
    value = (metadata or {}).get(field, _MISSING)
    return value is not _MISSING and test(value)

  return predicate


def _negated(
    field: str, test: Callable[[Any], bool], lenient: bool) -> Predicate:
  def predicate(metadata):
    value = (metadata or {}).get(field, _MISSING)
    return lenient if value is _MISSING else not test(value)

  return predicate


def _exists(field: str, wanted: bool) -> Predicate:
  return lambda metadata: (field in (metadata or {})) is wanted


def _any_key(value: Any, keys: set[tuple[type, Any]]) -> bool:
  if isinstance(value, list):
    return any(_key(item) in keys for item in value)
  return _key(value) in keys


def _key(value: Any) -> tuple[type, Any]:
  """Equal for values the service holds equal: True is not 1, 1 is 1.0."""
  if isinstance(value, bool):
    return bool, value
  if isinstance(value, (int, float)):
    return float, _double(value)
  return str, value


def _double(value: int | float) -> float:
  try:
    return float(value)
  except OverflowError:
    return math.inf if value > 0 else -math.inf


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_scalar(value: Any) -> bool:
  return isinstance(value, (str, int, float, bool))


def _shown(value: Any) -> str:
  return json.dumps(value, ensure_ascii=False, separators=(',', ':'))


def _illegal(field: str, condition: Any):
  return invalid(
      f'illegal condition for field {field}, got {_shown(condition)}')
