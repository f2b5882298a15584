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
"""The arithmetic of the benchmarks, what they report, and a tiny run of all."""

import dataclasses
import io
import json
import re

import pytest

from beam_connector_base.dispatcher import Dispatcher
from beam_harness import bench
from beam_harness.bench import engine
from beam_harness.bench import html
from beam_harness.bench import memory
from beam_harness.bench import pinecone
from beam_harness.bench import place as places
from beam_harness.bench import report
from beam_harness.bench import toy
from beam_harness.bench.measure import Ratio
from beam_harness.bench.measure import Sample
from beam_harness.bench.measure import Side
from beam_harness.bench.measure import best_of
from beam_harness.bench.measure import interleave
from beam_harness.bench.measure import ratio
from beam_harness.bench.results import Result
from beam_harness.bench.results import Target
from beam_harness.bench.results import compare
from beam_harness.bench.results import not_measured
from beam_harness.bench.sizes import QUICK

TINY = dataclasses.replace(
    QUICK,
    rounds=1,
    engine_requests=10,
    engine_records=10_000,
    engine_memory=2_000,
    outage_seconds=2.0,
    slow_rounds=1,
    upsert_vectors=200,
    bulk_vectors=1_000,
    queries=20,
    export_vectors=800,
    memory_vectors=1_000,
    memory_dimension=16,
    qdrant_vectors=3)

KEYS = ['name', 'unit', 'ours', 'peer', 'floor', 'ratio', 'target', 'ok']


def result(**fields):
  fields = {
      'name': 'a against b',
      'unit': 's',
      'ours': 2.0,
      'group': 'engine',
      **fields
  }
  return Result(**fields)


# ------------------------------------------------------------------ measuring


def test_sides_take_turns_and_warmups_do_not_count():
  calls = []
  samples = interleave({
      'a': Side(lambda: calls.append('a'), 10),
      'b': Side(lambda: calls.append('b'), 10),
  },
                       2,
                       warmups=1)
  assert calls == ['a', 'b'] * 3
  assert {
      name: len(taken) for name, taken in samples.items()
  } == {
      'a': 2, 'b': 2
  }


def test_a_repeated_side_counts_its_work_as_often():
  calls = []
  side = Side(lambda: calls.append('run'), 10, repeat=3)
  samples = interleave({'a': side}, 1, warmups=0)
  assert calls == ['run'] * 3
  assert samples['a'][0].work == 30
  assert samples['a'][0].wall > 0 and samples['a'][0].cpu > 0


def test_the_units_of_a_sample():
  sample = Sample(wall=2.0, cpu=0.5, work=1000)
  assert sample.rate == 500
  assert sample.rate_per_core == 2000
  assert sample.cpu_us == 500


def test_a_ratio_is_the_median_of_the_rounds_and_shows_its_spread():
  # The medians of the two series would give 2.0; the second round was slow.
  assert ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == Ratio(2.0, 2.0, 3.0)


@pytest.mark.parametrize('under', [[], [1.0, 2.0]])
def test_a_ratio_needs_as_many_values_on_both_sides(under):
  with pytest.raises(ValueError):
    ratio([1.0] if under else [], under)


def test_the_best_of_several_ways_is_the_cheapest_in_the_median():
  samples = {
      'steady': [Sample(1, 3, 1)] * 3,
      'erratic': [Sample(1, 1, 1), Sample(1, 9, 1), Sample(1, 9, 1)],
  }
  assert best_of(samples, list(samples), lambda s: s.cpu) == 'steady'


# -------------------------------------------------------------------- results


def test_targets_hold_from_their_bound_on():
  assert Target.at_least(6).holds(6) and not Target.at_least(6).holds(5.99)
  assert Target.at_most(2).holds(2) and not Target.at_most(2).holds(2.01)


@pytest.mark.parametrize(
    'target, parsed, shown',
    [
        (Target.at_least(0.9), '>= 0.9', '>= 0.9'),
        (Target.at_most(1 / 6), '<= 0.1667', '<= 1/6'),
        (Target.at_most(1 / 12), '<= 0.08333', '<= 1/12'),
        (Target.at_most(2.5), '<= 2.5', '<= 2.5'),
    ])
