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
"""An emulated Pinecone: control plane and vector data plane.

REST and gRPC on one port, with the service's limits, semantics and errors.
Beyond the emulator's usual handle:

- options, at the start or through `seed({'$options': {...}})`: `Rules`;
- `counts(emulator)` and `digest(emulator)` look at many records cheaply.
"""

from __future__ import annotations

from typing import Any

from beam_harness.emulators.pinecone.rules import Rules
from beam_harness.emulators.pinecone.service import PineconeService
from beam_harness.emulators.pinecone.state import counts
from beam_harness.emulators.pinecone.state import digest
from beam_harness.emulators.pinecone.state import digest_of

__all__ = [
    'PineconeService',
    'Rules',
    'counts',
    'create_service',
    'digest',
    'digest_of',
]


def create_service(**options: Any) -> PineconeService:
  """A new emulated project.

  Args:
    **options: limits and switches, see `Rules`.

  Raises:
    ValueError: an option is unknown or has no such value.
  """
  return PineconeService(**options)
