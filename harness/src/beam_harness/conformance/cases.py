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
"""Keeps standard cases standard: none is dropped or replaced unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeVar

__all__ = ['overrides_case', 'problems_of', 'standard_cases']

_PACKAGE = 'beam_harness.conformance'
_SKIPPING_MARKS = frozenset(('skip', 'skipif', 'xfail'))

_Case = TypeVar('_Case', bound=Callable[..., Any])


def overrides_case(reason: str) -> Callable[[_Case], _Case]:
  """Marks a test that replaces a standard case.

  Args:
    reason: why the standard case can't be kept here, for people.

  Raises:
    ValueError: no reason is given.
  """
  if not isinstance(reason, str) or not reason.strip():
    raise ValueError('overrides_case needs the reason, as text')

  def mark(case: _Case) -> _Case:
    case.overrides_case = reason  # type: ignore[attr-defined]
    return case

  return mark


def standard_cases(suite: type) -> dict[str, Any]:
  """The standard cases of a suite or of a subclass of one, by name."""
  cases: dict[str, Any] = {}
  for base in reversed(suite.__mro__):
    if _is_suite(base):
      cases.update((name, value)
                   for name, value in vars(base).items()
                   if name.startswith('test'))
  return cases


def problems_of(suite: type) -> list[str]:
  """What is wrong with a subclass of a suite: its standard cases, one by one.

  Args:
    suite: a class of tests.

  Returns:
    One line for each standard case that is missing, replaced without a
    reason, or skipped; empty when all is well.
  """
  problems = []
  for name, standard in standard_cases(suite).items():
    actual = getattr(suite, name, None)
    if actual is standard:
      continue
    if not callable(actual):
      problems.append(f'{suite.__name__}.{name}: the standard case is gone')
    elif not getattr(actual, 'overrides_case', ''):
      problems.append(
          f'{suite.__name__}.{name}: replaces the standard case without '
          "@overrides_case('the reason')")
  for base in suite.__mro__:
    if _is_suite(base):
      continue
    if _marks(vars(base).get('pytestmark')) & _SKIPPING_MARKS:
      problems.append(f'{base.__name__}: the whole suite is skipped')
    if vars(base).get('__test__', True) is False:
      problems.append(f'{base.__name__}: __test__ is False')
  return problems


def _is_suite(base: type) -> bool:
  return f'{base.__module__}.'.startswith(f'{_PACKAGE}.')


def _marks(marks: Any) -> set[str]:
  if marks is None:
    return set()
  return {mark.name for mark in (marks if isinstance(marks, list) else [marks])}
