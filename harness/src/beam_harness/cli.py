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
"""The command `beam-harness`: run an emulator, the demo or a benchmark.

    beam-harness up pinecone --port 5080 --faults plan.json
    beam-harness demo [...]
    beam-harness bench [...]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import pathlib
import shlex
import signal
import sys
import threading
from collections.abc import Sequence

from beam_harness.emulators.handle import EmulatorError
from beam_harness.emulators.launch import start
from beam_harness.emulators.requestlog import Capture
from beam_harness.faults import FaultPlan

__all__ = ['main']

#: Commands that live in a module of their own, imported when asked for.
_ELSEWHERE = {
    'demo': 'the end-to-end pipeline of the README',
    'bench': 'load benchmarks',
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command.

  Returns:
    The exit code.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv and argv[0] in _ELSEWHERE:
    module_name = _module_of(argv[0])
    if module_name is not None:
      return importlib.import_module(module_name).main(argv[1:]) or 0
  args = _parser().parse_args(argv)
  return _up(args)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      prog='beam-harness', description='Emulators, demo and benchmarks.')
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  up = commands.add_parser(
      'up',
      help='run an emulator until Ctrl-C',
      description='Runs an emulator on 127.0.0.1 until Ctrl-C and prints the '
      'environment variables that point the clients of the service to it.')
  up.add_argument('service', metavar='SERVICE', help='pinecone')
  up.add_argument(
      '--port', type=int, default=0, help='default: one that is free')
  up.add_argument(
      '--faults',
      type=pathlib.Path,
      metavar='FILE',
      help='a fault plan as JSON: {"seed": 7, "rules": [{"kind": "error", '
      '"operation": "upsert", "probability": 0.1}]}')
  up.add_argument(
      '--capture',
      action='store_true',
      help='keep headers (no secrets) and bodies in the request log')
  for name, text in _ELSEWHERE.items():
    if _module_of(name) is not None:
      commands.add_parser(name, help=text, add_help=False)
  return parser


def _module_of(name: str) -> str | None:
  """The module of a command; None where this harness does not have it."""
  module_name = f'beam_harness.{name}'
  return module_name if importlib.util.find_spec(module_name) else None


def _up(args: argparse.Namespace) -> int:
  stop = threading.Event()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stop.set())
  try:
    plan = None
    if args.faults is not None:
      plan = FaultPlan.from_json(args.faults.read_bytes())
    emulator = start(
        args.service,
        port=args.port,
        faults=plan,
        capture=Capture(headers=args.capture, bodies=args.capture))
  except (EmulatorError, OSError, ValueError) as e:
    print(f'beam-harness: {e}', file=sys.stderr)
    return 2
  with emulator:
    for name, value in emulator.environment().items():
      print(f'export {name}={shlex.quote(value)}', flush=True)
    print(
        f'{args.service} answers REST and gRPC at {emulator.host}; '
        'Ctrl-C stops it',
        file=sys.stderr,
        flush=True)
    stop.wait()
  return 0


if __name__ == '__main__':
  sys.exit(main())
