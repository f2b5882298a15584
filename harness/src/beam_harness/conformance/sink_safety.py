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
"""Sink cases: no leaked secret, and nothing done before the workers start."""

from __future__ import annotations

import base64
import bz2
import json
import logging
import os
import pickle
import subprocess
import sys
import textwrap

import apache_beam as beam
import pytest
from apache_beam.internal import cloudpickle_pickler
from apache_beam.pipeline import PipelineVisitor
from apache_beam.transforms.display import DisplayData

from beam_harness.conformance.sink_hooks import SinkHooks
from beam_harness.engines import engine

__all__ = ['SafetyCases']


class SafetyCases(SinkHooks):
  """What a pipeline carries, prints and does at construction."""

  # ------------------------------------------------------------------- secrets

  def test_no_secret_is_in_what_a_pipeline_carries(self, emulator):
    pipeline = engine('fnapi').pipeline()
    sink = self.make_transform(
        emulator, tuning=self.tuning(), on_error='collect')
    result = (
        pipeline | beam.Create(self.elements(self.keys(3))) | 'Sink' >> sink)
    _ = result.failed | beam.Map(print)
    carried = _Carried()
    pipeline.visit(carried)
    # The sink and all it is made of, down to the DoFn.
    assert sink in carried.transforms and len(carried.transforms) > 5
    for transform in carried.transforms:
      for said in (repr(transform), str(vars(transform)), transform.label):
        assert self.secret not in said
      assert self.secret not in str(_display_data(transform))
      assert self.secret.encode() not in _pickled(
          getattr(transform, 'fn', transform))
    assert self.secret.encode() not in pipeline.to_runner_api(
    ).SerializeToString()

  def test_no_secret_is_in_errors_and_logs(self, emulator, tmp_path, caplog):
    # A service that repeats the credential it was given.
    said = f'the credential {self.secret} may not do that'
    # Not of everything: the emulator's own libraries log what they receive.
    ours = self.transform.__module__.partition('.')[0]
    with (caplog.at_level(logging.DEBUG, logger='beam_connector_base'),
          caplog.at_level(logging.DEBUG, logger=ours)):
      for rules in ([self.fault('error', status=403,
                                message=said)], [self.fault('error',
                                                            status=503,
                                                            message=said)],
                    [self.poison(message=said)]):
        emulator.faults(rules)
        with pytest.raises(Exception) as caught:
          self.write(
              emulator,
              self.elements(['k1', 'poison']),
              tmp_path,
              tuning=self.tuning(deadline=0.3),
              on_error='fail')
        assert 'may not do that' in str(caught.value)
        error: BaseException | None = caught.value
        while error is not None:
          assert self.secret not in str(error)
          assert self.secret.encode() not in pickle.dumps(str(error.args))
          error = error.__cause__ or error.__context__
    assert self.secret not in caplog.text

  def test_no_secret_is_in_failed_records(self, emulator, tmp_path):
    said = f'the credential {self.secret} may not do that'
    emulator.faults([self.poison(message=said)])
    outcome = self.write(emulator, self.elements(['k1', 'poison']), tmp_path)
    self.check(emulator, outcome, ['k1'], ['poison'])
    (failed,) = (output.value for output in outcome.failed)
    assert 'may not do that' in failed.message
    assert self.secret not in str(failed)

  # --------------------------------------------------------------- display data

  def test_display_data_name_the_target(self, emulator):
    pipeline = engine('fnapi').pipeline()
    sink = self.make_transform(emulator, tuning=self.tuning(max_records=17))
    _ = pipeline | beam.Create(self.elements(self.keys(3))) | 'Sink' >> sink
    assert self.target in str(_display_data(sink))
    # The settings may be said by what the sink is made of.
    carried = _Carried()
    pipeline.visit(carried)
    assert any(
        item['key'] == 'max_records' and item['value'] == 17
        for transform in carried.transforms
        for item in _display_data(transform))

  # --------------------------------------------------------------- construction

  def test_construction_touches_no_network_and_no_heavy_module(self):
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != self.secret_variable
    }
    done = subprocess.run([sys.executable, '-c', _CONSTRUCTION],
                          input=textwrap.dedent(self.construction),
                          env=environment,
                          capture_output=True,
                          check=False,
                          text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen['touched'] == []
    assert seen['sockets'] == 0
    assert seen['threads'] == []
    heavy = [
        module for module in seen['modules'] for name in self.heavy_modules
        if module == name or module.startswith(f'{name}.')
    ]
    assert heavy == []


#: Runs a user's construction from standard input and prints what it did.
_CONSTRUCTION = textwrap.dedent(
    '''
    import json
    import os
    import sys
    import threading

    import apache_beam as beam

    touched = []

    def hook(event, args):
      if event in ('socket.connect', 'socket.getaddrinfo', 'socket.bind',
                   'socket.gethostbyname', 'subprocess.Popen', 'os.fork'):
        touched.append(f'{event}: {args}')

    def sockets():
      # Also of C libraries, which raise no audit events.
      return sum(
          os.readlink(f'/proc/self/fd/{fd}').startswith('socket:')
          for fd in os.listdir('/proc/self/fd')
          if os.path.islink(f'/proc/self/fd/{fd}'))

    pipeline = beam.Pipeline(runner='FnApiRunner')
    elements = pipeline | beam.Create([{'id': 'a'}])
    modules, threads, before = set(sys.modules), set(
        threading.enumerate()), sockets()
    sys.addaudithook(hook)
    user = {}
    exec(sys.stdin.read(), user)
    elements | 'Sink' >> user['sink']
    pipeline.to_runner_api()
    print(json.dumps({
        'touched': touched,
        'sockets': sockets() - before,
        'threads': [t.name for t in set(threading.enumerate()) - threads],
        'modules': sorted(set(sys.modules) - modules),
    }))
    ''')


class _Carried(PipelineVisitor):
  """Collects the transforms of a pipeline."""
  def __init__(self):
    self.transforms = []

  def enter_composite_transform(self, transform_node):
    self.visit_transform(transform_node)

  def visit_transform(self, transform_node):
    if transform_node.transform is not None:
      self.transforms.append(transform_node.transform)


def _display_data(transform):
  return [item.get_dict() for item in DisplayData.create_from(transform).items]


def _pickled(value):
  """As it is in a pipeline, but not compressed."""
  return bz2.decompress(base64.b64decode(cloudpickle_pickler.dumps(value)))
