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
import pytest
from apache_beam import coders
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms.error_handling import CollectingErrorHandler
from apache_beam.transforms.error_handling import ErrorHandler
from apache_beam.utils.timestamp import MAX_TIMESTAMP
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.timestamp import Timestamp

from beam_connector_base.failures import FailedRecord
from beam_connector_base.failures import UnreadFailuresError
from beam_connector_base.failures import check_on_error
from beam_connector_base.failures import handle_failures

SOME_TIME = Timestamp(5)


def failed_record(element, timestamp=SOME_TIME, **fields):
  values = dict(
      destination='d',
      key='k',
      stage='send',
      error_type='E',
      message='m',
      http_status=None,
      attempts=1,
      timestamp=timestamp)
  return FailedRecord(element, **{**values, **fields})


@pytest.mark.parametrize(
    'timestamp', [
        Timestamp(1234.567891),
        Timestamp(-1.5),
        MIN_TIMESTAMP,
        MAX_TIMESTAMP,
    ],
    ids=str)
@pytest.mark.parametrize('status', [None, 429])
def test_failed_record_round_trips_through_its_schema(timestamp, status):
  coder = coders.registry.get_coder(FailedRecord)
  assert isinstance(coder, coders.RowCoder)
  record = failed_record({'id': 'a', 'n': [1.5]}, timestamp, http_status=status)
  assert tuple(coder.decode(coder.encode(record))) == tuple(record)


@pytest.mark.parametrize('wrong', ['', 'FAIL', 'dead_letter'])
def test_unknown_word_is_a_value_error(wrong):
  with pytest.raises(ValueError, match="'fail', 'collect' or an .*Handler"):
    check_on_error(wrong)


@pytest.mark.parametrize('wrong', [None, True, 7, print, ErrorHandler])
def test_other_objects_are_a_type_error(wrong):
  with pytest.raises(TypeError, match='on_error must be'):
    check_on_error(wrong)


def test_valid_values_are_returned():
  handler = CollectingErrorHandler()
  for value in ('fail', 'collect', handler):
    assert check_on_error(value) is value


class Nested(beam.PTransform):
  def expand(self, pcoll):
    return pcoll | beam.Map(str)


class Nothing(beam.PTransform):
  def expand(self, pcoll):
    return pcoll


def side_input(p, failed):
  return p | 'Main' >> beam.Create([1]) | 'S' >> beam.Map(
      lambda x, side: x, beam.pvalue.AsList(failed))


def flattened_and_read(p, failed):
  other = p | 'Other' >> beam.Create([])
  return (failed, other) | beam.Flatten() | 'R' >> beam.Map(str)


READ = {
    'map':
        lambda p, failed: failed | 'R' >> beam.Map(str),
    'composite':
        lambda p, failed: failed | Nested(),
    'shuffle':
        lambda p, failed: failed | beam.Reshuffle(),
    'side input':
        side_input,
    'flattened':
        flattened_and_read,
    'flattened twice':
        lambda p, failed:
        ((failed,) | 'F1' >> beam.Flatten(),) | 'F2' >> beam.Flatten()
        | 'R' >> beam.Map(str),
    'held back by another one':
        lambda p, failed: failed | beam.WaitOn(p | 'Other' >> beam.Create([])),
    'behind a composite that does nothing':
        lambda p, failed: failed | Nothing() | 'R' >> beam.Map(str),
}

UNREAD = {
    'nothing':
        lambda p, failed: None,
    'waited for':
        lambda p, failed: p | 'Main' >> beam.Create([1])
        | beam.WaitOn(failed),
    'flattened':
        lambda p, failed: (failed,) | beam.Flatten(),
    'flattened and waited for':
        lambda p, failed: p
        | 'Main' >> beam.Create([1])
        | beam.WaitOn((failed,) | beam.Flatten()),
    'a composite that does nothing':
        lambda p, failed: failed | Nothing(),
}


def collected(use):
  p = beam.Pipeline(runner='FnApiRunner')
  outputs = p | 'Write' >> beam.Create([1]) | beam.Map(
      lambda x: beam.pvalue.TaggedOutput('failed', failed_record(x))
  ).with_outputs(
      'failed', main='written')
  _ = outputs.written | beam.Map(print)
  use(p, outputs.failed)
  handle_failures('collect', outputs.failed, 'WriteToX')
  return p


@pytest.mark.parametrize('use', READ.values(), ids=READ.keys())
def test_failures_that_are_read_are_accepted(use):
  collected(use).run().wait_until_finish()


@pytest.mark.parametrize('use', UNREAD.values(), ids=UNREAD.keys())
def test_failures_that_nobody_reads_are_refused(use):
  with pytest.raises(UnreadFailuresError, match='WriteToX.*nothing reads'):
    collected(use).run()


def test_failures_read_after_the_transform_was_applied_are_accepted():
  with beam.Pipeline(runner='FnApiRunner') as p:
    failed = p | beam.Create([failed_record('a')])
    handle_failures('collect', failed, 'WriteToX')
    assert_that(failed | beam.Map(lambda f: f.element), equal_to(['a']))


def test_unread_failures_are_accepted_when_none_can_come():
  with beam.Pipeline(runner='FnApiRunner') as p:
    handle_failures('fail', p | beam.Create([1]), 'WriteToX')


def test_unclosed_error_handler_is_refused_by_beam():
  p = beam.Pipeline(runner='FnApiRunner')
  handle_failures(
      CollectingErrorHandler(), p | beam.Create([failed_record('a')]), 'W')
  with pytest.raises(RuntimeError, match='ErrorHandler'):
    p.run()
