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
"""What a connector tells every suite about itself, and what all cases share."""

from __future__ import annotations

import types
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import Optional

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_connector_base.rows import as_mapping
from beam_connector_base.tuning import Tuning
from beam_harness.conformance.pipelines import Output
from beam_harness.emulators.core import LogEntry

__all__ = ['KINDS', 'PASSING_FAULTS', 'ConnectorHooks', 'alike']

#: The kinds of element that every transform takes.
KINDS = ('dict', 'Row', 'NamedTuple', 'dataclass', 'RecordBatch')

#: Faults after which the same request works: name, rule, other tuning.
PASSING_FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    'throttled': ({
        'kind': 'throttle', 'count': 2
    }, {}),
    'internal error': ({
        'kind': 'error', 'status': 500, 'count': 2
    }, {}),
    'unavailable': ({
        'kind': 'error', 'status': 503, 'count': 2
    }, {}),
    'timeout': ({
        'kind': 'hang', 'count': 1
    }, {
        'attempt_timeout': 0.4
    }),
    'timeout after the effect': ({
        'kind': 'hang', 'after_effect': True, 'count': 1
    }, {
        'attempt_timeout': 0.4
    }),
    'connection reset': ({
        'kind': 'reset', 'count': 2
    }, {}),
    'connection reset after the effect': ({
        'kind': 'reset', 'after_effect': True, 'count': 2
    }, {}),
    'truncated answer': ({
        'kind': 'truncate', 'count': 2
    }, {}),
    'slow answer': ({
        'kind': 'slow_body', 'seconds': 0.2, 'count': 2
    }, {}),
}


class ConnectorHooks:
  """The questions that a subclass of any suite answers.

  Besides these it defines a fixture `emulator`: the handle of an emulator that
  was reset, is ready to be used, and accepts the credential `secret`. The
  environment variable `secret_variable` holds the credential while a test
  runs.

  A record has a key, text such as 'k00007'; everything else in it follows from
  the key, so that a suite can say what must be stored or found.

  Attributes:
    transform: the public transform.
    namespace: of its metrics.
    target: what its error messages and display data call the target.
    lineage: what a job that uses it names as its targets or sources.
    secret: the credential's value.
    secret_variable: the environment variable it is in.
    key_field: the field that holds the key.
    idle_requests: operations it may ask for although it has nothing to do, to
      see whether the service is there.
    fatal_message: regular expression that the error for a missing permission
      matches, besides naming the target.
    refusal_status: what `http_status` of a record says that the service
      refused.
    construction: Python source that imports the connector and assigns the
      transform, as a user would write it; the suite says to which name.
    heavy_modules: modules that constructing it must not import.
  """
  transform: ClassVar[type]
  namespace: ClassVar[str]
  target: ClassVar[str]
  lineage: ClassVar[Sequence[str]]
  secret: ClassVar[str]
  secret_variable: ClassVar[str]
  key_field: ClassVar[str] = 'id'
  idle_requests: ClassVar[Sequence[str]] = ()
  fatal_message: ClassVar[str] = '(?i)key|credential|permission|unauth|denied'
  refusal_status: ClassVar[int] = 400
  construction: ClassVar[str]
  heavy_modules: ClassVar[Sequence[str]] = ()

  # ---------------------------------------------------------- to be overridden

  def make_transform(
      self,
      emulator: Any,
      *,
      secret_variable: Optional[str] = None,
      **options: Any) -> beam.PTransform:
    """The transform, talking to the emulator.

    Args:
      emulator: whose `host` and `url` it talks to.
      secret_variable: the environment variable its credential is in; None is
        the usual one.
      **options: of the transform, passed on.
    """
    raise TypeError(f'{type(self).__name__} lacks make_transform')

  def same(self, a: Any, b: Any) -> bool:
    """Whether two elements hold the same.

    Not whether they are of one type: a `beam.Row` that passed its coder is a
    NamedTuple that Beam made up.
    """
    if isinstance(a, pa.RecordBatch) and isinstance(b, pa.RecordBatch):
      return a.schema == b.schema and alike(a.to_pylist(), b.to_pylist())
    return alike(as_mapping(a), as_mapping(b))

  def key_of(self, element: Any) -> str:
    """The key of a single record; override for kinds of the service's own."""
    return as_mapping(element)[self.key_field]

  # ------------------------------------------------------ what the cases share

  @staticmethod
  def keys(n: int, prefix: str = 'k') -> list[str]:
    return [f'{prefix}{i:05d}' for i in range(n)]

  def keys_of(self, elements: Iterable[Any]) -> list[str]:
    """The keys of the records in some elements, sorted."""
    keys: list[str] = []
    for element in elements:
      if isinstance(element, pa.RecordBatch):
        keys += element.column(self.key_field).to_pylist()
      else:
        keys.append(self.key_of(element))
    return sorted(keys)

  @staticmethod
  def only(outputs: Sequence[Output]) -> Any:
    """The value of the one output that there is."""
    assert len(outputs) == 1, outputs
    return outputs[0].value

  @staticmethod
  def tuning(**changes: Any) -> Tuning:
    """Patience for tests: nothing waits long, nothing gives up early."""
    return Tuning(
        **{
            'backoff': 0.01,
            'deadline': 30.0,
            'attempt_timeout': 10.0,
            'open_deadline': 10.0,
            **changes
        })

  @staticmethod
  def ended(entry: LogEntry) -> float:
    """When a request that is over ended."""
    assert entry.ended is not None, entry
    return entry.ended

  @staticmethod
  def unreachable() -> Any:
    """Looks like an emulator, but nobody listens there."""
    # Port 9 of loopback ('discard') is closed on machines of this century.
    return types.SimpleNamespace(host='127.0.0.1:9', url='http://127.0.0.1:9')


def alike(a: Any, b: Any) -> bool:
  """Equality that is true for NaN, and one truth for arrays."""
  if isinstance(a, Mapping) and isinstance(b, Mapping):
    return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
  if isinstance(a, (list, tuple, np.ndarray)) and not isinstance(b, str):
    return len(a) == len(b) and all(map(alike, a, b))
  return bool(a == b) or (a != a and b != b)
