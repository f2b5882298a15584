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
"""`python -m beam_pinecone check|lock`: look at an index before a pipeline does.

`check` says whether an index is reached, what it takes, and what would become
of a sample of records; it writes nothing. `lock` writes down what the index is,
for `WriteToPinecone(..., schema=FILE)`. `providers` prints the path of the file
that Beam YAML pipelines include to have the transforms of this package.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any
from typing import Optional

from beam_connector_base.credentials import EnvSecret
from beam_connector_base.credentials import FileSecret
from beam_connector_base.credentials import redact
from beam_connector_base.schema import Schema
from beam_connector_base.schema import changes
from beam_pinecone import check
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.encode.layout import Layout
from beam_pinecone.lock import lock_of
from beam_pinecone.lock import read_lock
from beam_pinecone.schema import check_index_name

__all__ = ['main']


def main(argv: Optional[Sequence[str]] = None) -> int:
  """Runs a command.

  Args:
    argv: arguments; those of the process by default.

  Returns:
    0 if all is well, 1 if a check failed, 2 if the arguments are wrong.
  """
  parser = _parser()
  arguments = parser.parse_args(argv)
  if arguments.command == 'providers':
    print(pathlib.Path(__file__).with_name('providers.yaml'))
    return 0
  try:
    check_index_name(arguments.index)
    connection = _connection(arguments)
    if arguments.command == 'lock':
      return _lock(arguments, connection)
    layout = _layout(arguments)
  except (TypeError, ValueError) as e:
    parser.error(redact(str(e)))
  return _check(arguments, connection, layout)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      prog='python -m beam_pinecone',
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = parser.add_subparsers(dest='command', required=True)
  checking = commands.add_parser(
      'check', help='look at an index and a sample; writes nothing')
  _common(checking)
  checking.add_argument(
      '--namespace',
      default='',
      help='as WriteToPinecone takes it: a name, or a template such as '
      '{tenant}; the default namespace if left out')
  checking.add_argument(
      '--sample', metavar='FILE', help='records to encode: .jsonl or .parquet')
  checking.add_argument(
      '--rows', type=_positive, help='of the sample to look at; all by default')
  checking.add_argument('--id-field', default='id')
  checking.add_argument('--values-field', default='values')
  checking.add_argument('--sparse-field', default='sparse_values')
  checking.add_argument('--metadata-field', default='metadata')
  checking.add_argument('--version-field')
  checking.add_argument(
      '--keep', metavar='NAME,...', help='the only metadata to write')
  checking.add_argument(
      '--drop', metavar='NAME,...', help='metadata not to write')
  checking.add_argument(
      '--lock', metavar='FILE', help='a schema lock to compare with')
  checking.add_argument(
      '--json', action='store_true', help='print one JSON object')
  locking = commands.add_parser(
      'lock', help='write down what an index is, as a schema lock')
  _common(locking)
  locking.add_argument('file', metavar='FILE', help='where to write it')
  commands.add_parser('providers', help='print the path of providers.yaml')
  return parser


def _common(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('index', metavar='INDEX', help='name of the index')
  parser.add_argument('--host', help='of the index; looked up if left out')
  parser.add_argument('--control-host', help='base URL of the control plane')
  parser.add_argument(
      '--ca-certs', metavar='FILE', help='PEM certificates to trust')
  keys = parser.add_mutually_exclusive_group()
  keys.add_argument(
      '--api-key-env',
      metavar='NAME',
      default='PINECONE_API_KEY',
      help='environment variable of the API key (default: %(default)s)')
  keys.add_argument(
      '--api-key-file', metavar='FILE', help='file of the API key')
  parser.add_argument(
      '--timeout',
      type=float,
      default=20.0,
      help='seconds for one request (default: %(default)s)')


def _connection(arguments: argparse.Namespace) -> PineconeConnection:
  key = (
      EnvSecret(arguments.api_key_env)
      if arguments.api_key_file is None else FileSecret(arguments.api_key_file))
  return PineconeConnection(
      host=arguments.host,
      api_key=key,
      control_host=arguments.control_host,
      ca_certs=arguments.ca_certs,
      timeout=arguments.timeout)


def _layout(arguments: argparse.Namespace) -> Layout:
  return Layout.of(
      namespace=arguments.namespace,
      id_field=arguments.id_field,
      values_field=arguments.values_field or None,
      sparse_field=arguments.sparse_field or None,
      metadata_field=arguments.metadata_field or None,
      version_field=arguments.version_field,
      keep=_listed(arguments.keep),
      drop=_listed(arguments.drop))


def _listed(text: Optional[str]) -> Optional[list[str]]:
  return None if text is None else [name for name in text.split(',') if name]


def _positive(text: str) -> int:
  n = int(text)
  if n < 1:
    raise argparse.ArgumentTypeError('it is a positive number')
  return n


def _check(
    arguments: argparse.Namespace,
    connection: PineconeConnection,
    layout: Layout) -> int:
  findings = []
  for finding in check.check(arguments.index,
                             connection,
                             layout,
                             arguments.sample,
                             arguments.rows):
    findings.append(finding)
    if finding.name == 'index' and finding.ok and arguments.lock is not None:
      findings.append(_compared(arguments, finding))
  ok = all(finding.ok for finding in findings)
  if arguments.json:
    report: dict[str, Any] = {
        'index': arguments.index,
        'ok': ok,
        'findings': [dataclasses.asdict(finding) for finding in findings],
    }
    print(json.dumps(report, indent=2))
    return 0 if ok else 1
  for finding in findings:
    print(
        f'{"ok" if finding.ok else "FAILED":7} {finding.name}: '
        f'{finding.message}')
    for error_type, examples in finding.details.get('examples', {}).items():
      count = finding.details['refused'][error_type]
      print(f'        {count} x {error_type}')
      for example in examples:
        print(f'          {example}')
  return 0 if ok else 1


def _compared(
    arguments: argparse.Namespace, index: check.Finding) -> check.Finding:
  """The index beside a schema lock."""
  try:
    lock = read_lock(arguments.lock)
  except (OSError, ValueError) as e:
    return check.Finding('lock', False, f'{arguments.lock} cannot be read: {e}')
  assert lock is not None
  found = Schema.of(
      lock.target,
      properties={
          name: index.details[name] for name, _ in lock.properties
      })
  differences = [str(change) for change in changes(lock, found)]
  if differences:
    return check.Finding(
        'lock',
        False,
        f'the index is not what {arguments.lock} says: '
        f'{"; ".join(differences)}', {'differences': differences})
  return check.Finding('lock', True, f'the index is what {arguments.lock} says')


def _lock(arguments: argparse.Namespace, connection: PineconeConnection) -> int:
  try:
    found = check.describe(arguments.index, connection)
  except Exception as e:  # pylint: disable=broad-except
    print(
        f'{arguments.index}: {check.reason_of(e, arguments.index)}',
        file=sys.stderr)
    return 1
  schema = lock_of(found.schema)
  try:
    schema.save(arguments.file)
  except OSError as e:
    print(f'{arguments.file} cannot be written: {e}', file=sys.stderr)
    return 1
  shown = ', '.join(f'{name} {value}' for name, value in schema.properties)
  print(f'{arguments.file}: {schema.target}: {shown}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
