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
"""Gathers records of a stream whose bundles are too small to fill a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from typing import Optional

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection
from apache_beam.transforms.util import GroupIntoBatches
from apache_beam.typehints import Any as AnyType
from apache_beam.typehints import Tuple
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import PaneInfo
from apache_beam.utils.windowed_value import WindowedValue

from beam_connector_base.columnar import PackedBatch

__all__ = ['AcrossBundles', 'DEFAULT_ELEMENTS']

DEFAULT_ELEMENTS = 1000


class AcrossBundles(beam.PTransform):
  """Holds elements back until there are enough of them, or for some time.

  The output is the input: same elements, timestamps, windows and panes, in
  larger bundles. It costs a shuffle and tens of microseconds an element.
  Grouping is by window, so an element that lies in several windows comes out
  once for each. Uses `GroupIntoBatches.WithShardedKey`, for which a runner may
  choose the number of shards.

  Elements come out with timestamps that the watermark may have passed, but not
  after their window has ended.

  Args:
    elements: how many elements are enough.
    seconds: how long an element waits at most.
  """
  def __init__(self, elements: Optional[int], seconds: float):
    super().__init__()
    self._elements = elements or DEFAULT_ELEMENTS
    self._seconds = seconds

  def expand(self, pcoll: PCollection) -> PCollection:
    if pcoll.windowing.windowfn.is_merging():
      raise ValueError(
          'Tuning.across_bundles does not work with windows that merge, such '
          'as Sessions: remove it, or re-window before the write')
    element_type = pcoll.element_type or AnyType
    kept_type = PackedBatch if element_type is pa.RecordBatch else element_type
    return (
        pcoll
        | 'Reify' >> beam.ParDo(_Reify()).with_output_types(
            # WithShardedKey takes this type apart.
            Tuple[int, Tuple[kept_type, int, Tuple[bool, bool, int, int, int]]])
        | 'Group' >> GroupIntoBatches.WithShardedKey(
            self._elements, self._seconds)
        | 'Restore' >> beam.ParDo(_Restore()).with_output_types(element_type))


class _Reify(beam.DoFn):
  """Puts the timestamp and the pane beside the element.

  The window needs no place: grouping keeps it.
  """
  def process(self,
              element: Any,
              wv: Any = beam.DoFn.WindowedValueParam) -> list[tuple[int, Any]]:
    if isinstance(element, pa.RecordBatch):
      element = PackedBatch(element)
    pane = wv.pane_info
    return [(
        0,
        (
            element,
            wv.timestamp.micros,
            (
                pane.is_first,
                pane.is_last,
                pane.timing,
                pane.index,
                pane.nonspeculative_index)))]


class _Restore(beam.DoFn):
  """Makes of each group what it was before."""
  def process(self,
              group: Any,
              window: Any = beam.DoFn.WindowParam) -> Iterator[Any]:
    for kept, micros, pane in group[1]:
      yield WindowedValue(
          kept.batch if isinstance(kept, PackedBatch) else kept,
          Timestamp(micros=micros), (window,),
          PaneInfo(*pane))
