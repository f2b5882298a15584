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
"""Which index a request is for: several indexes behind one emulator.

A client dials the host that the control plane gives for an index, and nothing
else in its requests names the index. So each index needs an address of its
own. What `Rules.hosts` says:

- 'auto': the first index has the emulator's own address, every further one a
  port of its own on 127.0.0.1, a `Door` to the same emulator.
- 'ports': every index has a port of its own.
- 'names': every index is at `<name>.localhost` and the emulator's port. Only
  where the resolver knows such names; many do not.
- 'shared': every index is at the emulator's own address.

Requests to `<name>.localhost` and to doors are understood whatever the rule.
What comes to the emulator's own address goes to `Rules.default_index`, to the
index that was given the address, or to the oldest.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import weakref
from collections.abc import Collection

from beam_harness.emulators.pinecone.rules import Rules

__all__ = ['Addresses', 'Door']

_NAMES = '.localhost'
_CHUNK = 1 << 18


class Door:
  """A loopback port whose connections are passed on to the emulator's.

  Bytes go through unchanged, so a client's Host header names the door. A
  connection the emulator resets is reset here too.
  """
  def __init__(self, host: str, port: int):
    """
    Args:
      host, port: where the emulator listens.
    """
    self._target = (host, port)
    self._socket = socket.create_server(('127.0.0.1', 0), backlog=1024)
    self.port: int = self._socket.getsockname()[1]
    self._loop = asyncio.new_event_loop()
    self._thread = threading.Thread(
        target=self._run, name=f'door-{self.port}', daemon=True)
    self._thread.start()

  def stop(self) -> None:
    """Stops listening and drops what is open, soon."""
    if not self._loop.is_closed():
      self._loop.call_soon_threadsafe(self._loop.stop)

  def close(self) -> None:
    """Stops listening and drops what is open."""
    self.stop()
    self._thread.join(timeout=5)

  def _run(self) -> None:
    asyncio.set_event_loop(self._loop)
    server = self._loop.run_until_complete(
        asyncio.start_server(self._pass_on, sock=self._socket, limit=_CHUNK))
    try:
      self._loop.run_forever()
    finally:
      server.close()
      tasks = asyncio.all_tasks(self._loop)
      for task in tasks:
        task.cancel()
      self._loop.run_until_complete(
          asyncio.gather(*tasks, return_exceptions=True))
      self._loop.close()

  async def _pass_on(
      self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
      inner_reader, inner_writer = await asyncio.open_connection(*self._target)
    except OSError:
      _reset(writer)
      return
    ways = [
        asyncio.ensure_future(_pump(reader, inner_writer)),
        asyncio.ensure_future(_pump(inner_reader, writer)),
    ]
    try:
      await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
      if any(way.done() and way.exception() for way in ways):
        _reset(writer)
        _reset(inner_writer)
    finally:
      for way in ways:
        way.cancel()
      await asyncio.gather(*ways, return_exceptions=True)
      for each in (writer, inner_writer):
        each.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
  while data := await reader.read(_CHUNK):
    writer.write(data)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
  sock = writer.get_extra_info('socket')
  if sock is not None and sock.fileno() >= 0:
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
  writer.transport.abort()


class Addresses:
  """The addresses given out, and the index each one means."""
  def __init__(self):
    self._doors: dict[str, Door] = {}
    self._own_host = ''
    self._owner: str | None = None
    weakref.finalize(self, _stop_all, self._doors)

  def learn(self, host: str) -> None:
    """Takes note of the emulator's own address, 'host:port'."""
    self._own_host = host

  def url(self, name: str, host: str, rules: Rules) -> str:
    """The address of an index, with its scheme.

    Args:
      name: the index.
      host: the Host header of the request that asks.
      rules: for `hosts`.
    """
    own = self._own(host)
    bare, port = _split(own)
    if rules.hosts == 'names':
      return f'http://{name}{_NAMES}:{port}'
    if rules.hosts == 'auto' and self._owner is None:
      self._owner = name
    if rules.hosts == 'shared' or (rules.hosts == 'auto'
                                   and self._owner == name):
      return f'http://{own}'
    door = self._doors.get(name)
    if door is None:
      door = self._doors[name] = Door(bare, port)
    return f'http://127.0.0.1:{door.port}'

  def index_of(
      self, host: str, names: Collection[str], rules: Rules) -> str | None:
    """The index a request to `host` is for, or None."""
    bare, port = _split(host)
    if bare.endswith(_NAMES):
      return bare[:-len(_NAMES)]
    for name, door in self._doors.items():
      if door.port == port:
        return name
    if rules.default_index is not None:
      return rules.default_index
    if self._owner in names:
      return self._owner
    return next(iter(names), None)

  def forget(self, name: str) -> None:
    """Gives up the address of an index that is gone."""
    door = self._doors.pop(name, None)
    if door is not None:
      door.close()
    if self._owner == name:
      self._owner = None

  def close(self) -> None:
    """Gives up all addresses."""
    for name in list(self._doors):
      self.forget(name)
    self._owner = None

  def _own(self, host: str) -> str:
    bare, port = _split(host)
    through_door = any(door.port == port for door in self._doors.values())
    if through_door and self._own_host:
      return self._own_host
    if bare.endswith(_NAMES):
      return f'127.0.0.1:{port}'
    self._own_host = host
    return host


def _stop_all(doors: dict[str, Door]) -> None:
  for door in doors.values():
    door.stop()


def _split(host: str) -> tuple[str, int]:
  bare, _, port = host.lower().rpartition(':')
  if not bare or not port.isdigit():
    return host.lower(), 80
  return bare, int(port)
