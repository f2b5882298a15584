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
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Optional
from typing import TextIO

import numpy as np

from beam_harness.demo import digits
from beam_harness.demo import digits_job
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
from beam_harness.demo.pipelines import API_KEY_VARIABLE
from beam_harness.demo.pipelines import connection_to
from beam_harness.demo.report import Checks
from beam_harness.demo.report import Progress
from beam_harness.demo.report import snippet
from beam_harness.emulators import launch
from beam_harness.emulators.core import GRPC_CODES
from beam_harness.faults import FaultPlan

__all__ = ['run']

INDEX = 'documents'
DIGITS_INDEX = 'digits'
TOP_K = 10
SHOWN = 2  # documents printed per question

STDLIB_QUESTIONS = (
    'Is this IP address private?',
    'How do I compress a file with gzip?',
    'remove common indentation from lines of text',
    'cache the results of a function',
    'download a web page from a URL',
)
SHOWN_FAQ_QUESTIONS = 3

_INVALID_ARGUMENT = GRPC_CODES['INVALID_ARGUMENT']
_KEY_WIDTH = 24  # of a printed key, which may be far too long
_ID_WIDTH = 100  # by which ids are told apart


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


def run(out: TextIO, checks: Checks, limit: Optional[int] = None) -> None:
  """Runs the demo.

  Args:
    out: where to print.
    checks: made as the demo goes along.
    limit: documents per source; None takes all.
  """
  started = time.monotonic()
  progress = Progress(out)

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
      os.environ[API_KEY_VARIABLE] = emulator.environment()['PINECONE_API_KEY']
      _write_and_ask(emulator, corpus, folder, checks, progress, say)
      _classify_digits(emulator, folder, checks, progress, say)
      _write_under_faults(emulator, corpus, folder, checks, progress, say)
    finally:
      emulator.close()
  say()
  say(checks.summary())
  say(f'{time.monotonic() - started:.0f} seconds in all.')


