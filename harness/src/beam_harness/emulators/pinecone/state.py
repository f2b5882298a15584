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
"""The stored state as JSON: what tests put in and look at."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import numpy as np

from beam_harness.emulators.pinecone import limits
from beam_harness.emulators.pinecone.control import ControlPlane
from beam_harness.emulators.pinecone.errors import ServiceError
from beam_harness.emulators.pinecone.requests import Record
from beam_harness.emulators.pinecone.requests import Sparse
from beam_harness.emulators.pinecone.requests import Vector
from beam_harness.emulators.pinecone.rules import Rules
from beam_harness.emulators.pinecone.shapes import Refused
from beam_harness.emulators.pinecone.store import Index
from beam_harness.emulators.pinecone.store import Namespace
from beam_harness.emulators.pinecone.store import record_digest

__all__ = ['counts', 'digest', 'digest_of', 'seed', 'snapshot']

_EVERYWHERE = {'serverless': {'cloud': 'aws', 'region': 'us-east-1'}}


def seed(
    control: ControlPlane,
    state: Mapping[str, Any],
    rules: Rules,
    clock: Callable[[], float]) -> None:
  """Puts indexes and records in; every reader sees them at once.

  Args:
    control: where the indexes are.
    state: {index: {namespace: {id: record}}}, a record being {'values',
      'sparse', 'metadata'}, each of which may be missing. An index that is not
      there is made: with the dimension of its first record and the metric
      cosine, or as {'$indexes': {index: options}} says, the options being the
      body of a create request of either shape ('spec' may be left out).
    rules: limits, which hold for seeds too, except for counts.
    clock: for namespaces.

  Raises:
    ValueError: the state is none, or the service would refuse it.
  """
  try:
    for name, options in (state.get('$indexes') or {}).items():
      if name not in control.entries:
        control.create({'spec': _EVERYWHERE, **options, 'name': name}, None)
    for name, namespaces in state.items():
      if name == '$indexes':
        continue
      index = _index(control, name, namespaces)
      for namespace_name, records in namespaces.items():
        _seed_namespace(index, namespace_name, records, rules, clock)
  except (Refused, ServiceError) as e:
    raise ValueError(f'the service would refuse this: {e}') from e
  except (AttributeError, KeyError, TypeError) as e:
    raise ValueError(f'not a state of this service: {e}') from e


def _index(
    control: ControlPlane, name: str, namespaces: Mapping[str, Any]) -> Index:
  if name not in control.entries:
    dimension = max((
        len(record.get('values') or ())
        for records in namespaces.values()
        for record in records.values()),
                    default=0)
    shape = {'dimension': dimension} if dimension else {'vector_type': 'sparse'}
    control.create({'name': name, 'spec': _EVERYWHERE, **shape}, None)
  return control.entries[name].index


def _seed_namespace(
    index: Index,
    name: str,
    records: Mapping[str, Any],
    rules: Rules,
    clock: Callable[[], float]) -> None:
  name = limits.check_namespace(name)
  namespace = index.namespaces.get(name)
  if namespace is None:
    namespace = index.namespaces[name] = Namespace(
        index.dimension, rules, clock)
  if not records:
    return
  vectors = [_vector(record_id, value) for record_id, value in records.items()]
  dense = limits.check_vectors(
      rules.changed({'max_upsert_vectors': len(vectors)}),
      vectors,
      index.dimension,
      index.queries_sparse or rules.sparse_on_any_metric)
  namespace.seed(
      lambda rows: rows.put([v.id for v in vectors], dense, [
          v.sparse for v in vectors
      ], [v.metadata for v in vectors]))


def _vector(record_id: str, value: Mapping[str, Any]) -> Vector:
  sparse = value.get('sparse')
  return Vector(
      record_id,
      np.array(value.get('values') or (), dtype=np.float32),
      None if sparse is None else Sparse(
          np.array(sparse['indices'], dtype=np.uint32),
          np.array(sparse['values'], dtype=np.float32)),
      value.get('metadata'))


def snapshot(control: ControlPlane, rules: Rules) -> dict[str, Any]:
  """All committed records, visible or not: {index: {namespace: ...}}.

  The default namespace is ''. What stands for a namespace is up to
  `rules.snapshot`: 'records': {id: {'values', 'sparse', 'metadata'}}, which
  `seed` takes back; 'counts': the number of records; 'digest': {'count',
  'digest'}, see `digest_of`.
  """
  shown = {
      'records': _records, 'counts': _count, 'digest': _digest
  }[rules.snapshot]
  return {
      name: {
          namespace_name: shown(namespace)
          for namespace_name, namespace in entry.index.namespaces.items()
      } for name, entry in control.entries.items()
  }


def _records(namespace: Namespace) -> dict[str, Any]:
  return {
      record.id: {
          'values':
              record.values.tolist(),
          'sparse':
              None if record.sparse is None else {
                  'indices': record.sparse.indices.tolist(),
                  'values': record.sparse.values.tolist(),
              },
          'metadata':
              record.metadata,
      } for record in namespace.committed
  }


def _count(namespace: Namespace) -> int:
  return len(namespace.committed) + namespace.discarded


def _digest(namespace: Namespace) -> dict[str, Any]:
  return {
      'count': len(namespace.committed), 'digest': _sum(namespace.committed)
  }


def _sum(records: Iterable[Record]) -> str:
  total = sum(map(record_digest, records)) % 2**128
  return f'{total:032x}'


def digest_of(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """What `digest` gives for a namespace that holds just these records.

  Args:
    records: {id: {'values', 'sparse', 'metadata'}}, each of which may be
      missing; values of any float type are rounded to float32, numbers in
      metadata become doubles, as the service stores them.
  """
  rules = Rules(null_metadata='strip')
  stored = []
  for record_id, value in records.items():
    vector = _vector(
        record_id, {
            **value, 'values': np.asarray(value.get('values', ())).tolist()
        })
    metadata = vector.metadata
    if metadata is not None:
      metadata = limits.check_metadata(rules, metadata) or None
    stored.append(Record(vector.id, vector.values, vector.sparse, metadata))
  return {'count': len(stored), 'digest': _sum(stored)}


def counts(emulator: Any) -> dict[str, dict[str, int]]:
  """Number of records by index and namespace, of a running emulator."""
  return _as(emulator, 'counts')


def digest(emulator: Any) -> dict[str, dict[str, dict[str, Any]]]:
  """Count and digest by index and namespace, of a running emulator.

  Cheap to transfer and compare however many the records are.
  """
  return _as(emulator, 'digest')


def _as(emulator: Any, kind: str) -> Any:
  emulator.seed({'$options': {'snapshot': kind}})
  try:
    return emulator.snapshot()
  finally:
    emulator.seed({'$options': {'snapshot': 'records'}})
