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
"""The two shapes in which the API takes and shows an index.

Up to API version 2026-04 an index is a name, a dimension, a metric and a spec;
from 2026-07 on it is a schema of fields and a deployment. An index whose
schema holds only the reserved fields is the same vector index in both; any
other schema makes a document index.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Mapping
from typing import Any

from beam_harness.emulators.pinecone.limits import MAX_DIMENSION
from beam_harness.emulators.pinecone.scoring import METRICS
from beam_harness.emulators.pinecone.store import Index

__all__ = ['Entry', 'Refused', 'SCHEMA_VERSION', 'configure', 'make', 'model']

#: From this API version on an index is described by a schema.
SCHEMA_VERSION = '2026-07'

DENSE_FIELD = '_values'
SPARSE_FIELD = '_sparse_values'

_NAME = re.compile(r'[a-z0-9]([a-z0-9-]*[a-z0-9])?')
_MAX_NAME_CHARS = 45
_MAX_FIELD_NAME_BYTES = 64
_FIELD_TYPES = (
    'dense_vector',
    'sparse_vector',
    'string',
    'string_list',
    'boolean',
    'float')
_DEPLOYMENT_KEYS = {
    'managed': ('cloud', 'region', 'environment'),
    'pod': ('environment', 'pod_type', 'replicas', 'shards'),
    'byoc': ('environment',),
}


class Refused(Exception):
  """The control plane refuses a request.

  Attributes:
    status: HTTP status.
    message: the text.
  """
  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status
    self.message = message


@dataclasses.dataclass
class Entry:
  """What the control plane knows of one index.

  Attributes:
    index: the stored index.
    schema: its fields, as API 2026-07 shows them.
    deployment: likewise.
    tags: or None where there are none.
    deletion_protection: 'enabled' or 'disabled'.
    describes_left: how many times it will yet be described as Initializing.
  """
  index: Index
  schema: dict[str, Any]
  deployment: dict[str, Any]
  tags: dict[str, str] | None = None
  deletion_protection: str = 'disabled'
  describes_left: int = 0


def make(body: Mapping[str, Any], version: str | None) -> Entry:
  """An index from the body of a create request.

  Args:
    body: in the shape of the version, or where that is None in either.
    version: API version.

  Raises:
    Refused: the body is not acceptable.
  """
  by_schema = (
      'schema' in body if version is None else version >= SCHEMA_VERSION)
  name = body.get('name')
  if name is None and by_schema:
    name = f'index-{uuid.uuid4().hex[:8]}'
  if name is None:
    raise _missing('name')
  _check_name(name)
  parts = _from_schema if by_schema else _from_spec
  entry = Entry(*parts(name, body))
  configure(
      entry,
      {key: body[key] for key in ('tags', 'deletion_protection') if key in body})
  return entry


def _missing(field: str) -> Refused:
  return Refused(
      422,
      'Failed to deserialize the JSON body into the target type: missing field '
      f'`{field}`')


def _check_name(name: Any) -> None:
  if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME_CHARS:
    raise Refused(
        400, f'Index name must be 1 to {_MAX_NAME_CHARS} characters long.')
  if not _NAME.fullmatch(name):
    raise Refused(
        400,
        'Index name must contain only lowercase alphanumeric characters or '
        'hyphens, and must not begin or end with a hyphen.')


def _check_dimension(dimension: Any) -> int:
  if (not isinstance(dimension, int) or isinstance(dimension, bool)
      or not 1 <= dimension <= MAX_DIMENSION):
    raise Refused(400, f'Dimension must be between 1 and {MAX_DIMENSION}.')
  return dimension


def _check_metric(metric: Any) -> str:
  if metric not in METRICS:
    raise Refused(
        400, f'Invalid metric {metric}. Must be one of {", ".join(METRICS)}.')
  return metric


def _from_spec(
    name: str,
    body: Mapping[str, Any]) -> tuple[Index, dict[str, Any], dict[str, Any]]:
  """The parts of an index from the shape of API 2026-04 and before."""
  spec = body.get('spec')
  if not isinstance(spec, dict):
    raise _missing('spec')
  deployment = _deployment_of_spec(spec)
  vector_type = body.get('vector_type', 'dense')
  if vector_type == 'sparse':
    if body.get('dimension') is not None:
      raise Refused(400, 'Dimension must not be given for a sparse index.')
    if body.get('metric', 'dotproduct') != 'dotproduct':
      raise Refused(400, 'The metric of a sparse index must be dotproduct.')
    schema = {SPARSE_FIELD: _shown_field({'type': 'sparse_vector'})}
    index = Index(name, dimension=None, metric='dotproduct')
    return index, schema, deployment
  if vector_type != 'dense':
    raise Refused(400, f'Invalid vector type {vector_type}.')
  if body.get('dimension') is None:
    raise _missing('dimension')
  dimension = _check_dimension(body['dimension'])
  metric = _check_metric(body.get('metric', 'cosine'))
  schema = {
      DENSE_FIELD:
          _shown_field({
              'type': 'dense_vector', 'dimension': dimension, 'metric': metric
          })
  }
  return Index(name, dimension=dimension, metric=metric), schema, deployment


def _deployment_of_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
  kinds = [kind for kind in ('serverless', 'pod', 'byoc') if spec.get(kind)]
  if len(kinds) != 1:
    raise Refused(400, 'spec must hold one of serverless, pod and byoc.')
  given = spec[kinds[0]]
  if kinds[0] == 'serverless':
    for field in ('cloud', 'region'):
      if not isinstance(given.get(field), str):
        raise _missing(field)
    return _managed(given['cloud'], given['region'])
  if not isinstance(given.get('environment'), str):
    raise _missing('environment')
  if kinds[0] == 'byoc':
    return {'deployment_type': 'byoc', 'environment': given['environment']}
  return {
      'deployment_type': 'pod',
      'environment': given['environment'],
      'pod_type': given.get('pod_type', 'p1.x1'),
      'replicas': given.get('replicas', 1),
      'shards': given.get('shards', 1),
  }


def _managed(cloud: str, region: str) -> dict[str, Any]:
  return {
      'deployment_type': 'managed',
      'cloud': cloud,
      'region': region,
      'environment': f'emulated-{cloud}-{region}',
  }


def _from_schema(
    name: str,
    body: Mapping[str, Any]) -> tuple[Index, dict[str, Any], dict[str, Any]]:
  """The parts of an index from the shape of API 2026-07."""
  schema = body.get('schema')
  if not isinstance(schema, dict):
    raise _missing('schema')
  fields = schema.get('fields')
  if not isinstance(fields, dict) or not fields:
    raise Refused(400, 'schema.fields must name at least one field.')
  reserved = set(fields) <= {DENSE_FIELD, SPARSE_FIELD}
  dense: list[Mapping[str, Any]] = []
  sparse = 0
  for field, options in fields.items():
    kind = _check_field(field, options, reserved)
    if kind == 'dense_vector':
      dense.append(options)
    sparse += kind == 'sparse_vector'
  if len(dense) > 1 or sparse > 1:
    raise Refused(
        400, 'A schema has at most one dense and one sparse vector field.')
  deployment = _deployment(body.get('deployment'))
  shown = {field: _shown_field(options) for field, options in fields.items()}
  index = Index(
      name,
      dimension=dense[0]['dimension'] if dense else None,
      metric=_metric_of(dense[0]) if dense else 'dotproduct',
      documents=not reserved)
  return index, shown, deployment


def _metric_of(field: Mapping[str, Any]) -> str:
  """The metric of a dense field; cosine unless given."""
  return field.get('metric') or 'cosine'


def _check_field(field: str, options: Any, reserved: bool) -> str:
  if not 1 <= len(field.encode()) <= _MAX_FIELD_NAME_BYTES:
    raise Refused(
        400,
        f'Field names must be 1 to {_MAX_FIELD_NAME_BYTES} bytes long, got '
        f'{field!r}.')
  if not reserved and field.startswith(('_', '$')):
    raise Refused(400, f'Field name {field!r} is reserved.')
  kind = options.get('type') if isinstance(options, dict) else None
  if kind not in _FIELD_TYPES:
    raise Refused(
        400,
        f'Field {field!r} must have a type out of {", ".join(_FIELD_TYPES)}.')
  expected = {DENSE_FIELD: 'dense_vector', SPARSE_FIELD: 'sparse_vector'}
  if reserved and kind != expected[field]:
    raise Refused(400, f'Field {field!r} must be a {expected[field]}.')
  if kind == 'dense_vector':
    _check_dimension(options.get('dimension'))
    _check_metric(_metric_of(options))
  return kind


def _shown_field(options: Mapping[str, Any]) -> dict[str, Any]:
  shown = dict(options)
  if shown['type'] == 'dense_vector':
    shown['metric'] = _metric_of(options)
  return shown


def _deployment(given: Any) -> dict[str, Any]:
  if given is None:
    return _managed('aws', 'us-east-1')
  kind = given.get('deployment_type') if isinstance(given, dict) else None
  if kind not in _DEPLOYMENT_KEYS:
    raise Refused(
        422, 'deployment.deployment_type must be managed, pod or byoc.')
  unknown = set(given) - {'deployment_type', *_DEPLOYMENT_KEYS[kind]}
  if unknown:
    raise Refused(
        422,
        'Failed to deserialize the JSON body into the target type: deployment: '
        f'unknown field `{sorted(unknown)[0]}`')
  if kind == 'managed':
    for field in ('cloud', 'region'):
      if not isinstance(given.get(field), str):
        raise _missing(field)
    return _managed(given['cloud'], given['region'])
  for field in _DEPLOYMENT_KEYS[kind]:
    if field not in given:
      raise _missing(field)
  return dict(given)


def configure(entry: Entry, body: Mapping[str, Any]) -> None:
  """Carries out a configure request; also the common part of a create."""
  known = (
      'tags',
      'deletion_protection',
      'deployment',
      'read_capacity',
      'schema',
      'spec',
      'embed')
  for key in body:
    if key not in known:
      raise Refused(
          422,
          'Failed to deserialize the JSON body into the target type: unknown '
          f'field `{key}`')
  protection = body.get('deletion_protection')
  if protection not in (None, 'enabled', 'disabled'):
    raise Refused(400, 'deletion_protection must be enabled or disabled.')
  tags = body.get('tags')
  if tags is not None and not (isinstance(tags, dict) and all(
      isinstance(value, str) for value in tags.values())):
    raise Refused(400, 'tags must be an object of strings.')
  if body.get('schema') is not None:
    raise Refused(400, 'The schema of an index cannot be changed.')
  scaling = body.get('deployment')
  if scaling is not None:
    if entry.deployment['deployment_type'] != 'pod' or set(scaling) - {
        'replicas', 'pod_type'
    }:
      raise Refused(
          400, 'Only replicas and pod_type of a pod index can be changed.')
    entry.deployment.update(scaling)
  if protection is not None:
    entry.deletion_protection = protection
  if tags:
    merged = {**(entry.tags or {}), **tags}
    # An empty value deletes the tag.
    entry.tags = {key: value for key, value in merged.items() if value} or None


def model(entry: Entry, url: str, by_schema: bool) -> dict[str, Any]:
  """The index as the API shows it."""
  ready = not entry.describes_left
  model: dict[str, Any] = {
      'name': entry.index.name,
      'host': url,
      'status': {
          'ready': ready, 'state': 'Ready' if ready else 'Initializing'
      },
      'deletion_protection': entry.deletion_protection,
      'tags': entry.tags,
  }
  deployment = entry.deployment
  capacity = {'mode': 'OnDemand', 'status': {'state': 'Ready'}}
  if by_schema:
    model['schema'] = {'fields': entry.schema}
    model['deployment'] = deployment
    model['read_capacity'] = capacity
    return model
  model['metric'] = entry.index.metric
  model['vector_type'] = entry.index.vector_type
  if entry.index.dimension is not None:
    model['dimension'] = entry.index.dimension
  kind = deployment['deployment_type']
  inner = {
      key: value
      for key, value in deployment.items()
      if key != 'deployment_type'
  }
  if kind == 'managed':
    inner.pop('environment')
    inner['read_capacity'] = capacity
  model['spec'] = {'serverless' if kind == 'managed' else kind: inner}
  return model
