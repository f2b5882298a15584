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
"""The emulated Pinecone that all sides talk to, in a process of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from beam_connector_base import EnvSecret
from beam_harness.demo.index import create_index
from beam_harness.emulators import launch
from beam_harness.emulators.handle import Emulator
from beam_harness.faults import FaultRule
from beam_pinecone import PineconeConnection

__all__ = ['INDEX', 'KEY_VARIABLE', 'Place', 'connection_to', 'opened']

INDEX = 'bench'
#: Not PINECONE_API_KEY: a real key has no business in a benchmark.
KEY_VARIABLE = 'BEAM_HARNESS_BENCH_API_KEY'


class Place:
  """An emulator with one index.

  Args:
    emulator: a running one.
    dimension: of the index.
  """
  def __init__(self, emulator: Emulator, dimension: int):
    self.emulator = emulator
    self.api_key = emulator.environment()['PINECONE_API_KEY']
    os.environ[KEY_VARIABLE] = self.api_key
    self.host = create_index(emulator.url, self.api_key, INDEX, dimension)

  @property
  def address(self) -> str:
    """Host and port."""
    return self.host.rpartition('/')[2]

  @property
  def connection(self) -> PineconeConnection:
    return connection_to(self.host)

  def delay(self, seconds: float, operation: str = '*') -> None:
    """Every answer comes so much later from now on; 0 ends it."""
    self.emulator.faults(
        [FaultRule('latency', operation=operation, seconds=seconds
                  )] if seconds else None)

  def records(self, operation: str) -> int:
    """Records in the requests that were answered ok so far."""
    return self.emulator.count(operation).ok_records


def connection_to(host: str) -> PineconeConnection:
  return PineconeConnection(host=host, api_key=EnvSecret(KEY_VARIABLE))


@contextlib.contextmanager
def opened(dimension: int, **options: Any) -> Iterator[Place]:
  """Starts an emulator and makes an index; stops it in the end.

  Args:
    dimension: of the index.
    **options: of the emulator's service.
  """
  before = os.environ.get(KEY_VARIABLE)
  with launch.start('pinecone', mode='process', options=options) as emulator:
    try:
      yield Place(emulator, dimension)
    finally:
      if before is None:
        os.environ.pop(KEY_VARIABLE, None)
      else:
        os.environ[KEY_VARIABLE] = before
