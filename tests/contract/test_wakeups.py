"""Test that processes which share a PostgreSQL wake each other, also after the connection was lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import pytest
import sqlalchemy as sa

from relay.domain.model import Platform
from relay.domain.ports.wakeups import Topic
from relay.store.engine import Database
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import PostgresWakeups
from tests.contract.samples import register
from tests.fakes.postgres_front import lingering_front
from tests.postgres import PostgresServer
from tests.transactions import transaction
from tests.waiting import SOON, until

CUT: Final = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def postgres_url(fresh_postgres_url: str) -> str:
    return fresh_postgres_url


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[PostgresWakeups]:
    wakeups = PostgresWakeups(url, Random(1))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(wakeups.run())
        async with asyncio.timeout(SOON):
            await wakeups.listening.wait()
        yield wakeups
        running.cancel()


async def test_one_process_wakes_another(postgres_url: str) -> None:
    async with listening(postgres_url) as one, listening(postgres_url) as two:
        other, wrong = two.waiter(Topic.OUTBOX_APNS), two.waiter(Topic.MAILBOXES)

        one.wake(Topic.OUTBOX_APNS)

        await until(lambda: other.woken)
        assert not wrong.woken


async def test_two_topics_of_one_moment_both_reach_the_other_process(postgres_url: str) -> None:
    async with listening(postgres_url) as one, listening(postgres_url) as two:
        waiters = {platform: two.waiter(Topic.outbox(platform)) for platform in Platform}

        one.wake(Topic.outbox(Platform.APNS))
        one.wake(Topic.outbox(Platform.WEBPUSH))

        await until(lambda: waiters[Platform.APNS].woken and waiters[Platform.WEBPUSH].woken)
        assert not waiters[Platform.FCM].woken


async def test_the_own_waiters_wake_at_once_and_only_once(postgres_url: str) -> None:
    async with listening(postgres_url) as one, listening(postgres_url) as two:
        own, other = one.waiter(Topic.VERDICTS), two.waiter(Topic.VERDICTS)

        one.wake(Topic.VERDICTS)
        assert own.woken
        await own.wait(0)
        await until(lambda: other.woken)
        two.wake(Topic.OUTBOX_APNS)
        heard = one.waiter(Topic.OUTBOX_APNS)
        await until(lambda: heard.woken)

        assert not own.woken


async def test_a_wake_up_before_the_first_connection_arrives_later(postgres_url: str) -> None:
    early = PostgresWakeups(postgres_url, Random(1))
    early.wake(Topic.OUTBOX_APNS)
    async with listening(postgres_url) as two, asyncio.TaskGroup() as tasks:
        other = two.waiter(Topic.OUTBOX_APNS)

        running = tasks.create_task(early.run())

        await until(lambda: other.woken)
        running.cancel()


async def test_a_lost_connection_is_made_again_and_wakes_everybody(
    postgres_url: str, postgres_engine: Database
) -> None:
    async with listening(postgres_url) as one, listening(postgres_url) as two:
        waiter = two.waiter(Topic.MAILBOXES)
        async with transaction(postgres_engine) as connection:
            assert len((await connection.execute(CUT)).all()) == 2

        await until(lambda: waiter.woken)  # whatever was missed
        await until(one.listening.is_set)
        await waiter.wait(0)
        one.wake(Topic.MAILBOXES)
        await until(lambda: waiter.woken)


async def test_a_connection_is_made_again_when_the_server_says_that_it_ends(
    postgres: PostgresServer, postgres_url: str, postgres_engine: Database, tmp_path: Path
) -> None:
    async with lingering_front(postgres.socket, tmp_path) as front, listening(front.url(postgres_url)) as wakeups:
        async with transaction(postgres_engine) as connection:
            assert len((await connection.execute(CUT)).all()) == 1
        await front.closed()

        wakeups.wake(Topic.MAILBOXES)  # it cannot be sent
        await until(lambda: not wakeups.listening.is_set())
        await until(wakeups.listening.is_set)


async def test_a_store_wakes_the_other_process_after_its_commit(postgres_url: str, postgres_engine: Database) -> None:
    async with listening(postgres_url) as one, listening(postgres_url) as two:
        waiter = two.waiter(Topic.MAILBOXES)

        await register(SqlRegistrationStore(postgres_engine, one))

        await until(lambda: waiter.woken)


async def test_a_database_that_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    wakeups = PostgresWakeups("postgresql://relay@127.0.0.1:1/relay", Random(1))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(wakeups.run())
        await until(lambda: "not heard" in caplog.text)
        waiter = wakeups.waiter(Topic.OUTBOX_APNS)
        wakeups.wake(Topic.OUTBOX_APNS)
        assert waiter.woken
        assert not running.done()
        running.cancel()
