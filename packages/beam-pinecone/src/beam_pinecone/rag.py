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
"""Pinecone behind the interfaces of Beam's RAG package, `apache_beam.ml.rag`."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import Optional
from typing import Union

import apache_beam as beam
from apache_beam.ml.rag import types
from apache_beam.ml.rag.ingestion.base import VectorDatabaseWriteConfig
from apache_beam.pvalue import PCollection

from beam_connector_base.cache import Cache
from beam_connector_base.lookup import LookupResult
from beam_connector_base.tuning import Tuning
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.decode.joins import with_field
from beam_pinecone.encode.layout import check_field
from beam_pinecone.operations.queries import QUERIES_PER_SECOND
from beam_pinecone.search import SearchPinecone
from beam_pinecone.wire.answers import Match
from beam_pinecone.write import WriteToPinecone

__all__ = [
    'FoundChunk',
    'PineconeVectorWriterConfig',
    'SearchPineconeChunks',
    'chunk_of'
]

# Versions of Beam before 2.73 call it Chunk.
_Item = getattr(types, 'EmbeddableItem', None) or types.Chunk


class PineconeVectorWriterConfig(VectorDatabaseWriteConfig):
  """Writes embedded chunks, for Beam's `VectorDatabaseWriteTransform`.

  Elements: `EmbeddableItem` (`Chunk`) with a dense embedding, a sparse one, or
  both. Its id is the id of the vector; its metadata are stored, and its text
  under `content_key`. The result is that of `WriteToPinecone`: `.written` and
  `.failed`.

  Give chunks ids that stay the same when they are made again: by default an id
  is random, so that a step tried again writes the chunk a second time.

  Example::

    import apache_beam as beam
    from apache_beam.ml.rag.ingestion.base import VectorDatabaseWriteTransform
    from apache_beam.ml.rag.types import Chunk, Content, Embedding
    from beam_pinecone import PineconeVectorWriterConfig

    with beam.Pipeline() as p:
      (p | beam.Create([Chunk(Content('a text'), id='a',
                              embedding=Embedding([0.1, 0.2, 0.3]))])
         | VectorDatabaseWriteTransform(PineconeVectorWriterConfig('docs')))

  Args:
    index: name of the index.
    namespace: a constant, a template such as '{tenant}' over the metadata, or a
      callable that is given them.
    content_key: metadata key of the text; None: it is not stored.
    sparse: whether sparse embeddings are written.
    keep, drop, version_field, connection, on_error, tuning: as those of
      `WriteToPinecone`.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  def __init__(
      self,
      index: str,
      *,
      namespace: Union[str, Callable[[Mapping[str, Any]], str]] = '',
      content_key: Optional[str] = 'content',
      sparse: bool = True,
      keep: Optional[Iterable[str]] = None,
      drop: Optional[Iterable[str]] = None,
      version_field: Optional[str] = None,
      connection: Union[PineconeConnection, str, None] = None,
      on_error: Any = 'fail',
      tuning: Optional[Tuning] = None):
    self._index = index
    self._arguments = {
        'namespace': namespace,
        'content_key': content_key,
        'sparse_field': 'sparse_values' if sparse else None,
        'keep': _kept(keep),
        'drop': _kept(drop),
        'version_field': version_field,
        'connection': PineconeConnection.of(connection),
        'on_error': on_error,
        'tuning': tuning,
    }
    # What is wrong is said here, not where the pipeline is put together.
    self.create_write_transform()

  def create_write_transform(self) -> beam.PTransform:
    """The transform that writes a PCollection of chunks."""
    return WriteToPinecone(self._index, **self._arguments)


def _kept(names: Any) -> Any:
  """Names that are read more than once; what is none is not ours to refuse."""
  if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
    return names
  return list(names)


class FoundChunk(NamedTuple):
  """One chunk that a search found.

  Args:
    chunk: an `EmbeddableItem`.
    score: as the index's metric has it.
  """
  chunk: Any
  score: float


