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
"""Answers kept for a while: time to live, least recently used, "not found" too.

`Cache` is what a user asks for; `AnswerCache` is the one of a process.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable
from collections.abc import Hashable
from typing import Any
from typing import Optional

from beam_connector_base.operation import MISSING

__all__ = ['AnswerCache', 'Cache', 'MISS']


@dataclasses.dataclass(frozen=True)
class Cache:
  """How long answers of a service may be used again, per process.

  Args:
    ttl: seconds an answer may be used.
    max_entries: answers kept; the least recently used goes first.
    missing_ttl: seconds that "not found" may be used; None for `ttl`, 0 for
      never. A key that is looked up before it is written wants it short.

  Raises:
    ValueError: a value is out of range; the message names it.
  """
  ttl: float
  max_entries: int = 100_000
  missing_ttl: Optional[float] = None

  def __post_init__(self) -> None:
    for name, least in (('ttl', None), ('missing_ttl', 0)):
      value = getattr(self, name)
      if value is None and name == 'missing_ttl':
        continue
      if (isinstance(value, bool) or not isinstance(value, (int, float))
          or not (value > 0 or value == least)):
        raise ValueError(f'Cache.{name} must be seconds, got {value!r}')
    if (isinstance(self.max_entries, bool)
        or not isinstance(self.max_entries, int) or self.max_entries < 1):
      raise ValueError(
          f'Cache.max_entries must be an int >= 1, got {self.max_entries!r}')


class _Miss:
  """Nothing usable is cached; not an answer."""
  __slots__ = ()

  def __repr__(self) -> str:
    return 'MISS'


MISS = _Miss()


class AnswerCache:
  """The answers of one session in this process, for all its bundle threads.

  Args:
    settings: the user's.
    clock: seconds; for tests.
  """
  def __init__(
      self, settings: Cache, clock: Callable[[], float] = time.monotonic):
    self._ttl = settings.ttl
    self._missing_ttl = (
        settings.ttl if settings.missing_ttl is None else settings.missing_ttl)
    self._most = settings.max_entries
    self._clock = clock
    self._lock = threading.Lock()
    self._entries: collections.OrderedDict[Hashable, tuple[
        Any, float]] = collections.OrderedDict()

  def __len__(self) -> int:
    return len(self._entries)

  def get(self, key: Hashable) -> Any:
    """The answer, which may be `MISSING`; `MISS` when there is none to use."""
    with self._lock:
      entry = self._entries.get(key)
      if entry is None:
        return MISS
      if entry[1] <= self._clock():
        del self._entries[key]
        return MISS
      self._entries.move_to_end(key)
      return entry[0]

  def put(self, key: Hashable, answer: Any) -> None:
    """Keeps an answer, or that there is none."""
    ttl = self._missing_ttl if answer is MISSING else self._ttl
    if ttl <= 0:
      return
    with self._lock:
      self._entries[key] = (answer, self._clock() + ttl)
      self._entries.move_to_end(key)
      while len(self._entries) > self._most:
        self._entries.popitem(last=False)
