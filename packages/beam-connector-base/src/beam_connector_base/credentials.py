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
"""Credentials by reference: named in the pipeline, read on the worker.

What a transform holds is pickled into the job graph, where many people can
read it. So connections hold a reference, in the shape of
`apache_beam.utils.secret.Secret` (Beam 2.77), whose subclasses are accepted as
well; `resolve` reads it on the worker and `redact` keeps it out of messages.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import threading
from typing import Any
from urllib.parse import quote

__all__ = [
    'CredentialError',
    'EnvSecret',
    'FileSecret',
    'check_secret',
    'redact',
    'resolve',
]


class CredentialError(RuntimeError):
  """A credential could not be read where it was needed."""


@dataclasses.dataclass(frozen=True)
class EnvSecret:
  """A credential in an environment variable of the worker.

  Args:
    name: the variable's name.
  """
  name: str

  def __post_init__(self) -> None:
    if not isinstance(self.name, str) or not self.name:
      raise ValueError("EnvSecret: 'name' must name an environment variable")
    if '=' in self.name or '\0' in self.name:
      # Somebody passed a value ("KEY=...") where a name belongs: not echoed.
      raise ValueError(
          "EnvSecret: 'name' is not the name of an environment variable")

  def get_secret_bytes(self) -> bytes:
    """The variable's value.

    Raises:
      CredentialError: the variable is not set, or empty.
    """
    value = os.environ.get(self.name, '')
    if not value.strip():
      raise CredentialError(
          f'The environment variable {self.name} is not set, or empty, where '
          'the pipeline runs. Set it on the workers, or pass another '
          'reference to the credential.')
    return value.encode('utf-8', 'surrogateescape')

  def get_bytes(self, cacheSecret: bool = False) -> bytes:
    return self.get_secret_bytes()

  def get_str(self, cacheSecret: bool = False) -> str:
    return self.get_secret_bytes().decode('utf-8')


@dataclasses.dataclass(frozen=True)
class FileSecret:
  """A credential in a file on the worker, such as a mounted secret.

  The file is read anew for every session, so a rotated credential is seen.

  Args:
    path: path of the file; its whole content is the credential.
  """
  path: str

  def __post_init__(self) -> None:
    # A Path is turned into text: it compares equal on every platform.
    object.__setattr__(self, 'path', os.fspath(self.path))
    if not isinstance(self.path, str) or not self.path:
      raise ValueError("FileSecret: 'path' must be the path of a file")

  def get_secret_bytes(self) -> bytes:
    """The file's content.

    Raises:
      CredentialError: the file can't be read, or is empty.
    """
    try:
      with open(self.path, 'rb') as file:
        value = file.read()
    except OSError as e:
      raise CredentialError(
          f'The credential file {self.path} could not be read where the '
          f'pipeline runs: {e.strerror or type(e).__name__}.') from None
    if not value.strip():
      raise CredentialError(f'The credential file {self.path} is empty.')
    return value

  def get_bytes(self, cacheSecret: bool = False) -> bytes:
    return self.get_secret_bytes()

  def get_str(self, cacheSecret: bool = False) -> str:
    return self.get_secret_bytes().decode('utf-8')


def check_secret(value: Any, parameter: str) -> Any:
  """Accepts a reference to a credential, at construction; reads nothing.

  Args:
    value: `EnvSecret`, `FileSecret`, a secret of `apache_beam.utils.secret`, or
      any object with their `get_bytes` or `get_str`.
    parameter: the name of the parameter, for messages.

  Returns:
    The reference to keep. It is the value itself, or where that has no hash
    (Beam's secrets have none) a stand-in that is equal by value.

  Raises:
    ValueError: the credential itself was given.
    TypeError: it is no reference to a credential.
  """
  if isinstance(value, (str, bytes, bytearray)) or _is_raw(value):
    what = (
        type(value).__name__ if not _is_raw(value) else 'secret given directly')
    raise ValueError(
        f'{parameter}: a {what} would end up in the pickled pipeline, where '
        "others can read it. Pass a reference, such as EnvSecret('MY_API_KEY') "
        "or FileSecret('/run/secrets/api_key').")
  if isinstance(value, type) or not (callable(getattr(
      value, 'get_bytes', None)) or callable(getattr(value, 'get_str', None))):
    raise TypeError(
        f'{parameter}: expected a reference to a credential, such as '
        f"EnvSecret('MY_API_KEY'), not {_type_name(value)}.")
  try:
    hash(value)
  except TypeError:
    return _SecretByValue(value)
  return value


def resolve(secret: Any) -> str:
  """Reads a credential, on the worker.

  Surrounding white space is stripped: a trailing newline of a file would end
  up in a header. The value is remembered by this process, for `redact`.

  Raises:
    CredentialError: it is not set, empty, or not text.
  """
  if callable(getattr(secret, 'get_bytes', None)):
    value = secret.get_bytes()
  else:
    value = secret.get_str()
  if isinstance(value, (bytes, bytearray)):
    try:
      value = bytes(value).decode('utf-8')
    except UnicodeDecodeError:
      # `from None`: the decoding error holds the credential.
      raise CredentialError(
          f'The credential behind {_describe(secret)} is not UTF-8 text.'
      ) from None
  if not isinstance(value, str) or not value.strip():
    raise CredentialError(
        f'The credential behind {_describe(secret)} is empty.')
  value = value.strip()
  _remembered.add(value)
  return value


def redact(text: str) -> str:
  """Replaces every credential that this process resolved by `***`."""
  return _remembered.redact(text)


# --------------------------------------------------------------------- helpers


class _Remembered:
  """The credentials that this process has seen."""
  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._values: set[str] = set()
    self._pattern: re.Pattern[str] | None = None

  def add(self, value: str) -> None:
    with self._lock:
      if value in self._values:
        return
      # As it stands in a URL, too, and in the repr of text or bytes: errors of
      # other libraries quote what they could not send.
      self._values.update((
          value,
          quote(value, safe=''),
          repr(value)[1:-1],
          repr(value.encode('utf-8', 'surrogateescape'))[2:-1]))
      # Longest first: a credential may contain another one.
      longest_first = sorted(self._values, key=len, reverse=True)
      self._pattern = re.compile('|'.join(map(re.escape, longest_first)))

  def redact(self, text: str) -> str:
    pattern = self._pattern
    return text if pattern is None else pattern.sub('***', text)


_remembered = _Remembered()


def _is_raw(value: Any) -> bool:
  """Beam's RawSecret; recognised by name, the class exists from 2.77 on."""
  return any(
      cls.__name__ == 'RawSecret'
      and cls.__module__ == 'apache_beam.utils.secret'
      for cls in type(value).__mro__)


def _type_name(value: Any) -> str:
  return value.__name__ if isinstance(value, type) else type(value).__name__


def _describe(secret: Any) -> str:
  # Not every secret's repr can be trusted to hide the value.
  ours = (EnvSecret, FileSecret, _SecretByValue)
  return repr(secret) if isinstance(secret, ours) else type(secret).__name__


class _SecretByValue:
  """A reference that is equal by value around one that has no hash.

  Operations are the keys of the process's open sessions, so all they hold
  needs a hash; the secrets of Beam 2.77 define only `__eq__`.
  """
  __slots__ = ('_secret', '_state')

  def __init__(self, secret: Any):
    self._secret = secret
    self._state = pickle.dumps(secret, protocol=4)

  def get_secret_bytes(self) -> bytes:
    return self.get_bytes()

  def get_bytes(self, cacheSecret: bool = False) -> bytes:
    if callable(getattr(self._secret, 'get_bytes', None)):
      return self._secret.get_bytes()
    return self._secret.get_str().encode('utf-8')

  def get_str(self, cacheSecret: bool = False) -> str:
    return self.get_bytes().decode('utf-8')

  def __eq__(self, other: Any) -> bool:
    return isinstance(other, _SecretByValue) and self._state == other._state

  def __hash__(self) -> int:
    return hash(self._state)

  def __reduce__(self) -> Any:
    # The bytes are carried along: pickled anew they need not be the same.
    return _restore_secret, (self._state,)

  def __repr__(self) -> str:
    return f'<{type(self._secret).__name__}>'


def _restore_secret(state: bytes) -> _SecretByValue:
  restored = _SecretByValue.__new__(_SecretByValue)
  restored._secret = pickle.loads(state)
  restored._state = state
  return restored
