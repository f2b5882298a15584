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
"""Builds the published packages and proves that each wheel stands alone.

  python tools/dist.py build DIST    sdist, then the wheel from that sdist
  python tools/dist.py verify DIST   each wheel in an empty environment
"""

import email
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar
from typing import Union

ROOT = Path(__file__).resolve().parent.parent

T = TypeVar('T')

# Every module, so that an import hidden in a corner counts too. Prints the
# modules that only an extra makes importable.
IMPORT_ALL = '''
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
  try:
    importlib.import_module(module.name)
  except ModuleNotFoundError as e:
    print(f"{module.name}: {e}")
'''


def build(dist: Path) -> None:
  """Writes an sdist and a wheel of each package into an emptied folder."""
  shutil.rmtree(dist, ignore_errors=True)
  for package in packages():
    # Without an explicit target uv builds the wheel from the sdist, not from
    # the work tree: a file missing in the sdist shows.
    uv('build --quiet --no-sources --out-dir', dist, package)


def verify(dist: Path) -> None:
  """Installs each wheel alone, with only what it declares, and imports it."""
  wheels = {
      package.name: only(dist.glob(f'{import_name(package)}-*.whl'))
      for package in packages()
  }
  with tempfile.TemporaryDirectory() as scratch:
    # A sibling that is declared comes from this build; one that is not
    # declared stays absent, which is what a constraint (and not a find-links
    # folder beside an index) guarantees.
    siblings = Path(scratch) / 'siblings.txt'
    siblings.write_text(
        ''.join(
            f'{name} @ {wheel.as_uri()}\n' for name, wheel in wheels.items()))
    for package in packages():
      wheel = wheels[package.name]
      check_files(wheel, import_name(package))
      check_imports(
          wheel, import_name(package), siblings, Path(scratch) / package.name)
      print(f'{package.name}: every module imports')


def check_imports(wheel: Path, module: str, siblings: Path, venv: Path) -> None:
  """Raises SystemExit when a module needs what the wheel does not declare."""
  uv('venv --quiet --no-project --python', sys.executable, venv)
  python = venv / 'bin' / 'python'

  def fails_to_import(requirement: str) -> str:
    uv(
        'pip install --quiet --constraints',
        ROOT / 'constraints.txt',
        '--constraints',
        siblings,
        '--python',
        python,
        requirement)
    # -I: neither the current folder nor PYTHONPATH can lend a module.
    return run(python, '-I', '-c', IMPORT_ALL, module, cwd=venv)

  failures = fails_to_import(str(wheel))
  extras = extras_of(wheel)
  if failures and extras:
    print(f'only with the extras {extras}: {failures}')
    failures = fails_to_import(f'{wheel}[{",".join(extras)}]')
  if failures:
    raise SystemExit(f'{wheel.name} does not declare: {failures}')


def check_files(wheel: Path, module: str) -> None:
  """Raises SystemExit when the wheel lacks its licence or its type marker."""
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
  for wanted in (
      f'{module}/py.typed',
      '.dist-info/licenses/LICENSE',
      '.dist-info/licenses/NOTICE',
  ):
    if not any(name.endswith(wanted) for name in names):
      raise SystemExit(f'{wheel.name} lacks {wanted}')


def extras_of(wheel: Path) -> list[str]:
  with zipfile.ZipFile(wheel) as archive:
    name = only(n for n in archive.namelist() if n.endswith('/METADATA'))
    metadata = email.message_from_bytes(archive.read(name))
  return metadata.get_all('Provides-Extra', [])


def packages() -> list[Path]:
  return sorted(p.parent for p in ROOT.glob('packages/*/pyproject.toml'))


def import_name(package: Path) -> str:
  return package.name.replace('-', '_')


def only(candidates: Iterable[T]) -> T:
  found = list(candidates)
  if len(found) != 1:
    raise SystemExit(f'expected one, found {found}: build first')
  return found[0]


def uv(command: str, *more: object) -> None:
  run(os.environ.get('HATCH_UV', 'uv'), *command.split(), *more)


def run(*command: object, cwd: Union[str, Path] = ROOT) -> str:
  """Returns what the command printed; its errors go where ours go."""
  return subprocess.run([str(part) for part in command],
                        check=True,
                        cwd=cwd,
                        stdout=subprocess.PIPE,
                        text=True).stdout.strip()


if __name__ == '__main__':
  if len(sys.argv) != 3 or sys.argv[1] not in ('build', 'verify'):
    raise SystemExit(__doc__)
  {'build': build, 'verify': verify}[sys.argv[1]](Path(sys.argv[2]).resolve())
