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
"""The example of the README, run as a reader would: as a script."""

import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parents[1] / 'README.md'


def test_the_example_of_the_readme_runs(tmp_path):
  (example,) = re.findall('```python\n(.*?)```', README.read_text(), re.DOTALL)
  (tmp_path / 'example.py').write_text(example)
  ran = subprocess.run([sys.executable, 'example.py'],
                       cwd=tmp_path,
                       capture_output=True,
                       check=False,
                       timeout=120,
                       text=True)
  assert ran.returncode == 0, ran.stderr
  assert sorted(ran.stdout.split()) == ['one', 'two']
  assert sorted((tmp_path / 'lines.txt').read_text().split()) == ['one', 'two']