def test_targets_are_numbers_in_json_and_fractions_in_the_table(
    target, parsed, shown):
  assert str(target) == parsed
  assert target.text == shown


def test_a_target_speaks_of_the_ratio_if_there_is_one_else_of_our_value():
  target = Target.at_most(1.5)
  assert not result(target=target).ok
  assert result(target=target, ratio=Ratio(1.2, 1.0, 9.0)).ok
  assert result(target=None).ok
  assert not not_measured('x', 's', target, 'engine', 'why').ok


def test_a_comparison_puts_the_other_side_where_it_belongs():
  samples = {'a': [Sample(1, 2, 1)], 'b': [Sample(1, 4, 1)]}
  fields = {'group': 'engine', 'unit': 's', 'by': lambda s: s.cpu}
  peer = compare('x', samples, 'a', 'b', **fields)
  floor = compare('x', samples, 'a', 'b', floor=True, **fields)
  assert (peer.ours, peer.peer, peer.floor) == (2, 4, None)
  assert (floor.ours, floor.peer, floor.floor) == (2, None, 4)
  assert peer.ratio == floor.ratio == Ratio(0.5, 0.5, 0.5)


def test_the_json_of_a_result():
  value = result(
      peer=3.00004,
      ratio=Ratio(2 / 3, 0.5, 0.8),
      target=Target.at_most(0.5),
      samples={
          'ours': [2.0], 'b': [3.0]
      }).to_json()
  assert list(value)[:len(KEYS)] == KEYS
  assert value['peer'] == 3.0
  assert value['ratio'] == 0.6667
  assert value['spread'] == [0.5, 0.8]
  assert value['target'] == '<= 0.5'
  assert value['ok'] is False
  assert json.loads(json.dumps(value)) == value


# --------------------------------------------------------------------- report


def test_the_table_fits_its_width_and_marks_what_was_missed():
  out = io.StringIO()
  table = report.Table(out, 100)
  table.add(result(target=Target.at_most(1), ratio=Ratio(1.25, 1, 1.5)))
  table.add(result(name='long ' * 20, peer=1234567.0))
  lines = out.getvalue().splitlines()
  assert max(map(len, lines)) <= 100
  assert sum('engine' in line for line in lines) == 1
  (missed,) = (line for line in lines if 'MISS' in line)
  assert missed.split()[-7:] == ['1.25', '(1', '..', '1.5)', '<=', '1', 'MISS']
  assert '1,234,567' in out.getvalue()


def test_the_summary_names_what_was_missed_and_counts_targets_only():
  text = report.summary([
      result(),
      result(target=Target.at_most(3)),
      result(name='slow', target=Target.at_most(1)),
  ])
  assert text == '1 of 2 targets met; missed: slow.'


@pytest.mark.parametrize(
    'value, text',
    [(None, '-'), (0.03449, '0.034'), (0.1666, '0.167'), (5.0, '5'),
     (12.345, '12.3'), (273.8, '274'), (69420.4, '69,420')])
def test_numbers_have_the_digits_that_matter(value, text):
  assert report.number(value) == text


def test_the_page_shows_every_result_and_needs_nothing_from_elsewhere():
  results = [
      result(
          name='a < b', samples={
              'ours': [1.0, 1.1], 'theirs': [2.0, 200.0]
          }),
      result(name='no samples', target=Target.at_most(1)),
  ]
  page = html.page(results, report.environment(quick=True, seconds=1.0))
  assert 'a &lt; b' in page and 'a < b' not in page
  assert page.count('<svg') == 1
  assert page.count('<circle') == 4
  assert 'class="miss"' in page
  assert not re.findall(r'(?:src|href)=|@import|url\(', page)


# ------------------------------------------------------------ the toy service


def test_the_hand_written_loop_sends_every_row_once():
  rows = toy.blocks(5_000)
  session = toy.ToySession(toy.ToyOperation())
  batches = list(toy.cut(rows, 300))
  assert {batch.n for batch in batches} == {300, 100}
  assert toy.send_all(session, batches, 4) == 5_000


