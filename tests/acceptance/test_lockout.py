"""Promise 4: one bad password costs three tries at the mail server in all, whichever process is killed in between."""

import sqlite3
from pathlib import Path
from typing import Final

import pytest

from relay.sandbox.installation import APP
from relay.sandbox.process import RelayProcess
from tests.site import ANN, PASSWORD, Site
from tests.waiting import until

BEN: Final = "ben@example.com"
OTHER_IPHONE: Final = "5b" * 32


def database_of(site: Site) -> Path:
    return site.sandbox.folder / "state" / "relay.sqlite3"


def stored(site: Site) -> tuple[str, int]:
    """Return state and counted refusals of Ann's mailbox."""
    connection = sqlite3.connect(f"file:{database_of(site)}?mode=ro", uri=True)
    try:
        state, refusals = connection.execute("SELECT state, refusals FROM mailbox WHERE user = ?", [ANN]).fetchone()
    finally:
        connection.close()
    return state, refusals


def end_the_wait(site: Site) -> None:
    """End the stored wait, as if its time had passed while no relay ran."""
    connection = sqlite3.connect(database_of(site))
    with connection:
        changed = connection.execute("UPDATE mailbox SET next_try_at = since WHERE next_try_at IS NOT NULL").rowcount
        connection.execute("UPDATE tries SET last_at = datetime(last_at, '-1 day')")
    connection.close()
    assert changed == 1, "nothing waits: the time of the next try is not stored"


def prolong_the_wait(site: Site) -> None:
    """Write that the wait ends an hour later: a busy host takes most of a minute to start a relay."""
    later = "strftime('%Y-%m-%d %H:%M:%f000', next_try_at, '+1 hour')"
    connection = sqlite3.connect(database_of(site))
    with connection:
        connection.execute(f"UPDATE mailbox SET next_try_at = {later} WHERE next_try_at IS NOT NULL")  # noqa: S608 - ours
    connection.close()


def asked(site: Site) -> int:
    """Count the requests of Ann's mailbox that reached the mail server, right ones and wrong ones."""
    return len(site.sandbox.eas.log(ANN))


async def killed(site: Site, relay: RelayProcess) -> None:
    relay.kill()
    await relay.process.wait()
    await until(lambda: site.sandbox.eas.held == 0)


@pytest.mark.slow
async def test_a_password_that_went_bad_is_tried_three_times_over_all_restarts(site: Site) -> None:
    eas, apns = site.sandbox.eas, site.sandbox.apns
    eas.add_mailbox(BEN, PASSWORD)
    async with site.relay() as relay:
        assert (await site.register())[0] == 201
        assert (await site.register(BEN, device={"platform": "apns", "token": OTHER_IPHONE, "app": APP}))[0] == 201
        await site.held(2)
        eas.add_mailbox(ANN, "a new one")
        site.deliver()
        await until(lambda: stored(site) == ("waiting", 1))
        await killed(site, relay)
    before = asked(site)

    prolong_the_wait(site)
    async with site.relay() as relay:  # the wait goes on
        await site.held()  # Ben's: so the relay has started its watches
        assert (stored(site), asked(site)) == (("waiting", 1), before)
        await killed(site, relay)

    end_the_wait(site)
    async with site.relay() as relay:
        await until(lambda: stored(site) == ("waiting", 2))
        await killed(site, relay)
    assert asked(site) == before + 1

    end_the_wait(site)
    async with site.relay() as relay:
        await until(lambda: stored(site) == ("credential-refused", 3))
        await until(lambda: len(apns.received) == 1)
        await killed(site, relay)
    assert asked(site) == before + 2

    async with site.relay():
        await site.held()
    assert eas.records.refusals[ANN] == 3
    assert asked(site) == before + 2


@pytest.mark.slow
async def test_a_bad_password_at_registration_is_tried_once_over_all_restarts(site: Site) -> None:
    async with site.relay() as relay:
        status, answer = await site.register(password="wrong")
        assert (status, answer["code"]) == (403, "credential-refused")
        await killed(site, relay)
    async with site.relay() as relay:
        assert (await relay.health())["parts"]

    assert site.sandbox.eas.records.refusals[ANN] == 1
    assert asked(site) == 1
