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
"""What the demo claims and shows: exact search, recall, checks, progress."""

import io
import json
import threading

import numpy as np
import pytest

from beam_harness.demo.exact import ExactSearch
from beam_harness.demo.exact import largest_difference
from beam_harness.demo.exact import recall
from beam_harness.demo.report import Checks
from beam_harness.demo.report import Progress
from beam_harness.demo.report import snippet

IDS = ['east', 'north', 'northeast', 'west']
VECTORS = np.array([[1, 0], [0, 2], [3, 3], [-1, 0]], np.float32)


@pytest.fixture
def exact():
  return ExactSearch(IDS, VECTORS)


class TestExactSearch:
  def test_the_nearest_by_angle_come_first(self, exact):
    found = exact.search(np.array([[1, .1], [-1, .2]]), 3)
    assert found == [['east', 'northeast', 'north'],
                     ['west', 'north', 'northeast']]

  def test_what_it_finds_itself_agrees(self, exact):
    queries = np.array([[1, .1], [-1, .2]])
    assert exact.agrees(queries, exact.search(queries, 3), 3) == [True, True]

  @pytest.mark.parametrize(
      'found',
      [
          ['northeast', 'east', 'north'],
          ['east', 'northeast', 'west'],
          ['east', 'northeast'],
          ['east', 'east', 'northeast'],
          ['east', 'northeast', 'unknown'],
      ],
      ids=['order', 'worse', 'too few', 'twice', 'unknown'])
  def test_anything_else_does_not_agree(self, exact, found):
    assert exact.agrees(np.array([[1, .1]]), [found], 3) == [False]

  def test_documents_with_the_same_score_may_swap_places(self, exact):
    query = np.array([[1, 1]])
    for found in (['northeast', 'east', 'north'], ['northeast', 'north',
                                                   'east']):
      assert exact.agrees(query, [found], 3) == [True]

  def test_fewer_documents_than_asked_for_is_fine_when_there_are_no_more(
      self, exact):
    found = exact.search(np.array([[1, .1]]), 10)
    assert len(found[0]) == 4
    assert exact.agrees(np.array([[1, .1]]), found, 10) == [True]


class TestRecall:
  def test_it_is_the_share_of_questions_answered_among_the_first_k(self):
    found = [['a', 'b'], ['b', 'a'], ['c', 'd']]
    relevant = ['a', 'a', 'a']
    assert recall(found, relevant, 1) == pytest.approx(1 / 3)
    assert recall(found, relevant, 2) == pytest.approx(2 / 3)

  def test_no_questions_are_an_error(self):
    with pytest.raises(ValueError, match='no questions'):
      recall([], [], 1)


class TestLargestDifference:
  def test_it_is_that_of_any_component(self):
    held = {'a': [1.0, 2.0], 'b': [0.0, 0.5]}
    expected = {'a': [1.0, 2.0], 'b': [0.0, 0.25]}
    assert largest_difference(held, expected) == 0.25
    assert largest_difference(held, held) == 0.0

  @pytest.mark.parametrize(
      'held', [{}, {
          'a': [1.0], 'b': [1.0]
      }, {
          'a': [1.0, 1.0]
      }, {
          'a': [float('nan')]
      }],
      ids=['missing', 'more', 'shape', 'nan'])
  def test_other_records_are_infinitely_different(self, held):
    assert largest_difference(held, {'a': [1.0]}) == float('inf')


class TestChecks:
  def test_what_holds_and_what_does_not(self, tmp_path):
    out = io.StringIO()
    checks = Checks(out)
    checks.equal('written', 1234, 1234)
    assert checks.all_ok
    assert checks.summary() == 'All 1 checks held.'
    checks.equal('refused', 4, 5)
    checks.at_least('faults', 0, 1)
    checks.at_most('difference', 0.5, 1e-5)
    assert not checks.all_ok
    assert checks.summary() == (
        '3 of 4 checks FAILED: refused; faults; difference')
    assert out.getvalue().splitlines()[:2] == [
        '  ok      written: 1,234', '  FAILED  refused: 4, expected 5'
    ]

    file = tmp_path / 'checks.json'
    checks.write_json(str(file))
    made = json.loads(file.read_text())['checks']
    assert made[0] == {
        'name': 'written', 'value': 1234, 'expected': 1234, 'ok': True
    }
    assert [c['ok'] for c in made] == [True, False, False, False]

  def test_nothing_checked_is_nothing_proven(self):
    assert not Checks(io.StringIO()).all_ok

  def test_not_a_number_does_not_hold(self):
    checks = Checks(io.StringIO())
    checks.at_most('difference', float('nan'), 1.0)
    assert not checks.all_ok


class TestProgress:
  def test_elsewhere_than_on_a_terminal_there_are_plain_lines_only(self):
    out = io.StringIO()
    times = iter([0.0, 2.5])
    with Progress(out, clock=lambda: next(times)).step('Writing'):
      pass
    assert out.getvalue() == '  Writing ...\n  Writing: done in 2.5 s\n'

  def test_a_terminal_shows_how_far_it_is(self):
    out = _Terminal('12 of 40')
    with Progress(out).step('Writing', 40, lambda: 12):
      assert out.seen.wait(10)
    lines = out.getvalue()
    assert '\r  Writing  [#######-----------------]  12 of 40' in lines
    assert lines.endswith(' s\x1b[K\n')

  def test_a_step_that_fails_says_so_and_raises(self):
    out = io.StringIO()
    with pytest.raises(KeyError):
      with Progress(out, clock=lambda: 0.0).step('Writing'):
        raise KeyError('x')
    assert out.getvalue().endswith('  Writing: stopped after 0.0 s\n')

  def test_a_broken_counter_does_not_end_the_step(self):
    out = _Terminal('Writing')

    def broken():
      out.called.set()
      raise OSError('not yet there')

    with Progress(out).step('Writing', 40, broken):
      assert out.called.wait(10)
    assert 'done in' in out.getvalue()


def test_a_snippet_is_one_line():
  assert snippet('One\n   two three', 12) == 'One two ...'


class _Terminal(io.StringIO):
  """Remembers when a text has been shown."""
  def __init__(self, awaited):
    super().__init__()
    self.seen = threading.Event()
    self.called = threading.Event()
    self._awaited = awaited

  def isatty(self):
    return True

  def write(self, text):
    if self._awaited in text:
      self.seen.set()
    return super().write(text)
