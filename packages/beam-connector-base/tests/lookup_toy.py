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
"""A dictionary as a service that answers, for the tests of lookups."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any

import pyarrow as pa

from beam_connector_base.lookup import Join
from beam_connector_base.operation import FATAL
from beam_connector_base.operation import MISSING
from beam_connector_base.operation import PERMANENT
from beam_connector_base.operation import TRANSIENT
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Session
from beam_connector_base.operation import Verdict

#: The services that operations find by name, as they would find a server.
SERVICES: dict[str, Dictionary] = {}


class Dictionary:
  """Answers with a key in upper case, and keeps a log of what was asked.

  Keys that start with 'missing' are not there, with 'refused' are refused.
  """
  def __init__(self) -> None:
    self.asked: list[str] = []
    self.requests = 0
    self.fatal = 0  # requests from now on that fail for good
    self.unreachable = False
    self.sent = threading.Semaphore(0)
    self.answering = threading.Event()
    self.answering.set()

  async def ask(self, keys: list[str]) -> list[Any]:
    self.requests += 1
    self.asked += keys
    self.sent.release()
    while not self.answering.is_set():
      await asyncio.sleep(0.001)
    if self.unreachable:
      raise ConnectionResetError('nobody is there')
    if self.fatal:
      self.fatal -= 1
      raise PermissionError('the key was revoked')
    return [_answer(key) for key in keys]


def _answer(key: str) -> Any:
  if key.startswith('missing'):
    return Done(MISSING)
  if key.startswith('refused'):
    return Failed(PERMANENT, f'{key} is not a word')
  return Done(None if key == 'nothing' else key.upper())


@dataclasses.dataclass(frozen=True)
class LookUp(Operation):
  """Looks words up in the dictionary of that name."""
  name: str
  max_records: int = 3
  max_bytes: int = 1000

  @property
  def target(self) -> str:
    return f'dictionary {self.name!r}'

  async def open(self) -> Session:
    return LookUpSession(
        SERVICES[self.name],
        Limits(
            max_records=self.max_records,
            max_bytes=self.max_bytes,
            answers=True))

  def classify(self, error: BaseException) -> Verdict:
    if isinstance(error, ConnectionResetError):
      return TRANSIENT
    return dataclasses.replace(FATAL, reason=str(error))


class LookUpSession(Session):
  def __init__(self, service: Dictionary, limits: Limits):
    self.service = service
    self.limits = limits

  def encode(self, element: Any) -> Any:
    if isinstance(element, pa.RecordBatch):
      keys = element.column('word').to_pylist()
      good = [i for i, key in enumerate(keys) if key is not None]
      for i, key in enumerate(keys):
        if key is None:
          yield Invalid(i, "'word' is null")
      rows = [keys[i].encode() for i in good]
      ends = [0]
      for row in rows:
        ends.append(ends[-1] + len(row))
      yield Block('', rows, ends, [keys[i] for i in good], None, good)
    elif element['word'] is None:
      yield Invalid(0, "'word' is null")
    else:
      yield Block('', element['word'].encode(), None, [element['word']])

  async def send(self, batch: Any) -> Any:
    return await self.service.ask(list(batch.keys()))


class AddMeaning(Join):
  """Puts the answer into the field 'meaning'."""
  def row(self, element: Any, answer: Any) -> Any:
    return {**element, 'meaning': None if answer is MISSING else answer}

  def block(self, batch: Any, answers: list[Any]) -> Any:
    column = [None if a is MISSING else a for a in answers]
    return batch.append_column('meaning', pa.array(column, pa.string()))

  def key(self, element: Any, row: int) -> str:
    if isinstance(element, pa.RecordBatch):
      return element.column('word')[row].as_py()
    return element['word']
