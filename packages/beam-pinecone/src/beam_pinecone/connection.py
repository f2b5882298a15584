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
"""Where Pinecone is, who we are, and how an index's own host is found."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any
from typing import Optional
from typing import Union

from beam_connector_base.credentials import CredentialError
from beam_connector_base.credentials import EnvSecret
from beam_connector_base.credentials import check_secret
from beam_connector_base.credentials import resolve
from beam_connector_base.retry import parse_retry_after
from beam_pinecone._version import __version__
from beam_pinecone.errors import PineconeError

__all__ = ['API_VERSION', 'Endpoint', 'PineconeConnection']

# What both planes are asked to speak.
API_VERSION = '2026-07'
DEFAULT_CONTROL_HOST = 'https://api.pinecone.io'
DEFAULT_API_KEY = EnvSecret('PINECONE_API_KEY')
# States an index comes out of by itself.
_TRANSIENT_STATES = frozenset(
    ['Initializing', 'ScalingUp', 'ScalingDown', 'ScalingUpPodSize'])
_MAX_BODY_BYTES = 1 << 20
# What both planes take; gRPC (1.85) says only that a call failed otherwise, and
# http.client repeats the value in its error.
_HEADER_NAME = re.compile('[0-9a-z_.-]+')
_HEADER_VALUE = re.compile('[ -~]*')
# How keys look: those of today, and those of the first years.
_KEY = re.compile(
    'pcsk_.*|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}')


@dataclasses.dataclass(frozen=True)
class Endpoint:
  """Where the data of one index is.

  Args:
    address: host and port.
    tls: whether to encrypt.
  """
  address: str
  tls: bool

  @property
  def is_loopback(self) -> bool:
    """Whether it is on this machine."""
    return _is_loopback(self.address)


@dataclasses.dataclass(frozen=True)
class PineconeConnection:
  """Where Pinecone is and who we are. Nothing is contacted at construction.

  Left out, everything comes from the environment of the *worker*, under the
  names that Pinecone's own clients use: `PINECONE_API_KEY`,
  `PINECONE_CONTROLLER_HOST`, `PINECONE_ADDITIONAL_HEADERS` (a JSON object) and
  `PINECONE_GRPC_SCHEME` ('http' or 'https').

  Args:
    host: host of the index, as the console shows it; may carry `http://` or
      `https://` and a port. None: it is looked up by the index's name, once
      per worker process.
    api_key: a reference to the key, such as `EnvSecret('PINECONE_API_KEY')` or
      `FileSecret('/run/secrets/pinecone')`, never the key itself.
    control_host: base URL of the control plane; by default
      `PINECONE_CONTROLLER_HOST` or https://api.pinecone.io.
    tls: whether to encrypt the data plane. None: as the host's scheme says,
      else as `PINECONE_GRPC_SCHEME` says, else yes.
    source_tag: names the application in Pinecone's records of its requests.
    ca_certs: path, on the worker, of PEM certificates to trust instead of the
      system's.
    timeout: seconds for one request of the control plane, or for statistics.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  host: Optional[str] = None
  api_key: Any = DEFAULT_API_KEY
  control_host: Optional[str] = None
  tls: Optional[bool] = None
  source_tag: Optional[str] = None
  ca_certs: Optional[str] = None
  timeout: float = 20.0

  def __post_init__(self) -> None:
    _set = object.__setattr__
    _set(self, 'api_key', check_secret(self.api_key, 'api_key'))
    if isinstance(self.api_key, EnvSecret) and _KEY.fullmatch(
        self.api_key.name):
      raise ValueError(
          'api_key: EnvSecret is given the name of an environment variable, '
          'not the key itself, which would end up in the pickled pipeline: '
          "EnvSecret('PINECONE_API_KEY')")
    for name in ('host', 'control_host', 'source_tag'):
      value = getattr(self, name)
      if value is not None and not isinstance(value, str):
        raise TypeError(
            f'PineconeConnection: {name} is a {type(value).__name__}, not a '
            'string')
    if self.ca_certs is not None:
      _set(self, 'ca_certs', os.fspath(self.ca_certs))
    if self.host is not None:
      parse_host(self.host, 'host')
    if self.control_host is not None:
      parse_host(self.control_host, 'control_host')
    if self.tls not in (None, True, False):
      raise TypeError('PineconeConnection: tls is True, False or None')
    if isinstance(self.timeout, bool) or not isinstance(self.timeout,
                                                        (int, float)):
      raise TypeError('PineconeConnection: timeout is a number of seconds')
    if not 0 < self.timeout < float('inf'):
      raise ValueError('PineconeConnection: timeout is not positive')
    if self.source_tag is not None:
      # As Pinecone's own clients write it.
      tag = re.sub('[^a-z0-9_ :]', '', self.source_tag.lower())
      _set(self, 'source_tag', re.sub(' +', '_', tag.strip()) or None)

  @classmethod
  def of(
      cls, value: Union[PineconeConnection, str, None]) -> PineconeConnection:
    """A connection from what a transform accepts: None, a host, or itself."""
    if value is None:
      return cls()
    if isinstance(value, str):
      return cls(host=value)
    if isinstance(value, cls):
      return value
    raise TypeError(
        f'connection is a {type(value).__name__}: it is a PineconeConnection, '
        'the host of the index, or None')

  @property
  def user_agent(self) -> str:
    """How we introduce ourselves."""
    tag = f' source_tag={self.source_tag}' if self.source_tag else ''
    return f'beam-pinecone/{__version__}{tag}'

  # -------------------------------------------------------------- on a worker

  def headers(self) -> dict[str, str]:
    """The headers of every request, the credential among them.

    Raises:
      CredentialError: the key cannot be read.
      ValueError: `PINECONE_ADDITIONAL_HEADERS` is no JSON object of headers.
    """
    headers = {}
    extra = os.environ.get('PINECONE_ADDITIONAL_HEADERS', '').strip()
    if extra:
      try:
        parsed = json.loads(extra)
      except ValueError:
        parsed = None
      if not isinstance(parsed, dict):
        # The value may hold a credential: not echoed.
        raise ValueError(
            'the environment variable PINECONE_ADDITIONAL_HEADERS is not a '
            'JSON object of header names and values')
      headers = {str(k).lower(): str(v) for k, v in parsed.items()}
      for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(
            value):
          raise ValueError(
              f'the header {name!r} of the environment variable '
              'PINECONE_ADDITIONAL_HEADERS cannot be sent: a name has letters, '
              'digits, "-", "_" and ".", a value printable ASCII')
    key = resolve(self.api_key)
    if not _HEADER_VALUE.fullmatch(key):
      raise CredentialError(
          'what PineconeConnection(api_key=...) refers to is no API key: it '
          'has several lines or characters outside ASCII; check what the '
          'variable or file holds')
    headers['api-key'] = key
    headers['x-pinecone-api-version'] = API_VERSION
    return headers

  def locate(self, index: str) -> Endpoint:
    """Finds the data plane of an index; blocks for at most `timeout`.

    Raises:
      PineconeError: the control plane's answer, with what to do about it.
      OSError: it was not reached.
    """
    host = self.host
    if host is None:
      host = self._describe(index)
    scheme, address = parse_host(host, 'host')
    if self.tls is not None:
      tls = self.tls
    elif scheme:
      tls = scheme == 'https'
    else:
      tls = os.environ.get('PINECONE_GRPC_SCHEME', '').lower() != 'http'
    if ':' not in address.rpartition(']')[2]:
      address += ':443' if tls else ':80'
    return Endpoint(address, tls)

  def _describe(self, index: str) -> str:
    base = (
        self.control_host or os.environ.get('PINECONE_CONTROLLER_HOST')
        or DEFAULT_CONTROL_HOST)
    scheme, address = parse_host(base, 'control_host')
    base = f'{scheme or "https"}://{address}'
    name = urllib.parse.quote(index, safe='')
    answer = self._get(f'{base}/indexes/{name}', index, base)
    _check_usable(answer, index)
    host = answer.get('host')
    if not isinstance(host, str) or not host:
      raise PineconeError(
          'UNAVAILABLE', f'Pinecone told no host for index {index!r} yet')
    return host

  def _get(self, url: str, index: str, base: str) -> dict[str, Any]:
    headers = {**self.headers(), 'user-agent': self.user_agent}
    request = urllib.request.Request(url, headers=headers)
    # A redirect would carry the key to another host.
    handlers: list[Any] = [_NoRedirects()]
    if url.startswith('https:'):
      context = ssl.create_default_context(cafile=self.ca_certs)
      handlers.append(urllib.request.HTTPSHandler(context=context))
    if _is_loopback(urllib.parse.urlsplit(url).netloc):
      handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    try:
      with opener.open(request, timeout=self.timeout) as response:
        body = response.read(_MAX_BODY_BYTES)
    except urllib.error.HTTPError as e:
      with e:
        raise _control_error(e, index, base) from None
    except urllib.error.URLError as e:
      raise ConnectionError(
          f'the control plane {base} was not reached ({e.reason}): check '
          'control_host and PINECONE_CONTROLLER_HOST, or give the host of the '
          'index') from e
    except (OSError, http.client.HTTPException) as e:
      raise ConnectionError(
          f'the control plane {base} did not answer '
          f'({type(e).__name__}: {e}): check control_host and '
          'PINECONE_CONTROLLER_HOST, or give the host of the index') from e
    try:
      answer = json.loads(body)
    except ValueError:
      answer = None
    if not isinstance(answer, dict):
      raise PineconeError(
          'UNAVAILABLE',
          f'the control plane {base} answered with something '
          f'that is no index ({len(body)} bytes)')
    return answer


