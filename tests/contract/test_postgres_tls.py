"""PostgreSQL at the other end of a network: verified, or not spoken to at all."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
import uvloop

from relay.domain.errors import StoreUnavailable
from relay.domain.ports.wakeups import Topic
from relay.sandbox.certificates import ThrowAwayCa
from relay.store.engine import open_database
from relay.store.wakeups import PostgresWakeups
from tests.fakes.postgres_front import Front, postgres_front
from tests.postgres import PostgresServer
from tests.transactions import transaction
from tests.waiting import SOON, until


@pytest.fixture
def ca(tmp_path: Path) -> ThrowAwayCa:
    made = ThrowAwayCa()
    made.write_ca(tmp_path / "ca.pem")
    ThrowAwayCa("Another").write_ca(tmp_path / "other.pem")
    return made


@pytest.fixture
async def front(postgres: PostgresServer, ca: ThrowAwayCa) -> AsyncIterator[Front]:
    async with postgres_front(postgres.socket, ca.server_context()) as opened:
        yield opened


async def ask(front: Front, ca_file: Path, host: str = "localhost") -> int:
    url = f"postgresql://postgres@{host}:{front.port}/postgres"
    async with asyncio.timeout(SOON), open_database(url, ca_file) as engine, transaction(engine) as connection:
        return int((await connection.execute(sa.text("SELECT 6 * 7"))).scalar_one())


async def on_uvloop(asking: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on the loop that the relay runs on, beside the one of the test."""

    def run() -> int:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(asking)

    return await asyncio.to_thread(run)


async def test_a_server_that_proves_itself_is_spoken_to_over_tls(front: Front, tmp_path: Path) -> None:
    assert await ask(front, tmp_path / "ca.pem") == 42
    assert await on_uvloop(ask(front, tmp_path / "ca.pem")) == 42
    assert front.sessions == 2
    assert front.plain == b""


async def test_another_ca_is_not_trusted(front: Front, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        await ask(front, tmp_path / "other.pem")
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        await on_uvloop(ask(front, tmp_path / "other.pem"))


async def test_a_certificate_of_another_host_is_not_trusted(front: Front, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        await ask(front, tmp_path / "ca.pem", host="127.0.0.2")


async def test_a_server_without_tls_learns_nothing(postgres: PostgresServer, ca: ThrowAwayCa, tmp_path: Path) -> None:
    async with postgres_front(postgres.socket, None) as front:
        with pytest.raises(StoreUnavailable, match="SSL"):
            await ask(front, tmp_path / "ca.pem")
        assert front.plain == b""


async def test_wake_ups_too_are_heard_over_verified_tls_only(
    front: Front, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"postgresql://postgres@localhost:{front.port}/postgres"
    for file, heard in (("other.pem", False), ("ca.pem", True)):
        wakeups = PostgresWakeups(url, Random(1), tmp_path / file)
        async with asyncio.timeout(SOON), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(wakeups.run())
            if heard:
                await wakeups.listening.wait()
                await wakeups.waiter(Topic.OUTBOX_APNS).wait(0.0)
            else:
                await until(lambda: "other processes are not heard" in caplog.text)
            assert wakeups.listening.is_set() is heard
            running.cancel()
    assert front.plain == b""
