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
"""Which field of an element means what: id, vector, version, metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import Optional

from beam_connector_base.values import Chosen
from beam_connector_base.values import choose
from beam_pinecone.errors import Refused
from beam_pinecone.schema import check_namespace
from beam_pinecone.wire.metadata import MetadataKey

__all__ = ['Layout', 'check_field', 'namespace_choice']


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the fields of an element make a vector; made by `Layout.of`.

  Attributes:
    namespace: how the namespace of a record is chosen.
    id: field of the id.
    values: field of the dense values, or None.
    sparse: field of the sparse values, or None.
    metadata: field whose mapping is merged into the metadata, or None.
    content: metadata key of the text of an `EmbeddableItem`, or None.
    version: field of the version, or None.
    keep: the metadata to write, sorted; None for all.
    drop: the metadata not to write, sorted.
  """
  namespace: Chosen
  id: str = 'id'
  values: Optional[str] = 'values'
  sparse: Optional[str] = 'sparse_values'
  metadata: Optional[str] = 'metadata'
  content: Optional[str] = 'content'
  version: Optional[str] = None
  keep: Optional[tuple[str, ...]] = None
  drop: tuple[str, ...] = ()

  @classmethod
  def of(
      cls,
      *,
      namespace: Any = '',
      id_field: str = 'id',
      values_field: Optional[str] = 'values',
      sparse_field: Optional[str] = 'sparse_values',
      metadata_field: Optional[str] = 'metadata',
      content_key: Optional[str] = 'content',
      version_field: Optional[str] = None,
      keep: Optional[Iterable[str]] = None,
      drop: Optional[Iterable[str]] = None) -> Layout:
    """Checks what the user typed.

    Raises:
      TypeError, ValueError: naming the parameter and what it accepts.
    """
    check_field('id_field', id_field, required=True)
    check_field('values_field', values_field)
    check_field('sparse_field', sparse_field)
    check_field('metadata_field', metadata_field)
    check_field('content_key', content_key)
    check_field('version_field', version_field)
    taken: dict[str, str] = {}
    for parameter, name in (('id_field', id_field),
                            ('values_field', values_field),
                            ('sparse_field', sparse_field),
                            ('metadata_field', metadata_field)):
      if name is not None and name in taken:
        raise ValueError(
            f'{parameter} and {taken[name]} are both {name!r}: one field holds '
            'one thing')
      if name is not None:
        taken[name] = parameter
    if values_field is None and sparse_field is None:
      raise ValueError(
          'values_field and sparse_field are both None: a vector needs values')
    if version_field in (values_field, sparse_field) and version_field:
      raise ValueError(
          f'version_field is {version_field!r}, which holds values')
    if keep is not None and drop is not None:
      raise ValueError('keep and drop exclude each other: give one of them')
    kept = None if keep is None else _names('keep', keep)
    dropped = () if drop is None else _names('drop', drop)
    for name in kept or ():
      if name in (id_field, values_field, sparse_field):
        raise ValueError(
            f'keep names {name!r}, which is {taken[name]} and no metadata')
      try:
        MetadataKey(name)
      except Refused as e:
        raise ValueError(f'keep: {e.reason}') from None
    return cls(
        namespace_choice(namespace),
        id_field,
        values_field,
        sparse_field,
        metadata_field,
        content_key,
        version_field,
        kept,
        dropped)

  def metadata_fields(self, names: Sequence[Any]) -> list[Any]:
    """Those fields of a record that are metadata, `metadata` itself left out.

    Fields that say where and when a record is written (version, the fields of
    a namespace template) are metadata only if `keep` names them.
    """
    reserved = {self.id, self.values, self.sparse, self.metadata}
    if self.keep is not None:
      return [n for n in names if n not in reserved and n in self.keep]
    reserved.add(self.version)
    reserved.update(self.namespace.fields)
    reserved.update(self.drop)
    return [n for n in names if n not in reserved]

  def merged_fields(self, names: Sequence[Any]) -> list[Any]:
    """Those keys of a mapping in the metadata field that are metadata.

    `keep` and `drop` may name single keys, or the field of the mapping.
    """
    if self.keep is not None:
      return [n for n in names if self.metadata in self.keep or n in self.keep]
    if self.metadata in self.drop:
      return []
    return [n for n in names if n not in self.drop]

  def own_fields(self, names: Sequence[Any]) -> list[Any]:
    """Those keys of the metadata of an `EmbeddableItem` that are metadata."""
    if self.keep is not None:
      return self.merged_fields(names)
    elsewhere = (self.version, *self.namespace.fields)
    return [n for n in self.merged_fields(names) if n not in elsewhere]

  @property
  def takes_scalar_metadata(self) -> bool:
    """Whether a value in the metadata field that is no mapping is metadata."""
    if self.keep is not None:
      return self.metadata in self.keep
    return (
        self.metadata not in self.drop
        and self.metadata not in self.namespace.fields)


def check_field(parameter: str, value: Any, required: bool = False) -> None:
  """Raises TypeError or ValueError unless the argument names a field."""
  if value is None and not required:
    return
  if not isinstance(value, str):
    raise TypeError(
        f'{parameter} is a {type(value).__name__}: it is the name of a field'
        f'{"" if required else ", or None"}')
  if not value:
    raise ValueError(f'{parameter} is empty: it is the name of a field')


def _names(parameter: str, value: Any) -> tuple[str, ...]:
  if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
    raise TypeError(
        f'{parameter} is {value!r}: give a list of field names, such as '
        f"{parameter}=['title']")
  names = list(value)
  if not all(isinstance(name, str) for name in names):
    raise TypeError(f'{parameter} holds something else than field names')
  return tuple(sorted(set(names)))


def namespace_choice(spec: Any) -> Chosen:
  """How the namespace of a record is chosen, from what the user typed.

  Raises:
    TypeError, ValueError: it is neither text, a template nor a callable, or the
      service would not take a constant.
  """
  if spec is None:
    raise TypeError('namespace is None: use "" for the default namespace')
  if not isinstance(spec, (str, Chosen)) and not callable(spec):
    raise TypeError(
        f'namespace is a {type(spec).__name__}: it is a string, a "{{field}}" '
        'template or a callable of the record')
  chosen = choose(spec)
  if not chosen.is_constant:
    return chosen
  try:
    return Chosen('constant', check_namespace(chosen.constant))
  except Refused as e:
    raise ValueError(e.reason) from None
