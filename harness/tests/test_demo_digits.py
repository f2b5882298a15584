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
"""Digits by their neighbours: the parts, and that what is wrong is noticed."""

import io

import numpy as np
import pyarrow as pa
import pytest

from beam_harness.demo import digits
from beam_harness.demo import digits_job
from beam_harness.demo import run
from beam_harness.demo.report import Checks
from beam_harness.demo.report import Progress


@pytest.fixture(scope='module')
def parts():
  return digits.load()


def _records(pictures):
  return [{
      'id': i, 'values': values.tolist(), 'digit': int(digit)
  } for i, values, digit in zip(
      pictures.ids, pictures.values, pictures.digits, strict=True)]


def test_every_third_picture_is_for_testing(parts):
  train, test = parts
  assert (len(train), len(test)) == (1198, 599)
  assert len({*train.ids, *test.ids}) == 1797
  assert set(train.digits) == set(test.digits) == set(range(10))


def test_blocks_hold_each_picture_once_without_copies_of_other_types(parts):
  train, _ = parts
  blocks = train.blocks()
  assert len(blocks) > 2
  assert blocks[0].schema == pa.schema([
      ('id', pa.string()),
      ('values', pa.list_(pa.float32(), digits.DIMENSION)),
      ('digit', pa.int64()),
  ])
  rows = [row for block in blocks for row in block.to_pylist()]
  assert rows == _records(train)


def test_who_is_among_the_neighbours_is_no_matter_of_chance(parts):
  train, test = parts
  a, b = (
      p.values / np.linalg.norm(p.values.astype(float), axis=1, keepdims=True)
      for p in (test, train))
  nearest = np.sort(a @ b.T, axis=1)[:, ::-1]
  assert (nearest[:, digits.K - 1] - nearest[:, digits.K]).min() > 1e-5


def test_of_equally_frequent_digits_the_least_wins():
  assert digits.majority([7, 3, 3, 7, 9]) == 3
  assert digits.majority([9, 9, 1, 9, 1]) == 9
  with pytest.raises(ValueError):
    digits.majority([])


def test_accuracy_is_the_share_of_all_pictures_that_were_recognised(parts):
  _, test = parts
  labels = test.labels()
  assert digits.accuracy(labels, test) == 1
  labels[test.ids[0]] += 1
  del labels[test.ids[1]]
  assert digits.accuracy(labels, test) == 597 / 599


class TestAsWritten:
  def test_records_as_they_were_written_count_once(self, parts):
    train, _ = parts
    records = _records(train)
    assert digits.as_written(records, train) == len(train)
    assert digits.as_written(records + records[:1], train) == len(train)

  @pytest.mark.parametrize(
      'change',
      [
          lambda record: record['values'].__setitem__(5, 17.0),
          lambda record: record['values'].pop(),
          lambda record: record.update(digit=record['digit'] + 1),
          lambda record: record.update(id='unknown'),
      ],
      ids=['values', 'dimension', 'digit', 'id'])
  def test_others_do_not_count(self, parts, change):
    train, _ = parts
    records = _records(train)
    change(records[3])
    assert digits.as_written(records, train) == len(train) - 1


class _Emulator:
  url = 'http://127.0.0.1:9'


@pytest.fixture
def classify(monkeypatch, parts):
  """Runs the demo's part with digits, on what the pipelines are said to give.
  """
  def classify(predicted, held):
    monkeypatch.setenv(run.API_KEY_VARIABLE, 'x')
    monkeypatch.setattr(run, 'create_index', lambda *args: None)
    monkeypatch.setattr(digits_job, 'write_blocks', lambda *args: None)
    monkeypatch.setattr(digits_job, 'classify_blocks', lambda *args: predicted)
    monkeypatch.setattr(digits_job, 'read_back', lambda *args: held)
    out = io.StringIO()
    checks = Checks(out)
    run._classify_digits(
        _Emulator(),
        '',
        checks,
        Progress(out), lambda text='': print(text, file=out))
    return [check.ok for check in checks.made], out.getvalue()

  return classify


def test_what_exact_search_says_and_was_written_holds(classify, parts):
  train, test = parts
  held, printed = classify(
      digits.exact_predictions(train, test), _records(train))
  assert held == [True] * 3
  assert 'Accuracy 0.9900, of exact search 0.9900' in printed


def test_two_wrong_predictions_that_keep_the_accuracy_are_noticed(
    classify, parts):
  train, test = parts
  predicted = digits.exact_predictions(train, test)
  labels = test.labels()
  wrong = next(i for i in test.ids if predicted[i] != labels[i])
  right = next(i for i in test.ids if predicted[i] == labels[i])
  predicted[wrong] = labels[wrong]
  predicted[right] = (labels[right] + 1) % 10
  held, printed = classify(predicted, _records(train))
  assert held == [False, True, True]
  assert f'{labels[right]} as {predicted[right]}' in printed


@pytest.mark.parametrize('records', [slice(1, None), slice(None)])
def test_a_record_lost_or_read_twice_is_noticed(classify, parts, records):
  train, test = parts
  read = _records(train)[records]
  if len(read) == len(train):
    read.append(read[0])
  held, _ = classify(digits.exact_predictions(train, test), read)
  assert held == [True, True, False]
