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
"""The transforms in real Beam YAML pipelines, against the emulator."""

import json
import pathlib
import re

import apache_beam as beam
import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.yaml import yaml_provider
from apache_beam.yaml.yaml_transform import expand_pipeline

from beam_pinecone.__main__ import main
from beam_pinecone.yaml import PROVIDERS
from beam_pinecone.yaml import WriteToPinecone

INDEXES = {
    'docs': {
        'dimension': 2, 'metric': 'dotproduct'
    },
    'copy': {
        'dimension': 2, 'metric': 'dotproduct'
    },
}
HYBRID = {
    'values': [1.0, 2.0],
    'sparse': {
        'indices': [7, 3], 'values': [0.5, 0.25]
    },
    'metadata': {
        'lang': 'en', 'n': 1.0, 'tags': ['a', 'b']
    }
}
PLAIN = {'values': [2.0, 1.0], 'sparse': None, 'metadata': None}
DOCS = {
    '': {
        'a': HYBRID, 'b': PLAIN
    },
    'x': {
        'c': {
            'values': [0.5, 0.5], 'sparse': None, 'metadata': {
                'lang': 'de'
            }
        }
    }
}


@pytest.fixture
def index(pinecone, monkeypatch):
  for name, value in pinecone.environment().items():
    monkeypatch.setenv(name, value)
  pinecone.seed({'$indexes': INDEXES})
  pinecone.clear_log()
  return pinecone


def run(transforms):
  """Runs the transforms of a YAML pipeline."""
  spec = {
      'providers': [{
          'include': PROVIDERS
      }],
      'pipeline': {
          'transforms': transforms
      },
  }
  # Beam YAML's own pickler; lambdas of MapToFields need it.
  options = PipelineOptions([], pickle_library='cloudpickle')
  with beam.Pipeline(runner='FnApiRunner', options=options) as p:
    expand_pipeline(p, yaml.safe_dump(spec), validate_schema='generic')


def create(*elements):
  return {
      'type': 'Create', 'name': 'In', 'config': {
          'elements': list(elements)
      }
  }


def step(kind, input='In', name='Step', **config):
  return {'type': kind, 'name': name, 'input': input, 'config': config}


def to_json(path, input='Step', name='Out'):
  return step('WriteToJson', input, name, path=str(path))


def from_json(path):
  """The rows that a WriteToJson has written."""
  return [
      json.loads(line)
      for file in sorted(path.parent.glob(path.name + '*'))
      for line in file.read_text().splitlines()
  ]


# --------------------------------------------------------------------- writes


def test_rows_are_written_and_errors_go_to_their_output(index, tmp_path):
  good = {
      'id': 'a',
      'values': [1.0, 2.0],
      'sparse_values': {
          # Not in the order in which others have them.
          'values': [0.5, 0.25],
          'indices': [7, 3]
      },
      'metadata': {
          'n': 1
      },
      'lang': 'en',
      'tags': ['a', 'b'],
      'tenant': 't',
  }
  bad = good | {'id': 'bad', 'values': [1.0], 'lang': None}
  run([
      create(good, bad),
      step(
          'WriteToPinecone',
          index='docs',
          namespace='{tenant}',
          error_handling={'output': 'refused'},
          tuning={'max_records': 10}),
      to_json(tmp_path / 'good'),
      to_json(tmp_path / 'errors', 'Step.refused', 'Errors')
  ])
  assert index.snapshot()['docs'] == {'t': {'a': HYBRID}}
  (written,) = from_json(tmp_path / 'good')
  assert written['id'] == 'a'
  (error,) = from_json(tmp_path / 'errors')
  assert sorted(error) == ['element', 'msg', 'stack']
  assert error['msg'].startswith("WrongDimension: 'values' has 1 values")
  assert "key 'bad'" in error['stack']
  assert 'bad' in str(error['element'])


def test_without_error_handling_a_bad_row_fails_the_pipeline(index):
  with pytest.raises(Exception, match='WrongDimension'):
    run([
        create({
            'id': 'a', 'values': [1.0]
        }),
        step('WriteToPinecone', index='docs')
    ])


def test_records_are_updated_by_id(index, tmp_path):
  index.seed({'docs': DOCS})
  run([
      create({
          'id': 'a', 'lang': 'fr', 'n': None
      }, {
          'id': 'nobody', 'lang': 'fr', 'n': 2
      }),
      step('UpdatePinecone', index='docs'),
      to_json(tmp_path / 'good')
  ])
  assert index.snapshot()['docs']['']['a']['metadata'] == {
      'lang': 'fr', 'n': 1.0, 'tags': ['a', 'b']
  }
  assert len(from_json(tmp_path / 'good')) == 2


