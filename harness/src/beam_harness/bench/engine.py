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
"""What the engine costs and how fast it is, against a service that only waits.

No Beam, no network: elements are blocks already, and the service is a sleep on
the event loop, so that what is left is the engine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from collections.abc import Sequence

from beam_connector_base.batching import Batcher
from beam_connector_base.batching import Ready
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.operation import Block
from beam_connector_base.operation import Limits
from beam_connector_base.runtime import Runtime
from beam_connector_base.testing import VirtualTimeLoop
from beam_harness.bench import memory
from beam_harness.bench import toy
from beam_harness.bench.measure import Sample
from beam_harness.bench.measure import Side
from beam_harness.bench.measure import interleave
from beam_harness.bench.measure import median
from beam_harness.bench.measure import ratio
from beam_harness.bench.results import Result
from beam_harness.bench.results import Target
from beam_harness.bench.results import compare
from beam_harness.bench.sizes import Sizes

__all__ = ['SECTIONS', 'drain_seconds']

GROUP = 'engine'
SERVICE_SECONDS = 0.010
BATCH = 100
# Of one request in the drill with an outage, where time is virtual.
DRILL_SECONDS = 0.200


def in_flight(sizes: Sizes) -> Iterator[Result]:
  """Eight requests in flight against one."""
  work = sizes.engine_requests * BATCH
  rows = toy.blocks(work)
  eight = Dispatcher(toy.ToyOperation(SERVICE_SECONDS, BATCH, 8))
  one = Dispatcher(toy.ToyOperation(SERVICE_SECONDS, BATCH, 1))
  with toy.opened(eight), toy.opened(one):
    samples = interleave({
        '8 in flight': Side(lambda: toy.feed(eight, rows), work),
        '1 in flight': Side(lambda: toy.feed(one, rows), work),
    },
                         sizes.rounds)
  yield compare(
      '8 requests in flight against 1',
      samples,
      '8 in flight',
      '1 in flight',
      group=GROUP,
      unit='records/s',
      by=_rate,
      better='higher',
      target=Target.at_least(6),
      note='10 ms service time, batch 100, fed blocks; the peer is the engine '
      'with 1 in flight')


def hand_written(sizes: Sizes) -> Iterator[Result]:
  """The dispatcher against a loop that somebody wrote by hand."""
  for n in (8, 32):
    work = sizes.engine_requests * n // 4 * BATCH
    rows = toy.blocks(work)
    operation = toy.ToyOperation(SERVICE_SECONDS, BATCH, n)
    dispatcher = Dispatcher(operation)
    with toy.opened(dispatcher):
      samples = interleave({
          'engine': Side(_feeding(dispatcher, rows), work),
          'loop': Side(_looping(operation, rows, n), work),
      },
                           sizes.rounds)
    yield compare(
        f'against a hand-written asyncio loop, {n} in flight',
        samples,
        'engine',
        'loop',
        group=GROUP,
        unit='records/s',
        by=_rate,
        better='higher',
        target=Target.at_least(0.9),
        note='10 ms service time, batch 100, fed blocks; the floor makes the '
        'same calls and does nothing else',
        floor=True)


def own_cpu(sizes: Sizes) -> Iterator[Result]:
  """The engine's own processor time per record."""
  for what, elements, bound in (
      ('single records', toy.records(sizes.engine_records), 2.0),
      ('blocks', toy.blocks(5 * sizes.engine_records), 0.5)):
    work = sum(block.n for block in elements)
    operation = toy.ToyOperation(0.0, BATCH)
    dispatcher = Dispatcher(operation)
    with toy.opened(dispatcher):
      samples = interleave({
          'engine': Side(_feeding(dispatcher, elements), work),
          'encode and send': Side(_outside(operation, elements), work),
      },
                           sizes.rounds)
    values = [
        whole.cpu_us - outside.cpu_us for whole, outside in zip(
            samples['engine'], samples['encode and send'], strict=True)
    ]
    yield Result(
        f'processor time of its own, fed {what}',
        'us/record',
        median(values),
        target=Target.at_most(bound),
        group=GROUP,
        note='batch 100; encode and send do nothing, and what calling them '
        'costs is measured in turn and subtracted',
        samples={f'fed {what}': values})


