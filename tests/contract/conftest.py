"""What the contract suites share: an engine on either database, freshly migrated, and stores on it."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from relay.domain.pacing import Pacing
from relay.store import migrate
from relay.store.engine import open_engine
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.outbox_sites import MemorySite, OutboxSite, SqlSite
from tests.fakes.outbox import MemoryOutbox
from tests.postgres import PostgresServer, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


class Templates:
    """Remember one migrated database of each kind, to be copied for every test."""

    def __init__(self, directory: Path) -> None:
        self.sqlite = directory / "template.db"
        self.postgresql: str | None = None


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture
async def sqlite_url(templates: Templates, tmp_path: Path) -> str:
    if not templates.sqlite.exists():
        async with open_engine(f"sqlite:///{templates.sqlite}") as engine:
            await migrate.upgrade(engine)
    shutil.copy(templates.sqlite, tmp_path / "relay.db")
    return f"sqlite:///{tmp_path / 'relay.db'}"


@pytest.fixture
async def postgres_url(postgres: PostgresServer, templates: Templates) -> AsyncIterator[str]:
    if templates.postgresql is None:
        templates.postgresql = await postgres.create()
        async with open_engine(postgres.url(templates.postgresql)) as engine:
            await migrate.upgrade(engine)
    name = await postgres.create(templates.postgresql)
    yield postgres.url(name)
    await postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    async with open_engine(database_url) as opened:
        yield opened


@pytest.fixture
async def postgres_engine(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    async with open_engine(postgres_url) as opened:
        yield opened


@pytest.fixture
def wakeups() -> LocalWakeups:
    return LocalWakeups()


@pytest.fixture
def registrations(engine: AsyncEngine, wakeups: LocalWakeups) -> SqlRegistrationStore:
    return SqlRegistrationStore(engine, wakeups)


@pytest.fixture
def watches(engine: AsyncEngine, wakeups: LocalWakeups) -> SqlWatchStore:
    return SqlWatchStore(engine, wakeups)


@pytest.fixture
def outbox(engine: AsyncEngine, wakeups: LocalWakeups) -> SqlOutboxStore:
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
    async with open_engine(site_url) as engine:
        yield SqlSite(engine, LocalWakeups())
