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
"""What a connector tells the sink suite about itself."""

from __future__ import annotations

import pathlib
import types
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import Optional

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_connector_base.rows import as_mapping
from beam_connector_base.tuning import Tuning
from beam_harness.conformance.pipelines import Outcome
from beam_harness.conformance.pipelines import write
from beam_harness.emulators.core import LogEntry
from beam_harness.emulators.handle import Emulator
from beam_harness.faults import FaultRule

__all__ = ['KINDS', 'SinkHooks']

#: The kinds of element that every sink takes.
KINDS = ('dict', 'Row', 'NamedTuple', 'dataclass', 'RecordBatch')


class SinkHooks:
  """The questions a subclass of `SinkConformance` answers.

  Besides these it defines a fixture `emulator`: the handle of an emulator that
  was reset, is ready to take writes, and accepts the credential `secret`. The
  environment variable `secret_variable` holds the credential while a test
  runs.

  A record has a key, text such as 'k00007'; everything else in it follows from
  the key, so that the suite can say what must be stored.

  Attributes:
    transform: the public transform.
    namespace: of its metrics.
    target: what its error messages and display data call the target.
    write_operation: the emulator's name for a write request.
    lineage: what a job that writes names as its targets.
    secret: the credential's value.
    secret_variable: the environment variable it is in.
    key_field: the field that holds the key.
    max_records: records per request that the service allows.
    max_bytes: bytes per request that the service allows.
    row_bytes: about how large a record is on the wire.
    extra_kinds: kinds of element beyond `KINDS` for `make_element`.
    partial_failures: the service can refuse some records of a request and
      apply the others.
    stores_by_key: writing a key again replaces its record.
    idle_requests: operations a sink may ask for although it has nothing to
      write, to see whether the service is there.
    fatal_message: regular expression that the error for a missing permission
      matches, besides naming the target.
    refusal_status: what `http_status` of a record says that the service
      refused.
    construction: Python source that imports the connector and assigns the sink
      to `sink`, as a user would write it.
    heavy_modules: modules that constructing the sink must not import.
  """
  transform: ClassVar[type]
  namespace: ClassVar[str]
  target: ClassVar[str]
  write_operation: ClassVar[str]
  lineage: ClassVar[Sequence[str]]
  secret: ClassVar[str]
  secret_variable: ClassVar[str]
  key_field: ClassVar[str] = 'id'
  max_records: ClassVar[int]
  max_bytes: ClassVar[int]
  row_bytes: ClassVar[int]
  extra_kinds: ClassVar[Sequence[str]] = ()
  partial_failures: ClassVar[bool] = False
  stores_by_key: ClassVar[bool] = True
  idle_requests: ClassVar[Sequence[str]] = ()
  fatal_message: ClassVar[str] = '(?i)key|credential|permission|unauth|denied'
  refusal_status: ClassVar[int] = 400
  construction: ClassVar[str]
  heavy_modules: ClassVar[Sequence[str]] = ()

  # ---------------------------------------------------------- to be overridden

  def make_transform(
      self,
      emulator: Any,
      *,
      secret_variable: Optional[str] = None,
      **options: Any) -> beam.PTransform:
    """The sink, writing to the emulator.

    Args:
      emulator: whose `host` and `url` it writes to.
      secret_variable: the environment variable its credential is in; None is
        the usual one.
      **options: `on_error` and `tuning`, passed on.
    """
    raise TypeError(f'{type(self).__name__} lacks make_transform')

  def make_element(self, key: str, kind: str = 'dict') -> Any:
    """The record with that key as an element of that kind.

    Of every kind, but 'RecordBatch' (see `make_block`) and 'Row' and 'dict',
    whose defaults are here.
    """
    raise TypeError(f'{type(self).__name__} lacks make_element')

  def make_block(self, elements: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """A block of the records that these dicts are."""
    return pa.RecordBatch.from_pylist([dict(each) for each in elements])

  def stored(self, emulator: Emulator) -> dict[str, Any]:
    """What the emulator holds: for each key something that can be compared."""
    raise TypeError(f'{type(self).__name__} lacks stored')

  def expected(self, key: str) -> Any:
    """What is stored for the key once its record was written."""
    raise TypeError(f'{type(self).__name__} lacks expected')

  def bad_element(self, key: str) -> dict[str, Any]:
    """A record, as a dict, that the sink must refuse before it sends it.

    Of the same fields and types as the others, so that it fits in a block.
    """
    raise TypeError(f'{type(self).__name__} lacks bad_element')

  def large_element(self, key: str, nbytes: int) -> dict[str, Any]:
    """A valid record, as a dict, of more than so many bytes on the wire."""
    raise TypeError(f'{type(self).__name__} lacks large_element')

  def same(self, a: Any, b: Any) -> bool:
    """Whether two elements hold the same.

    Not whether they are of one type: a `beam.Row` that passed its coder is a
    NamedTuple that Beam made up.
    """
    if isinstance(a, pa.RecordBatch) and isinstance(b, pa.RecordBatch):
      return a.schema == b.schema and _alike(a.to_pylist(), b.to_pylist())
    return _alike(as_mapping(a), as_mapping(b))

  # ------------------------------------------------------ what the cases share

  def poison(self, **changes: Any) -> FaultRule:
    """Makes the service refuse requests that hold a key 'poison...'."""
    return FaultRule(
        'poison', operation=self.write_operation, records='^poison', **changes)

  def fault(self, kind: str, **fields: Any) -> FaultRule:
    """A fault of write requests."""
    return FaultRule(kind, operation=self.write_operation, **fields)

  @staticmethod
  def keys(n: int, prefix: str = 'k') -> list[str]:
    return [f'{prefix}{i:05d}' for i in range(n)]

  def elements(self, keys: Iterable[str], kind: str = 'dict') -> list[Any]:
    """The records of the keys; as one block for 'RecordBatch'."""
    if kind == 'RecordBatch':
      return [self.make_block([self.make_element(key) for key in keys])]
    return [self.make_element(key, kind) for key in keys]

  def keys_of(self, elements: Iterable[Any]) -> list[str]:
    """The keys of the records in some elements, sorted."""
    keys: list[str] = []
    for element in elements:
      if isinstance(element, pa.RecordBatch):
        keys += element.column(self.key_field).to_pylist()
      else:
        keys.append(self.key_of(element))
    return sorted(keys)

  def key_of(self, element: Any) -> str:
    """The key of a single record; override for `extra_kinds`."""
    return as_mapping(element)[self.key_field]

  def expect(self, keys: Iterable[str]) -> dict[str, Any]:
    return {key: self.expected(key) for key in keys}

  @staticmethod
  def tuning(**changes: Any) -> Tuning:
    """Patience for tests: nothing waits long, nothing gives up early."""
    return Tuning(
        **{
            'backoff': 0.01,
            'deadline': 30.0,
            'attempt_timeout': 10.0,
            'open_deadline': 10.0,
            **changes
        })

  def write(
      self,
      emulator: Any,
      elements: Sequence[Any],
      folder: pathlib.Path,
      *,
      tuning: Optional[Tuning] = None,
      on_error: Any = 'collect',
      secret_variable: Optional[str] = None,
      **how: Any) -> Outcome:
    """Writes elements to the emulator; `how` is for `pipelines.write`."""
    sink = self.make_transform(
        emulator,
        tuning=tuning or self.tuning(),
        on_error=on_error,
        secret_variable=secret_variable)
    return write(sink, elements, folder, **how)

  def requests(self, emulator: Emulator) -> list[LogEntry]:
    """The write requests that the emulator saw."""
    return emulator.log(self.write_operation)

  @staticmethod
  def ended(entry: LogEntry) -> float:
    """When a request that is over ended."""
    assert entry.ended is not None, entry
    return entry.ended

  def check(
      self,
      emulator: Emulator,
      outcome: Outcome,
      written: Iterable[str],
      refused: Iterable[str] = (),
      apart: Iterable[str] = ()
  ) -> None:
    """That exactly these keys were written and refused, each once.

    Args:
      written, refused: the keys.
      apart: keys that may be stored or not: a fault that carries a request out
        and loses the answer takes precedence over one that refuses records.
    """
    written = sorted(written)
    assert self.keys_of(o.value for o in outcome.written) == written
    assert self.keys_of(
        o.value.element for o in outcome.failed) == sorted(refused)
    stored = self.stored(emulator)
    for key in apart:
      stored.pop(key, None)
    assert stored == self.expect(written)

  @staticmethod
  def unreachable() -> Any:
    """Looks like an emulator, but nobody listens there."""
    # Port 9 of loopback ('discard') is closed on machines of this century.
    return types.SimpleNamespace(host='127.0.0.1:9', url='http://127.0.0.1:9')


def _alike(a: Any, b: Any) -> bool:
  """Equality that is true for NaN, and one truth for arrays."""
  if isinstance(a, Mapping) and isinstance(b, Mapping):
    return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
  if isinstance(a, (list, tuple, np.ndarray)) and not isinstance(b, str):
    return len(a) == len(b) and all(map(_alike, a, b))
  return bool(a == b) or (a != a and b != b)