def _write_and_ask(emulator, corpus, folder, checks, progress, say) -> None:
  say()
  say('1. Embed the texts in a pipeline and write them')
  total = len(corpus.documents)
  host = create_index(
      emulator.url, os.environ[API_KEY_VARIABLE], INDEX, DIMENSION)
  connection = connection_to(emulator.url)
  with progress.step(f'Embedding and writing {total:,} texts',
                     total,
                     _texts_from_now()):
    outcome = job.write_documents(corpus.documents, INDEX, connection, folder)
  again = total + len(corpus.questions)
  with progress.step('Embedding them again outside Beam, to compare',
                     again,
                     _texts_from_now()):
    corpus.embed()
  client = IndexClient(host, os.environ[API_KEY_VARIABLE])
  expected = corpus.by_name()
  checks.equal('records written', len(outcome.written), total)
  checks.equal('records in the index', client.counts(), corpus.counts)
  checks.at_most(
      'largest difference to the vectors made outside Beam',
      largest_difference(_held(client, expected), expected),
      TIE)

  say()
  say('2. Ask')
  spread = max(1, len(corpus.faq_questions) // SHOWN_FAQ_QUESTIONS)
  shown = (
      corpus.stdlib_questions +
      corpus.faq_questions[::spread][:SHOWN_FAQ_QUESTIONS])
  with progress.step(f'Asking {len(corpus.questions):,} questions',
                     len(corpus.questions),
                     _texts_from_now()):
    answers, enriched = job.ask_questions(
        corpus.questions, [q.id for q in shown],
        INDEX,
        connection,
        TOP_K,
        folder)
  for question in shown:
    _show_found(question, answers[question.id], say)
  checks.equal(
      "these questions through Beam's Enrichment: the same documents",
      sum(_ids(enriched[q.id]) == _ids(answers[q.id]) for q in shown),
      len(shown))

  say()
  say('3. Is that what exact search finds? Recall over the FAQ')
  for namespace, questions in (
      (STDLIB, corpus.stdlib_questions), (FAQ, corpus.faq_questions)):
    documents = corpus.in_namespace(namespace)
    exact = ExactSearch([d.id for d in documents], corpus.vectors_of(documents))
    queries = corpus.vectors_of(questions)
    found = [_ids(answers[q.id]) for q in questions]
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


def _show_found(question: Question, found, say) -> None:
  place = ''
  if question.answer_id:
    ids = _ids(found)
    place = (
        f'  (its own answer is number {ids.index(question.answer_id) + 1})' if
        question.answer_id in ids else f'  (its own answer is not in {TOP_K})')
  say(f'  {question.text}{place}')
  for match in found[:SHOWN]:
    text = match['text'].removeprefix(f'{match["title"]}: ')
    line = f'{match["score"]:.2f}  {match["id"]}: {text}'
    say(f'    {snippet(line, 75)}')


def _ids(found) -> list[str]:
  return [match['id'] for match in found]


def _classify_digits(emulator, folder, checks, progress, say) -> None:
  say()
  say(f'4. Classify handwritten digits by their {digits.K} nearest neighbours')
  create_index(
      emulator.url,
      os.environ[API_KEY_VARIABLE],
      DIGITS_INDEX,
      digits.DIMENSION)
  connection = connection_to(emulator.url)
  train, test = digits.load()
  with progress.step(f'Writing {len(train):,} pictures as RecordBatches'):
    digits_job.write_blocks(train.blocks(), DIGITS_INDEX, connection)
  with progress.step(f'Classifying {len(test):,} others'):
    predicted = digits_job.classify_blocks(
        test.blocks(), DIGITS_INDEX, connection, folder)
  with progress.step('Reading the index back'):
    held = digits_job.read_back(DIGITS_INDEX, connection, folder)
  exact = digits.exact_predictions(train, test)
  mistaken = [
      f'{digit} as {predicted[i]}' for i, digit in test.labels().items()
      if predicted.get(i, digit) != digit
  ]
  accuracy = digits.accuracy(predicted, test)
  exact_accuracy = digits.accuracy(exact, test)
  say(f'  Mistaken: {", ".join(mistaken) or "none"}')
  say(f'  Accuracy {accuracy:.4f}, of exact search {exact_accuracy:.4f}')
  checks.equal(
      'digits: pictures classified as by exact search (scikit-learn)',
      len(predicted.items() & exact.items()),
      len(test))
  checks.equal(
      'digits: accuracy, as exact search has it', accuracy, exact_accuracy)
  checks.equal(
      'digits: of what was read back, as written',
      f'{digits.as_written(held, train):,} of {len(held):,}',
      f'{len(train):,} of {len(train):,}')


def _write_under_faults(
    emulator, corpus, folder, checks, progress, say) -> None:
  say()
  say('5. The same records again, into an empty index, while things go wrong')
  say('   Of ten requests one fails and one is throttled, in twenty one answer')
  say('   is lost after the write, and five records cannot be stored: one of')
  say(
      '   them only the service knows to be bad, and refuses its neighbours too.'
  )
  emulator.reset()
  host = create_index(
      emulator.url, os.environ[API_KEY_VARIABLE], INDEX, DIMENSION)
  emulator.seed({'$options': faulty.SERVICE_OPTIONS})
  emulator.faults(faulty.fault_plan())
  good = corpus.records()
  bad = faulty.bad_records()
  client = IndexClient(host, os.environ[API_KEY_VARIABLE])
  with progress.step(f'Writing {len(good) + len(bad):,} records',
                     len(good), lambda: sum(client.counts().values())):
    outcome = job.write_records(
        good + bad,
        INDEX,
        connection_to(emulator.url),
        folder,
        faulty.MAX_RECORDS)
  emulator.faults(FaultPlan())
  log = emulator.log('upsert')
  faults = Counter(entry.fault for entry in log)
  refused = sum(entry.status == _INVALID_ARGUMENT for entry in log)
  say(
      f'  {len(log):,} requests: {faults["error"]} answered 503, '
      f'{faults["throttle"]} throttled, {faults["reset"]} with a lost answer, '
      f'{refused} refused for one bad record')
  say(
      f'  {outcome.metrics.get("records_retried", 0):,} times a record was sent '
      'again')
  say('  Refused, with the reason on the dead letter:')
  for failure in sorted(outcome.failed, key=lambda f: f['key']):
    say(
        f'    {failure["key"][:_KEY_WIDTH]}: {snippet(failure["message"], 200)}'
    )

  expected = {(r['namespace'], r['id']): r['values'] for r in good}
  checks.equal(
      'faults: records in = written + refused',
      f'{len(outcome.written):,} + {len(outcome.failed):,}',
      f'{len(good):,} + {len(bad):,}')
  checks.equal(
      "faults: the same from the transform's own counters",
      f'{outcome.metrics.get("records_written", 0):,} + '
      f'{outcome.metrics.get("records_refused", 0):,}',
      f'{len(good):,} + {len(bad):,}')
  checks.equal(
      'faults: refused without need, or bad and not refused',
      _odd([f['key'] for f in outcome.failed], [r['id'] for r in bad]),
      'none')
  checks.equal(
      'faults: written twice, or neither written nor refused',
      _odd([doc_id for _, doc_id in outcome.written],
           [doc_id for _, doc_id in expected]),
      'none')
  checks.equal('faults: records in the index', client.counts(), corpus.counts)
  checks.equal(
      'faults: largest difference between the index and what was written',
      largest_difference(_held(client, expected), expected),
      0.0)
  for kind, name in (('error', 'faults: requests answered 503'),
                     ('throttle', 'faults: requests throttled'),
                     ('reset', 'faults: answers lost after the write')):
    checks.at_least(name, faults[kind], 1)
  client.close()


def _odd(ids: Sequence[str], expected: Sequence[str]) -> str:
  """What is not as often among `ids` as it should be."""
  # A dead letter's key is cut where an id is far too long.
  surplus = Counter(doc_id[:_ID_WIDTH] for doc_id in ids)
  surplus.subtract(doc_id[:_ID_WIDTH] for doc_id in expected)
  odd = sorted(doc_id[:_KEY_WIDTH] for doc_id, n in surplus.items() if n)
  return ', '.join(odd[:5]) + f' ({len(odd)})' if odd else 'none'


def _texts_from_now() -> Callable[[], int]:
  """Counts the texts the model embeds from now on."""
  before = encoder().done
  return lambda: encoder().done - before


def _held(client: IndexClient, names) -> dict[tuple[str, str], list[float]]:
  """What the index holds under those (namespace, id)."""
  ids: dict[str, list[str]] = {}
  for namespace, doc_id in names:
    ids.setdefault(namespace, []).append(doc_id)
  return {(namespace, doc_id): values for namespace, those in ids.items()
          for doc_id, values in client.fetch(those, namespace).items()}