def test_records_are_updated_by_filter_and_counted(index, tmp_path):
  index.seed({'docs': DOCS})
  run([
      create({'old': 'en'}, {'old': 'fr'}),
      step(
          'UpdatePinecone',
          index='docs',
          filter={'lang': '{old}'},
          set_metadata={'lang': 'en-GB'},
          error_handling={'output': 'refused'}),
      step(
          'MapToFields',
          'Step',
          'Counts',
          language='python',
          fields={
              'old': 'element.old', 'n': 'matched_records'
          }),
      to_json(tmp_path / 'good', 'Counts'),
      to_json(tmp_path / 'errors', 'Step.refused', 'Errors')
  ])
  assert index.snapshot()['docs']['']['a']['metadata']['lang'] == 'en-GB'
  assert sorted(
      (row['old'], row['n']) for row in from_json(tmp_path / 'good')) == [
          ('en', 1), ('fr', 0)
      ]
  assert from_json(tmp_path / 'errors') == []


@pytest.mark.parametrize(
    'element, config, left',
    [
        ({
            'id': 'a'
        }, {}, {
            '': ['b'], 'x': ['c']
        }),
        ({
            'l': 'de'
        }, {
            'filter': {
                'lang': '{l}'
            }, 'namespace': 'x'
        }, {
            '': ['a', 'b'], 'x': []
        }),
        ({
            'ns': 'x'
        }, {
            'namespace': '{ns}', 'delete_all': True
        }, {
            '': ['a', 'b'], 'x': []
        }),
        ({
            'ns': 'x'
        }, {
            'namespace': '{ns}', 'delete_namespace': True
        }, {
            '': ['a', 'b']
        }),
    ],
    ids=['id', 'filter', 'all', 'namespace'])
def test_records_are_deleted(index, element, config, left):
  index.seed({'docs': DOCS})
  run([create(element), step('DeleteFromPinecone', index='docs', **config)])
  assert {
      name: sorted(records)
      for name, records in index.snapshot()['docs'].items()
  } == left


# ---------------------------------------------------------------------- reads


def test_records_are_read_as_plain_rows(index, tmp_path):
  index.seed({'docs': DOCS})
  run([{
      'type': 'ReadFromPinecone', 'name': 'Step', 'config': {
          'index': 'docs'
      }
  },
       step(
           'MapToFields',
           'Step',
           'Fields',
           language='python',
           fields={
               'id': 'id',
               'namespace': 'namespace',
               'first': 'values[0]',
               'sparse': 'list(sparse_values.indices) if sparse_values else []',
               'lang': 'str((metadata or {}).get("lang"))',
           }),
       to_json(tmp_path / 'out', 'Fields')])
  rows = sorted(from_json(tmp_path / 'out'), key=lambda row: row['id'])
  assert rows == [
      {
          'id': 'a',
          'namespace': '',
          'first': 1.0,
          'sparse': [7, 3],
          'lang': 'en'
      },
      {
          'id': 'b',
          'namespace': '',
          'first': 2.0,
          'sparse': [],
          'lang': 'None'
      },
      {
          'id': 'c', 'namespace': 'x', 'first': 0.5, 'sparse': [], 'lang': 'de'
      },
  ]


@pytest.mark.parametrize(
    'config, ids',
    [
        ({
            'namespaces': ['x']
        }, ['c']),
        ({
            'prefix': ['a', 'c']
        }, ['a', 'c']),
        ({
            'filter': {
                'lang': {
                    '$in': ['de', 'fr']
                }
            }, 'columns': ['metadata']
        }, ['c']),
    ],
    ids=str)
def test_some_records_are_read_and_go_out_whole(index, tmp_path, config, ids):
  index.seed({'docs': DOCS})
  run([{
      'type': 'ReadFromPinecone',
      'name': 'Step',
      'config': {
          'index': 'docs', **config
      }
  },
       to_json(tmp_path / 'out')])
  rows = from_json(tmp_path / 'out')
  assert sorted(row['id'] for row in rows) == ids
  assert rows[-1]['metadata']['lang'] == 'de'


def test_what_is_read_can_be_written_again_as_it_was(index):
  index.seed({'docs': DOCS})
  run([{
      'type': 'ReadFromPinecone', 'name': 'In', 'config': {
          'index': 'docs'
      }
  },
       step('WriteToPinecone', index='copy', namespace='{namespace}')])
  stored = index.snapshot()
  assert stored['copy'] == stored['docs']


def test_matches_are_plain_rows(index, tmp_path):
  index.seed({'docs': DOCS})
  run([
      create({
          'q': 1, 'vector': [1.0, 2.0], 'lang': 'en'
      }, {
          'q': 2, 'vector': [1.0], 'lang': 'en'
      }),
      step(
          'SearchPinecone',
          index='docs',
          top_k=5,
          filter={'lang': '{lang}'},
          include_values=True,
          cache={'ttl': 60},
          error_handling={'output': 'refused'}),
      step('Explode', 'Step', 'Each', fields=['matches']),
      step(
          'MapToFields',
          'Each',
          'Fields',
          language='python',
          fields={
              'q': 'q',
              'id': 'matches.id',
              'score': 'matches.score',
              'tags': 'matches.metadata["tags"]',
              'first': 'matches.values[0]',
          }),
      to_json(tmp_path / 'out', 'Fields'),
      to_json(tmp_path / 'errors', 'Step.refused', 'Errors')
  ])
  assert from_json(tmp_path / 'out') == [{
      'q': 1, 'id': 'a', 'score': 5.0, 'tags': ['a', 'b'], 'first': 1.0
  }]
  (error,) = from_json(tmp_path / 'errors')
  assert error['msg'].startswith('WrongDimension')


