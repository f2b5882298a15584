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
"""The limits and switches of an emulated service, as options."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from collections.abc import Mapping
from typing import Any
from typing import Literal

__all__ = ['DEFAULT_NAMESPACE', 'Rules']

#: The name under which the namespace '' is shown.
DEFAULT_NAMESPACE = '__default__'


@dataclasses.dataclass(frozen=True)
class Rules:
  """Limits and switches of an emulated service; all JSON-able.

  Where the real service's behaviour is not known there is a switch, and a
  client has to be right with it in each position.

  Attributes:
    api_keys: keys that are let in.
    max_upsert_bytes: size of an upsert's body (gRPC: of its message).
    max_request_bytes: size of any other body.
    max_upsert_vectors, max_fetch_ids, max_delete_ids, max_top_k,
      max_fetch_by_metadata: counts.
    max_result_bytes: size of a query's or fetch's answer.
    max_metadata_bytes: of one record, as compact JSON.
    max_namespaces: of one index.
    too_large: how an oversized request is refused: as OUT_OF_RANGE (REST 400),
      as 413 (gRPC RESOURCE_EXHAUSTED), or as INVALID_ARGUMENT.
    null_metadata: whether a null refuses the upsert or is dropped.
    duplicate_ids: whether the last of two vectors of one id in one request
      wins or the request is refused.
    ne_missing: whether `$ne` and `$nin` are true where the field is missing.
    default_namespace: how `describe_index_stats` spells the namespace ''.
    empty_namespace: whether a namespace outlives its last record.
    sparse_on_any_metric: whether a dense index of another metric than
      'dotproduct' takes sparse parts in writes; in queries it never does.
    sparse_without_overlap: whether a query of a sparse index also returns
      records that share no index with it, with score 0.
    match_order: 'sorted', or 'loose': the best matches in no useful order, as
      the live service may return three and more.
    lsn_headers: whether answers carry log sequence numbers.
    visibility_seconds, visibility_reads: a write is visible to queries and
      fetches only after so many seconds and so many reads of its namespace.
      Changed later, it holds for namespaces made from then on.
    scan_seconds, scan_reads: the same for lists, stats and reads by metadata;
      None for the same as above.
    describes_until_ready: how many times a new index is described as
      Initializing before it is Ready.
    discard_records: check and count upserted records but do not keep them.
    hosts: what address an index is given; see `addresses`.
    default_index: the index that answers at the emulator's own address.
    snapshot: what a snapshot holds of each namespace: its records, their
      count, or count and digest.
  """
  api_keys: Collection[str] = ('test-key',)
  max_upsert_bytes: int = 2_000_000
  max_request_bytes: int = 4_194_304  # As in reports of oversized messages.
  max_upsert_vectors: int = 1_000
  max_fetch_ids: int = 1_000
  max_delete_ids: int = 1_000
  max_top_k: int = 10_000
  max_fetch_by_metadata: int = 10_000
  max_result_bytes: int = 4_000_000
  max_metadata_bytes: int = 40_960
  max_namespaces: int = 100_000
  too_large: Literal['out_of_range', '413', 'invalid_argument'] = 'out_of_range'
  null_metadata: Literal['refuse', 'strip'] = 'refuse'
  duplicate_ids: Literal['last', 'refuse'] = 'last'
  ne_missing: Literal['match', 'skip'] = 'match'
  default_namespace: Literal['', '__default__'] = '__default__'
  empty_namespace: Literal['keep', 'drop'] = 'keep'
  sparse_on_any_metric: bool = True
  sparse_without_overlap: Literal['omit', 'include'] = 'omit'
  match_order: Literal['sorted', 'loose'] = 'sorted'
  lsn_headers: bool = True
  visibility_seconds: float = 0.0
  visibility_reads: int = 0
  scan_seconds: float | None = None
  scan_reads: int | None = None
  describes_until_ready: int = 0
  discard_records: bool = False
  hosts: Literal['auto', 'shared', 'names', 'ports'] = 'auto'
  default_index: str | None = None
  snapshot: Literal['records', 'counts', 'digest'] = 'records'

  def __post_init__(self):
    if isinstance(self.api_keys, str):
      raise ValueError('api_keys must be a collection of strings')
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      allowed = _ALLOWED.get(field.name)
      if allowed is not None and value not in allowed:
        raise ValueError(
            f'{field.name} must be one of {", ".join(map(repr, allowed))}, '
            f'got {value!r}')

  def changed(self, options: Mapping[str, Any]) -> Rules:
    """These rules with some options changed.

    Raises:
      ValueError: there is no such option, or not with this value.
    """
    known = {field.name for field in dataclasses.fields(self)}
    unknown = sorted(set(options) - known)
    if unknown:
      raise ValueError(
          f'unknown option {", ".join(unknown)}; there are '
          f'{", ".join(sorted(known))}')
    return dataclasses.replace(self, **options)


_ALLOWED: Mapping[str, tuple[Any, ...]] = {
    'too_large': ('out_of_range', '413', 'invalid_argument'),
    'null_metadata': ('refuse', 'strip'),
    'duplicate_ids': ('last', 'refuse'),
    'ne_missing': ('match', 'skip'),
    'default_namespace': ('', DEFAULT_NAMESPACE),
    'empty_namespace': ('keep', 'drop'),
    'sparse_without_overlap': ('omit', 'include'),
    'match_order': ('sorted', 'loose'),
    'hosts': ('auto', 'shared', 'names', 'ports'),
    'snapshot': ('records', 'counts', 'digest'),
}
