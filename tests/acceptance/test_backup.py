"""A relay of which a backup is made, and one that moves to PostgreSQL: every mail rings all the same."""

import asyncio
import gzip
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from relay.sandbox.installation import APP
from relay.sandbox.process import RelayProcess
from relay.sandbox.scripts import Received
from tests.acceptance.test_cli import Ended, relay
from tests.planting import plant
from tests.postgres import PostgresServer, running_postgres
from tests.site import IPHONE, PASSWORD, Site, troubles
from tests.waiting import until

BEN: Final = "ben@example.com"
OTHER_PHONE: Final = "5b" * 32
DYING: Final = Path(__file__).with_name("dying_in_a_copy.py")
MANY: Final = 300
EVENTS: Final = 20_000
KEYS: Final = ("sealing-private.pem", "sealing-public.pem", "admin-audit.key")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[str]:
    name = await postgres.create()
    yield postgres.url(name)
    await postgres.drop(name)


def mails(site: Site) -> list[Received]:
    return [push for push in site.sandbox.apns.received if b'"email"' in push.body]


async def command(site: Site, *arguments: str, environ: Mapping[str, str] | None = None) -> Ended:
    return await relay(*arguments, "--config", str(site.sandbox.toml), environ=environ)


@asynccontextmanager
async def elsewhere(site: Site, environ: Mapping[str, str]) -> AsyncIterator[RelayProcess]:
    """Run the relay with other settings."""
    before, site.environ = site.environ, {**site.environ, **environ}
    try:
        async with site.relay() as process:
            yield process
    finally:
        site.environ = before


async def under_load(site: Site, work: Coroutine[Any, Any, Ended]) -> Ended:
    """Do some work while mail comes and comes."""

    async def deliver() -> None:
        while True:
            site.deliver()
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as tasks:
        load = tasks.create_task(deliver())
        try:
            return await work
        finally:
            load.cancel()


async def tell_token(site: Site, registration: Mapping[str, Any]) -> str:
    """Send the device token again, as apps do when their registration is `token-gone`; return the state then."""
    access = {"Authorization": f"Bearer {registration['secret']}"}
    path = f"/v1/registrations/{registration['id']}"
    async with site.api.get(path, headers=access) as response:
        assert (await response.json())["state"] == "token-gone"
    async with site.api.patch(path, json={"device": {"token": IPHONE}}, headers=access) as response:
        return str((await response.json())["state"])


@pytest.mark.slow
async def test_after_a_restore_elsewhere_every_mail_rings_and_nobody_who_left_does(site: Site, tmp_path: Path) -> None:
    file, state = tmp_path / "relay.backup.gz", tmp_path / "new state"
    environ = {"RELAY__RELAY__STATE_DIR": str(state)}
    site.sandbox.eas.add_mailbox(BEN, PASSWORD)
    async with site.relay() as process:
        leaving = {"platform": "apns", "token": OTHER_PHONE, "app": APP}
        (_, ann), (_, ben) = await site.register(), await site.register(BEN, device=leaving)
        await site.held(2)

        made = await under_load(site, command(site, "backup", str(file)))
        assert made.status == 0, made.err
        assert "sealing-private.pem" in made.err
        access = {"Authorization": f"Bearer {ben['secret']}"}
        async with site.api.delete(f"/v1/registrations/{ben['id']}", headers=access) as response:
            assert response.status == 204
        running = await command(site, "restore", str(file), "--replace", "--yes")
        process.kill()
        await process.process.wait()
    assert (running.status, "another relay process uses the database" in running.err) == (1, True)
    assert PASSWORD.encode() not in gzip.decompress(file.read_bytes())
    site.deliver()
    site.deliver(BEN)
    state.mkdir(mode=0o700)
    for name in KEYS:
        shutil.copy(site.sandbox.folder / "state" / name, state / name)

    restored = await command(site, "restore", str(file), environ=environ)
    again = await command(site, "restore", str(file), environ=environ)

    assert restored.status == 0, restored.err
    assert "2 registrations are silent until" in restored.out
    assert (again.status, "the database is not empty" in again.err) == (1, True)
    before = len(site.sandbox.apns.received)
    async with elsewhere(site, environ) as process:
        assert await tell_token(site, ann) == "active"
        await until(lambda: len(mails(site)) > 0 and len(site.sandbox.apns.received) > before)
        await site.held()
        site.deliver(BEN)
        for _ in range(3):
            sent = len(site.sandbox.apns.received)
            site.deliver()
            await until(lambda: len(site.sandbox.apns.received) > sent)  # noqa: B023 -- awaited within the loop
        assert await troubles(process) == []
        acts = await command(site, "audit", "verify", "--acts", environ=environ)
    assert OTHER_PHONE not in {push.device_token for push in site.sandbox.apns.received[before:]}
    assert acts.out.startswith("2 acts, unbroken")
    assert site.sandbox.eas.records.overlaps == {}


