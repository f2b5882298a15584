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
"""Settings that depend on the row: a constant, a template, or a callable.

Destinations, filters and versions are chosen per row. `choose` turns what the
user typed into a `Chosen`: frozen, picklable and equal by value, as everything
in an `Operation` must be.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Optional

from apache_beam.internal import cloudpickle_pickler

__all__ = [
    'ByValue',
    'CallableError',
    'Chosen',
    'MissingField',
    'choose',
]


class MissingField(KeyError):
  """A row lacks a field that a template needs, or holds null there.

  Attributes:
    field: the field's name.
  """
  def __init__(self, field: str, why: str = 'is missing'):
    super().__init__(field, why)
    self.field = field
    self.why = why

  def __str__(self) -> str:
    # KeyError would show the repr of its arguments.
    return f'the field {self.field!r} {self.why}'


class CallableError(RuntimeError):
  """A callable that the user gave raised: its bundle fails."""


class ByValue:
  """A callable that is equal to its own unpickled copies.

  Runners unpickle a transform several times per process. A plain function
  would make each copy of an operation a different one, each with a connection
  of its own. The pickled bytes are captured once, here, and carried along: they
  are the callable's value.

  Args:
    fn: any callable that can be pickled, lambdas and closures included.

  Raises:
    TypeError: `fn` is not callable.
    ValueError: `fn` can't be pickled; the message says why.
  """
  __slots__ = ('_fn', '_state', '_name', '_hash')

  _fn: Optional[Callable[..., Any]]
  _state: bytes
  _name: str
  _hash: int

  def __init__(self, fn: Callable[..., Any]):
    if isinstance(fn, ByValue):
      self._fn, self._state, self._name = fn._fn, fn._state, fn._name
      self._hash = fn._hash
      return
    if not callable(fn):
      raise TypeError(f'expected a callable, not {type(fn).__name__}')
    self._name = getattr(fn, '__qualname__', type(fn).__qualname__)
    try:
      self._state = cloudpickle_pickler.dumps(fn)
    except Exception as e:
      raise ValueError(
          f'{self._name} can\'t be pickled, so it can\'t be sent to the '
          f'workers ({type(e).__name__}: {e}). Create what it refers to '
          'inside of it, or when it is first called.') from e
    self._fn = fn
    self._hash = hash(self._state)

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    fn = self._fn
    if fn is None:
      # Not before it is needed: an equal session may already be open.
      fn = self._fn = cloudpickle_pickler.loads(self._state)
    return fn(*args, **kwargs)

  def __eq__(self, other: Any) -> bool:
    return isinstance(other, ByValue) and self._state == other._state

  def __hash__(self) -> int:
    return self._hash

  def __reduce__(self) -> Any:
    return _restore, (self._state, self._name)

  def __repr__(self) -> str:
    return f'ByValue({self._name})'


def _restore(state: bytes, name: str) -> ByValue:
  restored = ByValue.__new__(ByValue)
  restored._fn = None
  restored._state = state
  restored._name = name
  # Not carried along: bytes hash differently in every process.
  restored._hash = hash(state)
  return restored


@dataclasses.dataclass(frozen=True)
class Chosen:
  """How a value is chosen for each row; made by `choose`.

  Attributes:
    kind: 'constant', 'template' or 'callable'.
    constant: the constant; None for the other kinds.
    fields: names of the fields a template reads; empty for the other kinds.
    fn: the callable; None for the other kinds.
  """
  kind: str
  constant: Any = None
  parts: tuple[tuple[str, Optional[str]], ...] = ()
  fields: tuple[str, ...] = ()
  fn: Optional[ByValue] = None

  @property
  def is_constant(self) -> bool:
    return self.kind == 'constant'

  def of(self, row: Mapping[str, Any]) -> Any:
    """The value for one row.

    Raises:
      MissingField: a field of the template is missing or null. The row is to
        be reported as `Invalid`.
      CallableError: the callable raised.
    """
    if self.kind == 'constant':
      return self.constant
    if self.fn is not None:
      return self._call(row)
    out = []
    for text, field in self.parts:
      if text:
        out.append(text)
      if field is not None:
        try:
          value = row[field]
        except KeyError:
          raise MissingField(field) from None
        if value is None:
          raise MissingField(field, 'is null')
        out.append(value if isinstance(value, str) else str(value))
    return out[0] if len(out) == 1 else ''.join(out)

  def column(self, batch: Any, n: Optional[int] = None) -> list[Any]:
    """The values for all rows of a RecordBatch.

    Only the columns that a template names are turned into Python objects. A
    callable is given a lazy mapping per row, which converts what it is asked
    for.

    Args:
      batch: a `pyarrow.RecordBatch` (or a table).
      n: number of rows, if known.

    Returns:
      One value per row. Where `of` would raise `MissingField`, the value *is*
      that exception, so that one row does not cost the others.
    """
    n = batch.num_rows if n is None else n
    if self.kind == 'constant':
      return [self.constant] * n
    if self.fn is not None:
      columns = {
          name: batch.column(i) for i, name in enumerate(batch.schema.names)
      }
      return [self._call(_BatchRow(columns, i), f', row {i}') for i in range(n)]
    values: dict[str, list[Any]] = {}
    names = batch.schema.names
    for field in self.fields:
      if field not in names:
        return [MissingField(field) for _ in range(n)]
      values[field] = batch.column(names.index(field)).to_pylist()
    if len(self.parts) == 1 and not self.parts[0][0]:
      field = self.fields[0]
      return [
          v if isinstance(v, str) else
          MissingField(field, 'is null') if v is None else str(v)
          for v in values[field]
      ]
    return [self._of_row(values, i) for i in range(n)]

  def _call(self, row: Mapping[str, Any], where: str = '') -> Any:
    assert self.fn is not None
    try:
      return self.fn(row)
    except MissingField:
      raise
    except Exception as e:
      # The names of the fields tell what is missing; their values are nobody
      # else's business.
      raise CallableError(
          f'{self.fn._name} raised {type(e).__name__}: {e}. It was given a record '
          f'with the fields {", ".join(map(str, row))}{where}: let it return a '
          'value for such records, too') from e

  def _of_row(self, values: dict[str, list[Any]], i: int) -> Any:
    try:
      return self.of({field: column[i] for field, column in values.items()})
    except MissingField as e:
      return e.with_traceback(None)

  def __str__(self) -> str:
    """As it was typed, for display data."""
    if self.kind == 'constant':
      return str(self.constant)
    if self.fn is not None:
      return repr(self.fn)
    return ''.join(
        text.replace('{', '{{').replace('}', '}}') +
        ('' if field is None else '{' + field + '}')
        for text, field in self.parts)


def choose(spec: Any) -> Chosen:
  """Reads a setting that may depend on the row.

  Args:
    spec: a callable that is given the row's mapping; or a string, in which
      `{field}` stands for a field of the row (`{{` and `}}` for braces); or any
      other constant.

  Raises:
    ValueError: a malformed template, or a callable that can't be pickled.
  """
  if isinstance(spec, Chosen):
    return spec
  if not isinstance(spec, str):
    if callable(spec):
      return Chosen('callable', fn=ByValue(spec))
    return Chosen('constant', spec)
  if '{' not in spec and '}' not in spec:
    return Chosen('constant', spec)
  parts: list[tuple[str, Optional[str]]] = []
  try:
    for text, field, format_spec, conversion in string.Formatter().parse(spec):
      if format_spec or conversion or (field is not None and not field.strip()):
        raise ValueError('write {field}, without format or conversion')
      parts.append((text, field))
  except ValueError as e:
    raise ValueError(
        f'malformed template {spec!r}: {e}. Double a brace that stands for '
        'itself.') from None
  fields = dict.fromkeys(field for _, field in parts if field is not None)
  if not fields:
    return Chosen('constant', ''.join(text for text, _ in parts))
  return Chosen('template', parts=tuple(parts), fields=tuple(fields))


class _BatchRow(Mapping[str, Any]):
  """One row of a RecordBatch as a mapping; converts only what is asked for."""
  __slots__ = ('_columns', '_i')

  def __init__(self, columns: dict[str, Any], i: int):
    self._columns = columns
    self._i = i

  def __getitem__(self, name: str) -> Any:
    return self._columns[name][self._i].as_py()

  def __iter__(self) -> Iterator[str]:
    return iter(self._columns)

  def __len__(self) -> int:
    return len(self._columns)
