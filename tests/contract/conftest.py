"""An engine on either database, with the rows that migrations leave, and the stores on it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest

from relay.domain.model import SHARDS
from relay.domain.pacing import Pacing
from relay.store import migrate
from relay.store.engine import Database, open_database
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import metadata
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.outbox_sites import MemorySite, OutboxSite, SqlSite
from tests.fakes.outbox import MemoryOutbox
from tests.migrating import migrate_to, write_new_sqlite
from tests.postgres import PostgresServer, running_postgres

# What an earlier test left is ended first: it may hold locks. The rows are those of the migrations.
RESET: Final = "\n".join(
    [
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
        "  WHERE datname = current_database() AND pid <> pg_backend_pid();",
        *(f"{table.delete()};" for table in reversed(metadata.sorted_tables)),
        f"INSERT INTO shard (number) SELECT generate_series(0, {SHARDS - 1});",
        "INSERT INTO sealed_anew (shard) SELECT number FROM shard;",
    ]
)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
async def sqlite_url(tmp_path: Path) -> str:
    return await write_new_sqlite(tmp_path / "relay.db")


class MigratedDatabases:
    """Databases of one server with the tables of the relay: copies, and one that tests use in turn."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._template: str | None = None
        self._shared: str | None = None

    async def copy(self) -> str:
        """Create a database as the migrations leave it; return its name. Takes some 35 ms."""
        if self._template is None:
            self._template = await self._server.create()
            async with open_database(self._server.url(self._template)) as engine:
                await migrate.upgrade(engine)
        return await self._server.create(self._template)

    async def shared(self) -> str:
        """Return the name of the database that tests use in turn, with the rows that migrations leave: some 8 ms."""
        if self._shared is None:
            self._shared = await self.copy()
        else:
            await self._server.execute(RESET, self._shared)
        return self._shared


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> MigratedDatabases:
    return MigratedDatabases(postgres)


@pytest.fixture
async def postgres_url(postgres: PostgresServer, migrated: MigratedDatabases) -> str:
    """Return a database that the tests of this process use in turn."""
    return postgres.url(await migrated.shared())


@pytest.fixture
async def fresh_postgres_url(postgres: PostgresServer, migrated: MigratedDatabases) -> AsyncIterator[str]:
    """Yield a database of the test's own, for a test that changes the schema or counts connections."""
    name = await migrated.copy()
    yield postgres.url(name)
    await postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        yield opened


@pytest.fixture
async def postgres_engine(postgres_url: str) -> AsyncIterator[Database]:
    async with open_database(postgres_url) as opened:
        yield opened


@pytest.fixture
def wakeups() -> LocalWakeups:
    return LocalWakeups()


@pytest.fixture
def registrations(engine: Database, wakeups: LocalWakeups) -> SqlRegistrationStore:
    return SqlRegistrationStore(engine, wakeups)


@pytest.fixture
def watches(engine: Database, wakeups: LocalWakeups) -> SqlWatchStore:
    return SqlWatchStore(engine, wakeups)


@pytest.fixture
def outbox(engine: Database, wakeups: LocalWakeups) -> SqlOutboxStore:
    return SqlOutboxStore(engine, wakeups)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def site_url(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of a fresh database of each kind; None for an outbox in memory."""
    return None if request.param == "memory" else str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def site(site_url: str | None) -> AsyncIterator[OutboxSite]:
    if site_url is None:
        yield MemorySite(MemoryOutbox(pacing=Pacing()))
        return
    async with open_database(site_url) as engine:
        yield SqlSite(engine, LocalWakeups())


@pytest.fixture(params=["sqlite", "postgres"])
async def before(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database as the version before leaves it."""
    url = f"sqlite:///{tmp_path / 'before.db'}"
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.url(await server.create())
    async with open_database(url) as opened:
        await migrate_to(opened, "0013")
        yield opened
