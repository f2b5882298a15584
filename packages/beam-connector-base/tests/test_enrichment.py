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
"""Lookups behind Beam's own Enrichment transform."""

import pickle
import uuid

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms.enrichment import Enrichment
from apache_beam.transforms.window import TimestampedValue
from lookup_toy import SERVICES
from lookup_toy import Dictionary
from lookup_toy import LookUp

from beam_connector_base.enrichment import LookupHandler
from beam_connector_base.operation import MISSING


class MeaningHandler(LookupHandler):
  def response(self, request, answer):
    return {'meaning': None if answer is MISSING else answer}

  def key(self, request):
    return request.word


class RowsOf(LookUp):
  """The toy reads dicts, Enrichment passes rows."""
  async def open(self):
    session = await super().open()
    encode = session.encode
    session.encode = lambda row: encode({'word': row.word})
    return session


@pytest.fixture
def name():
  name = uuid.uuid4().hex
  SERVICES[name] = Dictionary()
  yield name
  del SERVICES[name]


def handler(name, **kwargs):
  return MeaningHandler(RowsOf(name), name='Meaning', **kwargs)


def with_time(row, timestamp=beam.DoFn.TimestampParam):
  return row.word, row.meaning, float(timestamp)


def test_enrichment_joins_the_answer_and_keeps_the_event_time(name):
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([('a', 1), ('missing', 2)])
        | beam.Map(lambda kv: TimestampedValue(beam.Row(word=kv[0]), kv[1]))
        | Enrichment(handler(name))
        | beam.Map(with_time))
    assert_that(out, equal_to([('a', 'A', 1.0), ('missing', None, 2.0)]))


def test_batches_are_opted_in_to(name):
  batched = handler(name, min_batch_size=2, max_batch_size=10)
  assert handler(name).batch_elements_kwargs() == {}
  with beam.Pipeline(runner='FnApiRunner') as p:
    out = (
        p | beam.Create([beam.Row(word=w) for w in 'abab'])
        | Enrichment(batched) | beam.Map(lambda row: row.meaning))
    assert_that(out, equal_to(['A', 'B', 'A', 'B']))


@pytest.mark.parametrize(
    'word, message', [('refused', 'is not a word'),
                      ('missing', "on_missing='null'")])
def test_the_reason_survives_beams_own_error(name, word, message):
  with pytest.raises(Exception, match=message):
    with beam.Pipeline(runner='FnApiRunner') as p:
      _ = (
          p | beam.Create([beam.Row(word=word)])
          | Enrichment(handler(name, on_missing='fail')))


def test_a_service_that_is_out_of_order_fails_with_its_reason(name):
  SERVICES[name].fatal = 100
  with pytest.raises(Exception, match='the key was revoked'):
    with beam.Pipeline(runner='FnApiRunner') as p:
      _ = p | beam.Create([beam.Row(word='a')]) | Enrichment(handler(name))


def test_an_open_handler_pickles_without_its_connection(name):
  opened = handler(name)
  opened.__enter__()
  copy = pickle.loads(pickle.dumps(opened))
  opened.__exit__(None, None, None)
  assert copy(beam.Row(word='a'))[1] == beam.Row(meaning='A')
  copy.__exit__(None, None, None)


def test_metrics_and_cache_keys_have_stable_names(name):
  assert str(handler(name)) == 'Meaning'
  key = handler(name).get_cache_key(beam.Row(word='a'))
  assert key == f'dictionary {name!r}: a'
