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
"""The adapter that puts a lookup behind Beam's `Enrichment` transform.

`LookupRecords` keeps event times, has dead letters and is not slower; this is
for pipelines that use `Enrichment` already. Needs `google-api-core`, which
Beam's own module imports: `pip install beam-connector-base[enrichment]`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any
from typing import Optional

import apache_beam as beam
from apache_beam.io.requestresponse import UserCodeExecutionException
from apache_beam.transforms.enrichment import EnrichmentSourceHandler

from beam_connector_base.cache import Cache
from beam_connector_base.dispatcher import Dispatcher
from beam_connector_base.errors import DeliveryError
from beam_connector_base.operation import MISSING
from beam_connector_base.operation import Operation
from beam_connector_base.submission import Submission
from beam_connector_base.tuning import Tuning

__all__ = ['LookupHandler']


class LookupHandler(EnrichmentSourceHandler[Any, Any], abc.ABC):
  """Asks a service through the engine, for `Enrichment`.

  Retries, timeouts and throttling are the engine's: give `Enrichment` no
  repeater and no timeout of its own. Unbatched by default, because Beam's
  batching moves every timestamp to the end of the window; requests of bundles
  that run in parallel still share one session, and equal keys one request.

  Args:
    operation: what is asked; its limits say `answers=True`.
    name: of the handler, for metrics and messages.
    on_missing: 'null' answers with `response(request, MISSING)`; 'fail' raises.
    cache: how long answers may be used again, per process.
    tuning: how hard and how patiently the service is talked to.
    min_batch_size: requests per call at least; opts in to Beam's batching.
    max_batch_size: requests per call at most; opts in likewise.
    max_batch_duration_secs: seconds a request may wait for others.
  """
  def __init__(
      self,
      operation: Operation,
      *,
      name: str,
      on_missing: str = 'null',
      cache: Optional[Cache] = None,
      tuning: Optional[Tuning] = None,
      min_batch_size: Optional[int] = None,
      max_batch_size: Optional[int] = None,
      max_batch_duration_secs: Optional[float] = None):
    if on_missing not in ('null', 'fail'):
      raise ValueError(
          f"on_missing must be 'null' or 'fail', not {on_missing!r}")
    self._operation = operation
    self._name = name
    self._on_missing = on_missing
    self._cache = cache
    self._tuning = tuning
    self._batching = {
        key: value
        for key, value in (('min_batch_size',
                            min_batch_size), ('max_batch_size', max_batch_size),
                           ('max_batch_duration_secs', max_batch_duration_secs))
        if value is not None
    }
    self._dispatcher: Optional[Dispatcher] = None

  @abc.abstractmethod
  def response(self, request: Any, answer: Any) -> Any:
    """What `Enrichment` joins to the request; nulls for `MISSING`."""

  @abc.abstractmethod
  def key(self, request: Any) -> str:
    """The request's key as text, for messages and for Beam's Redis cache."""

  def __enter__(self) -> None:
    self._dispatcher = Dispatcher(
        self._operation, self._tuning, cache=self._cache)
    self._dispatcher.open()

  def __exit__(self, *exc_info: Any) -> None:
    if self._dispatcher is not None:
      self._dispatcher.close()
      self._dispatcher = None

  def __call__(self, request: Any, *args: Any, **kwargs: Any) -> Any:
    batched = isinstance(request, list)
    requests = request if batched else [request]
    if self._dispatcher is None:
      self.__enter__()
    assert self._dispatcher is not None
    try:
      submissions = self._dispatcher.run(requests)
    except DeliveryError as error:
      # Beam replaces every RuntimeError by one without its message.
      raise UserCodeExecutionException(str(error)) from error
    out = [self._pair(submission) for submission in submissions]
    return out if batched else out[0]

  def get_cache_key(self, request: Any) -> str:
    return f'{self._operation.target}: {self.key(request)}'

  def batch_elements_kwargs(self) -> Mapping[str, Any]:
    return self._batching

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_dispatcher': None}

  def __str__(self) -> str:
    # Beam names the metrics of the handler after this.
    return self._name

  def _pair(self, submission: Submission) -> tuple[Any, Any]:
    request = submission.element
    if submission.failures:
      failure = submission.failures[0]
      raise UserCodeExecutionException(
          f'{self._name}: {self._operation.target}: the request for '
          f'{failure.key or self.key(request)!r} was refused: '
          f'{failure.error_type}: {failure.message}')
    answer = (submission.values or {})[0]
    if answer is MISSING and self._on_missing == 'fail':
      raise UserCodeExecutionException(
          f'{self._name}: {self._operation.target}: the service knows nothing '
          f'under {self.key(request)!r}; pass on_missing=\'null\' if that may '
          'happen')
    response = self.response(request, answer)
    if isinstance(response, Mapping):
      response = beam.Row(**response)
    return request, response
