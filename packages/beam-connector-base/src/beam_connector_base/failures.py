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
"""What happens to records the service refused: failed records, `on_error`."""

from collections.abc import Iterable
from typing import Any
from typing import NamedTuple
from typing import Optional

from apache_beam import coders
from apache_beam.pipeline import AppliedPTransform
from apache_beam.pipeline import PipelineVisitor
from apache_beam.pvalue import PCollection
from apache_beam.transforms.core import Flatten
from apache_beam.transforms.error_handling import ErrorHandler
from apache_beam.transforms.util import WaitOn
from apache_beam.utils.timestamp import Timestamp

__all__ = [
    'FailedRecord',
    'RecordRefusedError',
    'UnreadFailuresError',
    'check_on_error',
    'handle_failures',
]


class FailedRecord(NamedTuple):
  """A record that was not written, and why.

  It is emitted with the timestamp, windows and pane of the element it belongs
  to. To try the records again, once mended: `failed | Map(lambda f: f.element)`.

  Read it by field: what another worker decodes from the schema may be Beam's
  own named tuple with these fields.

  Args:
    element: the original element, unchanged; for a row of a RecordBatch, a
      RecordBatch of that one row.
    destination: where it was to go (a namespace, a table); '' if it was refused
      before that was known.
    key: its key as text, where it has one that could be read.
    stage: 'encode': refused before it was sent, because the service would
      refuse it or change it silently; 'send': refused by the service; 'outage':
      given up because the service could not be reached in time.
    error_type: a short stable name of the cause.
    message: what is wrong, for people.
    http_status: the service's HTTP status or its nearest equivalent.
    attempts: requests it was part of.
    timestamp: the element's event time.
  """
  element: Any
  destination: str
  key: str
  stage: str
  error_type: str
  message: str
  http_status: Optional[int]
  attempts: int
  timestamp: Timestamp


coders.registry.register_coder(FailedRecord, coders.RowCoder)


class RecordRefusedError(RuntimeError):
  """A record was refused, and `on_error='fail'` says to stop then."""


class UnreadFailuresError(RuntimeError):
  """`on_error='collect'`, but nothing reads `.failed`."""


def check_on_error(on_error: Any) -> Any:
  """Validates `on_error`, at construction.

  Returns:
    The value.

  Raises:
    ValueError: a string that means nothing here.
    TypeError: neither a string nor an error handler.
  """
  choices = "'fail', 'collect' or an apache_beam ErrorHandler"
  if isinstance(on_error, str):
    if on_error not in ('fail', 'collect'):
      raise ValueError(f'on_error must be {choices}, not {on_error!r}')
  elif isinstance(
      on_error,
      type) or not callable(getattr(on_error, 'add_error_pcollection', None)):
    raise TypeError(f'on_error must be {choices}, not {_kind(on_error)}')
  return on_error


def handle_failures(on_error: Any, failed: PCollection, transform: str) -> None:
  """Sees to it that failed records can't vanish unseen.

  Args:
    on_error: as validated by `check_on_error`.
    failed: the failed records.
    transform: label of the transform, for messages.

  With 'collect', running the pipeline raises `UnreadFailuresError` unless
  something reads `failed` by then; an `ErrorHandler` is given it.
  """
  if on_error == 'collect':
    # The pipeline asks everything registered here before it runs.
    failed.pipeline._register_error_handler(_MustBeRead(failed, transform))
  elif on_error != 'fail':
    handler: ErrorHandler = on_error
    handler.add_error_pcollection(failed)


# --------------------------------------------------------------------- helpers


def _kind(value: Any) -> str:
  if value is None:
    return 'None'
  if isinstance(value, type):
    return f'the class {value.__name__} (pass an instance)'
  return type(value).__name__


class _MustBeRead:
  """Raises when the pipeline is about to run and nobody reads the records."""
  def __init__(self, failed: PCollection, transform: str):
    self._failed = failed
    self._transform = transform

  def verify_closed(self) -> None:
    leaves = _Leaves()
    self._failed.pipeline.visit(leaves)
    if not _is_read(self._failed, leaves.nodes):
      raise UnreadFailuresError(
          f"{self._transform}: on_error='collect', but nothing reads .failed, "
          'so refused records would vanish. Write .failed somewhere, or pass '
          "on_error='fail'. (Waiting for it with WaitOn does not read it.)")


class _Leaves(PipelineVisitor):
  """Collects the transforms that do something, from the outside in."""
  def __init__(self) -> None:
    self.nodes: list[AppliedPTransform] = []

  def enter_composite_transform(
      self, transform_node: AppliedPTransform) -> None:
    # A transform of another language is a composite without parts.
    if not transform_node.parts and not _hands_through(transform_node):
      self.nodes.append(transform_node)

  def visit_transform(self, transform_node: AppliedPTransform) -> None:
    self.nodes.append(transform_node)


def _hands_through(node: AppliedPTransform) -> bool:
  """Whether a composite does nothing but return (some of) its inputs."""
  outputs = list(node.outputs.values())
  return bool(outputs) and all(output in node.inputs for output in outputs)


def _is_read(records: PCollection, nodes: Iterable[AppliedPTransform]) -> bool:
  carriers: set[Any] = {records}
  while True:
    before = len(carriers)
    for node in nodes:
      # AppliedPTransform keeps side inputs apart from its inputs.
      sides = [side.pvalue for side in node.side_inputs]
      if any(side in carriers for side in sides):
        return True
      if not any(pcoll in carriers for pcoll in node.inputs):
        continue
      if isinstance(node.transform, Flatten):
        # Only passes them on: whether they are read is decided further down.
        carriers.update(node.outputs.values())
      elif not _only_waits(node, carriers):
        return True
    if len(carriers) == before:
      return False


def _only_waits(node: AppliedPTransform, carriers: set[Any]) -> bool:
  """Whether the node is the part of a WaitOn that drops what it waits for."""
  parent = node.parent
  while parent is not None:
    if isinstance(parent.transform, WaitOn):
      return not any(pcoll in carriers for pcoll in parent.inputs)
    parent = parent.parent
  return False
