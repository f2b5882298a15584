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
"""The engine shared by the Apache Beam connectors for ML stores.

For users of a connector: `Tuning`, the secrets and `FailedRecord`. For those
who write one: the vocabulary of `operation`, and the skin in `write`.
"""

from beam_connector_base._version import __version__
from beam_connector_base.credentials import EnvSecret
from beam_connector_base.credentials import FileSecret
from beam_connector_base.errors import DeliveryError
from beam_connector_base.errors import FatalError
from beam_connector_base.errors import OutageError
from beam_connector_base.errors import SystematicRefusalError
from beam_connector_base.failures import FailedRecord
from beam_connector_base.operation import ALL_OK
from beam_connector_base.operation import FATAL
from beam_connector_base.operation import PERMANENT
from beam_connector_base.operation import SUPERSEDED
from beam_connector_base.operation import TOO_LARGE
from beam_connector_base.operation import TRANSIENT
from beam_connector_base.operation import Batch
from beam_connector_base.operation import Block
from beam_connector_base.operation import Done
from beam_connector_base.operation import Failed
from beam_connector_base.operation import Invalid
from beam_connector_base.operation import Kind
from beam_connector_base.operation import Limits
from beam_connector_base.operation import Operation
from beam_connector_base.operation import Rate
from beam_connector_base.operation import Session
from beam_connector_base.operation import Superseded
from beam_connector_base.operation import Unanswered
from beam_connector_base.operation import Verdict
from beam_connector_base.operation import throttled
from beam_connector_base.tuning import Tuning
from beam_connector_base.write import WriteRecords
from beam_connector_base.write import WriteResult

__all__ = [
    'ALL_OK',
    'Batch',
    'Block',
    'DeliveryError',
    'Done',
    'EnvSecret',
    'FATAL',
    'Failed',
    'FailedRecord',
    'FatalError',
    'FileSecret',
    'Invalid',
    'Kind',
    'Limits',
    'Operation',
    'OutageError',
    'PERMANENT',
    'Rate',
    'SUPERSEDED',
    'Session',
    'Superseded',
    'SystematicRefusalError',
    'TOO_LARGE',
    'TRANSIENT',
    'Tuning',
    'Unanswered',
    'Verdict',
    'WriteRecords',
    'WriteResult',
    '__version__',
    'throttled',
]