def cutting(sizes: Sizes) -> Iterator[Result]:
  """Sizing and cutting batches, per row of a block."""
  rows = 10_000
  (block,) = toy.blocks(rows, rows)
  limits = Limits(max_records=BATCH)
  times = max(1, sizes.engine_records // rows)

  def run() -> None:
    for _ in range(times):
      ready: Ready = []
      batcher = Batcher(limits, 1 << 30)
      batcher.add(None, block, ready)
      batcher.flush(ready)
      if len(ready) != rows // BATCH:
        raise AssertionError(f'{len(ready)} batches')

  samples = interleave({'ours': Side(run, rows * times)}, sizes.rounds)
  values = [s.cpu_us for s in samples['ours']]
  yield Result(
      'sizing and cutting the batches of a block',
      'us/row',
      median(values),
      target=Target.at_most(0.1),
      group=GROUP,
      note=f'a block of {rows:,} rows, batch 100',
      samples={'cutting': values})


def peak_memory(sizes: Sizes) -> Iterator[Result]:
  """Memory while the input grows tenfold."""
  yield memory.tenfold(
      'peak memory, rows',
      'engine',
      sizes.engine_memory,
      group=GROUP,
      note='half the rows come as single records, half in blocks, made as they '
      'are needed',
      pairs=sizes.memory_pairs)


def outage(sizes: Sizes) -> Iterator[Result]:
  """The time to drain after an outage, against no outage at all."""
  down = sizes.outage_seconds
  for load, share in (('full', 1.0), ('a tenth of the', 0.1)):
    # What a stream brings in the time of the outage, at so much load.
    requests = int(share * down / DRILL_SECONDS * 8)
    ours, peer = [], []
    for seed in range(sizes.drills):
      ours.append(drain_seconds(requests, down, seed))
      peer.append(drain_seconds(requests, 0.0, seed))
    yield Result(
        f'draining the backlog of a {down:g} s outage, {load} load',
        's',
        median(ours),
        median(peer),
        ratio=ratio(ours, peer),
        target=Target.at_most(2),
        group=GROUP,
        note='seconds on a virtual clock, no real outage: requests are refused '
        f'for {down:g} s, then take {DRILL_SECONDS * 1000:.0f} ms, 8 in '
        f'flight; the backlog is what arrives in that time, {requests:,} '
        'requests; the peer delivers it without an outage',
        samples={
            'after the outage': ours, 'without': peer
        })


#: What is measured, in this order.
SECTIONS = (in_flight, hand_written, own_cpu, cutting, peak_memory, outage)


def drain_seconds(requests: int, outage_seconds: float, seed: int) -> float:
  """Virtual seconds from the end of an outage until all is delivered.

  Args:
    requests: the backlog, all there from the beginning.
    outage_seconds: how long each request fails; 0 for no outage.
    seed: of the backoff's jitter.
  """
  runtime = Runtime(VirtualTimeLoop, random.Random(seed))
  dispatcher = Dispatcher(
      toy.ToyOperation(DRILL_SECONDS, BATCH, 8, outage_seconds),
      runtime=runtime)
  try:
    dispatcher.open()
    session = dispatcher.session
    assert isinstance(session, toy.ToySession)
    # The clock must not run away while this thread hands over the backlog,
    # which fits into the budget of the process.
    session.hold()
    bundle = dispatcher.bundle()
    for block in toy.blocks(requests * BATCH, BATCH):
      bundle.submit(block)
    session.release()
    settled = bundle.drain()
    if len(settled) != requests or session.began is None:
      raise AssertionError(f'{len(settled)} of {requests} requests settled')
    return session.ended - session.began - outage_seconds
  finally:
    dispatcher.close()
    runtime.shutdown()


def _rate(sample: Sample) -> float:
  return sample.rate


def _feeding(dispatcher: Dispatcher, elements: Sequence[Block]):
  return lambda: toy.feed(dispatcher, elements)


def _looping(operation: toy.ToyOperation, elements: Sequence[Block], n: int):
  session = toy.ToySession(operation)
  return lambda: toy.send_all(session, toy.cut(elements, BATCH), n)


def _outside(operation: toy.ToyOperation, elements: Sequence[Block]):
  """Calls encode and send as often as the engine does."""
  session = toy.ToySession(operation)
  rows = sum(block.n for block in elements)
  batches = list(toy.cut(toy.blocks(rows, BATCH), BATCH))

  def run() -> None:
    for element in elements:
      for _ in session.encode(element):
        pass
    toy.send_all(session, batches, 1)

  return run
