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
"""The examples in the docstrings of the transforms."""

import inspect
import re
import textwrap

import pytest

import beam_pinecone

EXAMPLE = re.compile(r'Example::\n\n((?:  .*\n|\n)+)')


@pytest.mark.parametrize(
    'name',
    [
        'DeleteFromPinecone',
        'LookupPinecone',
        'PineconeLookupEnrichmentHandler',
        'PineconeSearchEnrichmentHandler',
        'PineconeVectorWriterConfig',
        'ReadAllFromPinecone',
        'ReadFromPinecone',
        'SearchPinecone',
        'SearchPineconeChunks',
        'UpdatePinecone',
    ])
def test_the_example_of_a_docstring_runs(pinecone, monkeypatch, name):
  for variable, value in pinecone.environment().items():
    monkeypatch.setenv(variable, value)
  index = {'dimension': 3, 'metric': 'cosine'}
  pinecone.seed({
      '$indexes': {
          'docs': index, 'more': index
      },
      'docs': {
          'demo': {
              'a': {
                  'values': [1.0, 2.0, 3.0]
              }
          }
      }
  })
  pinecone.clear_log()
  example = EXAMPLE.search(inspect.getdoc(getattr(beam_pinecone, name)))
  exec(textwrap.dedent(example.group(1)), {})
  asked = {entry.operation for entry in pinecone.log() if entry.ok}
  assert asked & {'query', 'fetch', 'upsert', 'update', 'delete'}
