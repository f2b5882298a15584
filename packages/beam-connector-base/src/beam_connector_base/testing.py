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
"""For tests of connectors: an event loop whose clock jumps instead of waiting.

`Runtime(loop_factory=VirtualTimeLoop)` runs back-offs of minutes in no time.
"""

from __future__ import annotations

import asyncio
from typing import Any
from typing import Optional

__all__ = ['VirtualTimeLoop']


class VirtualTimeLoop(asyncio.SelectorEventLoop):
  """A loop that, when it has nothing to do, moves its clock to the next timer.

  Args:
    grace: real seconds to wait for other threads before the clock jumps; 0 for
      tests in which nothing happens on other threads.
  """
  def __init__(self, grace: float = 0.0):
    super().__init__()
    self._now = 0.0
    selector = self._selector  # type: ignore[attr-defined]
    select = selector.select

    def jump(timeout: Optional[float] = None) -> Any:
      if timeout is None or timeout <= 0:
        return select(timeout)
      events = select(grace)
      if not events:
        self._now += timeout
      return events

    selector.select = jump

  def time(self) -> float:
    return self._now
