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
"""Apache Beam connector for the Pinecone vector database.

Besides the names in `__all__` there are, imported when they are asked for:
`PineconeSearchEnrichmentHandler` and `PineconeLookupEnrichmentHandler` for
Beam's `Enrichment` (`pip install 'beam-pinecone[enrichment]'`), and
`PineconeVectorWriterConfig`, `SearchPineconeChunks` and `FoundChunk` for Beam's
RAG package.
"""

import importlib
from typing import Any

from beam_connector_base import EnvSecret
from beam_connector_base import FailedRecord
from beam_connector_base import FileSecret
from beam_connector_base import Tuning
from beam_connector_base.cache import Cache
from beam_connector_base.lookup import LookupResult
from beam_pinecone._version import __version__
from beam_pinecone.connection import PineconeConnection
from beam_pinecone.decode.exported import PineconeVector
from beam_pinecone.delete import DeleteFromPinecone
from beam_pinecone.delete import DeleteFromPineconeResult
from beam_pinecone.lookup import LookupPinecone
from beam_pinecone.read import PineconeReadRequest
from beam_pinecone.read import ReadAllFromPinecone
from beam_pinecone.read import ReadFromPinecone
from beam_pinecone.search import SearchPinecone
from beam_pinecone.update import UpdatePinecone
from beam_pinecone.update import UpdatePineconeResult
from beam_pinecone.wire.answers import Match
from beam_pinecone.wire.answers import Record
from beam_pinecone.wire.answers import SparseValues
from beam_pinecone.write import WriteToPinecone
from beam_pinecone.write import WriteToPineconeResult

__all__ = [
    'Cache',
    'DeleteFromPinecone',
    'DeleteFromPineconeResult',
    'EnvSecret',
    'FailedRecord',
    'FileSecret',
    'LookupPinecone',
    'LookupResult',
    'Match',
    'PineconeConnection',
    'PineconeReadRequest',
    'PineconeVector',
    'ReadAllFromPinecone',
    'ReadFromPinecone',
    'Record',
    'SearchPinecone',
    'SparseValues',
    'Tuning',
    'UpdatePinecone',
    'UpdatePineconeResult',
    'WriteToPinecone',
    'WriteToPineconeResult',
    '__version__',
]

# What imports more of Beam than everybody has or wants.
_LAZY = {
    'FoundChunk': 'rag',
    'PineconeLookupEnrichmentHandler': 'enrichment',
    'PineconeSearchEnrichmentHandler': 'enrichment',
    'PineconeVectorWriterConfig': 'rag',
    'SearchPineconeChunks': 'rag',
}


def __getattr__(name: str) -> Any:
  module = _LAZY.get(name)
  if module is None:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  try:
    return getattr(importlib.import_module(f'{__name__}.{module}'), name)
  except ImportError as e:
    if module != 'enrichment':
      raise
    raise ImportError(
        f"{name} needs what Beam's Enrichment imports ({e}): pip install "
        "'beam-pinecone[enrichment]'",
        name=e.name) from e


def __dir__() -> list[str]:
  return sorted((*globals(), *_LAZY))
