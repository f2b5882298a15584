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
"""What a connector tells the read suite about itself."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import Optional

import apache_beam as beam
import pyarrow as pa

from beam_connector_base.rows import as_mapping
from beam_connector_base.tuning import Tuning
from beam_harness.conformance.hooks import ConnectorHooks
from beam_harness.conformance.hooks import alike
from beam_harness.conformance.pipelines import Applied
from beam_harness.conformance.pipelines import Output
from beam_harness.conformance.pipelines import apply
from beam_harness.emulators.core import LogEntry
from beam_harness.emulators.handle import Emulator
from beam_harness.faults import FaultRule

__all__ = ['ReadHooks']


class ReadHooks(ConnectorHooks):
  """The questions a subclass of `ReadConformance` answers.

  A source is made of shards: namespaces, partitions, tables. The keys of its
  records are listed page by page, then the records are fetched; a connector of
  which pages hold the records has no `fetch_operation`.

  `construction` assigns the source to `read`.

  Attributes:
    list_operation: the emulator's name for a request for a page.
    fetch_operation: its name for a request for records; '' if there is none.
    page: keys on a page.
    narrow: a value for `columns`, and the fields that are left out then; empty
      where a source has no columns to choose from.
    where: a filter for `make_transform`; None where there is none.
    filter_operation: the emulator's name for requests with a filter.
  """
  list_operation: ClassVar[str]
  fetch_operation: ClassVar[str] = ''
  page: ClassVar[int]
  narrow: ClassVar[tuple[Any, Sequence[str]]] = ((), ())
  where: ClassVar[Any] = None
  filter_operation: ClassVar[str] = ''

  # ---------------------------------------------------------- to be overridden
  #
  # `make_transform` gets `tuning`, and of these what a case needs: `shards` (a
  # list of names), `prefix` (of the keys), `where` (as below), `columns` (as
  # below) and `as_blocks`.

  def make_read_all(
      self, emulator: Any, *, as_blocks: bool, tuning: Tuning) -> Any:
    """The transform that takes a PCollection of read requests."""
    raise TypeError(f'{type(self).__name__} lacks make_read_all')

  def make_request(
      self,
      shards: Optional[Sequence[str]] = None,
      prefix: Optional[str] = None) -> Any:
    """An element of it."""
    raise TypeError(f'{type(self).__name__} lacks make_request')

  def store(self, emulator: Emulator, shard: str, keys: Iterable[str]) -> None:
    """Puts records into a shard, which need not be there yet."""
    raise TypeError(f'{type(self).__name__} lacks store')

  def delete(self, emulator: Emulator, shard: str, key: str) -> None:
    """Takes a record away."""
    raise TypeError(f'{type(self).__name__} lacks delete')

  def expected(self, key: str) -> Any:
    """What is read of a key: something that can be compared."""
    raise TypeError(f'{type(self).__name__} lacks expected')

  def record_of(self, row: Mapping[str, Any]) -> tuple[str, str, Any]:
    """Shard, key, and what compares with `expected`, of an element or row."""
    raise TypeError(f'{type(self).__name__} lacks record_of')

  def matches(self, key: str) -> bool:
    """Whether `where` is true for a key's record."""
    raise TypeError(f'{type(self).__name__} lacks matches')

  def make_sink(self, emulator: Emulator) -> beam.PTransform:
    """A sink that writes what was read somewhere else."""
    raise TypeError(f'{type(self).__name__} lacks make_sink')

  def copied(self, emulator: Emulator) -> dict[str, Any]:
    """What it wrote: for each key what compares with `expected`."""
    raise TypeError(f'{type(self).__name__} lacks copied')

  # ------------------------------------------------------ what the cases share

  def operation(self, step: str) -> str:
    """The emulator's name for 'list' or 'fetch'."""
    return self.list_operation if step == 'list' else self.fetch_operation

  def fault(self, step: str, kind: str, **fields: Any) -> FaultRule:
    """A fault of requests that list or fetch."""
    return FaultRule(kind, operation=self.operation(step), **fields)

  def shards(self, emulator: Emulator, n: int,
             each: int) -> dict[str, list[str]]:
    """So many shards with so many records each: their keys, by shard."""
    stored = {f's{i}': self.keys(each, prefix=f's{i}-k') for i in range(n)}
    for shard, keys in stored.items():
      self.store(emulator, shard, keys)
    return stored

  def read(
      self,
      emulator: Any,
      folder: pathlib.Path,
      *,
      on: str = 'fnapi',
      trails: bool = False,
      tuning: Optional[Tuning] = None,
      **options: Any) -> Applied:
    """Reads from the emulator; `options` are those of `make_transform`."""
    source = self.make_transform(
        emulator, tuning=tuning or self.tuning(), **options)
    return apply(
        source,
        None,
        folder, lambda records: {'records': records},
        on=on,
        trails=trails)

  def rows_of(self, outputs: Iterable[Output]) -> list[Mapping[str, Any]]:
    """The fields of all elements and of all rows of blocks."""
    rows: list[Mapping[str, Any]] = []
    for output in outputs:
      if isinstance(output.value, pa.RecordBatch):
        rows += output.value.to_pylist()
      else:
        rows.append(as_mapping(output.value))
    return rows

  def check(
      self, applied: Applied, stored: Mapping[str, Sequence[str]]) -> None:
    """That exactly these records were read, each once and whole."""
    self.check_rows(self.rows_of(applied.outputs['records']), stored)

  def check_rows(
      self,
      rows: Iterable[Mapping[str, Any]],
      stored: Mapping[str, Sequence[str]]) -> None:
    found = []
    for shard, key, value in map(self.record_of, rows):
      found.append((shard, key))
      assert alike(value, self.expected(key)), (key, value)
    assert sorted(found) == sorted(
        (shard, key) for shard, keys in stored.items() for key in keys)

  def requests(self, emulator: Emulator, step: str) -> list[LogEntry]:
    """The requests of a step, as the emulator saw them."""
    return emulator.log(self.operation(step))

  def pages(self, stored: Mapping[str, Sequence[str]]) -> int:
    """How many pages the keys of some shards are."""
    return sum(max(1, -(-len(keys) // self.page)) for keys in stored.values())
