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
"""What the demo reads: real texts, the same in every run."""

import pytest

from beam_harness.demo import corpus


@pytest.fixture(scope='module')
def documents():
  return corpus.stdlib_documents()


def test_the_standard_library_has_more_than_a_thousand_long_docstrings(
    documents):
  assert len(documents) > 1000
  assert all(d.namespace == corpus.STDLIB for d in documents)


def test_ids_are_unique_and_fit_the_service(documents):
  ids = [d.id for d in documents]
  assert len(set(ids)) == len(ids)
  assert all(doc_id.isascii() and 0 < len(doc_id) <= 512 for doc_id in ids)


def test_a_known_docstring_is_found_under_its_qualified_name(documents):
  by_id = {d.id: d for d in documents}
  text = by_id['textwrap.dedent'].text
  assert text.startswith('textwrap.dedent: Remove any common leading')


def test_a_limit_takes_documents_from_all_over_the_library(documents):
  few = corpus.stdlib_documents(limit=10)
  assert len(few) == 10
  assert few == [documents[i * len(documents) // 10] for i in range(10)]


def test_tests_and_installed_packages_are_not_the_library(documents):
  top = {d.id.split('.')[0] for d in documents}
  assert not top & {'test', 'idlelib', 'site-packages'}
  assert not any(d.id.startswith('numpy') for d in documents)


def test_names_that_occur_twice_get_different_ids(tmp_path):
  docstring = 'Says how things are. ' * 20
  function = f'  def f():\n    """{docstring}"""\n'
  (tmp_path / 'twice.py').write_text(
      f'if 1:\n  pass\nclass A:\n{function}'
      f'{function}')
  ids = [d.id for d in corpus.stdlib_documents(root=str(tmp_path))]
  assert ids == ['twice.A.f', 'twice.A.f~2']


def test_files_that_are_not_python_are_passed_over(tmp_path):
  (tmp_path / 'template.py').write_text('$name = {{ value }}')
  (tmp_path / 'fine.py').write_text(f'"""{"Fine. " * 50}"""')
  ids = [d.id for d in corpus.stdlib_documents(root=str(tmp_path))]
  assert ids == ['fine']


def test_source_is_parsed_and_not_run(tmp_path):
  (tmp_path / 'hostile.py').write_text(
      f'"""{"Harmless. " * 50}"""\nraise SystemExit("was imported")\n')
  assert len(corpus.stdlib_documents(root=str(tmp_path))) == 1


def test_an_interpreter_without_source_files_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='no docstrings'):
    corpus.stdlib_documents(root=str(tmp_path))


def test_each_question_of_the_faq_has_its_own_answer():
  documents, questions = corpus.faq()
  assert len(documents) == len(questions) == 503
  assert len({d.id for d in documents}) == 503
  assert [q.answer_id for q in questions] == [d.id for d in documents]
  assert all(
      d.text and q.text for d, q in zip(documents, questions, strict=True))


def test_a_limited_faq_keeps_questions_with_their_answers():
  documents, questions = corpus.faq(limit=7)
  assert [q.answer_id for q in questions] == [d.id for d in documents]
  assert len(documents) == 7
