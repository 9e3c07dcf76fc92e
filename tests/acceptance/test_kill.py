"""Promise 3: no new item is lost, at whatever point kill -9 ends the relay."""

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import pytest
from push_relay_client import Refused

from relay.sandbox.eas.failures import FailurePlan
from relay.sandbox.eas.failures import Stall as Unanswered
from relay.sandbox.process import RelayProcess
from relay.sandbox.scripts import Received, Stall
from tests.site import ANN, Site, identity_of
from tests.waiting import SOON, until

DYING: Final = Path(__file__).with_name("dying_at_the_handover.py")
TRIES: Final = 10
UNPACED: Final = {"RELAY__PUSH__COALESCE_SECONDS": "0"}
"""A mail that comes within seconds of a push waits, and its mark is not born claimed."""


def emails(pushes: list[Received]) -> list[Received]:
    return [push for push in pushes if b'"email"' in push.body]


@contextmanager
def written_by_another(database: Path) -> Iterator[None]:
    """Hold the database's write lock, so that no commit of the relay succeeds."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


def owners_of_marks(database: Path) -> list[str | None]:
    """Return for each waiting mark of a mail who has claimed it; None: nobody."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return [owner for (owner,) in connection.execute("SELECT claimed_by FROM outbox WHERE mark = 'email'")]
    finally:
        connection.close()


def waiting_marks(database: Path) -> int:
    return len(owners_of_marks(database))


def database_of(site: Site) -> Path:
    return site.sandbox.folder / "state" / "relay.sqlite3"


def syncs(site: Site) -> int:
    return site.sandbox.eas.records.requests["Sync"]


async def mails_until_death(site: Site, relay: RelayProcess) -> int:
    """Deliver a mail after the other until one's mark is born claimed, which ends the relay; return the pushes before.

    A dispatcher takes over nothing while it starts or looks for marks itself, as it may just then: it claims such a
    mark as any other.
    """
    apns, database = site.sandbox.apns, database_of(site)
    for _ in range(TRIES):
        sent = len(emails(apns.received))
        site.deliver()
        await until(lambda: relay.process.returncode is not None or len(emails(apns.received)) > sent)  # noqa: B023  # awaited within the loop
        if len(emails(apns.received)) == sent:
            return sent
        await until(lambda: waiting_marks(database) == 0)
    raise AssertionError(f"none of {TRIES} marks was born claimed")


@pytest.mark.slow
async def test_killed_between_sync_answer_and_commit(site: Site) -> None:
    eas, apns = site.sandbox.eas, site.sandbox.apns
    async with site.relay() as relay:
        assert (await site.register())[0] == 201
        await site.held()
        with written_by_another(database_of(site)):
            asked = syncs(site)
            site.deliver()
            await until(lambda: syncs(site) > asked)
            relay.kill()
            await relay.process.wait()
    assert emails(apns.received) == []
    assert waiting_marks(database_of(site)) == 0

    async with site.relay():
        await until(lambda: emails(apns.received))

    assert eas.records.overlaps == {}


@pytest.mark.slow
async def test_killed_between_commit_and_push(site: Site) -> None:
    fcm = site.sandbox.fcm
    fcm.fail_tokens(Stall(), 0)  # without an access token no push can begin
    async with site.relay() as relay:
        assert (await site.register_android())[0] == 201
        await site.held()
        site.deliver()
        await until(lambda: waiting_marks(database_of(site)) == 1)
        relay.kill()
        await relay.process.wait()
    assert fcm.received == []
    fcm.heal()

    async with site.relay():
        await fcm.wait(1, SOON)


