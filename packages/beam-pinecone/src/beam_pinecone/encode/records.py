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
"""From one record to the bytes of one row.

The work per record is a few dictionary lookups, the checks and one join: what
depends only on which fields a record has is planned once per set of fields.
"""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

from beam_connector_base.operation import Block
from beam_connector_base.operation import Invalid
from beam_connector_base.rows import as_mapping
from beam_connector_base.rows import nested
from beam_connector_base.values import MissingField
from beam_pinecone.encode.layout import Layout
from beam_pinecone.encode.vectors import dense_values
from beam_pinecone.encode.vectors import sparse_values
from beam_pinecone.errors import Refused
from beam_pinecone.schema import IndexSchema
from beam_pinecone.schema import check_id
from beam_pinecone.schema import check_namespace
from beam_pinecone.wire.metadata import MetadataKey
from beam_pinecone.wire.metadata import encode_metadata
from beam_pinecone.wire.vectors import sparse_message
from beam_pinecone.wire.vectors import vector_row

__all__ = ['Checks', 'RecordEncoder', 'is_embeddable']

# Distinct sets of fields to remember; records of one source have few.
_MAX_PLANS = 1024
_MAX_NAMESPACES = 100_000
# Of a key in messages; an over-long id would fill them.
_MAX_KEY_TEXT = 128

Keys = tuple[MetadataKey, ...]


class Checks:
  """The checks of a session that remember what they saw.

  Args:
    layout: which field means what.
  """
  def __init__(self, layout: Layout):
    self._version_field = layout.version
    self._version_kind: Optional[str] = None
    self._namespaces: dict[str, str] = {}

  def namespace(self, name: Any) -> str:
    """The namespace as it is written; each name is looked at once.

    Raises:
      Refused: if the service would not take it.
    """
    if isinstance(name, MissingField):
      raise Refused(
          'MissingNamespaceField',
          f'{name}, which the namespace is made of: fill it, or use a callable '
          'that names a namespace for such records')
    known = self._namespaces
    checked = known.get(name) if isinstance(name, str) else None
    if checked is None:
      checked = check_namespace(name)
      if len(known) >= _MAX_NAMESPACES:
        known.clear()
      known[name] = checked
    return checked

  def version(self, value: Any) -> Any:
    """The version as something that compares with the others.

    Raises:
      Refused: if it does not.
    """
    field = self._version_field
    version = _comparable(value, field)
    kind = 'text' if isinstance(version, str) else 'a number or a time'
    if self._version_kind is None:
      self._version_kind = kind
    elif self._version_kind != kind:
      raise Refused(
          'VersionType',
          f'{field!r} is {kind} here and {self._version_kind} in an earlier '
          'record: versions have to compare with one another')
    return version


