"""A row that cannot be read stops nobody else: not while the relay runs, and not after a restart."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import aiohttp
import pytest

from tests.acceptance.test_cli import relay as command
from tests.site import ANN, PASSWORD, Site, part_of
from tests.waiting import SOON, until

BEN = "ben@example.com"


@contextmanager
def database_of(site: Site) -> Iterator[sqlite3.Connection]:
    """Open the database as a newer version would, whose schema allows more."""
    with closing(sqlite3.connect(site.sandbox.folder / "state" / "relay.sqlite3", timeout=SOON)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        with connection:
            yield connection


async def metric(site: Site, name: str) -> str | None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{site.sandbox.ports.ops}/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    return next((line for line in lines if line.startswith(name)), None)


@pytest.mark.slow
async def test_one_unreadable_registration_stops_no_other(site: Site) -> None:
    apns = site.sandbox.apns
    site.sandbox.eas.add_mailbox(BEN, PASSWORD)
    async with site.relay():
        ann = (await site.register(ANN))[1]["id"]
        assert (await site.register(BEN))[0] == 201
        await site.held(2)
        with database_of(site) as connection:
            connection.execute("""UPDATE registration SET classes = '["bogus"]' WHERE id = ?""", [ann])
            connection.execute("UPDATE mailbox SET dirty = 1")
        before = len(apns.received)
        site.deliver(BEN)
        await until(lambda: len(apns.received) > before)

    async with site.relay() as relay:
        before = len(apns.received)
        await site.held(1)
        site.deliver(BEN)
        await until(lambda: len(apns.received) > before)
        part = await part_of(relay, "rows", "cannot be read")
        assert f"registration {ann} (classes: bogus)" in part["reason"]
        assert await metric(site, "relay_rows_aside") == 'relay_rows_aside{table="registration"} 1.0'
        explained = await command("explain", ann, "--config", str(site.sandbox.toml))
        assert f"registration {ann}: cannot be read, so set aside: classes: bogus" in explained.out

        with database_of(site) as connection:
            connection.execute("""UPDATE registration SET classes = '["email"]' WHERE id = ?""", [ann])
            connection.execute("UPDATE mailbox SET dirty = 1")
        await site.held(2)
