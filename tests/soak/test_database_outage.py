"""PostgreSQL goes away during work: the roles wait, show it in health, recover by themselves, and nothing is lost."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from relay.cli.keygen import write_sealing_keys
from relay.sandbox.installation import APP
from relay.sandbox.process import RelayProcess, open_relay
from tests.ports import free_ports
from tests.postgres import PostgresServer
from tests.site import PASSWORD, Site
from tests.soak.ledger import Ledger
from tests.soak.line import Line, open_line
from tests.waiting import until

MAILBOXES: Final = 40
ROLES: Final = ("api", "watch", "push")
PACE: Final = 0.05  # seconds between two mails
BEFORE: Final = 3.0  # seconds of mails before the trouble
AFTER: Final = 3.0  # seconds of mails after it
NOTICED: Final = 60.0  # seconds until health shows it
RECOVERED: Final = 120.0  # seconds until all mails that came meanwhile are pushed


@pytest.fixture
async def line(postgres: PostgresServer) -> AsyncIterator[tuple[Line, Path]]:
    with tempfile.TemporaryDirectory(prefix="line") as name:  # a socket's path has 108 bytes at most
        folder = Path(name)
        async with open_line(folder, postgres.socket) as opened:
            yield opened, folder


@pytest.fixture
async def roles(site: Site, database: str, line: tuple[Line, Path]) -> AsyncIterator[dict[str, RelayProcess]]:
    """Run one process of each role, all connected through the line."""
    through = database.partition("?")[0] + f"?host={line[1]}"
    state = site.sandbox.folder / "state"
    write_sealing_keys(state / "sealing-private.pem", state / "sealing-public.pem")
    async with AsyncExitStack() as stack:
        opened = {}
        for role, port in zip(ROLES, free_ports(len(ROLES)), strict=True):
            environ = {**site.environ, "RELAY__DATABASE__URL": through, "RELAY__OPS__PORT": str(port)}
            opened[role] = await stack.enter_async_context(
                open_relay(site.sandbox.toml, port, role=role, environ=environ)
            )
        yield opened


def token_of(number: int) -> str:
    return f"{number:064x}"


def user_of(number: int) -> str:
    return f"user{number}@example.com"


async def register(site: Site) -> None:
    for number in range(MAILBOXES):
        site.sandbox.eas.add_mailbox(user_of(number), PASSWORD)
        device = {"platform": "apns", "token": token_of(number), "app": APP}
        status, answer = await site.register(user_of(number), device=device)
        assert status in {201, 202}, answer
    await site.held(MAILBOXES)


@asynccontextmanager
async def mails(site: Site, ledger: Ledger) -> AsyncIterator[None]:
    """Deliver mails to mailboxes at random while the block runs."""
    random = Random(20261124)

    async def deliver() -> None:
        while True:
            number = random.randrange(MAILBOXES)
            ledger.owe(token_of(number), "email", time.perf_counter_ns())
            site.deliver(user_of(number))
            await asyncio.sleep(PACE)

    async with asyncio.TaskGroup() as tasks:
        delivering = tasks.create_task(deliver())
        yield
        delivering.cancel()


async def database_parts(roles: dict[str, RelayProcess]) -> dict[str, str]:
    documents: dict[str, Any] = {role: await process.health() for role, process in roles.items()}
    return {
        role: next(part["state"] for part in document["parts"] if part["part"] == "database")
        for role, document in documents.items()
    }


async def until_all(roles: dict[str, RelayProcess], wanted: Callable[[str], bool], seconds: float) -> None:
    """Wait until the state of the database in the health of every role is a wanted one."""

    async def all_are() -> bool:
        return all(wanted(state) for state in (await database_parts(roles)).values())

    await until(all_are, seconds)


async def survive(
    site: Site, roles: dict[str, RelayProcess], trouble: Callable[[], Any], end: Callable[[], Any]
) -> None:
    ledger, apns = Ledger(), site.sandbox.apns
    await register(site)
    async with mails(site, ledger):
        await asyncio.sleep(BEFORE)
        await trouble()
        await until_all(roles, lambda state: state != "ok", NOTICED)
        await end()
        await until_all(roles, lambda state: state == "ok", RECOVERED)
        await asyncio.sleep(AFTER)
    await until(lambda: not ledger.unpaid(apns.received), RECOVERED)
    await site.held(MAILBOXES)

    assert [process.process.returncode for process in roles.values()] == [None] * len(ROLES)
    assert ledger.changes > MAILBOXES
    assert site.sandbox.eas.records.overlaps == {}
    # A registration still works.
    site.sandbox.eas.add_mailbox("ann@example.com", PASSWORD)
    assert (await site.register())[0] == 201


async def test_crash_and_restart(site: Site, roles: dict[str, RelayProcess], postgres: PostgresServer) -> None:
    await survive(site, roles, postgres.crash, postgres.start)


async def test_cut_off(site: Site, roles: dict[str, RelayProcess], line: tuple[Line, Path]) -> None:
    async def cut() -> None:
        line[0].cut()

    async def mend() -> None:
        line[0].mend()

    await survive(site, roles, cut, mend)


async def test_silence(site: Site, roles: dict[str, RelayProcess], line: tuple[Line, Path]) -> None:
    async def silence() -> None:
        line[0].silence()

    async def mend() -> None:
        line[0].mend()

    await survive(site, roles, silence, mend)
