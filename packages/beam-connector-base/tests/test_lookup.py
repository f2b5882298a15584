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
"""The lookup transform: a left join that keeps event times and chains."""

import uuid

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms.window import SlidingWindows
from apache_beam.transforms.window import TimestampedValue
from lookup_toy import SERVICES
from lookup_toy import AddMeaning
from lookup_toy import Dictionary
from lookup_toy import LookUp

from beam_connector_base.cache import Cache
from beam_connector_base.failures import UnreadFailuresError
from beam_connector_base.lookup import LookupRecords
from beam_connector_base.tuning import Tuning


@pytest.fixture
def name():
  name = uuid.uuid4().hex
  SERVICES[name] = Dictionary()
  yield name
  del SERVICES[name]


def look_up(name, **kwargs):
  kwargs.setdefault('namespace', 'LookUp')
  return LookupRecords(LookUp(name), AddMeaning(), **kwargs)


def words(*keys):
  return [{'word': key} for key in keys]


def with_time(
    element, timestamp=beam.DoFn.TimestampParam, window=beam.DoFn.WindowParam):
  return element['word'], element['meaning'], float(timestamp), str(window)


def test_elements_keep_event_times_and_windows(name):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([('a', 5), ('b', 25)])
        | beam.Map(lambda kv: TimestampedValue({'word': kv[0]}, kv[1]))
        | beam.WindowInto(SlidingWindows(20, 10))
        | look_up(name)
        | beam.Map(with_time))
    assert_that(
        out,
        equal_to([
            ('a', 'A', 5.0, '[-10.0, 10.0)'),
            ('a', 'A', 5.0, '[0.0, 20.0)'),
            ('b', 'B', 25.0, '[10.0, 30.0)'),
            ('b', 'B', 25.0, '[20.0, 40.0)'),
        ]))


def test_lookups_chain_and_combine_like_any_pcollection(name):
  with beam.Pipeline(runner='FnApiRunner') as p:
    first = p | beam.Create(words('a')) | look_up(name)
    again = (
        first | beam.Map(lambda row: {'word': row['meaning']})
        | 'Again' >> look_up(name))
    both = (first, again) | beam.Flatten()
    assert_that(
        both,
        equal_to([{
            'word': 'a', 'meaning': 'A'
        }, {
            'word': 'A', 'meaning': 'A'
        }]))


def test_what_is_missing_is_joined_with_null(name):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = p | beam.Create(words('missing')) | look_up(name)
    assert_that(out, equal_to([{'word': 'missing', 'meaning': None}]))


def test_what_is_missing_goes_its_own_way(name):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create(words('missing', 'a'))
        | look_up(name, on_missing='separate'))
    assert_that(out, equal_to([{'word': 'a', 'meaning': 'A'}]), 'found')
    assert_that(out.missing, equal_to(words('missing')), 'missing')


def test_what_is_missing_fails_with_its_key_and_the_remedy(name):
  with pytest.raises(Exception, match="'missing-1'.*on_missing='null'"):
    with beam.Pipeline(runner='FnApiRunner') as p:
      _ = (
          p | beam.Create(words('a', 'missing-1'))
          | look_up(name, on_missing='fail'))


def test_a_refused_question_is_a_failed_record_beside_good_ones(name):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create(words('a', 'refused', None, 'b'))
        | look_up(name, on_error='collect'))
    assert_that(
        out | beam.Map(lambda row: row['meaning']), equal_to(['A', 'B']), 'ok')
    assert_that(
        out.failed | beam.Map(lambda f: (f.element['word'], f.stage)),
        equal_to([('refused', 'send'), (None, 'encode')]),
        'failed')


def test_refused_questions_must_be_read(name):
  p = beam.Pipeline(runner='FnApiRunner')
  _ = p | beam.Create(words('a')) | look_up(name, on_error='collect')
  with pytest.raises(UnreadFailuresError):
    p.run()


