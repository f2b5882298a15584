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
"""Consumers of batches get what is emitted at the end of a bundle, too.

Beam's dataframes are such consumers, and with them WriteToJson and WriteToCsv.
"""

import dataclasses
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to

from beam_connector_base.lookup import Join
from beam_connector_base.lookup import LookupRecords
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import FATAL
from beam_connector_base.operation import MISSING
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Session
from beam_connector_base.write import WriteRecords


class Add(beam.DoFn):
  """Takes arrays of numbers, and adds one to each."""
  @beam.DoFn.yields_elements
  def process_batch(self, batch: np.ndarray) -> Iterator[np.int64]:
    for number in batch:
      yield int(number) + 1

  def infer_output_type(self, input_type):
    return np.int64


@dataclasses.dataclass(frozen=True)
class Accept(Operation):
  """Takes numbers; those above 100 are refused or not there."""
  answers: bool = False

  async def open(self):
    return AcceptSession(self.answers)

  def classify(self, error):
    return FATAL

  @property
  def target(self):
    return 'a service that accepts'


class AcceptSession(Session):
  def __init__(self, answers):
    self.limits = Limits(max_records=3, answers=answers)
    self._answers = answers

  def encode(self, element):
    if element > 100 and not self._answers:
      return (Invalid(0, 'too large', str(element)),)
    return (Block('', b'%d' % element, None, (int(element),)),)

  async def send(self, batch):
    if not self._answers:
      return ALL_OK
    return [Done(MISSING if key > 100 else key) for key in batch.keys()]


class Same(Join):
  def row(self, element, answer):
    return element

  def block(self, batch, answers):
    return batch

  def key(self, element, row):
    return str(element)

  def output_type(self, input_type):
    return np.int64


NUMBERS = [1, 2, 3, 4, 5, 101, 102]


def numbers(p):
  return p | beam.Create(NUMBERS) | beam.Map(np.int64).with_output_types(
      np.int64)


@pytest.mark.parametrize('on_error', ['collect', 'fail'])
def test_a_consumer_of_batches_gets_all_that_was_written(on_error):
  good = NUMBERS[:5]
  with beam.Pipeline(runner='FnApiRunner') as p:
    given = numbers(p)
    if on_error == 'fail':
      given = given | beam.Filter(lambda n: n < 100)
    result = given | WriteRecords(Accept(), on_error=on_error, namespace='W')
    if on_error == 'collect':
      assert_that(
          result.failed | beam.Map(lambda f: f.key),
          equal_to(['101', '102']),
          'failed')
    assert_that(
        result.written | beam.ParDo(Add()), equal_to([n + 1 for n in good]))


def test_a_consumer_of_batches_gets_all_that_was_looked_up():
  with beam.Pipeline(runner='FnApiRunner') as p:
    result = numbers(p) | LookupRecords(
        Accept(answers=True), Same(), on_missing='separate', namespace='L')
    assert_that(
        result | 'Found' >> beam.ParDo(Add()), equal_to([2, 3, 4, 5, 6]))
    assert_that(
        result.missing | 'Missing' >> beam.ParDo(Add()),
        equal_to([102, 103]),
        'missing')
