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
"""Why a delivery stopped: the exceptions that fail a bundle.

All carry one plain string, so that they survive a process boundary, and none
carries a credential or a payload.
"""

__all__ = [
    'AttemptTimeoutError',
    'DeliveryError',
    'FatalError',
    'LostRecordError',
    'OutageError',
    'SystematicRefusalError',
]


class DeliveryError(RuntimeError):
  """The bundle can not be finished; the runner should retry it."""


class FatalError(DeliveryError):
  """No record can be delivered until somebody mends the cause."""


class OutageError(DeliveryError):
  """The service did not answer, or had no capacity, until the deadline."""


class SystematicRefusalError(DeliveryError):
  """Record after record is refused for one and the same reason."""


class LostRecordError(DeliveryError):
  """The engine's own books do not balance: a bug, never silence."""


class AttemptTimeoutError(Exception):
  """One request took longer than `attempt_timeout`; it is tried again."""
