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

import pickle

import pytest

from beam_connector_base.credentials import CredentialError
from beam_connector_base.credentials import EnvSecret
from beam_connector_base.credentials import FileSecret
from beam_connector_base.credentials import check_secret
from beam_connector_base.credentials import redact
from beam_connector_base.credentials import resolve

try:
  from apache_beam.utils.secret import GcpSecret
  from apache_beam.utils.secret import RawSecret
except ImportError:  # before Beam 2.77: classes of the same shape

  class RawSecret:
    def __init__(self, secret):
      self._secret = secret

    def get_bytes(self, cacheSecret=False):
      return self._secret

  RawSecret.__module__ = 'apache_beam.utils.secret'

  class GcpSecret:
    __hash__ = None

    def __init__(self, version_name):
      self._version_name = version_name

    def get_bytes(self, cacheSecret=False):
      return b''

    def __eq__(self, other):
      return self._version_name == other._version_name


def test_environment_variable_is_read_where_it_is_resolved(monkeypatch):
  reference = pickle.loads(pickle.dumps(EnvSecret('TEST_KEY')))
  monkeypatch.setenv('TEST_KEY', 'from-environment\n')
  assert resolve(reference) == 'from-environment'


def test_file_is_read_anew_and_stripped(tmp_path):
  path = tmp_path / 'key'
  path.write_text('first-value\n')
  reference = FileSecret(path)
  assert resolve(reference) == 'first-value'
  path.write_text('  rotated-value  ')
  assert resolve(pickle.loads(pickle.dumps(reference))) == 'rotated-value'


def test_pickle_and_repr_hold_the_name_only(monkeypatch):
  monkeypatch.setenv('TEST_KEY', 'sup3r-s3cret')
  reference = EnvSecret('TEST_KEY')
  resolve(reference)
  assert b'sup3r' not in pickle.dumps(reference)
  assert 'sup3r' not in repr(reference)
  assert reference == EnvSecret('TEST_KEY')
  assert hash(reference) == hash(EnvSecret('TEST_KEY'))


@pytest.mark.parametrize('value', [None, '', ' \n'])
def test_unset_or_empty_variable_is_named(monkeypatch, value):
  monkeypatch.delenv('TEST_KEY', raising=False)
  if value is not None:
    monkeypatch.setenv('TEST_KEY', value)
  with pytest.raises(CredentialError, match='TEST_KEY.*not set, or empty'):
    resolve(EnvSecret('TEST_KEY'))


def test_missing_and_empty_file_are_named(tmp_path):
  with pytest.raises(CredentialError, match='nowhere.*No such file'):
    resolve(FileSecret(str(tmp_path / 'nowhere')))
  (tmp_path / 'empty').write_text('\n')
  with pytest.raises(CredentialError, match='empty'):
    resolve(FileSecret(str(tmp_path / 'empty')))


def test_credential_that_is_no_text_is_not_echoed(tmp_path):
  (tmp_path / 'key').write_bytes(b'sup3r\xff')
  with pytest.raises(CredentialError, match='not UTF-8') as raised:
    resolve(FileSecret(str(tmp_path / 'key')))
  assert raised.value.__cause__ is None
  assert 'sup3r' not in str(raised.value)


@pytest.mark.parametrize('value', ['sup3r', b'sup3r', RawSecret('sup3r')])
def test_credential_given_directly_is_refused_without_echo(value):
  with pytest.raises(ValueError, match='api_key.*EnvSecret') as raised:
    check_secret(value, 'api_key')
  assert 'sup3r' not in str(raised.value)


@pytest.mark.parametrize('value', [None, 7, EnvSecret])
def test_what_is_no_reference_is_refused(value):
  with pytest.raises(TypeError, match='api_key'):
    check_secret(value, 'api_key')


def test_value_in_place_of_a_name_is_not_echoed():
  with pytest.raises(ValueError) as raised:
    EnvSecret('TEST_KEY=sup3r')
  assert 'sup3r' not in str(raised.value)


def test_beams_secrets_get_a_hash_and_stay_equal_when_unpickled():
  reference = GcpSecret('projects/p/secrets/s/versions/1')
  with pytest.raises(TypeError):
    hash(reference)
  kept = check_secret(reference, 'api_key')
  copy = pickle.loads(pickle.dumps(kept))
  assert kept == copy == check_secret(reference, 'api_key')
  assert hash(kept) == hash(copy)
  assert kept != check_secret(GcpSecret('other'), 'api_key')


class Unhashable:
  __hash__ = None

  def get_str(self):
    return 'behind-the-stand-in'


def test_stand_in_reads_the_secret_it_stands_for():
  assert resolve(check_secret(Unhashable(), 'api_key')) == 'behind-the-stand-in'


def test_resolved_credentials_are_redacted_also_in_urls(monkeypatch):
  monkeypatch.setenv('TEST_KEY', 'red/acted value')
  monkeypatch.setenv('TEST_KEY_LONGER', 'red/acted value and more')
  assert redact('x red/acted value y') == 'x red/acted value y'
  resolve(EnvSecret('TEST_KEY'))
  resolve(EnvSecret('TEST_KEY_LONGER'))
  assert redact(
      'GET /?k=red%2Facted%20value: red/acted value and more, '
      'red/acted value') == 'GET /?k=***: ***, ***'


def test_resolved_credentials_are_redacted_also_as_others_quote_them(
    monkeypatch):
  value = 'two\nlines of k\u00e9y'
  monkeypatch.setenv('TEST_KEY', value)
  resolve(EnvSecret('TEST_KEY'))
  assert redact(f'{value!r} {value.encode()!r}') == "'***' b'***'"
