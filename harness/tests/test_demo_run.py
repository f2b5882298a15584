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
"""The demo as a whole, on few documents, against the emulator."""

import json
import logging
import os
import signal
import sys

import numpy as np
import pytest

from beam_harness import demo
from beam_harness.demo import faulty
from beam_harness.demo import job
from beam_harness.demo import pipelines
from beam_harness.demo import run
from beam_harness.demo.corpus import FAQ
from beam_harness.demo.index import IndexClient
from beam_harness.emulators import launch
from beam_harness.faults import FaultPlan

LIMIT = 40


@pytest.fixture
def checks_file(tmp_path):
  return tmp_path / 'checks.json'


def test_the_demo_holds_what_it_claims(capsys, checks_file):
  code = demo.main(['--limit', str(LIMIT), '--json', str(checks_file)])
  printed = capsys.readouterr().out
  assert code == 0, printed
  checks = json.loads(checks_file.read_text())['checks']
  assert all(check['ok'] for check in checks)
  assert len({check['name'] for check in checks}) == len(checks)
  by_name = {check['name']: check for check in checks}
  assert by_name['records written']['value'] == 2 * LIMIT
  assert by_name['faults: records in = written + refused']['value'] == (
      f'{2 * LIMIT} + 5')
  assert by_name['digits: accuracy, as exact search has it']['value'] > 0.98
  for planted in ('planted-nan', 'planted-poison', 'planted-long-id'):
    assert planted in printed
  assert f'All {len(checks)} checks held.' in printed
  assert '\r' not in printed  # plain lines, since this is no terminal


def test_a_record_lost_and_documents_in_the_wrong_order_are_noticed(
    monkeypatch, capsys, checks_file):
  hosts = []
  create_index = run.create_index

  def remember_host(*args):
    hosts.append(create_index(*args))
    return hosts[-1]

  write_documents = job.write_documents

  def write_and_lose_one(documents, *args):
    outcome = write_documents(documents, *args)
    client = IndexClient(hosts[-1], os.environ[pipelines.API_KEY_VARIABLE])
    client.request(
        'POST',
        '/vectors/delete', {
            'ids': [documents[0].id], 'namespace': documents[0].namespace
        })
    client.close()
    return outcome

  ask_questions = job.ask_questions

  def swap_the_best(questions, *args):
    searched, enriched = ask_questions(questions, *args)
    first = next(q for q in questions if q.namespace == FAQ)
    found = searched[first.id]
    found[0], found[1] = found[1], found[0]
    return searched, enriched

  monkeypatch.setattr(run, 'create_index', remember_host)
  monkeypatch.setattr(job, 'ask_questions', swap_the_best)
  monkeypatch.setattr(job, 'write_documents', write_and_lose_one)
  assert demo.main(['--limit', '10', '--json', str(checks_file)]) == 1
  failed = {
      check['name']
      for check in json.loads(checks_file.read_text())['checks']
      if not check['ok']
  }
  assert {
      'records in the index',
      'largest difference to the vectors made outside Beam',
      "these questions through Beam's Enrichment: the same documents",
      'faq: questions with the same 10 documents as exact search',
  } <= failed
  assert 'FAILED' in capsys.readouterr().out


class _Emulator:
  url = 'http://127.0.0.1:9'
  closed = False

  def environment(self):
    return {'PINECONE_API_KEY': 'x'}

  def close(self):
    self.closed = True
    print('a complaint of a thread that goes on', file=sys.stderr)


@pytest.fixture
def emulator(monkeypatch):
  emulator = _Emulator()
  monkeypatch.setattr(launch, 'start', lambda *args, **kwargs: emulator)
  return emulator


def test_an_interrupt_stops_the_emulator_and_prints_one_line(
    monkeypatch, emulator, capsys, checks_file):
  before = signal.getsignal(signal.SIGINT)

  def interrupted(*args):
    signal.raise_signal(signal.SIGINT)

  monkeypatch.setattr(run, 'create_index', interrupted)
  monkeypatch.setattr(logging, 'disable', lambda level: None)
  assert demo.main(['--limit', '3', '--json', str(checks_file)]) == 130
  assert emulator.closed
  assert not checks_file.exists()
  assert capsys.readouterr().err == 'Interrupted; the emulator is stopped.\n'
  assert signal.getsignal(signal.SIGINT) is before


def test_a_crash_is_a_failed_check_and_stops_the_emulator(
    monkeypatch, emulator, checks_file):
  def broken(*args):
    raise ConnectionRefusedError('nobody there')

  monkeypatch.setattr(run, 'create_index', broken)
  assert demo.main(['--limit', '3', '--json', str(checks_file)]) == 1
  assert emulator.closed
  checks = json.loads(checks_file.read_text())['checks']
  assert [check['ok'] for check in checks] == [False]
  assert checks[0]['value'] == 'ConnectionRefusedError'


def test_an_impossible_limit_is_refused(capsys):
  with pytest.raises(SystemExit) as stopped:
    demo.main(['--limit', '0'])
  assert stopped.value.code == 2
  assert 'at least 1' in capsys.readouterr().err


def test_each_planted_record_is_bad_in_a_way_of_its_own():
  records = {record['id']: record for record in faulty.bad_records()}
  assert len(records) == 5
  fine = {
      doc_id for doc_id, record in records.items()
      if len(doc_id) <= 512 and record['values'].shape == (512,)
      and np.isfinite(record['values']).all() and len(record['text']) < 40_000
  }
  assert fine == {'planted-poison'}  # which only the service refuses


def test_the_planted_faults_survive_the_way_to_the_emulator():
  plan = faulty.fault_plan()
  assert FaultPlan.from_json(json.dumps(plan.to_json())) == plan
