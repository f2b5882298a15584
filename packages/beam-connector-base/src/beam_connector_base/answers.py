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
"""Who waits for which answer: one request per key, however many ask for it.

A key that is asked for while a request for it is on its way, of this bundle or
of another one of the process, waits for that request's answer (single flight).
Batches still being filled are shared within their bundle only: another bundle
must not wait for one that may take minutes to fill.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Hashable
from typing import Any
from typing import Optional

from beam_connector_base.cache import MISS
from beam_connector_base.cache import AnswerCache
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Done
from beam_connector_base.operation import Reply
from beam_connector_base.reports import Settled

__all__ = ['Answers', 'Waiter']

#: Called on the event loop's thread with the reply, at which stage it was
#: settled and after how many attempts; the reply is None when the request was
#: given up and the key must be asked for again.
Waiter = Callable[[Optional[Reply], str, int], None]


class Answers:
  """The answers of one session: cached, on their way, and who waits for them.

  Keys are pairs of destination and key. Thread-safe.

  Args:
    cache: of this process; None for none.
  """
  def __init__(self, cache: Optional[AnswerCache] = None):
    self.cache = cache
    self._lock = threading.Lock()
    self._flights: dict[Hashable, tuple[Batch, list[Waiter]]] = {}

  def cached(self, key: Hashable) -> Any:
    """The cached answer, or `MISS`."""
    return MISS if self.cache is None else self.cache.get(key)

  def join(self, key: Hashable, waiter: Waiter) -> bool:
    """Waits for the request that is on its way; False if there is none."""
    with self._lock:
      flight = self._flights.get(key)
      if flight is None:
        return False
      flight[1].append(waiter)
      return True

  def depart(self, batch: Batch) -> None:
    """The batch's requests are on their way from now on."""
    with self._lock:
      for key in batch.keys():
        self._flights.setdefault((batch.destination, key), (batch, []))

  def arrive(self, owner: Batch, settled: Settled) -> None:
    """Hands out final replies to a part of the batch `owner`."""
    part = settled.batch
    replies: Any = settled.replies
    for key, reply in zip(part.keys(), replies, strict=True):
      at = (part.destination, key)
      if self.cache is not None and isinstance(reply, Done):
        self.cache.put(at, reply.value)
      for waiter in self._land(owner, at):
        waiter(reply, settled.stage, settled.attempts)

  def give_up(self, owner: Batch) -> None:
    """The batch has ended: those who still wait for it must ask again."""
    for key in owner.keys():
      for waiter in self._land(owner, (owner.destination, key)):
        waiter(None, '', 0)

  def _land(self, owner: Batch, at: Hashable) -> list[Waiter]:
    with self._lock:
      flight = self._flights.get(at)
      if flight is None or flight[0] is not owner:
        return []
      del self._flights[at]
      return flight[1]