class _NoRedirects(urllib.request.HTTPRedirectHandler):
  def redirect_request(self, *args: Any, **kwargs: Any) -> None:
    return None


def parse_host(text: str, parameter: str) -> tuple[str, str]:
  """A host with or without scheme, as (scheme or '', host and port).

  Raises:
    ValueError: if it is none.
  """
  scheme, rest = '', text.strip()
  match = re.match(r'([A-Za-z][A-Za-z0-9+.-]*)://', rest)
  if match:
    scheme, rest = match.group(1).lower(), rest[match.end():]
  rest = rest.rstrip('/')
  if scheme not in ('', 'http', 'https') or not re.fullmatch(
      r'(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?', rest):
    # What stands before an @ is a name and a password.
    shown = re.sub('[^/]*@', '***@', text)
    raise ValueError(
        f'{parameter} is {shown!r}: it is a host such as '
        "'docs-abc123.svc.aped-4627-b74a.pinecone.io', or "
        "'http://localhost:5081'")
  return scheme, rest


def _is_loopback(address: str) -> bool:
  host = re.sub(r':[0-9]+$', '', address).strip('[]')
  return host in ('localhost', '::1') or host.startswith('127.')


def _check_usable(answer: dict[str, Any], index: str) -> None:
  fields = (answer.get('schema') or {}).get('fields') or {}
  own = sorted(name for name in fields if not name.startswith('_'))
  if own:
    raise PineconeError('FAILED_PRECONDITION', documents_remedy(index))
  status = answer.get('status') or {}
  state = status.get('state')
  if status.get('ready') is False:
    if state in _TRANSIENT_STATES:
      raise PineconeError(
          'UNAVAILABLE', f'index {index!r} is not ready yet ({state})')
    raise PineconeError(
        'FAILED_PRECONDITION',
        f'index {index!r} is {state}: it takes no data, see the console')


