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
"""The demo's pipelines for pictures: write, classify and read back blocks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa

from beam_harness.demo.digits import K
from beam_harness.demo.digits import majority
from beam_harness.demo.pipelines import ToJsonLines
from beam_harness.demo.pipelines import new_pipeline
from beam_harness.demo.pipelines import read_json_lines
from beam_pinecone import PineconeConnection
from beam_pinecone import SearchPinecone
from beam_pinecone import WriteToPinecone
from beam_pinecone.read import ReadFromPinecone

__all__ = ['classify_blocks', 'read_back', 'write_blocks']


def write_blocks(
    blocks: Sequence[pa.RecordBatch],
    index: str,
    connection: PineconeConnection) -> None:
  """Writes pictures with their digits as metadata."""
  with new_pipeline() as pipeline:
    _ = (
        pipeline
        | beam.Create(blocks)
        | WriteToPinecone(index, connection=connection))


def classify_blocks(
    blocks: Sequence[pa.RecordBatch],
    index: str,
    connection: PineconeConnection,
    folder: str) -> dict[str, int]:
  """Returns the digit that most of a picture's neighbours show, by its id."""
  predicted = os.path.join(folder, 'predicted.jsonl')
  with new_pipeline() as pipeline:
    _ = (
        pipeline
        | beam.Create(blocks)
        | SearchPinecone(
            index,
            top_k=K,
            vector_field='values',
            # The emulator has no quota; Pinecone's would be the default.
            queries_per_second=None,
            connection=connection)
        | beam.FlatMap(_votes)
        | beam.MapTuple(lambda name, votes: [name, majority(votes)])
        | ToJsonLines(predicted, list))
  return dict(read_json_lines(predicted))


def read_back(index: str, connection: PineconeConnection,
              folder: str) -> list[dict[str, Any]]:
  """Returns all records of the index: dicts with `id`, `values`, `digit`."""
  records = os.path.join(folder, 'records.jsonl')
  with new_pipeline() as pipeline:
    _ = (
        pipeline
        | ReadFromPinecone(index, as_blocks=True, connection=connection)
        | beam.FlatMap(_records)
        | ToJsonLines(records))
  return read_json_lines(records)


def _votes(block: pa.RecordBatch) -> Iterable[tuple[str, list[int]]]:
  for row in block.select(['id', 'matches']).to_pylist():
    yield row['id'], [_digit(match) for match in row['matches']]


def _records(block: pa.RecordBatch) -> Iterable[dict[str, Any]]:
  for row in block.to_pylist():
    yield {'id': row['id'], 'values': row['values'], 'digit': _digit(row)}


def _digit(row: dict[str, Any]) -> int:
  # Of a block's rows, metadata are JSON text, in which all numbers are floats.
  return int(json.loads(row['metadata'])['digit'])
