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
"""What a pipeline carries, and what constructing one does."""

from __future__ import annotations

import base64
import bz2
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.internal import cloudpickle_pickler
from apache_beam.pipeline import PipelineVisitor
from apache_beam.transforms.display import DisplayData

__all__ = [
    'check_construction',
    'check_no_secret_is_carried',
    'display_data',
    'transforms_of'
]


def check_no_secret_is_carried(
    pipeline: beam.Pipeline, transform: beam.PTransform, secret: str) -> None:
  """That a secret is in nothing that is sent to the workers, or shown."""
  transforms = transforms_of(pipeline)
  # The transform and all it is made of, down to the DoFn.
  assert transform in transforms and len(transforms) > 5
  for each in transforms:
    for said in (repr(each), str(vars(each)), each.label):
      assert secret not in said
    assert secret not in str(display_data(each))
    assert secret.encode() not in _pickled(getattr(each, 'fn', each))
  assert secret.encode() not in pipeline.to_runner_api().SerializeToString()


def check_construction(
    source: str,
    name: str,
    variable: str,
    heavy_modules: Sequence[str],
    elements: str) -> None:
  """That constructing a transform uses no network, no credential, no weight.

  Args:
    source: Python source that assigns the transform.
    name: to which it assigns it.
    variable: environment variable of the credential, which is not there.
    heavy_modules: modules that must not be imported.
    elements: Python source of what the transform is applied to; `p` is the
      pipeline.
  """
  done = subprocess.run(
      [sys.executable, '-c', _CONSTRUCTION, name, elements],
      input=textwrap.dedent(source),
      env={
          key: value for key, value in os.environ.items() if key != variable
      },
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
      module for module in seen['modules'] for name in heavy_modules
      if module == name or module.startswith(f'{name}.')
  ]
  assert heavy == []


def transforms_of(pipeline: beam.Pipeline) -> list[beam.PTransform]:
  """All transforms of a pipeline, composites included."""
  carried = _Carried()
  pipeline.visit(carried)
  return carried.transforms


def display_data(transform: beam.PTransform) -> list[dict[str, Any]]:
  return [item.get_dict() for item in DisplayData.create_from(transform).items]


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

    p = beam.Pipeline(runner='FnApiRunner')
    elements = eval(sys.argv[2])
    modules, threads, before = set(sys.modules), set(
        threading.enumerate()), sockets()
    sys.addaudithook(hook)
    user = {}
    exec(sys.stdin.read(), user)
    elements | 'Connector' >> user[sys.argv[1]]
    p.to_runner_api()
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


def _pickled(value):
  """As it is in a pipeline, but not compressed."""
  return bz2.decompress(base64.b64decode(cloudpickle_pickler.dumps(value)))