@pytest.mark.parametrize(
    'on_missing, found, missing, failed',
    [
        ('null', [['A', 'A', None]], [], ['refused', None]),
        ('separate', [['A', 'A']], [['missing']], ['refused', None]),
        ('fail', [['A', 'A']], [], ['refused', None, 'missing']),
    ])
def test_rows_of_a_block_go_each_its_way(
    name, on_missing, found, missing, failed):
  batch = pa.record_batch({'word': ['a', 'refused', 'a', None, 'missing']})
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([batch])
        | look_up(name, on_error='collect', on_missing=on_missing))
    assert_that(
        out | beam.Map(lambda b: b.column('meaning').to_pylist()),
        equal_to(found),
        'found')
    assert_that(
        out.missing | 'm' >> beam.Map(lambda b: b.column('word').to_pylist()),
        equal_to(missing),
        'missing')
    assert_that(
        out.failed
        | 'f' >> beam.Map(lambda f: f.element.to_pylist()[0]['word']),
        equal_to(failed),
        'failed')


def test_lookups_are_counted(name):
  p = beam.Pipeline(runner='FnApiRunner')
  out = (
      p | beam.Create(words('a', 'b', 'a', 'missing', 'refused'))
      | look_up(name, on_error='collect', cache=Cache(ttl=60)))
  _ = out.failed | beam.Map(str)
  result = p.run()
  result.wait_until_finish()
  counters = {
      c.key.metric.name: c.committed
      for c in result.metrics().query()['counters']
      if c.key.metric.namespace == 'LookUp'
  }
  assert counters['records_found'] == 3
  assert counters['records_missing'] == 1
  assert counters['records_refused'] == 1
  assert counters['requests_saved'] == 1
  assert counters['requests'] == SERVICES[name].requests
  assert counters['cache_misses'] == 5


def test_dead_letters_of_an_outage_need_somebody_to_read_them(name):
  with pytest.raises(ValueError, match="pass on_error='collect'"):
    look_up(name, tuning=Tuning(on_outage='collect'))


def test_what_an_outage_left_is_counted_apart_from_what_was_refused(name):
  SERVICES[name].unreachable = True
  p = beam.Pipeline(runner='FnApiRunner')
  batch = pa.record_batch({'word': ['a', 'b', None]})
  out = (
      p | beam.Create([batch, {
          'word': 'c'
      }])
      | look_up(
          name,
          on_error='collect',
          tuning=Tuning(on_outage='collect', deadline=0.01, backoff=0.01)))
  stages = out.failed | beam.Map(lambda failed: failed.stage)
  assert_that(stages, equal_to(['outage'] * 3 + ['encode']))
  result = p.run()
  counters = {
      c.key.metric.name: c.committed
      for c in result.metrics().query()['counters']
      if c.key.metric.namespace == 'LookUp'
  }
  assert counters['records_unreached'] == 3
  assert counters['records_refused'] == 1


def test_lookups_batch_across_bundles_and_keep_event_times(name):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([('a', 5), ('b', 25)])
        | beam.Map(lambda kv: TimestampedValue({'word': kv[0]}, kv[1]))
        | beam.WindowInto(SlidingWindows(20, 10))
        | look_up(name, tuning=Tuning(across_bundles=1.0))
        | beam.Map(with_time))
    assert_that(
        out,
        equal_to([
            ('a', 'A', 5.0, '[-10.0, 10.0)'),
            ('a', 'A', 5.0, '[0.0, 20.0)'),
            ('b', 'B', 25.0, '[10.0, 30.0)'),
            ('b', 'B', 25.0, '[20.0, 40.0)'),
        ]))


@pytest.mark.parametrize(
    'wrong',
    [{
        'on_missing': 'skip'
    }, {
        'cache': 60
    }, {
        'tuning': {}
    }, {
        'on_error': 'ignore'
    }])
def test_wrong_arguments_are_refused_at_construction(name, wrong):
  with pytest.raises((TypeError, ValueError), match=list(wrong)[0]):
    look_up(name, **wrong)