def test_a_bundle_that_loses_an_element_is_no_benchmark():
  class Losing:
    def bundle(self):
      return self

    def submit(self, element):
      pass

    def settled(self):
      return []

    drain = reports = settled

  with pytest.raises(AssertionError, match='0 of 2'):
    toy.feed(Losing(), toy.records(2))


def test_an_outage_is_over_before_anything_is_drained():
  without = engine.drain_seconds(20, 0.0, 1)
  after = engine.drain_seconds(20, 3.0, 1)
  # 20 requests, 8 at a time.
  assert without == pytest.approx(3 * engine.DRILL_SECONDS)
  assert after > 0
  # The clock is a virtual one: the same seed gives the same time.
  assert engine.drain_seconds(20, 3.0, 1) == after


def test_records_and_blocks_are_fed_together():
  dispatcher = Dispatcher(toy.ToyOperation())
  with toy.opened(dispatcher):
    assert toy.feed(dispatcher, toy.records(3) + toy.blocks(2000)) == 5


# --------------------------------------------------------------------- memory


def test_a_run_tells_its_peak(capsys):
  assert memory.main(['engine', '--rows', '2000']) == 0
  assert json.loads(capsys.readouterr().out)['peak_mb'] > 1


def test_a_run_that_fails_is_not_taken_for_a_small_one():
  with pytest.raises(RuntimeError, match='--rows'):
    memory.peak_mb(['engine', '--rows', 'many'])


def test_the_made_up_vectors_arrive(capsys):
  with places.opened(16, discard_records=True) as place:
    arguments = ['--rows', '3000', '--host', place.host, '--dimension', '16']
    assert memory.main(['pinecone', *arguments]) == 0
    assert place.records('upsert') == 3000
  assert json.loads(capsys.readouterr().out)['peak_mb'] > 1


# ------------------------------------------------------------------ whole runs


def without_memory(sections):
  """Those take a process each; `memory` is tested above."""
  return [each for each in sections if each.__name__ != 'peak_memory']


def test_a_tiny_run_measures_everything(monkeypatch, tmp_path, capsys):
  for module in (engine, pinecone):
    monkeypatch.setattr(module, 'SECTIONS', without_memory(module.SECTIONS))
  monkeypatch.setattr('beam_harness.bench.sizes.QUICK', TINY)
  files = tmp_path / 'figures.json', tmp_path / 'report.html'
  code = bench.main(
      ['--quick', '--json', str(files[0]), '--html', str(files[1])])
  printed = capsys.readouterr()
  assert code == 0, printed.err
  figures = json.loads(files[0].read_text())
  assert set(figures) == {'results', 'environment'}
  for each in figures['results']:
    assert list(each)[:len(KEYS)] == KEYS
    assert each['ours'] is not None and each['ours'] == each['ours']
    assert each['name'].split('[')[0][:20] in printed.out
  names = [each['name'] for each in figures['results']]
  assert len(set(names)) == len(names)
  assert {each['group'] for each in figures['results']} == set(bench.GROUPS)
  assert figures['environment']['quick'] is True
  assert figures['environment']['packages']['numpy']
  assert files[1].read_text().count('<svg') == len(names)


def test_a_benchmark_that_fails_stops_no_other(monkeypatch, capsys, tmp_path):
  def broken(sizes):
    """What cannot be measured."""
    raise OSError('no such thing')
    yield

  monkeypatch.setattr(engine, 'SECTIONS', [broken, engine.cutting])
  monkeypatch.setattr('beam_harness.bench.sizes.QUICK', TINY)
  path = tmp_path / 'figures.json'
  assert bench.main(['engine', '--quick', '--json', str(path)]) == 1
  first, second = json.loads(path.read_text())['results']
  assert (first['ok'], first['ours']) == (False, None)
  assert 'no such thing' in first['note']
  assert second['ours'] > 0
  assert 'OSError' in capsys.readouterr().err


def test_an_unknown_group_is_named(capsys):
  with pytest.raises(SystemExit) as e:
    bench.main(['postgres'])
  assert e.value.code == 2
  assert "'postgres'" in capsys.readouterr().err
