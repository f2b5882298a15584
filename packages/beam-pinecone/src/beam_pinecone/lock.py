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
"""The schema lock of an index: what a pipeline was built for, as a file."""

from __future__ import annotations

import os
from typing import Any
from typing import Optional

from beam_connector_base.schema import Schema
from beam_connector_base.schema import check_lock
from beam_pinecone.errors import PineconeError
from beam_pinecone.schema import IndexSchema

__all__ = ['lock_of', 'read_lock', 'verify']

_PROPERTIES = {'dimension', 'metric', 'vector_type'}


def lock_of(schema: IndexSchema) -> Schema:
  """What an index is, as `python -m beam_pinecone lock` writes it down."""
  return Schema.of(
      f'pinecone:{schema.index}',
      properties={
          'dimension': schema.dimension,
          'metric': schema.metric,
          'vector_type': schema.vector_type,
      })


def read_lock(value: Any) -> Optional[Schema]:
  """The `schema` argument of a transform: a path, a `Schema` or None.

  Raises:
    TypeError, ValueError: it is none, or the lock of something else.
    OSError: there is no such file.
  """
  if value is None:
    return None
  if isinstance(value, (str, os.PathLike)):
    value = Schema.load(os.fspath(value))
  if not isinstance(value, Schema):
    raise TypeError(
        f'schema is a {type(value).__name__}: it is the path of a schema lock, '
        'a Schema, or None')
  if set(dict(value.properties)) != _PROPERTIES:
    raise ValueError(
        f'schema is a lock of {value.target}, which is no Pinecone index: make '
        'one with python -m beam_pinecone lock INDEX FILE')
  return value


def verify(lock: Optional[Schema], found: IndexSchema) -> None:
  """Compares an index with the lock of a pipeline, if it has one.

  Raises:
    PineconeError: they differ; it names each difference.
  """
  if lock is None:
    return
  try:
    check_lock(lock, lock_of(found))
  except RuntimeError as e:
    raise PineconeError('FAILED_PRECONDITION', str(e)) from None
