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
"""How the demo's pipelines run, and how what comes out reaches the program.

What comes out is put into JSON-lines files: a pipeline has no other way to hand
elements to the program around it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_connector_base import EnvSecret
from beam_pinecone import PineconeConnection

__all__ = [
    'API_KEY_VARIABLE',
    'WORKERS',
    'ToJsonLines',
    'connection_to',
    'new_pipeline',
    'read_json_lines',
]

#: Not PINECONE_API_KEY: a real key has no business in a demo.
API_KEY_VARIABLE = 'BEAM_HARNESS_DEMO_API_KEY'

#: As threads of this process, which is what two cores can use; the model is in
#: memory once, and so is the connector's connection.
WORKERS = 2


def connection_to(control_host: str) -> PineconeConnection:
  """Where the emulator is; the key is a reference, not a value."""
  return PineconeConnection(
      control_host=control_host, api_key=EnvSecret(API_KEY_VARIABLE))


def new_pipeline() -> beam.Pipeline:
  """A pipeline for this process; leaving a `with` block waits for its end."""
  return beam.Pipeline(
      options=PipelineOptions([
          '--runner=FnApiRunner',
          '--direct_running_mode=multi_threading',
          f'--direct_num_workers={WORKERS}',
      ]))


class ToJsonLines(beam.PTransform):
  """Writes one JSON object per element to one file."""
  def __init__(self, path: str, as_json: Callable[[Any], Any] = dict):
    super().__init__()
    self._path = path
    self._as_json = as_json

  def expand(self, pcoll):
    as_json = self._as_json
    return (
        pcoll
        | beam.Map(lambda element: json.dumps(as_json(element)))
        | beam.io.WriteToText(self._path, shard_name_template=''))


def read_json_lines(path: str) -> list[Any]:
  """What `ToJsonLines` has written."""
  with open(path, encoding='utf-8') as lines:
    return [json.loads(line) for line in lines]
