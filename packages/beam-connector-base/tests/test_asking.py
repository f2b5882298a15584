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
"""Questions: one request per key, whoever asks, and what becomes of failures."""

import threading
import uuid

import pyarrow as pa
import pytest
from lookup_toy import SERVICES
from lookup_toy import Dictionary
from lookup_toy import LookUp

from beam_connector_base.cache import Cache
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.errors import FatalError
from beam_connector_base.operation import MISSING
from beam_connector_base.tuning import Tuning


@pytest.fixture
def name():
  name = uuid.uuid4().hex
  SERVICES[name] = Dictionary()
  yield name
  del SERVICES[name]


@pytest.fixture
def service(name):
  return SERVICES[name]


@pytest.fixture
def dispatcher(name):
  dispatcher = Dispatcher(LookUp(name, max_records=20))
  yield dispatcher
  dispatcher.close()


def words(*keys):
  return [{'word': key} for key in keys]


def answers(submissions):
  return [s.values[0] if s.values else s.failures[0] for s in submissions]


def test_answers_come_in_the_order_of_the_questions(dispatcher):
  keys = [f'w{i}' for i in range(50)]
  found = dispatcher.run(words(*keys))
  assert [s.element['word'] for s in found] == keys
  assert answers(found) == [key.upper() for key in keys]


def test_equal_keys_of_a_bundle_are_asked_for_once(dispatcher, service):
  found = dispatcher.run(words('a', 'b', 'a', 'a', 'missing', 'missing'))
  assert answers(found) == ['A', 'B', 'A', 'A', MISSING, MISSING]
  assert sorted(service.asked) == ['a', 'b', 'missing']


def test_equal_keys_of_a_block_are_asked_for_once(dispatcher, service):
  batch = pa.record_batch({'word': ['a', 'b', 'a', None, 'missing']})
  (found,) = dispatcher.run([batch])
  assert found.values == {0: 'A', 1: 'B', 2: 'A', 4: MISSING}
  assert [f.row for f in found.failures] == [3]
  assert sorted(service.asked) == ['a', 'b', 'missing']


def test_a_refusal_is_for_all_who_asked_and_for_nobody_else(dispatcher):
  found = dispatcher.run(words('refused', 'a', 'refused'))
  assert [bool(s.failures) for s in found] == [True, False, True]
  assert found[2].failures[0].message == 'refused is not a word'
  assert found[2].failures[0].key == 'refused'


def test_a_key_too_large_is_refused_for_all_rows_of_a_block_that_have_it(name):
  dispatcher = Dispatcher(LookUp(name, max_bytes=5))
  batch = pa.record_batch({'word': ['toolong', 'a', 'toolong']})
  (found,) = dispatcher.run([batch])
  assert sorted(f.row for f in found.failures) == [0, 2]
  assert found.values == {1: 'A'}
  dispatcher.close()


def test_a_bundle_joins_the_request_of_another_one(name, service):
  dispatcher = Dispatcher(LookUp(name))
  service.answering.clear()
  first, second = dispatcher.bundle(), dispatcher.bundle()
  for word in words('a', 'b', 'c'):  # a full batch: it is sent at once
    first.submit(word)
  assert service.sent.acquire(timeout=10)
  for word in words('a', 'c'):
    second.submit(word)
  threading.Timer(0.01, service.answering.set).start()
  assert answers(second.drain()) == ['A', 'C']
  assert sorted(answers(first.drain())) == ['A', 'B', 'C']
  assert service.requests == 1
  assert sum(report.joined for report in second.reports()) == 2
  dispatcher.close()


def test_a_batch_still_being_filled_is_not_waited_for(dispatcher, service):
  first, second = dispatcher.bundle(), dispatcher.bundle()
  first.submit({'word': 'a'})
  second.submit({'word': 'a'})
  assert answers(second.drain()) == ['A']
  assert answers(first.drain()) == ['A']
  assert service.asked == ['a', 'a']


