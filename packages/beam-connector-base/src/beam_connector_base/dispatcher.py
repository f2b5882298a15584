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
"""What a DoFn, or anybody else, delivers elements through."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from typing import Any
from typing import Optional

from beam_connector_base.asking import AskingBundle
from beam_connector_base.bundle import Bundle
from beam_connector_base.cache import Cache
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Session
from beam_connector_base.runtime import Runtime
from beam_connector_base.runtime import SharedSession
from beam_connector_base.submission import Submission
from beam_connector_base.tuning import Tuning

__all__ = ['Dispatcher']

_ticket = operator.attrgetter('ticket')


class Dispatcher:
  """Delivers elements through an operation, for one DoFn instance.

  Args:
    operation: what is done.
    tuning: the user's settings.
    cache: how long answers may be used again, for operations that answer.
    runtime: for tests; the process's own by default.
  """
  def __init__(
      self,
      operation: Operation,
      tuning: Optional[Tuning] = None,
      *,
      cache: Optional[Cache] = None,
      runtime: Optional[Runtime] = None):
    self._operation = operation
    self._tuning = tuning or Tuning()
    self._cache = cache
    self._given_runtime = runtime
    self._runtime: Optional[Runtime] = None
    self._shared: Optional[SharedSession] = None
    self._pid = 0

  def open(self) -> None:
    """Opens the session, or joins the one this process has.

    Raises:
      DeliveryError: with the cause and what to do about it.
    """
    if self._shared is not None and self._pid == os.getpid():
      return
    self._runtime = self._given_runtime or Runtime.current()
    self._shared = self._runtime.acquire(
        self._operation, self._tuning, self._cache)
    self._pid = os.getpid()

  @property
  def session(self) -> Session:
    self.open()
    assert self._shared is not None
    return self._shared.session

  def bundle(self) -> Bundle:
    """A new bundle; opens the session first if need be."""
    self.open()
    assert self._runtime is not None and self._shared is not None
    assert self._shared.link is not None
    if self._shared.link.limits.answers:
      return AskingBundle(self._runtime, self._shared, self._tuning)
    return Bundle(self._runtime, self._shared, self._tuning)

  def run(self, elements: Iterable[Any]) -> list[Submission]:
    """Delivers all elements and waits, for callers without bundles.

    Returns:
      One submission per element, in the order of the elements.

    Raises:
      DeliveryError: what could not be delivered.
    """
    bundle = self.bundle()
    try:
      submissions = []
      for number, element in enumerate(elements):
        bundle.submit(element, number)
        submissions += bundle.settled()
      submissions += bundle.drain()
    except BaseException:
      bundle.cancel()
      raise
    submissions.sort(key=_ticket)
    return submissions

  def close(self) -> None:
    """Leaves the session; safe to call twice."""
    shared, self._shared = self._shared, None
    if shared is not None and self._pid == os.getpid():
      assert self._runtime is not None
      self._runtime.release(shared)
