"""Tests of the libraries that a process loads: a command that only prints loads no role, a role only its own."""

import subprocess
import sys
from typing import Final

import pytest

LOADED: Final = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
PROVIDERS: Final = {"aioapns", "alembic", "google", "h2", "opentelemetry", "pyfcm", "requests"}
SERVERS: Final = {"aiohttp", "cryptography", "pydantic", "sqlalchemy", "uvloop"}


@pytest.mark.slow  # the import rules know what is imported, a process also what libraries import
@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("relay.cli.main", PROVIDERS | SERVERS),
        ("relay.app, relay.compose.api, relay.compose.watch", PROVIDERS | {"jinja2", "jwt", "rich"}),
        ("relay.compose.ops, relay.compose.push", {"jinja2"}),
    ],
)
def test_a_process_loads_the_libraries_of_its_own_role_only(modules: str, absent: set[str]) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", f"import {modules}; {LOADED}"], capture_output=True, check=True, text=True
    )

    assert set(printed.stdout.split()) & absent == set()
