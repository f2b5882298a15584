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
"""Many clients at once get no wrong answer from the emulated Pinecone."""

from __future__ import annotations

import concurrent.futures
import contextlib
import random

import numpy as np
import pytest
from pinecone_official import create
from pinecone_official import forget_past_failures
from pinecone_official import open_index

from beam_harness.emulators.launch import start
from beam_harness.emulators.pinecone import digest
from beam_harness.emulators.pinecone import digest_of

CLIENT_COUNT = 16
STEPS = 60


class Caller:
  """One client with records of its own, in a namespace shared by all.

  Nobody else writes its ids, so it knows what each answer about them has to
  be, whatever the others do meanwhile.
  """
  def __init__(self, number: int, kind: str, host: str):
    self.index = open_index(kind, host)
    self.prefix = f'{number:02d}-'
    self.random = random.Random(number)
    self.model: dict[str, dict] = {}
    self._owner = float(number)

  def run(self) -> None:
    steps = [
        self.upsert,
        self.upsert,
        self.update,
        self.delete,
        self.fetch,
        self.query,
        self.list,
        self.fetch_by_metadata,
    ]
    for _ in range(STEPS):
      self.random.choice(steps)()

  def _ids(self, count: int) -> list[str]:
    return [
        f'{self.prefix}{self.random.randrange(40):02d}' for _ in range(count)
    ]

  def _values(self) -> list[float]:
    return [float(np.float32(self.random.uniform(.1, 1))) for _ in range(8)]

  def upsert(self) -> None:
    records = {
        record_id: {
            'values': self._values(),
            'metadata': {
                'owner': self._owner, 'even': bool(self.random.randrange(2))
            }
        } for record_id in self._ids(5)
    }
    self.index.upsert(
        vectors=[(record_id, record['values'], record['metadata'])
                 for record_id, record in records.items()],
        namespace='n')
    self.model.update(records)

  def update(self) -> None:
    (record_id,) = self._ids(1)
    values = self._values()
    self.index.update(
        id=record_id, values=values, set_metadata={'new': True}, namespace='n')
    if record_id in self.model:
      metadata = {**self.model[record_id]['metadata'], 'new': True}
      self.model[record_id] = {'values': values, 'metadata': metadata}

  def delete(self) -> None:
    ids = self._ids(2)
    self.index.delete(ids=ids, namespace='n')
    for record_id in ids:
      self.model.pop(record_id, None)

  def fetch(self) -> None:
    ids = self._ids(6)
    found = self.index.fetch(ids=ids, namespace='n').vectors
    self._same(found, [each for each in set(ids) if each in self.model])

  def fetch_by_metadata(self) -> None:
    answer = self.index.fetch_by_metadata(
        filter={
            'owner': self._owner, 'even': True
        }, namespace='n')
    self._same(
        answer.vectors,
        [
            record_id for record_id, record in self.model.items()
            if record['metadata']['even']
        ])

  def _same(self, found, expected: list[str]) -> None:
    assert sorted(found) == sorted(expected)
    for record_id, record in found.items():
      model = self.model[record_id]
      assert [np.float32(x) for x in record.values] == model['values']
      assert record.metadata == model['metadata']

  def list(self) -> None:
    page = self.index.list_paginated(prefix=self.prefix, namespace='n')
    assert [item.id for item in page.vectors] == sorted(self.model)

  def query(self) -> None:
    vector = self._values()
    answer = self.index.query(
        vector=vector,
        top_k=5,
        namespace='n',
        filter={'owner': self._owner},
        include_values=True)
    scores = {
        record_id: float(np.dot(vector, record['values']))
        for record_id, record in self.model.items()
    }
    best = sorted(scores, key=lambda record_id: -scores[record_id])[:5]
    assert [match.id for match in answer.matches] == best
    for match in answer.matches:
      assert match.score == pytest.approx(scores[match.id], rel=1e-6)
      assert [np.float32(x) for x in match.values
             ] == self.model[match.id]['values']


@pytest.mark.parametrize('mode', ['thread', 'process'])
def test_sixteen_clients_of_mixed_reads_and_writes_get_no_wrong_answer(
    mode, emulators):
  forget_past_failures()
  with contextlib.ExitStack() as stack:
    if mode == emulators.mode:
      emulator = stack.enter_context(emulators.lend('pinecone'))
    else:
      emulator = stack.enter_context(start('pinecone', mode=mode))
    host = create(emulator, dimension=8, metric='dotproduct')
    # A namespace that is not there refuses deletes: it has to be.
    emulator.seed({'one': {'n': {'seed': {'values': [1] * 8}}}})
    callers = [
        Caller(number, 'grpc' if number % 2 else 'rest', host)
        for number in range(CLIENT_COUNT)
    ]
    with concurrent.futures.ThreadPoolExecutor(CLIENT_COUNT) as pool:
      for done in [pool.submit(caller.run) for caller in callers]:
        done.result()
    for caller in callers:
      caller.index.close()
    assert emulator.defects == []
    records = {'seed': {'values': [1] * 8}}
    for caller in callers:
      records.update(caller.model)
    assert digest(emulator) == {'one': {'n': digest_of(records)}}
