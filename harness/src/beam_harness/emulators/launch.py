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
"""Starts an emulator: as a thread of this process, or as a process of its own.

A thread starts in no time and is right for tests of one process. A process
does not share the interpreter lock with what is measured, and survives a fork
of the test: right for benchmarks, worker processes and tests that fork.

The parent binds the socket, so a port is known at once and never raced for.
The child ends when its standard input does: a killed parent leaves nothing
behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal

from beam_harness.emulators.core import create_service
from beam_harness.emulators.handle import Emulator
from beam_harness.emulators.handle import EmulatorError
from beam_harness.emulators.requestlog import Capture
from beam_harness.emulators.server import Server
from beam_harness.faults import FaultPlan

__all__ = ['Mode', 'main', 'start']

Mode = Literal['thread', 'process']

_LOGGER = logging.getLogger(__name__)

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_GONE_SECONDS = 1.0
_TAIL_BYTES = 4_000


def start(
    service: str,
    *,
    mode: Mode = 'thread',
    port: int = 0,
    faults: FaultPlan | None = None,
    capture: Capture | None = None,
    options: Mapping[str, Any] | None = None) -> Emulator:
  """Starts an emulator and returns when it answers.

  Args:
    service: name of the service ('pinecone'), or the dotted path of a module
      that has a `create_service`.
    mode: 'thread' or 'process'.
    port: port on 127.0.0.1; 0 is a free one.
    faults: the plan to begin with.
    capture: what the log keeps of each request.
    options: for `create_service`; JSON-able.

  Raises:
    ValueError: no such service, mode or option; or a plan it cannot carry out.
    EmulatorError: it did not start; the message ends with its log's tail.
    OSError: the port is taken.
  """
  if mode not in ('thread', 'process'):
    raise ValueError(f'mode is thread or process, not {mode!r}')
  # Made here in both modes: what is wrong with the arguments is said at once.
  server = Server(
      create_service(service, **(options or {})),
      faults=faults,
      capture=capture)
  sock = socket.create_server(('127.0.0.1', port), backlog=1024)
  try:
    if mode == 'thread':
      return _start_thread(server, sock)
    return _start_process(service, sock, faults, capture, options)
  except BaseException:
    sock.close()
    raise


# ---------------------------------------------------------------- one thread


def _start_thread(server: Server, sock: socket.socket) -> Emulator:
  host = _host(sock)
  loop = asyncio.new_event_loop()
  stop = asyncio.Event()

  async def run() -> None:
    await server.listen(sock)
    await stop.wait()
    await server.close()

  def target() -> None:
    with contextlib.closing(loop):
      loop.run_until_complete(run())

  thread = threading.Thread(
      target=target, name=f'emulator-{server.service.name}', daemon=True)

  def close() -> None:
    with contextlib.suppress(RuntimeError):  # The loop may have ended.
      loop.call_soon_threadsafe(stop.set)
    thread.join(_STOP_SECONDS)

  thread.start()
  emulator = Emulator(host, close=close)
  try:
    emulator.wait_until_ready(_START_SECONDS)
  except BaseException:
    close()
    raise
  return emulator


# ------------------------------------------------------------ its own process


def _start_process(
    service: str,
    sock: socket.socket,
    faults: FaultPlan | None,
    capture: Capture | None,
    options: Mapping[str, Any] | None) -> Emulator:
  host = _host(sock)
  settings = {
      'faults': (faults or FaultPlan()).to_json(),
      'capture': {
          'headers': bool(capture and capture.headers),
          'bodies': bool(capture and capture.bodies)
      },
      'options': dict(options or {}),
  }
  log = _Log(service)
  command = [sys.executable, '-m', 'beam_harness.emulators.launch', service]
  command += ['--fd', str(sock.fileno())]
  command += ['--settings', json.dumps(settings)]
  # The child finds the modules that this process finds.
  path = os.pathsep.join(filter(None, sys.path))
  with sock:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log.file,
        stderr=log.file,
        env={
            **os.environ, 'PYTHONPATH': path
        },
        pass_fds=[sock.fileno()])

  def obituary() -> str | None:
    try:
      # A process that ends loses its sockets before it is gone.
      code = process.wait(_GONE_SECONDS)
    except subprocess.TimeoutExpired:
      return None
    return f'its process ended with {code}; {log.kept()}'

  def close() -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
      process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
    if process.returncode:
      _LOGGER.warning(
          'the %s emulator did not end in good order (%d); %s',
          service,
          process.returncode,
          log.kept())
    log.file.close()

  emulator = Emulator(host, close=close, obituary=obituary)
  try:
    emulator.wait_until_ready(_START_SECONDS)
  except EmulatorError as e:
    said = str(e)
    if process.poll() is None:
      said += f'\n{log.kept()}'
    close()
    raise EmulatorError(said) from e
  except BaseException:
    close()
    raise
  return emulator


class _Log:
  """What the child writes: in a file without a name, unless something failed.

  So nothing is left behind, whoever is killed.
  """
  def __init__(self, service: str):
    self._service = service.rpartition('.')[2]
    self._path: str | None = None
    self._tail = ''
    self.file = tempfile.TemporaryFile()

  def kept(self) -> str:
    """Gives what was written a name; says the name, and the end of it."""
    if self._path is None:
      if self.file.closed:
        return 'it ended in good order'
      size = os.fstat(self.file.fileno()).st_size
      # Not by seeking: the child writes where the file's position is.
      data = os.pread(self.file.fileno(), size, 0)
      with tempfile.NamedTemporaryFile(prefix=f'beam-harness-{self._service}-',
                                       suffix='.log',
                                       delete=False) as kept:
        kept.write(data)
      self._path = kept.name
      self._tail = data[-_TAIL_BYTES:].decode(errors='replace')
    return f'the end of {self._path}:\n{self._tail}'


def main(argv: Sequence[str] | None = None) -> int:
  """The child process. Ends with its standard input, or with its parent."""
  parser = argparse.ArgumentParser(prog='beam_harness.emulators.launch')
  parser.add_argument('service')
  parser.add_argument('--fd', type=int, required=True, help='listening socket')
  parser.add_argument('--settings', type=json.loads, default={})
  args = parser.parse_args(argv)
  # Ctrl-C in a terminal reaches the whole group; the parent decides.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  server = Server(
      create_service(args.service, **args.settings.get('options', {})),
      faults=FaultPlan.from_json(args.settings.get('faults', {})),
      capture=Capture(**args.settings.get('capture', {})))
  asyncio.run(_run_child(server, socket.socket(fileno=args.fd)))
  return 0


async def _run_child(server: Server, sock: socket.socket) -> None:
  loop = asyncio.get_running_loop()
  stop = asyncio.Event()
  loop.add_signal_handler(signal.SIGTERM, stop.set)

  def watch_stdin() -> None:
    while os.read(0, 1024):
      pass
    loop.call_soon_threadsafe(stop.set)

  threading.Thread(target=watch_stdin, daemon=True).start()
  await server.listen(sock)
  parent = os.getppid()
  # A fork of the parent may hold the other end of the pipe open beyond it.
  while os.getppid() == parent:
    with contextlib.suppress(asyncio.TimeoutError):
      await asyncio.wait_for(stop.wait(), 1.0)
      break
  await server.close()


def _host(sock: socket.socket) -> str:
  return '{}:{}'.format(*sock.getsockname()[:2])


if __name__ == '__main__':
  sys.exit(main())