def test_records_are_looked_up(index, tmp_path):
  index.seed({'docs': DOCS})
  run([
      create({'doc': 'a'}, {'doc': 'nobody'}),
      step('LookupPinecone', index='docs', id_field='doc'),
      step(
          'MapToFields',
          'Step',
          'Fields',
          language='python',
          fields={
              'doc': 'doc',
              'lang': 'record.metadata["lang"] if record else "none"'
          }),
      to_json(tmp_path / 'out', 'Fields')
  ])
  assert sorted(
      (row['doc'], row['lang']) for row in from_json(tmp_path / 'out')) == [
          ('a', 'en'), ('nobody', 'none')
      ]


def test_the_example_of_the_readme_runs(index):
  readme = (
      pathlib.Path(__file__).parents[2] / 'packages/beam-pinecone/README.md')
  (example,) = re.findall('```yaml\n(.*?)```', readme.read_text(), re.DOTALL)
  example = example.replace(
      '/printed/by/python -m beam_pinecone providers', PROVIDERS)
  index.seed({
      '$indexes': {
          'copy-of-docs': INDEXES['copy']
      },
      'docs': {
          'demo': DOCS[''], 'x': DOCS['x']
      }
  })
  with beam.Pipeline(runner='FnApiRunner', options=PipelineOptions([])) as p:
    expand_pipeline(p, example, validate_schema='generic')
  assert index.snapshot()['copy-of-docs'] == {'demo': DOCS['']}


# ------------------------------------------------------------------- settings


def test_a_connection_is_a_mapping_with_references_to_the_key(
    index, tmp_path, monkeypatch):
  path = tmp_path / 'key'
  path.write_text(index.environment()['PINECONE_API_KEY'])
  monkeypatch.delenv('PINECONE_API_KEY')
  row = {'id': 'a', 'values': [1.0, 2.0]}
  run([
      create(row),
      step(
          'WriteToPinecone',
          index='docs',
          connection={
              'control_host': index.url,
              'api_key_file': str(path),
              'source_tag': 'yaml'
          })
  ])
  assert 'a' in index.snapshot()['docs']['']


@pytest.mark.parametrize(
    'config, says',
    [
        ({}, 'index'),
        ({
            'index': 'Docs'
        }, 'lower-case'),
        ({
            'index': 'docs', 'name_space': 'x'
        }, 'name_space'),
        ({
            'index': 'docs', 'tuning': {
                'max_record': 1
            }
        },
         'no setting max_record'),
        ({
            'index': 'docs', 'tuning': {
                'max_records': 0
            }
        }, 'max_records'),
        ({
            'index': 'docs', 'connection': {
                'api_key': 'secret'
            }
        },
         'no setting api_key'),
        ({
            'index': 'docs',
            'connection': {
                'api_key_env': 'A', 'api_key_file': 'B'
            }
        },
         'exclude each other'),
    ],
    ids=str)
def test_a_mistake_is_named_when_the_pipeline_is_made(index, config, says):
  with pytest.raises(Exception, match=says):
    run([
        create({
            'id': 'a', 'values': [1.0, 2.0]
        }),
        step('WriteToPinecone', **config)
    ])
  assert index.log() == []


@pytest.mark.parametrize(
    'error_handling, says',
    [({}, 'needs an output'), ({
        'output': 'good'
    }, "which is not 'good'"),
     ({
         'output': 'x', 'threshold': 1
     }, 'no setting threshold'), ('x', 'it is a mapping')],
    ids=str)
def test_what_is_no_error_handling_is_named(error_handling, says):
  with pytest.raises(ValueError, match=says):
    WriteToPinecone('docs', error_handling=error_handling)


def test_an_output_of_errors_has_to_be_read(index):
  with pytest.raises(Exception, match='Unconsumed error output'):
    run([
        create({
            'id': 'a', 'values': [1.0, 2.0]
        }),
        step('WriteToPinecone', index='docs', error_handling={'output': 'x'})
    ])


def test_every_argument_of_every_transform_is_documented():
  (provider,) = yaml_provider.parse_providers('', [{'include': PROVIDERS}])
  names = list(provider.provided_transforms())
  assert len(names) == 6
  for name in names:
    assert provider.description(name)
    for field in provider.config_schema(name).fields:
      assert field.description, (name, field.name)


def test_the_command_line_says_where_the_providers_are(capsys):
  assert main(['providers']) == 0
  assert capsys.readouterr().out.strip() == PROVIDERS
