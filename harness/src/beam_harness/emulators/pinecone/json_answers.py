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
"""Answers to JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_harness.emulators.pinecone import requests

__all__ = ['encode']

_NOTHING = np.zeros(0, dtype=np.float32)


def encode(answer: Any) -> bytes:
  """The JSON of an answer of the data plane."""
  return _ENCODERS[type(answer)](answer).encode()


def _dump(value: Any) -> str:
  return json.dumps(value, ensure_ascii=False, separators=(',', ':'))


def _numbers(vectors: Sequence[np.ndarray | None]) -> list[str]:
  """Each vector as a JSON list, in the shortest text of each float32."""
  arrays = [_NOTHING if v is None else v for v in vectors]
  offsets = np.zeros(len(arrays) + 1, dtype=np.int32)
  np.cumsum([len(v) for v in arrays], out=offsets[1:])
  flat = np.concatenate(arrays) if arrays else _NOTHING
  # Arrow prints float32 ten times faster than Python prints floats.
  texts = pa.array(flat.astype(np.float32, copy=False)).cast(pa.string())
  joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ',')
  return [f'[{text}]' for text in joined.to_pylist()]


def _parts(item: Any, values: str) -> str:
  """The fields that vectors and matches share, as JSON text."""
  text = f'"values":{values}'
  if item.sparse is not None:
    numbers = _numbers([item.sparse.values])[0]
    indices = _dump(item.sparse.indices.tolist())
    text += f',"sparseValues":{{"indices":{indices},"values":{numbers}}}'
  if item.metadata is not None:
    text += f',"metadata":{_dump(item.metadata)}'
  return text


def _tail(answer: Any) -> str:
  usage = f'"usage":{{"readUnits":{answer.read_units}}}'
  return f'"namespace":{_dump(answer.namespace)},{usage}'


def _matches(answer: requests.Matches) -> str:
  numbers = _numbers([match.values for match in answer.matches])
  scores = pa.array(
      np.array([match.score for match in answer.matches],
               dtype=np.float32)).cast(pa.string()).to_pylist()
  matches = ','.join(
      f'{{"id":{_dump(match.id)},"score":{score},{_parts(match, values)}}}' for
      match, score, values in zip(answer.matches, scores, numbers, strict=True))
  return f'{{"matches":[{matches}],{_tail(answer)}}}'


def _found(answer: requests.Found) -> str:
  numbers = _numbers([record.values for record in answer.records])
  vectors = ','.join(
      f'{_dump(record.id)}:{{"id":{_dump(record.id)},{_parts(record, values)}}}'
      for record, values in zip(answer.records, numbers, strict=True))
  return f'{{"vectors":{{{vectors}}},{_tail(answer)}{_next(answer)}}}'


def _next(answer: Any) -> str:
  if not answer.next:
    return ''
  return f',"pagination":{{"next":{_dump(answer.next)}}}'


def _listed(answer: requests.Listed) -> str:
  vectors = _dump([{'id': record_id} for record_id in answer.ids])
  return f'{{"vectors":{vectors},{_tail(answer)}{_next(answer)}}}'


def _index_stats(answer: requests.IndexStats) -> str:
  value: dict[str, Any] = {
      'namespaces': {
          name: {
              'vectorCount': count
          } for name, count in answer.namespaces.items()
      },
      'indexFullness': 0.0,
      'totalVectorCount': sum(answer.namespaces.values()),
      'vectorType': answer.vector_type,
  }
  if answer.dimension is not None:
    value['dimension'] = answer.dimension
  if answer.metric is not None:
    value['metric'] = answer.metric
  return _dump(value)


def _namespace_info(info: requests.NamespaceInfo) -> dict[str, Any]:
  # This part of the API is snake_case, and 64-bit counts are strings.
  value: dict[str, Any] = {
      'name': info.name,
      'record_count': str(info.record_count),
      'size_bytes': str(info.size_bytes),
  }
  if info.fields is not None:
    value['schema'] = {
        'fields': {
            field: {
                'filterable': True
            } for field in info.fields
        }
    }
    value['indexed_fields'] = {'fields': info.fields}
  return value


def _namespaces(answer: requests.Namespaces) -> str:
  value: dict[str, Any] = {
      'namespaces': [_namespace_info(info) for info in answer.namespaces],
      'total_count': answer.total_count,
  }
  if answer.next:
    value['pagination'] = {'next': answer.next}
  return _dump(value)


_ENCODERS: dict[type, Callable[[Any], str]] = {
    requests.Upserted:
        lambda a: _dump({'upsertedCount': a.count}),
    requests.Deleted:
        lambda a: '{}',
    requests.Updated:
        lambda a: _dump({} if a.matched is None else
                        {'matchedRecords': a.matched}),
    requests.Matches:
        _matches,
    requests.Found:
        _found,
    requests.Listed:
        _listed,
    requests.IndexStats:
        _index_stats,
    requests.NamespaceInfo:
        lambda a: _dump(_namespace_info(a)),
    requests.Namespaces:
        _namespaces,
}
