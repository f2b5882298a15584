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
"""The documents and questions of the demo: real texts, no download.

Two sources: the docstrings of Python's standard library, read from the source
files of the interpreter that runs the demo (parsed, never imported), and the
questions and answers of the `zaragoza-construction-faq` package (Swedish
Construction FAQ by Zaragoza AB, CC BY 4.0, English edition).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import os
import sysconfig
from collections.abc import Iterator
from typing import Optional

__all__ = [
    'Document',
    'FAQ',
    'Question',
    'STDLIB',
    'faq',
    'stdlib_documents',
]

STDLIB = 'stdlib'
FAQ = 'faq'

MIN_DOCSTRING_CHARS = 200
# The model reads everything it is given; what a docstring is about stands at
# its beginning, and time to embed grows with length.
MAX_TEXT_CHARS = 300

# Not library: tests, the editor and demos that ship with CPython, and what
# others installed beside it.
_SKIPPED_FOLDERS = frozenset([
    '__pycache__',
    'dist-packages',
    'ensurepip',
    'idlelib',
    'lib2to3',
    'pydoc_data',
    'site-packages',
    'test',
    'tests',
    'turtledemo',
])


@dataclasses.dataclass(frozen=True)
class Document:
  """One text to find.

  Args:
    id: the same in every run; unique within its namespace.
    namespace: STDLIB or FAQ.
    title: what it is about, for people.
    text: what is embedded.
  """
  id: str
  namespace: str
  title: str
  text: str


@dataclasses.dataclass(frozen=True)
class Question:
  """A question; `answer_id` is the one relevant document, where it is known."""
  id: str
  namespace: str
  text: str
  answer_id: Optional[str] = None


def stdlib_documents(limit: Optional[int] = None,
                     root: Optional[str] = None) -> list[Document]:
  """The docstrings of 200 characters or more in the standard library's source.

  Args:
    limit: take this many, spread evenly over the library; None takes all.
    root: the folder of source files; None is the running interpreter's.

  Returns:
    Documents in the order of their qualified names, which are their ids.

  Raises:
    FileNotFoundError: there are no docstrings below `root` (an interpreter
      that ships only compiled files).
  """
  documents = _documents_below(root or sysconfig.get_path('stdlib'))
  return _spread(documents, limit)


@functools.cache
def _documents_below(root: str) -> list[Document]:
  found: dict[str, Document] = {}
  for name, docstring in _docstrings(root):
    if len(docstring) < MIN_DOCSTRING_CHARS:
      continue
    doc_id = name
    repeat = 1
    while doc_id in found:  # e.g. a function defined per platform
      repeat += 1
      doc_id = f'{name}~{repeat}'
    text = f'{name}: {docstring[:MAX_TEXT_CHARS]}'
    found[doc_id] = Document(doc_id, STDLIB, name, text)
  if not found:
    raise FileNotFoundError(
        f'no docstrings found in the Python source files below {root}')
  return [found[doc_id] for doc_id in sorted(found)]


def faq(limit: Optional[int] = None) -> tuple[list[Document], list[Question]]:
  """The FAQ's answers as documents, and its questions.

  Args:
    limit: take this many pairs, spread evenly over the set; None takes all.
  """
  import zaragoza_construction_faq

  pairs = _spread(zaragoza_construction_faq.load(lang='en'), limit)
  documents = [
      Document(pair['id'], FAQ, pair['category'], pair['a']) for pair in pairs
  ]
  questions = [
      Question(f'q-{pair["id"]}', FAQ, pair['q'], pair['id']) for pair in pairs
  ]
  return documents, questions


def _spread(items: list, limit: Optional[int]) -> list:
  if limit is None or limit >= len(items):
    return list(items)
  return [items[i * len(items) // limit] for i in range(limit)]


def _docstrings(root: str) -> Iterator[tuple[str, str]]:
  """Yields (qualified name, docstring) of modules, classes and functions."""
  for folder, subfolders, files in os.walk(root):
    subfolders[:] = sorted(set(subfolders) - _SKIPPED_FOLDERS)
    for file in sorted(files):
      if not file.endswith('.py'):
        continue
      path = os.path.join(folder, file)
      parts = os.path.relpath(path, root)[:-len('.py')].split(os.sep)
      if parts[-1] == '__init__':
        parts.pop()
      if not parts or not all(part.isidentifier() for part in parts):
        continue  # build leftovers such as config-3.11-x86_64-linux-gnu
      try:
        with open(path, 'rb') as source:
          tree = ast.parse(source.read())
      except SyntaxError:
        continue  # templates that only look like Python
      yield from _of_node(tree, '.'.join(parts))


def _of_node(node, name: str) -> Iterator[tuple[str, str]]:
  docstring = ast.get_docstring(node)
  if docstring and name.isascii():
    yield name, docstring
  for child in node.body:
    if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
      yield from _of_node(child, f'{name}.{child.name}')
