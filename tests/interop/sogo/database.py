"""SOGo's database: a PostgreSQL cluster below the state directory, and the table of users in it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.interop.sogo.configuration import Layout, Ports, Settings, render, values_of

PATIENCE: Final = 60.0  # seconds; initdb takes 1
PROGRAMS: Final = Path("/usr/lib/postgresql")

PUT_USER: Final = """
insert into sogo_users values (:'user', :'user', :'password', :'user', :'user' || '@localhost')
on conflict (c_uid) do update set c_password = excluded.c_password;
"""


class DatabaseFailed(Exception):
    """PostgreSQL refused something; the text is its own."""


def program(name: str) -> str:
    """Return a program of the newest installed PostgreSQL server; Debian keeps them out of PATH."""
    found = max(PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]), default=None)
    if found is None:
        raise DatabaseFailed(f"no {name} below {PROGRAMS}")
    return str(found)


def make_cluster(layout: Layout, ports: Ports, settings: Settings) -> None:
    """Make an empty cluster; it needs no password, because it listens on loopback only."""
    account = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--reset-env", "--")
    initdb = (program("initdb"), "-D", str(layout.postgres), "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
    _run((*account, *initdb), "", layout.state)
    with (layout.postgres / "postgresql.conf").open("a") as configuration:
        configuration.write(render("postgresql.conf", values_of(layout, ports, settings)))


def make_database(port: int) -> None:
    """Create SOGo's role, its database and an empty table of users; SOGo makes the other tables."""
    _psql(port, "postgres", "postgres", render("database.sql", {}))


def put_user(port: int, user: str, password: str) -> None:
    """Insert a user, or change his password."""
    _psql(port, "sogo", "sogo", PUT_USER, user=user, password=password)


def _psql(port: int, role: str, database: str, script: str, **variables: str) -> None:
    command = ["psql", "-qX", "-h", "127.0.0.1", "-p", str(port), "-U", role, "-d", database, "-v", "ON_ERROR_STOP=1"]
    for name, value in variables.items():
        command += ["-v", f"{name}={value}"]
    _run(command, script, Path("/"))


def _run(command: Sequence[str], script: str, directory: Path) -> None:
    done = subprocess.run(
        command, input=script, cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode != 0:
        raise DatabaseFailed(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