class SearchPineconeChunks(beam.PTransform):
  """Finds, for each chunk, the chunks of an index that are nearest to it.

  As `SearchPinecone`, whose guarantees it has, with chunks instead of matches:
  elements are `EmbeddableItem` (`Chunk`), searched for by their embeddings. A
  copy of each comes out whose `metadata[output_field]` is a list of
  `FoundChunk`s (`chunk`, `score`), best first; the text of a found chunk is its
  metadata `content_key`, as `PineconeVectorWriterConfig` stores it.

  Example::

    import apache_beam as beam
    from apache_beam.ml.rag.types import Chunk, Content, Embedding
    from beam_pinecone import SearchPineconeChunks

    with beam.Pipeline() as p:
      (p | beam.Create([Chunk(Content('a question'), id='q1',
                              embedding=Embedding([0.1, 0.2, 0.3]))])
         | SearchPineconeChunks('docs', top_k=3)
         | beam.FlatMap(lambda question: question.metadata['found'])
         | beam.Map(lambda found: print(found.score, found.chunk.content.text)))

  Args:
    index: name of the index.
    top_k: chunks per question.
    content_key: metadata key of the text of a stored chunk.
    sparse: whether sparse embeddings are used: alone on a sparse index, besides
      the dense ones for a hybrid search.
    output_field: metadata key of what was found.
    namespace, filter, include_values, cache, on_missing, on_missing_namespace,
      on_error, queries_per_second, connection, tuning: as those of
      `SearchPinecone`.

  Returns:
    A `LookupResult`, as that of `SearchPinecone`.

  Raises:
    TypeError, ValueError: naming the argument.
  """
  def __init__(
      self,
      index: str,
      top_k: int = 10,
      *,
      namespace: Union[str, Callable[[Mapping[str, Any]], str]] = '',
      content_key: str = 'content',
      sparse: bool = False,
      filter: Union[Mapping[str, Any], Callable[[Mapping[str, Any]], Any],
                    None] = None,
      include_values: bool = False,
      output_field: str = 'found',
      cache: Optional[Cache] = None,
      on_missing: str = 'null',
      on_missing_namespace: str = 'fail',
      on_error: Any = 'fail',
      queries_per_second: Optional[float] = QUERIES_PER_SECOND,
      connection: Union[PineconeConnection, str, None] = None,
      tuning: Optional[Tuning] = None):
    super().__init__()
    check_field('content_key', content_key, required=True)
    self._content_key = content_key
    self._output = output_field
    self._search = SearchPinecone(
        index,
        top_k,
        namespace=namespace,
        sparse_field='sparse_values' if sparse else None,
        filter=filter,
        include_values=include_values,
        output_field=output_field,
        cache=cache,
        on_missing=on_missing,
        on_missing_namespace=on_missing_namespace,
        on_error=on_error,
        queries_per_second=queries_per_second,
        connection=connection,
        tuning=tuning)

  def expand(self, pcoll: PCollection) -> LookupResult:
    result = pcoll | self._search
    found = result | 'Chunks' >> beam.Map(
        _with_chunks, self._output, self._content_key).with_output_types(_Item)
    return LookupResult.of(found, result.missing, result.failed)

  def display_data(self) -> dict[str, Any]:
    return self._search.display_data()


def _with_chunks(question: Any, output: str, content_key: str) -> Any:
  if not isinstance(question, _Item):
    raise TypeError(
        f'SearchPineconeChunks takes {_Item.__name__}s, not '
        f'{type(question).__name__}: use SearchPinecone for other elements')
  matches = question.metadata[output]
  found = [
      FoundChunk(chunk_of(match, content_key), match.score) for match in matches
  ]
  return with_field(question, output, found)


def chunk_of(match: Match, content_key: str = 'content') -> Any:
  """The chunk that a match was written from.

  Args:
    match: of a search that included metadata.
    content_key: metadata key of the text.

  Returns:
    An `EmbeddableItem`; its embedding is None unless the match has its values.
  """
  metadata = dict(match.metadata or {})
  text = metadata.pop(content_key, None)
  embedding = None
  if match.values is not None or match.sparse_values is not None:
    sparse = match.sparse_values
    embedding = types.Embedding(
        None if match.values is None else match.values.tolist(),
        None if sparse is None else
        (sparse.indices.tolist(), sparse.values.tolist()))
  return _Item(
      content=types.Content(text=text),
      id=match.id,
      metadata=metadata,
      embedding=embedding)
