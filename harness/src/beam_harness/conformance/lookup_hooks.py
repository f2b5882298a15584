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
"""What a connector tells the lookup suite about itself."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import Optional

import pyarrow as pa
from apache_beam.pvalue import PCollection

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

__all__ = ['LookedUp', 'LookupHooks']


class LookedUp(Applied):
  """What a pipeline that looked up left behind."""
  @property
  def joined(self) -> list[Output]:
    return self.outputs['joined']

  @property
  def missing(self) -> list[Output]:
    return self.outputs['missing']

  @property
  def failed(self) -> list[Output]:
    return self.outputs['failed']


class LookupHooks(ConnectorHooks):
  """The questions a subclass of `LookupConformance` answers.

  `construction` assigns the lookup to `lookup`.

  Attributes:
    ask_operation: the emulator's name for a request that asks.
    max_records: keys per request that the service allows; 1 where each key is
      a request of its own.
    together: requests that are handed over together, and time out together.
    extra_kinds: kinds of element beyond `KINDS` for `make_question`.
    partial_failures: the service can refuse to answer for some keys of a
      request and answer for the others.
    null_key: what becomes of an element whose key is null: 'refused', it is a
      failed record; 'missing', as if the service knew nothing; '' where there
      is no such thing as a null key.
    answers_nothing: the service can say that it knows nothing under a key.
  """
  ask_operation: ClassVar[str]
  max_records: ClassVar[int]
  together: ClassVar[int] = 1
  extra_kinds: ClassVar[Sequence[str]] = ()
  partial_failures: ClassVar[bool] = False
  null_key: ClassVar[str] = 'refused'
  answers_nothing: ClassVar[bool] = True

  # ---------------------------------------------------------- to be overridden
  #
  # `make_transform` gets `on_missing`, `on_error`, `cache` and `tuning`.

  def make_handler(
      self,
      emulator: Any,
      *,
      secret_variable: Optional[str] = None,
      **options: Any) -> Any:
    """The same lookup as a handler for Beam's `Enrichment`.

    Its `options` are `on_missing`, `cache`, `tuning` and those of batches.
    """
    raise TypeError(f'{type(self).__name__} lacks make_handler')

  def store(self, emulator: Emulator, keys: Iterable[str]) -> None:
    """Makes the emulator know these keys, without a trace in its log."""
    raise TypeError(f'{type(self).__name__} lacks store')

  def make_question(self, key: str, kind: str = 'dict') -> Any:
    """An element that asks for the key, of that kind.

    It has a field besides the key, so that one sees which element an answer
    was joined to. 'RecordBatch' is never asked for: see `make_block`.
    """
    raise TypeError(f'{type(self).__name__} lacks make_question')

  def make_block(
      self, questions: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """A block of the elements that these dicts are."""
    return pa.RecordBatch.from_pylist([dict(each) for each in questions])

  def null_question(self) -> dict[str, Any]:
    """An element, as a dict, whose key is None."""
    return {**self.make_question('null'), self.key_field: None}

  def bad_question(self) -> dict[str, Any]:
    """An element, as a dict, that is refused before it is sent.

    Of the same fields and types as the others, so that it fits in a block.
    """
    raise TypeError(f'{type(self).__name__} lacks bad_question')

  def expected(self, key: str) -> Any:
    """The answer for a key that was stored: something that can be compared."""
    raise TypeError(f'{type(self).__name__} lacks expected')

  def answer_of(self, joined: Mapping[str, Any]) -> Any:
    """The answer in a joined element or row, to compare; None for nulls."""
    raise TypeError(f'{type(self).__name__} lacks answer_of')

  def outputs_of(self, result: Any) -> dict[str, PCollection]:
    """The outputs of the transform by name."""
    return {
        'joined': result, 'missing': result.missing, 'failed': result.failed
    }

  # ------------------------------------------------------ what the cases share

  def poison(self, **changes: Any) -> FaultRule:
    """Makes the service refuse requests that ask for a key 'poison...'."""
    return FaultRule(
        'poison', operation=self.ask_operation, records='^poison', **changes)

  def fault(self, kind: str, **fields: Any) -> FaultRule:
    """A fault of requests that ask."""
    return FaultRule(kind, operation=self.ask_operation, **fields)

  def questions(self, keys: Iterable[str], kind: str = 'dict') -> list[Any]:
    """The elements that ask for the keys; as one block for 'RecordBatch'."""
    if kind == 'RecordBatch':
      return [self.make_block([self.make_question(key) for key in keys])]
    return [self.make_question(key, kind) for key in keys]

  def known(self, emulator: Emulator, n: int) -> tuple[list[str], list[str]]:
    """So many keys that are stored, and some that are not, if there are such.
    """
    keys = self.keys(n)
    self.store(emulator, keys)
    return keys, (
        self.keys(3, prefix='missing') if self.answers_nothing else [])

  def per_request(self, most: int) -> int:
    """Keys in a full request when `Tuning(max_records=most)`."""
    return min(most, self.max_records)

  def look_up(
      self,
      emulator: Any,
      elements: Optional[Sequence[Any]],
      folder: pathlib.Path,
      *,
      tuning: Optional[Tuning] = None,
      on_error: Any = 'collect',
      secret_variable: Optional[str] = None,
      on_missing: str = 'null',
      cache: Any = None,
      **how: Any) -> LookedUp:
    """Asks the emulator for elements; `how` is for `pipelines.apply`."""
    lookup = self.make_transform(
        emulator,
        tuning=tuning or self.tuning(),
        on_error=on_error,
        on_missing=on_missing,
        cache=cache,
        secret_variable=secret_variable)
    applied = apply(lookup, elements, folder, self.outputs_of, **how)
    return LookedUp(applied.outputs, applied.result)

  def requests(self, emulator: Emulator) -> list[LogEntry]:
    """The requests that asked, as the emulator saw them."""
    return emulator.log(self.ask_operation)

  def asked(self, emulator: Emulator) -> int:
    """How many keys were asked for, in all requests."""
    return sum(entry.records for entry in self.requests(emulator))

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
      self,
      outcome: LookedUp,
      found: Iterable[str],
      nothing: Iterable[str] = (),
      refused: Iterable[str] = ()
  ) -> None:
    """That these elements came out, each once and with its own answer.

    Args:
      outcome: of the pipeline.
      found: keys of those joined with what was stored.
      nothing: keys of those joined with nulls.
      refused: keys of the failed records.
    """
    self.check_joined(self.rows_of(outcome.joined), found, nothing)
    assert self.keys_of(
        o.value.element for o in outcome.failed) == sorted(refused)

  def check_joined(
      self,
      rows: Iterable[Mapping[str, Any]],
      found: Iterable[str],
      nothing: Iterable[str] = ()) -> None:
    """The same for joined rows alone."""
    with_answer, without = [], []
    for row in rows:
      key = row[self.key_field]
      question = self.make_question(key)
      assert alike({field: row.get(field) for field in question}, question)
      answer = self.answer_of(row)
      if answer is None:
        without.append(key)
      else:
        with_answer.append(key)
        assert alike(answer, self.expected(key)), (key, answer)
    assert sorted(with_answer) == sorted(found)
    assert sorted(without) == sorted(nothing)
