"""Fixtures of the long runs: a PostgreSQL server, and a sandbox whose roles share one of its databases."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay.store import migrate
from relay.store.engine import open_database
from tests.postgres import PostgresServer, running_postgres
from tests.site import Site, open_site

TIMEOUT = 600  # seconds for one long run, on two busy cores


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[str]:
    name = await postgres.create()
    url = postgres.url(name)
    async with open_database(url) as engine:
        await migrate.upgrade(engine)
    yield url
    await postgres.drop(name)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    environ = {
        "RELAY__API__REGISTRATIONS_PER_MINUTE": "100000",
        "RELAY__API__REQUESTS_PER_MINUTE": "100000",
        "RELAY__LOG__LEVEL": "warning",
    }
    async with open_site(tmp_path / "sandbox", environ) as opened:
        yield opened
