"""Each defence of docs/security.md is taken away, one at a time, and its test must turn red.

The lists beside this file name the defences: the exact text that defends, what the file says without it, and the test
that notices. A test that passes all the same proves nothing about its defence.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("clients", "eas_watcher", "relay", "tests", "config", "docs", "pyproject.toml")
LONGEST: Final = 90
"""Seconds a test may take; one that hangs without its defence has noticed, too."""


@dataclass(frozen=True, slots=True)
class Defence:
    """One defence, and the test that would miss it."""

    what: str
    file: str
    take: str
    instead: str
    test: str


def _listed() -> Iterator[Defence]:
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["defence"]:
            yield Defence(**entry)


DEFENCES: Final = tuple(_listed())
each = pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence.what)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources, in which a defence can be taken away."""
    folder = tmp_path_factory.mktemp("without")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@each
def test_a_defence_and_its_test_are_where_the_list_says(defence: Defence) -> None:
    assert (ROOT / defence.file).read_text().count(defence.take) == 1
    assert defence.instead != defence.take
    file, _, name = defence.test.partition("::")
    last = name.rpartition("::")[2].partition("[")[0]
    assert not name or re.search(rf"^ *(async )?def {re.escape(last)}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_no_defence_is_listed_twice() -> None:
    assert len({defence.what for defence in DEFENCES}) == len(DEFENCES)


@pytest.mark.slow
@pytest.mark.timeout(3 * LONGEST)
@each
def test_without_a_defence_its_test_fails(defence: Defence, copy: Path) -> None:
    path = copy / defence.file
    whole = path.read_text()
    path.write_text(whole.replace(defence.take, defence.instead))
    try:
        status, report = _run(copy, defence.test)
    finally:
        path.write_text(whole)

    assert status == 1, report
    assert re.search(r"^FAILED ", report, re.MULTILINE) or "Timeout" in report, report


def _run(folder: Path, test: str) -> tuple[int, str]:
    # The thread ends the process: a loop that spins may swallow what a signal raises.
    limit = (f"--timeout={LONGEST}", "--timeout-method=thread")
    command = (sys.executable, "-m", "pytest", "-q", "-x", *limit, test)
    # The folder comes before the installed sources; bytecode of a changed file must not outlive the change.
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=2 * LONGEST
    )
    return done.returncode, f"{done.stdout}\n{done.stderr}"
