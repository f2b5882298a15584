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
"""What a service holds, as data: fields, changes, a fingerprint, a lock file.

A schema lock is a small file that people review and commit. Pipelines are built
from it without asking the service, and workers compare it with the service when
they open a session and name each difference.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import Optional
from typing import Union

import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils.timestamp import Timestamp

__all__ = [
    'Change',
    'Field',
    'Schema',
    'SchemaChangedError',
    'changes',
    'check_lock',
]

_LOCK_VERSION = 1

# The types of the lock file, and what Beam calls them.
_TYPES: dict[str, Any] = {
    'bool': bool,
    'bytes': bytes,
    'float32': np.float32,
    'float64': float,
    'int32': np.int32,
    'int64': int,
    'string': str,
    'timestamp': Timestamp,
}


class SchemaChangedError(RuntimeError):
  """The service and the schema lock disagree; the message names the changes."""


@dataclasses.dataclass(frozen=True)
class Field:
  """One field of a schema.

  Args:
    name: as the service spells it.
    type: 'bool', 'bytes', 'float32', 'float64', 'int32', 'int64', 'string',
      'timestamp', or 'list<T>' of one of them.
    nullable: whether a value may be missing.

  Raises:
    ValueError: an unknown type.
  """
  name: str
  type: str
  nullable: bool = True

  def __post_init__(self) -> None:
    self.beam_type()

  def beam_type(self) -> Any:
    """The Python type by which Beam's schemas know the field."""
    inner = self.type
    listed = inner.startswith('list<') and inner.endswith('>')
    if listed:
      inner = inner[5:-1]
    if inner not in _TYPES:
      raise ValueError(
          f'the field {self.name!r} has the unknown type {self.type!r}; known '
          f'are {", ".join(sorted(_TYPES))} and list<...> of these')
    known = _TYPES[inner]
    if listed:
      known = Sequence[known]  # type: ignore[valid-type]
    return Optional[known] if self.nullable else known


@dataclasses.dataclass(frozen=True)
class Schema:
  """Fields and properties of one thing that a service holds.

  Args:
    target: what it is, such as 'pinecone:docs'.
    fields: in the service's order.
    properties: what is no field, such as a dimension; plain JSON values.
  """
  target: str
  fields: tuple[Field, ...] = ()
  properties: tuple[tuple[str, Any], ...] = ()

  @classmethod
  def of(
      cls,
      target: str,
      fields: Union[Mapping[str, str], Iterable[Field]] = (),
      properties: Optional[Mapping[str, Any]] = None) -> Schema:
    """A schema from what is easily at hand."""
    if isinstance(fields, Mapping):
      fields = [Field(name, type_) for name, type_ in fields.items()]
    return cls(target, tuple(fields), tuple(sorted((properties or {}).items())))

  @property
  def fingerprint(self) -> str:
    """16 hexadecimal digits, equal for equal fields and properties."""
    content = json.dumps(self._content(), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]

  def row_type(self, name: str) -> Any:
    """A NamedTuple type with these fields, for Beam's schemas.

    Raises:
      ValueError: a field's name is no identifier; map it to one first.
    """
    for field in self.fields:
      if not field.name.isidentifier():
        raise ValueError(
            f'the field {field.name!r} can not be a field of a row: its name '
            'is no identifier')
    return NamedTuple(
        name, [(field.name, field.beam_type()) for field in self.fields])

  def to_json(self) -> str:
    """The text of a lock file."""
    return json.dumps({
        'lock_version': _LOCK_VERSION,
        'target': self.target,
        'fingerprint': self.fingerprint,
        **self._content()
    },
                      indent=2) + '\n'

  @classmethod
  def from_json(cls, text: str) -> Schema:
    """Reads a lock file's text.

    Raises:
      ValueError: it is no lock file, or was edited by hand and does not match
        its own fingerprint.
    """
    try:
      data = json.loads(text)
      version = data['lock_version']
      schema = cls(
          data['target'],
          tuple(Field(**field) for field in data['fields']),
          tuple(sorted(data['properties'].items())))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as e:
      raise ValueError(f'not a schema lock: {type(e).__name__}: {e}') from None
    if version != _LOCK_VERSION:
      raise ValueError(
          f'a schema lock of version {version!r}; this package reads version '
          f'{_LOCK_VERSION}')
    if data.get('fingerprint') != schema.fingerprint:
      raise ValueError(
          'the schema lock does not match its own fingerprint: write it anew '
          'rather than editing it')
    return schema

  def save(self, path: str) -> None:
    """Writes a lock file, to any filesystem that Beam knows."""
    with FileSystems.create(path, mime_type='application/json') as file:
      file.write(self.to_json().encode())

  @classmethod
  def load(cls, path: str) -> Schema:
    """Reads a lock file, from any filesystem that Beam knows."""
    with FileSystems.open(path) as file:
      return cls.from_json(file.read().decode())

  def _content(self) -> dict[str, Any]:
    return {
        'fields': [dataclasses.asdict(field) for field in self.fields],
        'properties': dict(self.properties),
    }


@dataclasses.dataclass(frozen=True)
class Change:
  """One difference between two schemas.

  Args:
    kind: 'added', 'removed', 'retyped', 'nullability' or 'property'.
    name: of the field or property.
    before: type or value before; None where there was none.
    after: type or value after; None where there is none.
    compatible: whether a pipeline built for the old one goes on being right: a
      field was added, or may no longer be null.
  """
  kind: str
  name: str
  before: Any
  after: Any
  compatible: bool

  def __str__(self) -> str:
    if self.kind == 'added':
      return f'{self.name} ({self.after}) was added'
    if self.kind == 'removed':
      return f'{self.name} ({self.before}) was removed'
    if self.kind == 'nullability':
      return f'{self.name} {"may" if self.after else "may not"} be null now'
    return f'{self.name} was {self.before} and is {self.after}'


def changes(before: Schema, after: Schema) -> list[Change]:
  """What changed from one schema to another; empty if nothing did."""
  out = []
  old = {field.name: field for field in before.fields}
  new = {field.name: field for field in after.fields}
  for name, field in old.items():
    if name not in new:
      out.append(Change('removed', name, field.type, None, False))
    elif field.type != new[name].type:
      out.append(Change('retyped', name, field.type, new[name].type, False))
    elif field.nullable != new[name].nullable:
      out.append(
          Change(
              'nullability',
              name,
              field.nullable,
              new[name].nullable,
              not new[name].nullable))
  for name, field in new.items():
    if name not in old:
      out.append(Change('added', name, None, field.type, True))
  was, now = dict(before.properties), dict(after.properties)
  for name in sorted(was.keys() | now.keys()):
    if was.get(name) != now.get(name):
      out.append(Change('property', name, was.get(name), now.get(name), False))
  return out


def check_lock(lock: Schema, found: Schema) -> list[Change]:
  """Compares a lock with what the service says.

  Returns:
    The compatible changes, to be logged.

  Raises:
    SchemaChangedError: at least one change is not compatible.
  """
  found_changes = changes(lock, found)
  broken = [change for change in found_changes if not change.compatible]
  if broken:
    raise SchemaChangedError(
        f'{lock.target}: the service is not what the schema lock says: '
        f'{"; ".join(map(str, broken))}. If that is intended, write the lock '
        'anew and build the pipeline again.')
  return found_changes
