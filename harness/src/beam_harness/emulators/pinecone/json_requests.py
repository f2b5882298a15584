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
"""JSON and query strings to requests.

Field names are those of proto3's JSON: camelCase, and as the service's gateway
also takes them, snake_case. An unknown name is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_harness.emulators.pinecone import requests
from beam_harness.emulators.pinecone.errors import invalid
from beam_harness.emulators.pinecone.limits import MAX_SPARSE_INDEX

__all__ = ['decode', 'parse']

_NOTHING = np.zeros(0, dtype=np.float32)


def parse(body: bytes) -> dict[str, Any]:
  """The JSON object of a body; an empty body is an empty object.

  Raises:
    ServiceError: the body is something else.
  """
  if not body.strip():
    return {}
  try:
    value = json.loads(body, parse_constant=_no_constant)
    if b'\\ud' in body or b'\\uD' in body:
      json.dumps(value, ensure_ascii=False).encode()  # No lone surrogates.
  except (ValueError, RecursionError) as e:
    raise invalid(f'Could not parse the JSON body: {e}') from e
  if not isinstance(value, dict):
    raise invalid('The JSON body must be an object')
  return value


def _no_constant(name: str):
  raise ValueError(f'{name} is not JSON')


def decode(
    operation: str,
    body: bytes,
    query: Sequence[tuple[str, str]],
    name: str = '') -> Any:
  """The request of an operation.

  Args:
    operation: one of the data plane's.
    body: the JSON body.
    query: the query string, for operations that are a GET.
    name: the namespace in the path.

  Raises:
    ServiceError: the service could not read it.
  """
  if operation in _FROM_QUERY:
    return _FROM_QUERY[operation](query)
  if operation == 'describe_namespace':
    return requests.DescribeNamespace(name)
  if operation == 'delete_namespace':
    return requests.DeleteNamespace(name)
  return _FROM_BODY[operation](parse(body))


def _fields(value: Any, where: str, names: Sequence[str]) -> dict[str, Any]:
  """An object's fields by their snake_case names, without nulls."""
  if not isinstance(value, dict):
    raise invalid(f'{where}: expected an object')
  known = {}
  for name in names:
    known[name] = known[_camel(name)] = name
  fields = {}
  for key, item in value.items():
    if key not in known:
      raise invalid(f'{where}: invalid name {key}: Cannot find field.')
    if item is not None:
      fields[known[key]] = item
  return fields


def _camel(name: str) -> str:
  return re.sub(r'_(.)', lambda found: found[1].upper(), name)


def _text(value: Any, where: str) -> str:
  if not isinstance(value, str):
    raise invalid(f'{where}: expected a string')
  return value


def _flag(value: Any, where: str) -> bool:
  if not isinstance(value, bool):
    raise invalid(f'{where}: expected a boolean')
  return value


def _integer(value: Any, where: str, largest: int = 2**32 - 1) -> int:
  # Proto3's JSON takes 3, 3.0 and "3".
  try:
    number = float(value) if isinstance(value, str) else value
    if isinstance(number, bool) or number != int(number):
      raise ValueError
    if not 0 <= number <= largest:
      raise ValueError
    return int(number)
  except (TypeError, ValueError, OverflowError) as e:
    raise invalid(f'{where}: expected a whole number up to {largest}') from e


def _list(value: Any, where: str) -> list[Any]:
  if not isinstance(value, list):
    raise invalid(f'{where}: Proto field is repeating, expected a list.')
  return value


def _object(value: Any, where: str) -> dict[str, Any]:
  if isinstance(value, list):
    raise invalid(f'{where}: Proto field is not repeating, cannot start list.')
  if not isinstance(value, dict):
    raise invalid(f'{where}: expected an object')
  return value


def _floats(value: Any, where: str) -> np.ndarray:
  values = _list(value, where)
  if not set(map(type, values)) <= {float, int}:
    for position, item in enumerate(values):
      if type(item) not in (float, int):
        raise invalid(
            f'{where}[{position}]: expected a number, got {json.dumps(item)}')
  try:
    with np.errstate(over='ignore'):
      return np.array(values, dtype=np.float32)
  except OverflowError as e:
    raise invalid(f'{where}: a number is out of the range of a float') from e


def _sparse(value: Any, where: str) -> requests.Sparse:
  fields = _fields(value, where, ('indices', 'values'))
  indices = [
      _integer(item, f'{where}.indices', MAX_SPARSE_INDEX)
      for item in _list(fields.get('indices', []), f'{where}.indices')
  ]
  return requests.Sparse(
      np.array(indices, dtype=np.uint32),
      _floats(fields.get('values', []), f'{where}.values'))


def _vector(value: Any, where: str) -> requests.Vector:
  fields = _fields(value, where, ('id', 'values', 'sparse_values', 'metadata'))
  vector = requests.Vector(_text(fields.get('id', ''), f'{where}.id'), _NOTHING)
  if 'values' in fields:
    vector.values = _floats(fields['values'], f'{where}.values')
  if 'sparse_values' in fields:
    vector.sparse = _sparse(fields['sparse_values'], f'{where}.sparseValues')
  if 'metadata' in fields:
    vector.metadata = _object(fields['metadata'], f'{where}.metadata')
  return vector