@pytest.mark.slow
async def test_killed_between_the_commit_of_a_mark_born_claimed_and_its_push(site: Site) -> None:
    site = replace(site, environ={**site.environ, **UNPACED})
    eas, apns = site.sandbox.eas, site.sandbox.apns
    async with site.relay():
        assert (await site.register())[0] == 201
        await site.held()
    for _ in range(2):
        async with site.relay(within=(sys.executable, str(DYING))) as relay:
            await site.held()
            sent = await mails_until_death(site, relay)
        (owner,) = owners_of_marks(database_of(site))
        assert owner is not None
        assert owner.endswith("/apns")
        assert len(emails(apns.received)) == sent

        async with site.relay():
            await until(lambda: len(emails(apns.received)) == sent + 1)  # noqa: B023  # awaited within the loop
            await until(lambda: waiting_marks(database_of(site)) == 0)

    assert eas.records.overlaps == {}


async def test_killed_during_a_push(site: Site) -> None:
    apns = site.sandbox.apns
    async with site.relay() as relay:
        assert (await site.register())[0] == 201
        await site.held()
        apns.fail(Stall(), 0)
        site.deliver()
        (unanswered,) = await apns.wait(1, SOON)
        relay.kill()
        await relay.process.wait()
    apns.heal()

    async with site.relay():
        again = (await apns.wait(2, SOON))[-1]

    assert unanswered.status == 0
    assert again.status == 200
    assert again.headers["apns-collapse-id"] == unanswered.headers["apns-collapse-id"]


@pytest.mark.slow
async def test_killed_at_random_moments(site: Site) -> None:
    random = Random(20261124)
    async with site.relay():
        assert (await site.register())[0] == 201
        await site.held()
    for _ in range(6):
        await kill_after_a_mail(site, random.uniform(0.0, 0.06))


async def kill_after_a_mail(site: Site, seconds: float) -> None:
    """Kill a relay so many seconds after a mail came; the next relay pushes it."""
    async with site.relay() as relay:
        await site.held()
        delivered_at = time.perf_counter_ns()
        site.deliver()
        await asyncio.sleep(seconds)
        relay.kill()
        await relay.process.wait()
    async with site.relay():
        await until(lambda: any(push.moment > delivered_at for push in emails(site.sandbox.apns.received)))
        await until(lambda: waiting_marks(database_of(site)) == 0)


def kept_of_the_user(database: Path) -> tuple[int, int, int]:
    """Count credentials, collections and registrations."""
    counts = (
        "SELECT count(*) FROM mailbox WHERE sealed_credential IS NOT NULL",
        "SELECT count(*) FROM collection",
        "SELECT count(*) FROM registration",
    )
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        credentials, collections, registrations = (connection.execute(count).fetchone()[0] for count in counts)
    finally:
        connection.close()
    return credentials, collections, registrations


@pytest.mark.slow
async def test_killed_in_the_middle_of_a_wipe(site: Site) -> None:
    eas, apns = site.sandbox.eas, site.sandbox.apns
    async with site.relay() as relay:
        status, made = await site.register()
        assert status == 201
        await site.held()
        provisions = eas.records.requests["Provision"]
        eas.fail(ANN, FailurePlan(Unanswered(), "Provision"))
        eas.wipe(ANN)
        site.deliver()
        await until(lambda: eas.records.requests["Provision"] > provisions)
        relay.kill()
        await relay.process.wait()
    # The server has the acknowledgement, and refuses the device from now on; the relay got no answer.
    (device,) = eas.devices(ANN)
    device.wipe, device.blocked = None, True
    asked = len(eas.log(ANN))

    async with site.relay():
        (push,) = await apns.wait(1, SOON)
        # The registration stays, without any use, until the next sweep leaves a tombstone.
        await until(lambda: kept_of_the_user(database_of(site)) == (0, 0, 1))
        with pytest.raises(Refused) as refused:
            await site.client.get(identity_of(made))

    assert (refused.value.problem.status, refused.value.problem.code) == (410, "wiped")
    assert json.loads(push.body)["relay"]["reason"] == "wiped"
    assert [logged.command for logged in eas.log(ANN)][asked:] == ["Provision"]
    assert emails(apns.received) == []