@pytest.mark.slow
async def test_after_a_move_to_postgresql_and_back_the_next_mail_rings_and_no_phone_registers_again(
    site: Site, database: str
) -> None:
    environ = {"RELAY__DATABASE__URL": database}
    async with site.relay():
        assert (await site.register())[0] == 201
        await site.held()
        busy = await command(site, "move", "--to", database)
        assert (busy.status, "another relay process uses the database" in busy.err) == (1, True)

    moved = await command(site, "move", "--to", database)

    assert moved.status == 0, moved.err
    assert f'[database]\nurl = "{database}"' in moved.out
    refused = await command(site, "serve")
    assert refused.status == 1
    assert "the database was moved to another one" in refused.err
    site.deliver()
    async with elsewhere(site, environ) as process:
        await until(lambda: len(mails(site)) == 1)
        await site.held()
        site.deliver()
        await until(lambda: len(mails(site)) == 2)
        assert await troubles(process) == []
        here = f"sqlite:///{site.sandbox.folder / 'state/relay.sqlite3'}"
        used = await command(site, "move", "--to", here, "--replace", "--yes", environ=environ)
        assert (used.status, "processes of the relay use the database" in used.err) == (1, True)
    back = await command(site, "move", "--to", here, "--replace", "--yes", environ=environ)
    assert back.status == 0, back.err
    async with site.relay():
        await site.held()
        site.deliver()
        await until(lambda: len(mails(site)) == 3)
    assert site.sandbox.eas.records.overlaps == {}


def rows(database: Path) -> dict[str, int]:
    """Return how many mailboxes and events a database of SQLite has; none without its tables."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 -- names of ours
            for name in ("mailbox", "event")
            if name in tables
        }
    finally:
        connection.close()


async def killed_at(site: Site, doing: str, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
    """Run a command that ends by SIGKILL in the table of which it tells, e.g. "write mailbox"."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(DYING), doing, sys.executable, "-m", "relay"),
        *(*arguments, "--config", str(site.sandbox.toml)),
        env={**os.environ, **(environ or {})},
    )
    assert await process.wait() == -signal.SIGKILL


@pytest.mark.slow
async def test_killed_in_a_restore_or_a_move_a_database_has_all_or_nothing(
    site: Site, database: str, tmp_path: Path
) -> None:
    file, mine = tmp_path / "one.backup.gz", site.sandbox.folder / "state/relay.sqlite3"
    plant(site.sandbox.folder, MANY, PASSWORD)
    with sqlite3.connect(mine) as connection:
        event = "INSERT INTO event (at, kind) VALUES ('2026-11-24 08:30:00', 'noticed')"
        connection.executemany(event, [()] * EVENTS)
    whole = rows(mine)
    await killed_at(site, "read event", "backup", str(file))
    assert not file.exists()
    assert (await command(site, "backup", str(file))).status == 0

    await killed_at(site, "write mailbox", "restore", str(file), "--replace", "--yes", "--unchanged")
    assert rows(mine) == whole
    other = {"RELAY__DATABASE__URL": f"sqlite:///{tmp_path / 'other.db'}"}
    await killed_at(site, "write mailbox", "restore", str(file), "--unchanged", environ=other)
    assert rows(tmp_path / "other.db") == {}
    assert (await command(site, "restore", str(file), "--unchanged", environ=other)).status == 0
    assert rows(tmp_path / "other.db") == whole

    await killed_at(site, "write mailbox", "move", "--to", database)
    refused = await command(site, "serve")
    assert (refused.status, "If the move was interrupted, run `relay move` again" in refused.err) == (1, True)
    again = await command(site, "move", "--to", database)
    assert again.status == 0, again.err
    told = await command(site, "explain", "user300@example.com", environ={"RELAY__DATABASE__URL": database})
    assert told.status == 0, told.err