def _upsert(body: dict[str, Any]) -> requests.Upsert:
  fields = _fields(body, 'upsert', ('vectors', 'namespace'))
  return requests.Upsert(
      _namespace(fields),
      [
          _vector(item, f'vectors[{position}]') for position, item in enumerate(
              _list(fields.get('vectors', []), 'vectors'))
      ])


def _namespace(fields: Mapping[str, Any]) -> str:
  return _text(fields.get('namespace', ''), 'namespace')


def _filter(fields: Mapping[str, Any]) -> dict[str, Any] | None:
  if 'filter' not in fields:
    return None
  return _object(fields['filter'], 'filter')


def _query(body: dict[str, Any]) -> requests.Query:
  fields = _fields(
      body,
      'query',
      (
          'namespace',
          'top_k',
          'vector',
          'id',
          'sparse_vector',
          'filter',
          'include_values',
          'include_metadata',
          'scan_factor',
          'max_candidates'))
  query = requests.Query(
      _namespace(fields),
      _integer(fields.get('top_k', 0), 'topK'),
      _floats(fields.get('vector', []), 'vector'),
      _text(fields.get('id', ''), 'id'),
      filter=_filter(fields),
      include_values=_flag(
          fields.get('include_values', False), 'includeValues'),
      include_metadata=_flag(
          fields.get('include_metadata', False), 'includeMetadata'))
  if 'sparse_vector' in fields:
    query.sparse = _sparse(fields['sparse_vector'], 'sparseVector')
  if 'scan_factor' in fields:
    query.scan_factor = float(_floats([fields['scan_factor']], 'scanFactor')[0])
  if 'max_candidates' in fields:
    query.max_candidates = _integer(fields['max_candidates'], 'maxCandidates')
  return query


def _texts(value: Any, where: str) -> list[str]:
  return [_text(item, where) for item in _list(value, where)]


def _delete(body: dict[str, Any]) -> requests.Delete:
  fields = _fields(body, 'delete', ('namespace', 'ids', 'delete_all', 'filter'))
  return requests.Delete(
      _namespace(fields),
      _texts(fields.get('ids', []), 'ids'),
      _flag(fields.get('delete_all', False), 'deleteAll'),
      _filter(fields))


def _update(body: dict[str, Any]) -> requests.Update:
  fields = _fields(
      body,
      'update',
      (
          'namespace',
          'id',
          'values',
          'sparse_values',
          'set_metadata',
          'filter',
          'dry_run'))
  update = requests.Update(
      _namespace(fields),
      _text(fields.get('id', ''), 'id'),
      _floats(fields.get('values', []), 'values'),
      filter=_filter(fields),
      dry_run=_flag(fields.get('dry_run', False), 'dryRun'))
  if 'sparse_values' in fields:
    update.sparse = _sparse(fields['sparse_values'], 'sparseValues')
  if 'set_metadata' in fields:
    update.set_metadata = _object(fields['set_metadata'], 'setMetadata')
  return update


def _fetch_by_metadata(body: dict[str, Any]) -> requests.FetchByMetadata:
  fields = _fields(
      body,
      'fetch_by_metadata', ('namespace', 'filter', 'limit', 'pagination_token'))
  return requests.FetchByMetadata(
      _namespace(fields),
      _filter(fields),
      _integer(fields['limit'], 'limit') if 'limit' in fields else None,
      _text(fields['pagination_token'], 'paginationToken')
      if 'pagination_token' in fields else None)


def _create_namespace(body: dict[str, Any]) -> requests.CreateNamespace:
  fields = _fields(body, 'create_namespace', ('name', 'schema'))
  name = _text(fields.get('name', ''), 'name')
  if 'schema' not in fields:
    return requests.CreateNamespace(name)
  schema = _fields(fields['schema'], 'schema', ('fields',))
  filterable = []
  for field, options in _object(schema.get('fields', {}),
                                'schema.fields').items():
    where = f'schema.fields[{field}]'
    flag = _fields(options, where, ('filterable',)).get('filterable', False)
    if not _flag(flag, where):
      raise invalid(f'{where}: only filterable: true is supported')
    filterable.append(field)
  return requests.CreateNamespace(name, filterable)


def _stats(body: dict[str, Any]) -> requests.Stats:
  return requests.Stats(
      _filter(_fields(body, 'describe_index_stats', ('filter',))))


_FROM_BODY: dict[str, Callable[[dict[str, Any]], Any]] = {
    'upsert': _upsert,
    'query': _query,
    'delete': _delete,
    'update': _update,
    'fetch_by_metadata': _fetch_by_metadata,
    'create_namespace': _create_namespace,
    'describe_index_stats': _stats,
}

_Pairs = Sequence[tuple[str, str]]


def _last(query: _Pairs, name: str) -> str | None:
  return dict(query).get(name)


def _page_size(query: _Pairs) -> int | None:
  limit = _last(query, 'limit')
  return None if limit is None else _integer(limit, 'limit')


_FROM_QUERY: dict[str, Callable[[_Pairs], Any]] = {
    'fetch':
        lambda query: requests.Fetch(
            _last(query, 'namespace') or '',
            [value for name, value in query if name == 'ids']),
    'list':
        lambda query: requests.List(
            _last(query, 'namespace') or '', _last(query, 'prefix') or '',
            _page_size(query), _last(query, 'paginationToken')),
    'list_namespaces':
        lambda query: requests.ListNamespaces(
            _last(query, 'prefix') or '', _page_size(query), _last(
                query, 'paginationToken')),
}
