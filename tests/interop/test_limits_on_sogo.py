"""Tests that need a SOGo with other settings: a short maximum of the heartbeat, and a worker for each mailbox."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.machine.memory import Change
from eas_watcher.names import CollectionClass
from eas_watcher.tools.probe.arguments import Order, run_probe
from eas_watcher.tools.probe.finding import Finding, Grade, works
from tests.interop.packages import Unavailable, unavailable
from tests.interop.sogo.configuration import Settings
from tests.interop.sogo.daemons import Service
from tests.interop.sogo.server import SogoServer, User, running_sogo
from tests.interop.watching import Watches, open_watches, until_held

MAIL = Change(CollectionClass.EMAIL, 1)
MAILBOXES = 30
MAXIMUM = 10  # seconds, SOGo's own default


@pytest.fixture(scope="module")
def small() -> Iterator[SogoServer]:
    """Run a server that holds a Ping for ten seconds at most."""
    try:
        with running_sogo(Settings(workers=MAILBOXES + 10, max_heartbeat=MAXIMUM)) as server:
            yield server
    except Unavailable as reason:
        unavailable(reason)


@pytest.fixture
async def watches(small: SogoServer) -> AsyncIterator[Watches]:
    async with open_watches(small.url, small.ca_file) as opened:
        yield opened


def new_user(small: SogoServer) -> User:
    return small.add_user(f"user{len(small.users) + 1:02}")


async def probe(server: SogoServer, user: User) -> dict[str, Finding]:
    tls = ssl.create_default_context(cafile=server.ca_file)
    order = Order(server.url, BasicCredential(user.name, user.password), tls, Acknowledgement.THIRD_PARTY, 20.0)
    return {finding.step: finding for finding in await run_probe(order, lambda _: None)}


async def test_a_heartbeat_out_of_range_is_told_late_and_adopted(small: SogoServer, watches: Watches) -> None:
    user = new_user(small)
    diary = watches.start(user, heartbeat=60)
    await until_held(small, user)
    held = diary.pings
    await diary.until_next_ping(held)
    await diary.until_next_ping(held + 1)

    pings = [request for request in small.requests(user.name) if request.command == "Ping"]
    assert len(pings) == 2  # the Ping that was out of range, and one within
    small.deliver(user.name)
    await diary.until(lambda diary: diary.changes == [MAIL])


async def test_the_probe_finds_the_short_maximum_and_disturbs_no_watch(small: SogoServer, watches: Watches) -> None:
    user = new_user(small)
    for _ in range(3):
        small.deliver(user.name)
    diary = watches.start(user, heartbeat=MAXIMUM)
    await until_held(small, user)
    findings = await probe(small, user)

    assert works(findings.values())
    assert findings["Provision"].grade is Grade.SKIPPED
    assert "3 items" in findings["Sync"].text
    assert f"to {MAXIMUM} s" in findings["Ping"].text
    assert findings["Ping"].grade is Grade.NOTE
    small.deliver(user.name)
    await diary.until(lambda diary: diary.changes == [MAIL])


async def test_the_probe_of_a_server_with_a_long_maximum_frees_its_worker(sogo: SogoServer, user: User) -> None:
    findings = await probe(sogo, user)

    assert works(findings.values())
    assert "is held" in findings["Ping"].text


async def test_thirty_mailboxes_are_told_of_their_own_mail_and_of_no_other(small: SogoServer, watches: Watches) -> None:
    users = [await asyncio.to_thread(new_user, small) for _ in range(MAILBOXES)]
    diaries = [watches.start(user, heartbeat=MAXIMUM) for user in users]
    await asyncio.gather(*(until_held(small, user) for user in users))
    for number, user in enumerate(users):
        if number % 2:
            await asyncio.to_thread(small.deliver, user.name)

    await asyncio.gather(*(diary.until(lambda diary: diary.changes == [MAIL]) for diary in diaries[1::2]))
    assert all(diary.changes == [] for diary in diaries[::2])


async def test_an_inbox_that_got_another_id_is_watched_and_its_mail_is_told(
    small: SogoServer, watches: Watches
) -> None:
    user = new_user(small)
    small.deliver(user.name)
    diary = watches.start(user, heartbeat=MAXIMUM)
    await until_held(small, user)
    (before,) = [
        c.id for c in diary.memory(frozenset({CollectionClass.EMAIL})).collections if c.cls is CollectionClass.EMAIL
    ]

    await asyncio.to_thread(small.replace_inbox, user.name)
    await asyncio.to_thread(small.stop, Service.SOGOD)
    try:
        await diary.until(lambda diary: not diary.watching)
    finally:
        await asyncio.to_thread(small.start, Service.SOGOD)
    await asyncio.sleep(1.0)  # mails are dated in whole seconds; one of the same second is not newer
    small.deliver(user.name)
    await diary.until(lambda diary: diary.changes == [MAIL])

    (after,) = [
        c.id for c in diary.memory(frozenset({CollectionClass.EMAIL})).collections if c.cls is CollectionClass.EMAIL
    ]
    assert after != before
