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
"""What a data-plane request asks and what is answered, without a transport."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = [
    'CreateNamespace',
    'Delete',
    'DeleteNamespace',
    'Deleted',
    'DescribeNamespace',
    'Fetch',
    'FetchByMetadata',
    'Found',
    'IndexStats',
    'List',
    'ListNamespaces',
    'Listed',
    'Match',
    'Matches',
    'NamespaceInfo',
    'Namespaces',
    'Query',
    'Record',
    'Sparse',
    'Stats',
    'Update',
    'Updated',
    'Upsert',
    'Upserted',
    'Vector',
]

Metadata = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sparse:
  """A sparse vector: uint32 indices and float32 values of one length."""
  indices: np.ndarray
  values: np.ndarray


@dataclasses.dataclass(slots=True)
class Vector:
  """One vector of an upsert, as sent.

  Attributes:
    id: the record's id.
    values: float32 of shape (n,), n being whatever was sent; 0 for none.
    sparse: the sparse part, or None.
    metadata: JSON values, or None.
  """
  id: str
  values: np.ndarray
  sparse: Sparse | None = None
  metadata: Metadata | None = None


@dataclasses.dataclass(slots=True)
class Upsert:
  namespace: str
  vectors: list[Vector]


@dataclasses.dataclass(slots=True)
class Query:
  namespace: str
  top_k: int
  vector: np.ndarray
  id: str = ''
  sparse: Sparse | None = None
  filter: Mapping[str, Any] | None = None
  include_values: bool = False
  include_metadata: bool = False
  scan_factor: float | None = None
  max_candidates: int | None = None


@dataclasses.dataclass(slots=True)
class Fetch:
  namespace: str
  ids: list[str]


@dataclasses.dataclass(slots=True)
class FetchByMetadata:
  namespace: str
  filter: Mapping[str, Any] | None = None
  limit: int | None = None
  pagination_token: str | None = None


@dataclasses.dataclass(slots=True)
class Delete:
  namespace: str
  ids: list[str] = dataclasses.field(default_factory=list)
  delete_all: bool = False
  filter: Mapping[str, Any] | None = None


@dataclasses.dataclass(slots=True)
class Update:
  namespace: str
  id: str
  values: np.ndarray
  sparse: Sparse | None = None
  set_metadata: Metadata | None = None
  filter: Mapping[str, Any] | None = None
  dry_run: bool = False


@dataclasses.dataclass(slots=True)
class List:
  namespace: str
  prefix: str = ''
  limit: int | None = None
  pagination_token: str | None = None


@dataclasses.dataclass(slots=True)
class Stats:
  filter: Mapping[str, Any] | None = None


@dataclasses.dataclass(slots=True)
class ListNamespaces:
  prefix: str = ''
  limit: int | None = None
  pagination_token: str | None = None


@dataclasses.dataclass(slots=True)
class DescribeNamespace:
  namespace: str


@dataclasses.dataclass(slots=True)
class DeleteNamespace:
  namespace: str


@dataclasses.dataclass(slots=True)
class CreateNamespace:
  name: str
  fields: list[str] | None = None  # The filterable ones; None for no schema.


@dataclasses.dataclass(slots=True)
class Record:
  """One stored record as an answer carries it.

  `values` may be a view of the store: encode it before the next request.
  """
  id: str
  values: np.ndarray
  sparse: Sparse | None
  metadata: Metadata | None


@dataclasses.dataclass(slots=True)
class Match:
  id: str
  score: float
  values: np.ndarray | None = None
  sparse: Sparse | None = None
  metadata: Metadata | None = None


@dataclasses.dataclass(slots=True)
class Upserted:
  count: int


@dataclasses.dataclass(slots=True)
class Deleted:
  pass


@dataclasses.dataclass(slots=True)
class Updated:
  matched: int | None


@dataclasses.dataclass(slots=True)
class Matches:
  matches: list[Match]
  namespace: str
  read_units: int


@dataclasses.dataclass(slots=True)
class Found:
  """Answer of a fetch, by id or by metadata; `paged` tells which."""
  records: list[Record]
  namespace: str
  read_units: int
  next: str | None = None
  paged: bool = False

  def __iter__(self) -> Iterator[Record]:
    return iter(self.records)


@dataclasses.dataclass(slots=True)
class Listed:
  ids: list[str]
  namespace: str
  read_units: int
  next: str | None = None


@dataclasses.dataclass(slots=True)
class IndexStats:
  namespaces: dict[str, int]
  dimension: int | None
  metric: str | None
  vector_type: str


@dataclasses.dataclass(slots=True)
class NamespaceInfo:
  name: str
  record_count: int
  size_bytes: int
  fields: list[str] | None = None


@dataclasses.dataclass(slots=True)
class Namespaces:
  namespaces: list[NamespaceInfo]
  total_count: int
  next: str | None = None
