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
"""The demo's pipelines for texts: embed and write, ask, write under faults.

Each reads like one a user would write.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from collections.abc import Sequence
from typing import Any
from typing import Optional

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.requestresponse import NoOpsRepeater
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.transforms.enrichment import Enrichment

from beam_connector_base import Tuning
from beam_harness.demo.corpus import Document
from beam_harness.demo.corpus import Question
from beam_harness.demo.embedding import EmbedTexts
from beam_harness.demo.pipelines import WORKERS
from beam_harness.demo.pipelines import ToJsonLines
from beam_harness.demo.pipelines import new_pipeline
from beam_harness.demo.pipelines import read_json_lines
from beam_pinecone import PineconeConnection
from beam_pinecone import PineconeSearchEnrichmentHandler
from beam_pinecone import SearchPinecone
from beam_pinecone import WriteToPinecone

__all__ = ['Outcome', 'ask_questions', 'write_documents', 'write_records']

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


def write_documents(
    documents: Sequence[Document],
    index: str,
    connection: PineconeConnection,
    folder: str) -> Outcome:
  """Embeds documents and writes them; a refused record fails the pipeline."""
  pipeline = new_pipeline()
  result = (
      pipeline
      | beam.Create([dataclasses.asdict(d) for d in documents])
      | beam.ParDo(EmbedTexts())
      | WriteToPinecone(
          index, namespace='{namespace}', keep=METADATA, connection=connection))
  written = os.path.join(folder, 'written.jsonl')
  result.written | 'Written' >> ToJsonLines(written, _name_of)
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
  pipeline = new_pipeline()
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
  result.written | 'Written' >> ToJsonLines(written, _name_of)
  result.failed | 'Failed' >> ToJsonLines(failed, _failure)
  return _run(pipeline, written, failed)


def ask_questions(
    questions: Sequence[Question],
    also_enriched: Collection[str],
    index: str,
    connection: PineconeConnection,
    top_k: int,
    folder: str
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[dict[str, Any]]]]:
  """Embeds questions and asks the index for the documents nearest to them.

  Args:
    questions: all of them go through `SearchPinecone`.
    also_enriched: ids of those that go through Beam's `Enrichment` as well.
    index: to ask.
    connection: of the index.
    top_k: documents per question.
    folder: for the answers.

  Returns:
    What `SearchPinecone` found and what `Enrichment` found: for each question's
    id the documents, best first: dicts with `id`, `score`, `title` and `text`.
  """
  search: dict[str, Any] = {
      'top_k': top_k,
      'namespace': '{namespace}',
      'vector_field': 'values',
      # The emulator has no quota; Pinecone's would be the default.
      'queries_per_second': None,
      'connection': connection,
  }
  searched = os.path.join(folder, 'searched.jsonl')
  enriched = os.path.join(folder, 'enriched.jsonl')
  with new_pipeline() as pipeline:
    embedded = (
        pipeline
        | beam.Create([dataclasses.asdict(q) for q in questions])
        | beam.ParDo(EmbedTexts()))
    _ = (
        embedded
        | SearchPinecone(index, **search)
        | 'Searched' >> ToJsonLines(searched, _answer))
    _ = (
        embedded
        | beam.Filter(lambda question: question['id'] in also_enriched)
        | beam.Map(lambda question: beam.Row(**question))
        | Enrichment(
            PineconeSearchEnrichmentHandler(index, **search),
            repeater=NoOpsRepeater())  # the connector repeats
        | beam.Map(lambda row: row.as_dict())
        | 'Enriched' >> ToJsonLines(enriched, _answer))
  return _found(searched), _found(enriched)


def _to_parquet(records: Sequence[dict[str, Any]], folder: str) -> None:
  """Writes as many files as there are workers to read them."""
  schema = pa.schema([(name, pa.string())
                      for name in ('id', 'namespace', 'title', 'text')] +
                     [('values', pa.list_(pa.float32()))])
  for i in range(WORKERS):
    pq.write_table(
        pa.Table.from_pylist(records[i::WORKERS], schema),
        os.path.join(folder, f'records-{i}.parquet'))


def _name_of(record: dict[str, Any]) -> list[str]:
  return [record['namespace'], record['id']]


def _answer(question: dict[str, Any]) -> dict[str, Any]:
  found = [{
      'id': match.id, 'score': match.score, **match.metadata
  } for match in question['matches']]
  return {'id': question['id'], 'found': found}


def _found(path: str) -> dict[str, list[dict[str, Any]]]:
  return {answer['id']: answer['found'] for answer in read_json_lines(path)}


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
      written=[
          (namespace, doc_id) for namespace, doc_id in read_json_lines(written)
      ],
      failed=read_json_lines(failed) if failed else [],
      metrics=metrics)
