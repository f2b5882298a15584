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

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms.window import FixedWindows
from apache_beam.transforms.window import GlobalWindows
from apache_beam.transforms.window import IntervalWindow
from apache_beam.transforms.window import Sessions
from apache_beam.transforms.window import SlidingWindows
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import PaneInfo
from apache_beam.utils.windowed_value import PaneInfoTiming
from apache_beam.utils.windowed_value import WindowedValue

from beam_connector_base.across import AcrossBundles
from beam_connector_base.across import _Reify
from beam_connector_base.across import _Restore


class WhereItIs(beam.DoFn):
  def process(self, element, wv=beam.DoFn.WindowedValueParam):
    yield element, float(wv.timestamp), tuple(wv.windows), wv.pane_info


N = 25


def gathered(windowfn, elements=10):
  """The elements before and after, each with where it is in time."""
  p = beam.Pipeline(runner='FnApiRunner')
  before = (
      p | beam.Create(range(N))
      | beam.Map(lambda i: TimestampedValue(i, i + .5))
      | beam.WindowInto(windowfn))
  after = before | AcrossBundles(elements, 30)
  return p, before, after


@pytest.mark.parametrize('windowfn', [GlobalWindows(), FixedWindows(10)])
def test_elements_keep_timestamp_window_and_pane(windowfn):
  p, before, after = gathered(windowfn)
  with p:
    both = ((before, after) | beam.Flatten() | beam.ParDo(WhereItIs())
            | 'Global' >> beam.WindowInto(GlobalWindows())
            | 'ByElement' >> beam.Map(lambda found: (found[0], repr(found)))
            | beam.GroupByKey()
            |
            beam.MapTuple(lambda k, found: (len(list(found)), len(set(found)))))
    assert_that(both, equal_to([(2, 1)] * N))
    assert_that(
        after | 'A' >> beam.ParDo(WhereItIs()) | beam.Map(lambda f: f[1]),
        equal_to([i + .5 for i in range(N)]),
        label='timestamps')


def test_pane_is_restored():
  pane = PaneInfo(True, False, PaneInfoTiming.EARLY, 3, -1)
  window = IntervalWindow(0, 10)
  wv = WindowedValue('a', Timestamp(1.25), (window,), pane)
  (_, reified), = _Reify().process('a', wv)
  assert list(_Restore().process((None, [reified]), window)) == [wv]


def test_element_in_several_windows_comes_out_once_for_each():
  p, _, after = gathered(SlidingWindows(10, 5))
  with p:
    assert_that(
        after | beam.ParDo(WhereItIs())
        | beam.Map(lambda f: (f[0], f[1], len(f[2]))),
        equal_to([(i, i + .5, 1) for i in range(N)] * 2))


def test_nothing_is_dropped_as_late_when_it_is_grouped_by_its_window_again():
  p, _, after = gathered(FixedWindows(10))
  with p:
    assert_that(
        after | beam.Map(lambda i: ('all', 1)) | beam.CombinePerKey(sum),
        equal_to([('all', 10), ('all', 10), ('all', 5)]))


class BundleSizes(beam.DoFn):
  def start_bundle(self):
    self.n = 0

  def process(self, element):
    self.n += 1
    return []

  def finish_bundle(self):
    if self.n:
      yield GlobalWindows.windowed_value(self.n)


def test_tiny_bundles_of_a_stream_become_full_ones():
  stream = test_stream.TestStream()
  for i in range(8):
    stream.add_elements([TimestampedValue(i, i)])
  stream.advance_watermark_to_infinity()
  options = PipelineOptions(streaming=True)
  with beam.Pipeline(runner='BundleBasedDirectRunner', options=options) as p:
    sizes = (
        p | stream | beam.WindowInto(FixedWindows(100))
        | AcrossBundles(4, 3600)
        | beam.ParDo(BundleSizes()))
    assert_that(sizes, equal_to([4, 4]))


def test_element_type_is_kept_and_blocks_stay_compact():
  parent = pa.record_batch({'id': list(range(50_000))})
  with beam.Pipeline(runner='FnApiRunner') as p:
    for name, typed in (('typed', True), ('untyped', False)):
      blocks = p | name >> beam.Create([parent.slice(i, 2) for i in (3, 7)])
      if typed:
        blocks = blocks | beam.Map(lambda b: b).with_output_types(
            pa.RecordBatch)
      after = blocks | f'across {name}' >> AcrossBundles(2, 1)
      assert after.element_type is blocks.element_type
      assert_that(
          after
          | f'ids {name}' >>
          beam.Map(lambda b: (b.column(0).to_pylist(), b.nbytes)),
          equal_to([([3, 4], 16), ([7, 8], 16)]),
          label=f'check {name}')


def test_windows_that_merge_are_refused_at_construction():
  p = beam.Pipeline(runner='FnApiRunner')
  sessions = p | beam.Create([1]) | beam.WindowInto(Sessions(10))
  with pytest.raises(ValueError, match='across_bundles.*merge'):
    _ = sessions | AcrossBundles(2, 1)
