"""A process that runs pytest in forks of itself: it has loaded the libraries, which take longer than most tests.

It reads a line for each run, a JSON list of the file for the output and the arguments, and answers with the exit
status. It loads nothing of the sources, so each fork loads them as they are at that time.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

LIBRARIES: Final = (
    *("aiohttp.web", "asyncpg", "hpack", "hypothesis.strategies", "jinja2", "jwt", "looptime", "prometheus_client"),
    *("pydantic", "pytest_asyncio.plugin", "pytest_cov.plugin", "pytest_timeout", "rich.console"),
    *("sqlalchemy.ext.asyncio", "trustme", "typer", "uvloop"),
)

LOADED: Final = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""What pytest says of plugins that are loaded before it could rewrite their asserts."""


class Warm:
    """Such a process, seen from the test that uses it."""

    def __init__(self, process: "subprocess.Popen[str]", report: Path) -> None:
        self._process = process
        self._report = report

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run pytest; return its exit status and what it printed."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps((str(self._report), *arguments)), file=self._process.stdin, flush=True)
        status = int(self._process.stdout.readline())
        return status, self._report.read_text()


@contextmanager
def open_warm(sources: Path, report: Path, environ: Mapping[str, str]) -> Iterator[Warm]:
    """Start such a process in a folder with the sources; its runs write to the file `report`."""
    # -P: this folder has modules with names that libraries have, too.
    command = (sys.executable, "-P", str(sources / Path(__file__).relative_to(Path(__file__).parents[1])))
    with subprocess.Popen(
        command, cwd=sources, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Warm(process, report)


def run(output: str, *arguments: str) -> int:
    """Run pytest in a fork; return its exit status."""
    child = os.fork()
    if child == 0:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, sys.stdout.fileno())
        os.dup2(file, sys.stderr.fileno())
        status = pytest.main([*LOADED, *arguments])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for library in LIBRARIES:
        import_module(library)
    for line in sys.stdin:
        sys.stdout.write(f"{run(*json.loads(line))}\n")
        sys.stdout.flush()
