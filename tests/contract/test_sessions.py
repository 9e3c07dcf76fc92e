import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from relay.domain.errors import NotificationsLost, SessionsShared
from relay.store.engine import connect_arguments
from relay.store.sessions import check_sessions, hear, open_session, tell_apart
from tests.postgres import PostgresServer


@pytest.fixture
async def two(postgres_url: str) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(2):
            connections.append(await asyncpg.connect(postgres_url))
            stack.push_async_callback(connections[-1].close)
        yield connections


async def test_postgresql_gives_each_connection_its_own_session(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await check_sessions(connect_arguments(postgres_url))

    assert caplog.records == []


async def test_two_connections_of_one_session_are_told(two: list[Any]) -> None:
    await tell_apart(*two)
    with pytest.raises(SessionsShared, match="set pool_mode = session"):
        await tell_apart(two[0], two[0])


async def test_a_session_that_forgets_is_told(two: list[Any]) -> None:
    """A pooler may clean the session after each transaction."""

    class Forgetful:
        async def execute(self, query: str, timeout: float) -> None:  # noqa: ASYNC109 -- as asyncpg has it
            await two[0].execute(query, timeout=timeout)
            await two[0].execute("DISCARD ALL")

    with pytest.raises(SessionsShared):
        await tell_apart(Forgetful(), two[1])


async def test_notifications_that_do_not_arrive_are_told(two: list[Any], postgres: PostgresServer) -> None:
    await hear(*two)
    elsewhere = await asyncpg.connect(postgres.url("postgres"))
    try:
        with pytest.raises(NotificationsLost, match="LISTEN, NOTIFY"):
            await hear(two[0], elsewhere, within=0.05)
    finally:
        await elsewhere.close()


async def test_a_database_that_is_away_is_left_to_the_first_transaction(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await check_sessions(connect_arguments(postgres.url("nowhere")))

    assert [record.getMessage() for record in caplog.records] == [
        "not looked whether a pooler shares database sessions"
    ]


async def test_a_session_has_the_settings_that_it_is_opened_with(postgres_url: str) -> None:
    connection = await open_session(connect_arguments(postgres_url), {"search_path": "public, pg_temp", "jit": "off"})
    try:
        assert await connection.fetchval("SHOW search_path") == "public, pg_temp"
        assert await connection.fetchval("SHOW jit") == "off"
    finally:
        await connection.close()


async def test_a_session_that_cannot_be_set_up_is_closed(postgres_url: str, postgres: PostgresServer) -> None:
    name = {"application_name": "cannot be set up", "no_such_setting": "on"}

    with pytest.raises(asyncpg.UndefinedObjectError):
        await open_session(connect_arguments(postgres_url), name)
