"""Each defence of docs/security.md is taken away, one at a time, and its test must turn red.

The lists beside this file name the defences: the exact text that defends, what the file says without it, and the test
that notices. A test that passes all the same proves nothing about its defence.
"""

import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.warm import Warm, open_warm

ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("clients", "eas_watcher", "relay", "tests", "config", "docs", "pyproject.toml")
LONGEST: Final = 90
"""Seconds a test may take; one that hangs without its defence has noticed, too."""
LIMIT: Final = (f"--timeout={LONGEST}", "--timeout-method=thread")
"""The thread ends the process: a loop that spins may swallow what a signal raises."""


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
    """Return a copy of the sources, in which a defence can be taken away.

    Their bytecode is copied too: it goes with a file as long as the file has its time and size.
    """
    folder = tmp_path_factory.mktemp("without")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def warm(copy: Path) -> Iterator[Warm]:
    # The folder comes before the installed sources; bytecode of a changed file must not outlive the change.
    environ = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    with open_warm(copy, copy / "report.txt", environ) as process:
        yield process


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
def test_without_a_defence_its_test_fails(defence: Defence, copy: Path, warm: Warm) -> None:
    path = copy / defence.file
    whole, written = path.read_text(), path.stat()
    path.write_text(whole.replace(defence.take, defence.instead))
    try:
        status, report = warm.run("-q", "-x", *LIMIT, defence.test)
    finally:
        path.write_text(whole)
        os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))

    assert status == 1, report
    assert re.search(r"^FAILED ", report, re.MULTILINE) or "Timeout" in report, report
