"""Knowledge of the path to a mail server outlives the process that gained it."""

import sqlite3
from contextlib import closing

import pytest

from tests.acceptance.test_lockout import database_of
from tests.site import ANN, Site
from tests.waiting import until


def remember(site: Site, interval: int) -> None:
    """Write the knowledge of the path to the mail server that an earlier process would have stored."""
    url = f"https://127.0.0.1:{site.sandbox.ports.eas}/Microsoft-Server-ActiveSync"
    with closing(sqlite3.connect(database_of(site))) as connection, connection:
        connection.execute(
            "INSERT INTO path (url, interval, cut_shortest, cut_longest, learnt_at) "
            "VALUES (?, ?, 320.0, 320.0, strftime('%Y-%m-%d %H:%M:%f000', 'now'))",
            [url, interval],
        )


def heartbeat(site: Site) -> int | None:
    (device,) = site.sandbox.eas.devices(ANN)
    return None if device.ping is None else device.ping.heartbeat


@pytest.mark.slow
async def test_a_restarted_relay_holds_pings_as_long_as_those_that_survived_before(site: Site) -> None:
    async with site.relay():
        assert (await site.register())[0] == 201
        await site.held()
        first = heartbeat(site)
        assert first is not None
        assert 600 <= first <= 660
    await until(lambda: site.sandbox.eas.held == 0)
    remember(site, 240)

    async with site.relay() as relay:
        await site.held()

        assert heartbeat(site) == 240
        assert "an idle timeout of 320 s lies on the path" in str(await relay.health())
