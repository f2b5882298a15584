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
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import Optional

import pyarrow as pa

from beam_connector_base.tuning import Tuning
from beam_harness.conformance.hooks import KINDS
from beam_harness.conformance.hooks import ConnectorHooks
from beam_harness.conformance.pipelines import Outcome
from beam_harness.conformance.pipelines import write
from beam_harness.emulators.core import LogEntry
from beam_harness.emulators.handle import Emulator
from beam_harness.faults import FaultRule

__all__ = ['KINDS', 'SinkHooks']


class SinkHooks(ConnectorHooks):
  """The questions a subclass of `SinkConformance` answers.

  `construction` assigns the sink to `sink`.

  Attributes:
    write_operation: the emulator's name for a write request.
    max_records: records per request that the service allows.
    max_bytes: bytes per request that the service allows.
    row_bytes: about how large a record is on the wire.
    extra_kinds: kinds of element beyond `KINDS` for `make_element`.
    partial_failures: the service can refuse some records of a request and
      apply the others.
    stores_by_key: writing a key again replaces its record.
  """
  write_operation: ClassVar[str]
  max_records: ClassVar[int]
  max_bytes: ClassVar[int]
  row_bytes: ClassVar[int]
  extra_kinds: ClassVar[Sequence[str]] = ()
  partial_failures: ClassVar[bool] = False
  stores_by_key: ClassVar[bool] = True

  # ---------------------------------------------------------- to be overridden

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

  # ------------------------------------------------------ what the cases share

  def poison(self, **changes: Any) -> FaultRule:
    """Makes the service refuse requests that hold a key 'poison...'."""
    return FaultRule(
        'poison', operation=self.write_operation, records='^poison', **changes)

  def fault(self, kind: str, **fields: Any) -> FaultRule:
    """A fault of write requests."""
    return FaultRule(kind, operation=self.write_operation, **fields)

  def elements(self, keys: Iterable[str], kind: str = 'dict') -> list[Any]:
    """The records of the keys; as one block for 'RecordBatch'."""
    if kind == 'RecordBatch':
      return [self.make_block([self.make_element(key) for key in keys])]
    return [self.make_element(key, kind) for key in keys]

  def expect(self, keys: Iterable[str]) -> dict[str, Any]:
    return {key: self.expected(key) for key in keys}

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

  def check(
      self,
      emulator: Emulator,
      outcome: Outcome,
      written: Iterable[str],
      refused: Iterable[str] = ()) -> None:
    """That exactly these keys were written and refused, each once."""
    written = sorted(written)
    assert self.keys_of(o.value for o in outcome.written) == written
    assert self.keys_of(
        o.value.element for o in outcome.failed) == sorted(refused)
    assert self.stored(emulator) == self.expect(written)
