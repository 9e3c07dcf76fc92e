"""PgBouncer between the relay and PostgreSQL: session mode serves, other modes are refused with their remedy."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from relay.domain.errors import SessionsShared
from relay.domain.ports.wakeups import Topic
from relay.store.engine import connect_arguments, open_database
from relay.store.postgresql import SEARCH_PATH
from relay.store.sessions import check_sessions
from relay.store.wakeups import PostgresWakeups
from tests.interop.packages import Unavailable, install, unavailable
from tests.interop.pgbouncer import pgbouncer, url
from tests.postgres import PostgresServer, running_postgres
from tests.site import ANN, PASSWORD, open_site, troubles
from tests.waiting import SOON

LIMIT = 60.0  # seconds


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    try:
        install("pgbouncer")
    except Unavailable as reason:
        unavailable(reason)
    with running_postgres() as server:
        yield server


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[str]:
    name = await postgres.create()
    yield name
    await postgres.drop(name)


async def relay(toml: Path, port: int, database: str, *command: str) -> tuple[int, str]:
    """Run a command of the relay through the pooler; return its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *command, "--config", str(toml)),
        env={"RELAY__DATABASE__URL": url(port, database)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(LIMIT):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_the_relay_runs_through_a_pooler_in_session_mode(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    with pgbouncer(postgres, "session") as port:
        async with open_site(tmp_path / "sandbox", {"RELAY__DATABASE__URL": url(port, database)}) as site:
            site.sandbox.eas.add_mailbox(ANN, PASSWORD)
            status, said = await relay(site.sandbox.toml, port, database, "migrate", "--role", "push")
            assert (status, said) == (0, "the database has the schema of this version\n")

            async with site.relay() as process:
                assert (await site.register())[0] == 201
                await site.held()
                site.deliver()
                assert [push.status for push in await site.sandbox.apns.wait(1, SOON)] == [200]
                assert await troubles(process) == []


async def test_sessions_through_a_pooler_have_the_settings_of_the_relay(
    postgres: PostgresServer, database: str
) -> None:
    """PgBouncer refuses settings at the start of a connection, or drops them in silence."""
    names = ("search_path", "default_transaction_read_only", "statement_timeout", "jit")

    def settings(connection: sa.Connection) -> list[str]:
        return [str(connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in names]

    with pgbouncer(postgres, "session") as port:
        async with (
            open_database(url(port, database), reads=True) as reads,
            open_database(url(port, database)) as writes,
        ):
            assert await reads.run(settings) == [SEARCH_PATH, "on", "30s", "off"]
            assert await writes.run(settings) == [SEARCH_PATH, "off", "30s", "off"]


async def test_wake_ups_pass_a_pooler_in_session_mode(postgres: PostgresServer, database: str) -> None:
    with pgbouncer(postgres, "session") as port:
        await check_sessions(connect_arguments(url(port, database)))
        ours, theirs = (PostgresWakeups(url(port, database), Random(seed)) for seed in (1, 2))
        waiter = theirs.waiter(Topic.MAILBOXES)
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each.run()) for each in (ours, theirs)]
            await ours.listening.wait()
            await theirs.listening.wait()
            await waiter.wait(0.0)  # it is woken once when the connection is there
            ours.wake(Topic.MAILBOXES)
            await waiter.wait(LIMIT)
            for task in running:
                task.cancel()


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("transaction", ()),
        ("transaction", ("default_pool_size = 1",)),
        ("transaction", ("server_round_robin = 1", "min_pool_size = 3")),
        ("transaction", ("server_reset_query_always = 1",)),
        ("statement", ()),
    ],
)
async def test_a_pooler_that_shares_sessions_is_recognised(
    postgres: PostgresServer, database: str, mode: str, settings: tuple[str, ...]
) -> None:
    with pgbouncer(postgres, mode, *settings) as port:
        for _ in range(5):
            with pytest.raises(SessionsShared):
                await check_sessions(connect_arguments(url(port, database)))


async def test_the_relay_refuses_a_pooler_that_shares_sessions(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    with pgbouncer(postgres, "transaction") as port:
        async with open_site(tmp_path / "sandbox") as site:
            for command in (("migrate", "--role", "push"), ("serve",)):
                status, said = await relay(site.sandbox.toml, port, database, *command)

                assert status == 1
                assert "database.url leads to a pooler that shares sessions" in said
                assert "set pool_mode = session" in said


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_the_doctor_names_a_pooler_that_shares_sessions(
    postgres: PostgresServer, database: str, tmp_path: Path, mode: str
) -> None:
    async with open_site(tmp_path / "sandbox") as site:
        with pgbouncer(postgres, mode) as port:
            status, said = await relay(site.sandbox.toml, port, database, "doctor", "--role", "all")

    (named,) = [line for line in said.splitlines() if line.startswith("bad ")]
    assert status == 1
    assert named.split()[1] == "pooler"
    assert "pool_mode = session" in named