def test_who_waits_for_a_request_that_is_given_up_asks_again(name, service):
  dispatcher = Dispatcher(LookUp(name))
  service.answering.clear()
  first, second = dispatcher.bundle(), dispatcher.bundle()
  for word in words('a', 'b', 'c'):
    first.submit(word)
  assert service.sent.acquire(timeout=10)
  second.submit({'word': 'a'})
  first.cancel()
  threading.Timer(0.05, service.answering.set).start()
  assert answers(second.drain()) == ['A']
  assert service.asked == ['a', 'b', 'c', 'a']
  dispatcher.close()


def test_who_waits_for_a_request_that_fails_for_good_asks_again(name, service):
  dispatcher = Dispatcher(LookUp(name))
  service.answering.clear()
  service.fatal = 1
  first, second = dispatcher.bundle(), dispatcher.bundle()
  for word in words('a', 'b', 'c'):
    first.submit(word)
  assert service.sent.acquire(timeout=10)
  second.submit({'word': 'b'})
  service.answering.set()
  with pytest.raises(FatalError, match='revoked'):
    first.drain()
  assert answers(second.drain()) == ['B']
  dispatcher.close()


def test_who_waits_for_a_request_shares_what_became_of_it(name, service):
  service.unreachable = True
  service.answering.clear()
  tuning = Tuning(on_outage='collect', deadline=0.05, backoff=0.01)
  dispatcher = Dispatcher(LookUp(name), tuning)
  first, second = dispatcher.bundle(), dispatcher.bundle()
  for word in words('a', 'b', 'c'):
    first.submit(word)
  assert service.sent.acquire(timeout=10)
  second.submit({'word': 'b'})
  service.answering.set()
  ours, theirs = answers(second.drain())[0], answers(first.drain())[0]
  assert ours.stage == theirs.stage == 'outage'
  assert ours.attempts == theirs.attempts >= 1
  dispatcher.close()


def test_an_answer_of_none_is_a_bug_that_is_told(dispatcher):
  with pytest.raises(FatalError, match=r'Done\(MISSING\)'):
    dispatcher.run(words('a', 'nothing'))


def test_nothing_is_on_its_way_after_all_is_answered(dispatcher, service):
  dispatcher.run(words('a', 'missing', 'refused', 'a'))
  dispatcher.run(words('a'))
  assert service.asked.count('a') == 2


def test_a_cached_answer_is_not_asked_for_again(name, service):
  dispatcher = Dispatcher(LookUp(name), cache=Cache(ttl=60))
  dispatcher.run(words('a', 'missing'))
  bundle = dispatcher.bundle()
  for word in words('a', 'missing', 'b'):
    bundle.submit(word)
  ready = bundle.settled()
  assert answers(ready) == ['A', MISSING]  # before anything is sent
  bundle.drain()
  assert sorted(service.asked) == ['a', 'b', 'missing']
  reports = bundle.reports()
  assert sum(report.cache_hits for report in reports) == 2
  assert sum(report.cache_misses for report in reports) == 1
  dispatcher.close()


def test_a_refusal_is_not_cached(name, service):
  dispatcher = Dispatcher(LookUp(name), cache=Cache(ttl=60))
  dispatcher.run(words('refused'))
  dispatcher.run(words('refused'))
  assert service.asked == ['refused', 'refused']
  dispatcher.close()


def test_many_bundles_of_the_same_keys_all_get_their_answers(name, service):
  dispatcher = Dispatcher(LookUp(name), cache=Cache(ttl=60))
  keys = [f'w{i % 7}' for i in range(100)]
  results = []

  def work():
    results.append(answers(dispatcher.run(words(*keys))))

  threads = [threading.Thread(target=work) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(30)
  assert results == [[key.upper() for key in keys]] * 8
  assert len(service.asked) <= 8 * 7
  dispatcher.close()
