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
"""The demo from beginning to end: what it does, prints and checks."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any
from typing import Optional
from typing import TextIO

import numpy as np

from beam_harness.demo import faulty
from beam_harness.demo import job
from beam_harness.demo.corpus import FAQ
from beam_harness.demo.corpus import STDLIB
from beam_harness.demo.corpus import Document
from beam_harness.demo.corpus import Question
from beam_harness.demo.corpus import faq
from beam_harness.demo.corpus import stdlib_documents
from beam_harness.demo.embedding import DIMENSION
from beam_harness.demo.embedding import encode_in_threads
from beam_harness.demo.embedding import encoder
from beam_harness.demo.exact import TIE
from beam_harness.demo.exact import ExactSearch
from beam_harness.demo.exact import largest_difference
from beam_harness.demo.exact import recall
from beam_harness.demo.index import IndexClient
from beam_harness.demo.index import create_index
from beam_harness.demo.report import Checks
from beam_harness.demo.report import Progress
from beam_harness.demo.report import snippet
from beam_harness.emulators import launch
from beam_harness.faults import FaultPlan

__all__ = ['run']

INDEX = 'documents'
TOP_K = 10
SHOWN = 2  # documents printed per question

STDLIB_QUESTIONS = (
    'How do I compress a file with gzip?',
    'Send an e-mail message through an SMTP server',
    'split a string the way a shell does',
    'watch many sockets and wait until one can be read',
    'a queue that several threads can use safely',
)
SHOWN_FAQ_QUESTIONS = 3


class _Corpus:
  """Texts and questions, and their vectors computed outside Beam."""
  def __init__(self, limit: Optional[int]):
    answers, self.faq_questions = faq(limit)
    self.documents: list[Document] = stdlib_documents(limit) + answers
    self.stdlib_questions = [
        Question(f'stdlib-{i}', STDLIB, text)
        for i, text in enumerate(STDLIB_QUESTIONS)
    ]
    self.questions = self.stdlib_questions + self.faq_questions
    self.counts = dict(Counter(d.namespace for d in self.documents))

  def embed(self) -> None:
    vectors = encode_in_threads([d.text for d in self.documents] +
                                [q.text for q in self.questions])
    texts = self.documents + self.questions
    self._vectors = dict(zip(texts, vectors, strict=True))

  def vectors_of(
      self, items: Sequence[Document] | Sequence[Question]) -> np.ndarray:
    return np.array([self._vectors[item] for item in items])

  def in_namespace(self, namespace: str) -> list[Document]:
    return [d for d in self.documents if d.namespace == namespace]

  def by_name(self) -> dict[tuple[str, str], np.ndarray]:
    return {(d.namespace, d.id): self._vectors[d] for d in self.documents}

  def records(self) -> list[dict[str, Any]]:
    return [{
        'id': d.id,
        'namespace': d.namespace,
        'title': d.title,
        'text': d.text,
        'values': self._vectors[d],
    } for d in self.documents]


def run(out: TextIO, limit: Optional[int] = None) -> Checks:
  """Runs the demo.

  Args:
    out: where to print.
    limit: documents per source; None takes all.

  Returns:
    The checks that were made.
  """
  started = time.monotonic()
  checks = Checks(out)
  progress = Progress(out)
  os.environ.setdefault(job.API_KEY_VARIABLE, 'demo-key')

  def say(text: str = '') -> None:
    print(text, file=out, flush=True)

  say('Beam pipelines write to Pinecone, ask it, and prove nothing was lost.')
  say('All of it runs on this machine: the index is an emulator on 127.0.0.1,')
  say('the texts and the model come from installed packages.')
  say()
  with progress.step('Reading texts, loading the model'):
    corpus = _Corpus(limit)
    encoder()
  say(f'  {corpus.counts[STDLIB]:,} docstrings of the standard library')
  say(
      f'  {corpus.counts[FAQ]:,} questions and answers: Swedish Construction '
      'FAQ by Zaragoza AB, CC BY 4.0')
  with tempfile.TemporaryDirectory(prefix='beam-demo-') as folder:
    with progress.step('Starting the emulator'):
      emulator = launch.start('pinecone', mode='process')
    try:
      _write_and_ask(emulator, corpus, folder, checks, progress, say)
      _write_under_faults(emulator, corpus, folder, checks, progress, say)
    finally:
      emulator.close()
  say()
  say(f'{checks.summary()} {time.monotonic() - started:.0f} seconds in all.')
  return checks


def _write_and_ask(emulator, corpus, folder, checks, progress, say) -> None:
  say()
  say('1. Embed the texts in a pipeline and write them')
  total = len(corpus.documents)
  host = create_index(
      emulator.url, os.environ[job.API_KEY_VARIABLE], INDEX, DIMENSION)
  connection = job.connection_to(emulator.url)
  before = encoder().done
  with progress.step(f'Embedding and writing {total:,} texts',
                     total, lambda: encoder().done - before):
    outcome = job.write_documents(corpus.documents, INDEX, connection, folder)
  with progress.step('Embedding them again outside Beam, to compare'):
    corpus.embed()
  client = IndexClient(host, os.environ[job.API_KEY_VARIABLE])
  expected = corpus.by_name()
  checks.equal('records written', len(outcome.written), total)
  checks.equal('records in the index', client.counts(), corpus.counts)
  checks.at_most(
      'largest difference to the vectors made outside Beam',
      largest_difference(_held(client, expected), expected),
      TIE)

  say()
  say('2. Ask')
  with progress.step(f'Asking {len(corpus.questions):,} questions'):
    answers = job.ask_questions(corpus.questions, host, TOP_K, folder)
  client.close()
  shown = corpus.stdlib_questions + corpus.faq_questions[:SHOWN_FAQ_QUESTIONS]
  for question in shown:
    say(f'  {question.text}')
    for match in answers[question.id][:SHOWN]:
      text = match['text']
      if question.namespace == STDLIB:
        text = text.removeprefix(f'{match["title"]}: ')
      say(
          f'    {match["score"]:.2f}  {match["id"]}: ' +
          snippet(text, 70 - len(match['id'])))

  say()
  say('3. Is that what exact search finds? Recall over the FAQ')
  for namespace, questions in (
      (STDLIB, corpus.stdlib_questions), (FAQ, corpus.faq_questions)):
    documents = corpus.in_namespace(namespace)
    exact = ExactSearch([d.id for d in documents], corpus.vectors_of(documents))
    queries = corpus.vectors_of(questions)
    found = [[m['id'] for m in answers[q.id]] for q in questions]
    checks.equal(
        f'{namespace}: questions with the same {TOP_K} documents as exact '
        'search',
        sum(exact.agrees(queries, found, TOP_K)),
        len(questions))
    if namespace == FAQ:
      relevant = [q.answer_id for q in questions]
      best = exact.search(queries, TOP_K)
      for k in (1, TOP_K):
        checks.equal(
            f'faq: recall at {k}, as exact search has it',
            recall(found, relevant, k),
            recall(best, relevant, k))


def _write_under_faults(
    emulator, corpus, folder, checks, progress, say) -> None:
  say()
  say('4. The same records again, into an empty index, while things go wrong')
  say('   Of ten requests one fails and one is throttled, in twenty one answer')
  say('   is lost after the write, and five records cannot be stored.')
  emulator.reset()
  host = create_index(
      emulator.url, os.environ[job.API_KEY_VARIABLE], INDEX, DIMENSION)
  emulator.faults(faulty.fault_plan())
  good = corpus.records()
  bad = faulty.bad_records()
  client = IndexClient(host, os.environ[job.API_KEY_VARIABLE])
  with progress.step(f'Writing {len(good) + len(bad):,} records',
                     len(good), lambda: sum(client.counts().values())):
    outcome = job.write_records(
        good + bad,
        INDEX,
        job.connection_to(emulator.url),
        folder,
        faulty.MAX_RECORDS)
  emulator.faults(FaultPlan())
  faults = Counter(entry.fault for entry in emulator.log('upsert'))
  say(
      f'  {faults.total()} requests: {faults["error"]} answered 503, '
      f'{faults["throttle"]} throttled, {faults["reset"]} answers lost, '
      f'{faults["poison"]} refused for one bad record')
  say('  Refused, with the reason on the dead letter:')
  for failure in sorted(outcome.failed, key=lambda f: f['key']):
    say(
        f'    {snippet(failure["key"], 24)}: '
        f'{snippet(failure["message"], 100)}')

  expected = {(r['namespace'], r['id']): r['values'] for r in good}
  checks.equal(
      'records in = written + refused',
      f'{len(outcome.written):,} + {len(outcome.failed):,}',
      f'{len(good):,} + {len(bad):,}')
  checks.equal(
      'refused are the planted ones, once each',
      sorted(f['key'] for f in outcome.failed),
      sorted(r['id'] for r in bad))
  checks.equal(
      'written are all others, once each',
      sorted(outcome.written) == sorted(expected),
      True)
  checks.equal('records in the index', client.counts(), corpus.counts)
  checks.equal(
      'largest difference between the index and what was written',
      largest_difference(_held(client, expected), expected),
      0.0)
  for kind, name in (('error', 'requests answered 503'),
                     ('throttle', 'requests throttled'),
                     ('reset', 'answers lost after the write')):
    checks.at_least(name, faults[kind], 1)
  client.close()


def _held(client: IndexClient, names) -> dict[tuple[str, str], list[float]]:
  """What the index holds under those (namespace, id)."""
  ids: dict[str, list[str]] = {}
  for namespace, doc_id in names:
    ids.setdefault(namespace, []).append(doc_id)
  return {(namespace, doc_id): values for namespace, those in ids.items()
          for doc_id, values in client.fetch(those, namespace).items()}
