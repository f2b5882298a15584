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
"""Filters that are constant, or depend on the record: templates and callables.

What a filter may be, and its bytes, are in `wire.filters`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Optional

import numpy as np

from beam_connector_base.values import ByValue
from beam_connector_base.values import Chosen
from beam_connector_base.values import MissingField
from beam_connector_base.values import choose
from beam_pinecone.errors import Refused
from beam_pinecone.wire.filters import MAX_DEPTH
from beam_pinecone.wire.filters import Placeholder
from beam_pinecone.wire.filters import filter_bytes
from beam_pinecone.wire.filters import too_deep

__all__ = ['Filter', 'FilterReader', 'filter_bytes']

# Distinct filters of one template to remember.
_MAX_KNOWN = 4_096


@dataclasses.dataclass(frozen=True)
class Filter:
  """How the filter of a request is chosen; made by `Filter.of`.

  Attributes:
    kind: 'none', 'constant', 'template' or 'callable'.
    text: the filter as JSON; '' for the other kinds.
    fields: names of the fields that a template reads.
    fn: the callable; None for the other kinds.
  """
  kind: str = 'none'
  text: str = ''
  fields: tuple[str, ...] = ()
  fn: Optional[ByValue] = None

  @classmethod
  def of(cls, spec: Any, parameter: str = 'filter') -> Filter:
    """Checks what the user typed.

    Args:
      spec: None; a filter, in whose strings `{field}` stands for a field of
        the record (a string that is one `{field}` and nothing else for its
        value, whatever its type); or a callable from a record to a filter or
        None.
      parameter: its name, for messages.

    Raises:
      TypeError, ValueError: naming the parameter and what is wrong in it.
    """
    if spec is None:
      return cls()
    if isinstance(spec, cls):
      return spec
    if not isinstance(spec, Mapping):
      if callable(spec):
        return cls('callable', fn=ByValue(spec))
      raise TypeError(
          f'{parameter} is a {type(spec).__name__}: it is a mapping such as '
          "{'year': {'$gte': 2020}}, a callable of the record, or None")
    try:
      tree = _compiled(spec)
      encoded = filter_bytes(tree)
    except Refused as e:
      raise ValueError(f'{parameter}: {e.reason}') from None
    except ValueError as e:
      raise ValueError(f'{parameter}: {e}') from None
    if not encoded:
      return cls()
    holes = list(_holes(tree))
    fields = tuple(dict.fromkeys(f for hole in holes for f in hole.fields))
    kind = 'template' if fields else 'constant'
    return cls(kind, json.dumps(_plain_tree(spec), sort_keys=True), fields)

  def __str__(self) -> str:
    """As it was typed, for display data."""
    return repr(self.fn) if self.fn is not None else self.text


class FilterReader:
  """Makes the filter of each record; belongs to one session.

  Args:
    chosen: how.
  """
  def __init__(self, chosen: Filter):
    self._fields = chosen.fields
    self._called = None if chosen.fn is None else choose(chosen.fn)
    self._tree: Any = None
    self._known: dict[Any, bytes] = {}
    #: The filter where it is the same for all records; None for no filter.
    self.constant: Optional[bytes] = None
    #: Whether it is.
    self.is_constant = chosen.kind in ('none', 'constant')
    if chosen.text:
      self._tree = _compiled(json.loads(chosen.text))
      if self.is_constant:
        self.constant = filter_bytes(_filled(self._tree, {}))

  def of(self, row: Mapping[str, Any]) -> Optional[bytes]:
    """The filter of one record; None for no filter.

    Raises:
      Refused: it is none, or a field that it is made of is missing.
      CallableError: the callable raised.
    """
    if self.is_constant:
      return self.constant
    if self._called is not None:
      return self.encode(self._called.of(row))
    values = []
    for field in self._fields:
      value = row.get(field)
      if value is None:
        raise Refused(
            'MissingFilterField',
            f'{MissingField(field)}, which the filter is made of: fill it, or '
            'use a callable that returns a filter for such records')
      values.append(value)
    return self.with_values(values)

  def with_values(self, values: list[Any]) -> bytes:
    """The filter of a template, whose fields have these values."""
    key = tuple(values), tuple(map(type, values))
    try:
      known = self._known.get(key)
    except TypeError:  # a list: not to be hashed
      return self._fill(values)
    if known is None:
      known = self._fill(values)
      if len(self._known) >= _MAX_KNOWN:
        self._known.clear()
      self._known[key] = known
    return known

  def _fill(self, values: list[Any]) -> bytes:
    row = dict(zip(self._fields, values, strict=True))
    return filter_bytes(_filled(self._tree, row))

  def encode(self, expression: Any) -> Optional[bytes]:
    """What a callable returned.

    Raises:
      Refused: it is no filter.
    """
    if expression is None:
      return None
    if not isinstance(expression, Mapping):
      raise Refused(
          'Filter',
          f'the callable returned a {type(expression).__name__}: a filter is a '
          'mapping, or None for no filter')
    return filter_bytes(expression) or None

  @property
  def fields(self) -> tuple[str, ...]:
    """The fields that a template reads."""
    return self._fields

  @property
  def called(self) -> Optional[Chosen]:
    """The callable, if it is one."""
    return self._called


# --------------------------------------------------------------- templates


@dataclasses.dataclass(frozen=True)
class _Hole(Placeholder):
  """Where a value of the record is to go."""
  chosen: Chosen

  @property
  def fields(self) -> tuple[str, ...]:
    return self.chosen.fields

  def of(self, row: Mapping[str, Any]) -> Any:
    parts = self.chosen.parts
    if len(parts) == 1 and not parts[0][0]:
      return row[self.chosen.fields[0]]
    return self.chosen.of(row)


def _compiled(value: Any, depth: int = 0) -> Any:
  """The expression with its templates read; braces doubled are single ones."""
  if depth > 2 * MAX_DEPTH:
    raise too_deep()
  if isinstance(value, Mapping):
    return {key: _compiled(item, depth + 1) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_compiled(item, depth + 1) for item in value]
  if isinstance(value, str):
    chosen = choose(str.__str__(value))
    return chosen.constant if chosen.is_constant else _Hole(chosen)
  return value


def _holes(tree: Any) -> Iterator[_Hole]:
  if isinstance(tree, _Hole):
    yield tree
  elif isinstance(tree, dict):
    for item in tree.values():
      yield from _holes(item)
  elif isinstance(tree, list):
    for item in tree:
      yield from _holes(item)


def _filled(tree: Any, row: Mapping[str, Any]) -> Any:
  if isinstance(tree, _Hole):
    return tree.of(row)
  if isinstance(tree, dict):
    return {key: _filled(item, row) for key, item in tree.items()}
  if isinstance(tree, list):
    return [_filled(item, row) for item in tree]
  return tree


def _plain_tree(value: Any) -> Any:
  """The expression, which is known to be legal, as JSON has it."""
  if isinstance(value, Mapping):
    return {key: _plain_tree(item) for key, item in value.items()}
  if isinstance(value, np.ndarray):
    return value.tolist()
  if isinstance(value, (list, tuple)):
    return [_plain_tree(item) for item in value]
  return value.item() if isinstance(value, np.generic) else value
