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
"""The Python examples of the documentation run, each as a script of its own.

An example that can't be run says so to its readers, in the line before it:

    *Not run by the tests: it needs an index of documents.*
"""

import dataclasses
import pathlib
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_DOCUMENTS = sorted({
    *_ROOT.glob('*.md'),
    *_ROOT.glob('docs/**/*.md'),
    *_ROOT.glob('harness/*.md'),
    *_ROOT.glob('packages/*/*.md'),
})
_BLOCK = re.compile(
    r'(?P<before>[^\n]*)\n\n?^```python\n(?P<code>.*?)^```$',
    re.DOTALL | re.MULTILINE)
_NOT_RUN = re.compile(r'\*Not run by the tests: (?P<reason>.+)\*')

# `beam.Pipeline()` would first look for an engine on the network.
_AS_SCRIPT = '''
import runpy
import sys
from apache_beam.options.pipeline_options import StandardOptions
StandardOptions.DEFAULT_RUNNER = 'FnApiRunner'
runpy.run_path(sys.argv[1], run_name='__main__')
'''


@dataclasses.dataclass(frozen=True)
class Example:
  """A block of Python in a document.

  Attributes:
    document: where it is.
    number: which one it is there, from 1.
    code: what it says.
    reason: why it is not run; '' where it is.
  """
  document: pathlib.Path
  number: int
  code: str
  reason: str

  def __str__(self):
    return f'{self.document.relative_to(_ROOT)}-{self.number}'


def _examples(document, text):
  found = []
  for number, block in enumerate(_BLOCK.finditer(text), 1):
    not_run = _NOT_RUN.fullmatch(block['before'])
    found.append(
        Example(
            document,
            number,
            block['code'],
            not_run['reason'] if not_run else ''))
  return found


_EXAMPLES = [
    example for document in _DOCUMENTS
    for example in _examples(document, document.read_text(encoding='utf-8'))
]


@pytest.fixture
def services(pinecone, monkeypatch):
  """What the examples talk to, and where they find it."""
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  record = {'values': [1.0, 2.0, 3.0, 4.0], 'metadata': {'lang': 'en'}}
  index = {'dimension': 4, 'metric': 'cosine'}
  pinecone.seed({
      '$indexes': {
          'docs': index, 'copy-of-docs': index
      },
      'docs': {
          namespace: {
              key: record for key in 'ab'
          } for namespace in ('', 'demo')
      },
  })
  pinecone.clear_log()
  return {'beam_pinecone': pinecone}


@pytest.fixture
def folder(tmp_path):
  """What the examples read."""
  (tmp_path / 'docs').mkdir()
  records = [{
      'id': key, 'values': [1.0, 2.0, 3.0, 4.0], 'tenant': 't1', 'lang': 'en'
  } for key in 'cd']
  pq.write_table(
      pa.Table.from_pylist(records), tmp_path / 'docs' / 'docs.parquet')
  return tmp_path


@pytest.mark.parametrize('example', _EXAMPLES, ids=str)
def test_an_example_runs(example, services, folder):
  if example.reason:
    pytest.skip(f'{example} says why: {example.reason}')
  (folder / 'example.py').write_text(example.code, encoding='utf-8')
  ran = subprocess.run([sys.executable, '-c', _AS_SCRIPT, 'example.py'],
                       cwd=folder,
                       capture_output=True,
                       check=False,
                       text=True,
                       timeout=120)
  said = ran.stderr[-2_000:]
  assert ran.returncode == 0, f'{example}:\n{example.code}\n{said}'
  for package, emulator in services.items():
    if f'from {package} ' in example.code and 'beam.Pipeline' in example.code:
      # It was the emulator that it talked to.
      assert any(entry.ok for entry in emulator.log())


def test_every_python_block_is_an_example():
  found = {example.document for example in _EXAMPLES}
  assert {
      _ROOT / 'packages' / name / 'README.md'
      for name in ('beam-connector-base', 'beam-pinecone')
  } <= found
  for document in _DOCUMENTS:
    text = document.read_text(encoding='utf-8')
    examples = [each for each in _EXAMPLES if each.document == document]
    assert len(re.findall('```(?:python|py)', text)) == len(examples), document


def test_an_example_that_is_not_run_says_why_to_its_readers():
  text = (
      'Text.\n\n```python\none()\n```\n\nMore.\n\n*Not run by the tests: it '
      'needs an account.*\n\n```python\ntwo()\n```\n\n```sh\nthree\n```\n')
  first, second = _examples(_ROOT / 'x.md', text)
  assert (first.code, first.reason) == ('one()\n', '')
  assert (second.code, second.reason) == ('two()\n', 'it needs an account.')
