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
"""The pipelines of the demo: embed and write, ask, write under faults.

Each reads like one a user would write. What comes out is put into JSON-lines
files: a pipeline has no other way to hand elements to the program around it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import Optional

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from beam_connector_base import EnvSecret
from beam_connector_base import Tuning
from beam_harness.demo.corpus import Document
from beam_harness.demo.corpus import Question
from beam_harness.demo.embedding import EmbedTexts
from beam_harness.demo.index import IndexClient
from beam_pinecone import PineconeConnection
from beam_pinecone import WriteToPinecone

__all__ = [
    'API_KEY_VARIABLE',
    'Outcome',
    'ask_questions',
    'connection_to',
    'write_documents',
    'write_records',
]

#: Not PINECONE_API_KEY: a real key has no business in a demo.
API_KEY_VARIABLE = 'BEAM_HARNESS_DEMO_API_KEY'

# Two workers as threads of this process, which is what two cores can use; the
# model is in memory once, and so is the connector's connection.
_WORKERS = 2
_OPTIONS = (
    '--runner=FnApiRunner',
    '--direct_running_mode=multi_threading',
    f'--direct_num_workers={_WORKERS}')

METADATA = ('title', 'text')


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a write came to.

  Args:
    written: (namespace, id) of each record that was acknowledged.
    failed: a dict with `key`, `stage`, `error_type`, `message` and `attempts`
      for each record that was refused.
    metrics: the transform's own counters, by name.
  """
  written: list[tuple[str, str]]
  failed: list[dict[str, Any]]
  metrics: dict[str, int]


def connection_to(control_host: str) -> PineconeConnection:
  """Where the emulator is; the key is a reference, not a value."""
  return PineconeConnection(
      control_host=control_host, api_key=EnvSecret(API_KEY_VARIABLE))


def write_documents(
    documents: Sequence[Document],
    index: str,
    connection: PineconeConnection,
    folder: str) -> Outcome:
  """Embeds documents and writes them; a refused record fails the pipeline."""
  pipeline = beam.Pipeline(options=PipelineOptions(list(_OPTIONS)))
  result = (
      pipeline
      | beam.Create([dataclasses.asdict(d) for d in documents])
      | beam.ParDo(EmbedTexts())
      | WriteToPinecone(
          index, namespace='{namespace}', keep=METADATA, connection=connection))
  written = os.path.join(folder, 'written.jsonl')
  result.written | 'Written' >> _ToJsonLines(written, _name_of)
  return _run(pipeline, written, None)


def write_records(
    records: Sequence[dict[str, Any]],
    index: str,
    connection: PineconeConnection,
    folder: str,
    max_records: int) -> Outcome:
  """Writes records from Parquet files; refused ones are collected.

  Args:
    records: as `EmbedTexts` yields them. They go through files because what is
      given to `Create` becomes part of the pipeline, where Beam compresses it
      with bzip2: some seconds for vectors.
    index: where to.
    connection: of the index.
    folder: for the outcome.
    max_records: per request. Small ones only so that there are many requests
      for something to go wrong with.
  """
  _to_parquet(records, folder)
  pipeline = beam.Pipeline(options=PipelineOptions(list(_OPTIONS)))
  result = (
      pipeline
      | beam.io.ReadFromParquet(os.path.join(folder, 'records-*.parquet'))
      | WriteToPinecone(
          index,
          namespace='{namespace}',
          keep=METADATA,
          connection=connection,
          on_error='collect',
          tuning=Tuning(max_records=max_records)))
  written = os.path.join(folder, 'written-under-faults.jsonl')
  failed = os.path.join(folder, 'failed-under-faults.jsonl')
  result.written | 'Written' >> _ToJsonLines(written, _name_of)
  result.failed | 'Failed' >> _ToJsonLines(failed, _failure)
  return _run(pipeline, written, failed)


def ask_questions(
    questions: Sequence[Question], index_host: str, top_k: int,
    folder: str) -> dict[str, list[dict[str, Any]]]:
  """Embeds questions and asks the index for the documents nearest to them.

  Returns:
    For each question's id the documents found, best first: dicts with `id`,
    `score`, `title` and `text`.
  """
  pipeline = beam.Pipeline(options=PipelineOptions(list(_OPTIONS)))
  answers = os.path.join(folder, 'answers.jsonl')
  _ = (
      pipeline
      | beam.Create([dataclasses.asdict(q) for q in questions])
      | beam.ParDo(EmbedTexts())
      | beam.ParDo(_AskIndex(index_host, top_k))
      | 'Answers' >> _ToJsonLines(answers, dict))
  pipeline.run().wait_until_finish()
  return {answer['id']: answer['found'] for answer in _read(answers)}


class _AskIndex(beam.DoFn):
  """One query per question, over plain HTTP."""
  def __init__(self, host: str, top_k: int):
    self._host = host
    self._top_k = top_k

  def setup(self):
    self._client = IndexClient(self._host, os.environ[API_KEY_VARIABLE])

  def teardown(self):
    self._client.close()

  def process(self, question: dict[str, Any]) -> Iterable[dict[str, Any]]:
    matches = self._client.query(
        question['values'], self._top_k, question['namespace'])
    found = [{
        'id': match['id'], 'score': match['score'], **match['metadata']
    } for match in matches]
    yield {'id': question['id'], 'found': found}


class _ToJsonLines(beam.PTransform):
  """Writes one JSON object per element to one file."""
  def __init__(self, path: str, as_json: Callable[[Any], Any]):
    super().__init__()
    self._path = path
    self._as_json = as_json

  def expand(self, pcoll):
    as_json = self._as_json
    return (
        pcoll
        | beam.Map(lambda element: json.dumps(as_json(element)))
        | beam.io.WriteToText(self._path, shard_name_template=''))


def _to_parquet(records: Sequence[dict[str, Any]], folder: str) -> None:
  """Writes as many files as there are workers to read them."""
  schema = pa.schema([(name, pa.string())
                      for name in ('id', 'namespace', 'title', 'text')] +
                     [('values', pa.list_(pa.float32()))])
  for i in range(_WORKERS):
    pq.write_table(
        pa.Table.from_pylist(records[i::_WORKERS], schema),
        os.path.join(folder, f'records-{i}.parquet'))


def _name_of(record: dict[str, Any]) -> list[str]:
  return [record['namespace'], record['id']]


def _failure(failed) -> dict[str, Any]:
  return {
      'key': failed.key,
      'stage': failed.stage,
      'error_type': failed.error_type,
      'message': failed.message,
      'attempts': failed.attempts,
  }


def _run(
    pipeline: beam.Pipeline, written: str, failed: Optional[str]) -> Outcome:
  result = pipeline.run()
  result.wait_until_finish()
  counters = result.metrics().query(
      MetricsFilter().with_namespace('WriteToPinecone'))['counters']
  metrics: dict[str, int] = {}
  for counter in counters:
    name = counter.key.metric.name
    metrics[name] = metrics.get(name, 0) + counter.committed
  return Outcome(
      written=[(namespace, doc_id) for namespace, doc_id in _read(written)],
      failed=list(_read(failed)) if failed else [],
      metrics=metrics)


def _read(path: str) -> Iterable[Any]:
  with open(path, encoding='utf-8') as lines:
    return [json.loads(line) for line in lines]