def documents_remedy(index: str) -> str:
  """What to say of an index that takes documents instead of vectors."""
  return (
      f'index {index!r} is a document index (its schema names fields), which '
      'takes and tells documents and no vectors: use a vector index, made '
      'without a schema of fields')


def _control_error(
    error: urllib.error.HTTPError, index: str, base: str) -> PineconeError:
  body = error.read(_MAX_BODY_BYTES).decode('utf-8', 'replace')
  said = _message_of(body)
  text = {
      401:
          'the API key is not known to it: check the key that '
          'PineconeConnection(api_key=...) refers to',
      403: 'the API key may not do this: check its role and project',
      404:
          f'there is no index {index!r} in the project of this API key: check '
          'the name, or create the index first',
  }.get(error.code)
  if text is None and 300 <= error.code < 400:
    text = 'it redirects elsewhere: check control_host'
  message = f'the control plane {base} refused to describe index {index!r}'
  message += f': {text} (it said: {said})' if text else f': {said}'
  headers = error.headers
  return PineconeError(
      str(error.code),
      message,
      parse_retry_after(headers.get('retry-after')),
      headers.get('x-pinecone-request-id') or headers.get('x-request-id'))


def _message_of(body: str) -> str:
  try:
    parsed = json.loads(body)
  except ValueError:
    parsed = None
  if isinstance(parsed, dict):
    error = parsed.get('error')
    message = error.get('message') if isinstance(error, dict) else None
    message = message or parsed.get('message')
    if isinstance(message, str):
      return message[:500]
  return body.strip()[:500] or 'nothing'
