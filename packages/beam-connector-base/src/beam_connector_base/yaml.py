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
"""Transforms as Beam YAML has them: rows in, rows out, named error outputs.

A connector's `yaml` module wraps each of its transforms in one whose arguments
are what YAML can say. What they have in common is here: `error_handling`, the
rows of errors, and settings as mappings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from typing import Optional
from typing import Union

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.typehints.row_type import RowTypeConstraint

from beam_connector_base.credentials import EnvSecret
from beam_connector_base.credentials import FileSecret
from beam_connector_base.failures import FailedRecord
from beam_connector_base.tuning import Tuning

__all__ = [
    'ErrorHandling',
    'error_rows',
    'fields_of_type',
    'read_settings',
    'secret_of',
    'tuning_of',
]

#: What the output of a transform is called that has one for errors besides.
GOOD = 'good'


@dataclasses.dataclass(frozen=True)
class ErrorHandling:
  """What becomes of refused rows; made by `ErrorHandling.of`.

  Attributes:
    output: name of the output they go to; None to fail the pipeline.
  """
  output: Optional[str] = None

  @classmethod
  def of(cls, spec: Optional[Mapping[str, Any]]) -> ErrorHandling:
    """Reads `error_handling: {output: name}`.

    Raises:
      ValueError: it says something else.
    """
    if spec is None:
      return cls()
    settings = read_settings('error_handling', spec, ('output',))
    output = settings.get('output')
    if not isinstance(output, str) or not output or output == GOOD:
      raise ValueError(
          'error_handling needs an output: the name of the output for errors, '
          f'which is not {GOOD!r}')
    return cls(output)

  @property
  def on_error(self) -> str:
    """The `on_error` of the transform."""
    return 'fail' if self.output is None else 'collect'

  def outputs(self, good: PCollection, failed: PCollection,
              input_type: Any) -> Union[PCollection, dict[str, PCollection]]:
    """What the YAML transform returns.

    Args:
      good: its rows.
      failed: its `FailedRecord`s.
      input_type: element type of its input.
    """
    if self.output is None:
      return good
    return {GOOD: good, self.output: error_rows(failed, input_type)}


def error_rows(failed: PCollection, input_type: Any) -> PCollection:
  """Failed records as YAML's errors: rows of `element`, `msg` and `stack`.

  Args:
    failed: `FailedRecord`s.
    input_type: type of their elements.
  """
  kind = RowTypeConstraint.from_fields([('element', input_type), ('msg', str),
                                        ('stack', str)])
  return failed | 'Errors' >> beam.Map(_error_row).with_output_types(kind)


def _error_row(record: FailedRecord) -> beam.Row:
  where = f'key {record.key!r}, destination {record.destination!r}'
  status = f', status {record.http_status}' if record.http_status else ''
  return beam.Row(
      element=record.element,
      msg=f'{record.error_type}: {record.message}',
      stack=f'stage {record.stage}, {where}{status}, '
      f'{record.attempts} attempts')


def fields_of_type(input_type: Any) -> Optional[list[tuple[str, Any]]]:
  """Names and types of the fields of rows; None where they are not known."""
  if not isinstance(input_type, RowTypeConstraint):
    input_type = RowTypeConstraint.from_user_type(input_type)
  return None if input_type is None else list(input_type._fields)


def read_settings(parameter: str, value: Any,
                  names: tuple[str, ...]) -> dict[str, Any]:
  """A mapping of settings, none of which is unknown.

  Raises:
    ValueError: naming the parameter and what there is.
  """
  if not isinstance(value, Mapping):
    raise ValueError(
        f'{parameter} is a {type(value).__name__}: it is a mapping of '
        f'{", ".join(names)}')
  # Beam's loader adds where in the file a mapping was.
  settings = {
      name: setting
      for name, setting in value.items()
      if not str(name).startswith('__')
  }
  unknown = sorted(set(settings) - set(names))
  if unknown:
    raise ValueError(
        f'{parameter} has no setting {", ".join(unknown)}; there are '
        f'{", ".join(names)}')
  return settings


def tuning_of(spec: Optional[Mapping[str, Any]]) -> Optional[Tuning]:
  """A `Tuning` from its fields.

  Raises:
    ValueError: a field is unknown, or its value is out of range.
  """
  if spec is None:
    return None
  names = tuple(
      field.name
      for field in dataclasses.fields(Tuning)
      if field.name != 'rate_limiter')
  return Tuning(**read_settings('tuning', spec, names))


def secret_of(
    env: Optional[str], file: Optional[str], default: Any, what: str) -> Any:
  """A reference to a credential, from the name of a variable or of a file.

  Args:
    env: name of an environment variable of the workers.
    file: path of a file on the workers.
    default: what holds if neither is given.
    what: name of the credential, for messages.

  Raises:
    ValueError: both are given.
  """
  if env is not None and file is not None:
    raise ValueError(f'{what}_env and {what}_file exclude each other')
  if env is not None:
    return EnvSecret(env)
  return default if file is None else FileSecret(file)