class RecordEncoder:
  """Encodes single records for one index.

  Args:
    layout: which field means what.
    schema: what the index takes.
    checks: of the session.
  """
  def __init__(self, layout: Layout, schema: IndexSchema, checks: Checks):
    self._layout = layout
    self._schema = schema
    self._checks = checks
    self._plans: dict[tuple[Any, ...], tuple[Keys, bool]] = {}
    self._merged_plans: dict[tuple[Any, ...], Keys] = {}
    self._own_plans: dict[tuple[Any, ...], Keys] = {}
    self._constant = (
        layout.namespace.constant if layout.namespace.is_constant else None)

  def encode(self, element: Any) -> Union[Block, Invalid]:
    """One row, or why there is none."""
    row: Mapping[str, Any]
    own: Optional[Mapping[str, Any]] = None
    if type(element) is dict:
      row = element
    elif is_embeddable(element):
      row, own = self._embeddable(element)
    else:
      try:
        row = as_mapping(element)
      except TypeError as e:
        return Invalid(0, str(e), '', 'ElementType')
    layout = self._layout
    key = row.get(layout.id)
    namespace = self._constant
    try:
      if namespace is None:
        namespace = self._namespace(row, own)
      id_bytes = check_id(key, layout.id)
      versions = None
      if layout.version is not None:
        value = (row if own is None else own).get(layout.version)
        versions = (self._checks.version(value),)
      values, values_bytes, sparse = self._vector(row)
      metadata = (
          self._metadata(row) if own is None else self._own(element, own))
      data = self._data(id_bytes, values, values_bytes, metadata, sparse)
    except Refused as refused:
      return Invalid(
          0, refused.reason, key_text(key), refused.error_type, namespace or '')
    return Block(namespace, data, None, (key,), versions)

  # ------------------------------------------------------------------ parts

  #: How the parts of a record make a row.
  _data = staticmethod(vector_row)

  def _namespace(
      self, row: Mapping[str, Any], own: Optional[Mapping[str, Any]]) -> str:
    try:
      return self._checks.namespace(
          self._layout.namespace.of(row if own is None else {
              **own, **row
          }))
    except MissingField as missing:
      return self._checks.namespace(missing)

  def _vector(self, row: Mapping[str, Any]) -> tuple[Any, int, bytes]:
    layout, schema = self._layout, self._schema
    values: Any = b''
    n = 0
    sparse = b''
    if layout.values is not None:
      value = row.get(layout.values)
      if value is not None:
        values, n = dense_values(value, layout.values, schema)
    if layout.sparse is not None:
      value = row.get(layout.sparse)
      if value is not None:
        sparse = sparse_message(*sparse_values(value, layout.sparse))
    if not n or sparse or schema.vector_type == 'sparse':
      self._check_parts(n > 0, bool(sparse))
    return values, 4 * n, sparse

  def _check_parts(self, dense: bool, sparse: bool) -> None:
    self._schema.check_parts(
        dense, sparse, self._layout.values, self._layout.sparse)

  def _metadata(self, row: Mapping[str, Any]) -> bytes:
    layout = self._layout
    names = tuple(row)
    plan = self._plans.get(names)
    if plan is None:
      plan = (_keys(layout.metadata_fields(names)), layout.metadata in names)
      _remember(self._plans, names, plan)
    keys, has_field = plan
    if has_field:
      mapping = nested(row[layout.metadata])  # type: ignore[index]
      if isinstance(mapping, Mapping):
        return self._with_mapping(keys, row, mapping)
      if mapping is not None and layout.takes_scalar_metadata:
        keys = _keys([*(key.name for key in keys), layout.metadata])
    return encode_metadata(keys, row) if keys else b''

  def _with_mapping(
      self, keys: Keys, row: Mapping[str, Any], mapping: Mapping[str,
                                                                 Any]) -> bytes:
    names = tuple(mapping)
    merged = self._merged_plans.get(names)
    if merged is None:
      merged = _keys(self._layout.merged_fields(names))
      _remember(self._merged_plans, names, merged)
    if not keys:
      return encode_metadata(merged, mapping) if merged else b''
    both = {key.name: mapping[key.name] for key in merged}
    for key in keys:
      name = key.name
      if row[name] is None:
        continue
      if both.get(name) is not None:
        raise conflict(name, self._layout.metadata)
      both[name] = row[name]
    return encode_metadata(_keys(both), both)

  # ---------------------------------------------------------- EmbeddableItem

  def _embeddable(self, item: Any) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The item's id and vectors as a row, and its metadata."""
    layout = self._layout
    row = {layout.id: item.id}
    embedding = item.embedding
    if embedding is not None:
      if layout.values is not None:
        row[layout.values] = embedding.dense_embedding
      if layout.sparse is not None:
        row[layout.sparse] = embedding.sparse_embedding
    return row, item.metadata or {}

  def _own(self, item: Any, own: Mapping[str, Any]) -> bytes:
    """The metadata of an item, with its text."""
    content = self._layout.content
    text = None if content is None else _text_of(item)
    if content is not None and text is not None and own.get(content) != text:
      if own.get(content) is not None:
        raise Refused(
            'MetadataConflict',
            f'metadata {content!r} is not the text of the item, which is '
            'stored under that key: set content_key= to another key, or None')
      own = {**own, content: text}
    names = tuple(own)
    keys = self._own_plans.get(names)
    if keys is None:
      keys = _keys(self._layout.own_fields(names))
      _remember(self._own_plans, names, keys)
    return encode_metadata(keys, own) if keys else b''


# ---------------------------------------------------------------- functions


def conflict(name: str, field: Optional[str]) -> Refused:
  """The refusal of a record that says one thing twice."""
  return Refused(
      'MetadataConflict',
      f'metadata {name!r} is both a field of the record and a key of {field!r}: '
      'rename one of them or list it in drop=')


def _keys(names: Any) -> Keys:
  """Encoders of the names, in the order of their UTF-8 bytes."""
  keys = [MetadataKey(name) for name in names]
  return tuple(sorted(keys, key=lambda key: key.name))


def _remember(plans: dict[Any, Any], names: Any, plan: Any) -> None:
  if len(plans) >= _MAX_PLANS:
    plans.clear()
  plans[names] = plan


def key_text(value: Any) -> str:
  if not isinstance(value, str):
    return ''
  if len(value) > _MAX_KEY_TEXT:
    return value[:_MAX_KEY_TEXT] + '...'
  return value


def _comparable(value: Any, field: Optional[str]) -> Any:
  """The version as text or number; times as microseconds since 1970."""
  if isinstance(value, (str, int)):
    return value
  if isinstance(value, float) and not math.isnan(value):
    return value
  if isinstance(value, datetime.datetime):
    if value.tzinfo is None:
      value = value.replace(tzinfo=datetime.timezone.utc)
    return (value - _EPOCH) // datetime.timedelta(microseconds=1)
  # Beam's Timestamp.
  micros = getattr(value, 'micros', None)
  if isinstance(micros, int):
    return micros
  # A numpy scalar.
  if getattr(value, 'ndim', None) == 0 and hasattr(value, 'item'):
    return _comparable(value.item(), field)
  if value is None:
    raise Refused(
        'MissingVersion',
        f'{field!r} is missing: with version_field= every record needs a '
        'version')
  what = 'NaN' if isinstance(value, float) else f'a {type(value).__name__}'
  raise Refused(
      'VersionType',
      f'{field!r} is {what}: a version is a number, text or a time')


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def is_embeddable(element: Any) -> bool:
  """Whether the element is Beam's `EmbeddableItem` (`Chunk`)."""
  # An element can only be one where its module is imported already, so that
  # nobody else pays for the import. Older versions call the class Chunk.
  module = sys.modules.get('apache_beam.ml.rag.types')
  if module is None:
    return False
  kind = getattr(module, 'EmbeddableItem', None) or module.Chunk
  return isinstance(element, kind)


def _text_of(item: Any) -> Optional[str]:
  content = item.content
  if content is None:
    return None
  if content.text is not None:
    return content.text
  # An image is stored by its address only.
  image = getattr(content, 'image', None)
  return image if isinstance(image, str) else None
