"""The watch of a mailbox against SOGo: it announces every new item once, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from eas_watcher.commands.http_status import UNAUTHORIZED
from eas_watcher.machine.counters import CONFIRM_AFTER
from eas_watcher.machine.memory import Change, WatchState
from eas_watcher.names import CollectionClass
from tests.interop.sogo.daemons import Service
from tests.interop.sogo.server import SogoServer, User
from tests.interop.watching import Watches, open_watches, until_held

MAIL = Change(CollectionClass.EMAIL, 1)
EVENT = Change(CollectionClass.CALENDAR, 1)
CONTACT = Change(CollectionClass.CONTACTS, 1)
THREE_CLASSES = frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR, CollectionClass.CONTACTS})


@pytest.fixture
async def watches(sogo: SogoServer) -> AsyncIterator[Watches]:
    async with open_watches(sogo.url, sogo.ca_file) as opened:
        yield opened


async def test_a_watch_starts_in_the_designed_order_and_takes_the_backlog_for_old(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    for _ in range(3):
        sogo.deliver(user.name)

    diary = watches.start(user)
    await until_held(sogo, user)

    commands = [request.command for request in sogo.requests(user.name)]
    assert commands[:3] == ["OPTIONS", "FolderSync", "Settings"]
    assert set(commands[3:]) == {"Sync"}
    assert diary.changes == []


async def test_each_delivered_mail_is_one_change(sogo: SogoServer, user: User, watches: Watches) -> None:
    diary = watches.start(user)

    for count in (1, 2):
        await until_held(sogo, user)
        held = diary.pings
        sogo.deliver(user.name, f"Mail {count}")
        await diary.until_next_ping(held)

        assert diary.changes == [MAIL] * count


async def test_mails_of_one_poll_are_one_change_that_counts_them(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    diary = watches.start(user)
    await until_held(sogo, user)

    for _ in range(3):
        sogo.deliver(user.name)

    await diary.until(lambda diary: sum(change.count for change in diary.changes) == 3)
    assert {change.cls for change in diary.changes} == {CollectionClass.EMAIL}


async def test_reading_and_deleting_are_no_change(sogo: SogoServer, user: User, watches: Watches) -> None:
    for _ in range(3):
        sogo.deliver(user.name)
    diary = watches.start(user)

    for act in (sogo.mark_read, lambda name: sogo.delete(name, 1), sogo.delete_all):
        await until_held(sogo, user)
        held = diary.pings
        await asyncio.to_thread(act, user.name)
        await diary.until_next_ping(held)
    assert diary.changes == []

    sogo.deliver(user.name)
    await diary.until(lambda diary: diary.changes != [])
    assert diary.changes == [MAIL]


async def test_a_user_who_tidies_up_for_a_while_does_not_slow_his_watch(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    mails = 7
    for _ in range(mails):
        sogo.deliver(user.name)
    diary = watches.start(user)
    await until_held(sogo, user)

    for _ in range(mails):
        held = diary.pings
        await asyncio.to_thread(sogo.delete, user.name, 1)
        await diary.until_next_ping(held)

    assert diary.changes == []
    assert [p.condition.state for p in diary.commits if p.condition is not None] == [WatchState.WATCHING]


async def test_events_and_contacts_are_changes_of_their_classes(sogo: SogoServer, user: User, watches: Watches) -> None:
    diary = watches.start(user, classes=THREE_CLASSES)

    expected: list[Change] = []
    for act, change in ((sogo.add_event, EVENT), (sogo.add_contact, CONTACT), (sogo.deliver, MAIL)):
        await until_held(sogo, user)
        held = diary.pings
        await asyncio.to_thread(act, user.name)
        await diary.until_next_ping(held)

        expected.append(change)
        assert diary.changes == expected


async def test_classes_that_nobody_asked_for_are_not_told(sogo: SogoServer, user: User, watches: Watches) -> None:
    diary = watches.start(user)
    await until_held(sogo, user)

    await asyncio.to_thread(sogo.add_event, user.name)
    await asyncio.to_thread(sogo.add_contact, user.name)
    sogo.deliver(user.name)

    await diary.until(lambda diary: diary.changes != [])
    assert diary.changes == [MAIL]


async def test_an_expired_ping_is_followed_by_the_next_without_a_sync(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    diary = watches.start(user, heartbeat=10)
    await until_held(sogo, user)
    before = len(sogo.requests(user.name))

    await diary.until_next_ping(2)

    assert [request.command for request in sogo.requests(user.name)[before:]] == ["Ping", "Ping"]


async def test_a_mail_wakes_only_the_watch_of_its_mailbox(sogo: SogoServer, user: User, watches: Watches) -> None:
    others = [await asyncio.to_thread(sogo.add_user, f"{user.name}-{n}") for n in range(2)]
    diary, *quiet = [watches.start(each) for each in (user, *others)]
    await until_held(sogo, user, *others)

    sogo.deliver(user.name)

    await diary.until(lambda diary: diary.changes == [MAIL])
    assert [each.pings for each in quiet] == [1, 1]


async def test_a_wrong_password_is_tried_once_and_then_rests(sogo: SogoServer, user: User, watches: Watches) -> None:
    before = sogo.requests(user.name)

    diary = watches.start(replace(user, password="wrong"))
    await diary.until(lambda diary: diary.condition is not None)

    assert diary.condition is not None
    assert diary.condition.reason == "http-401"
    assert diary.condition.retry_in is not None
    assert diary.condition.retry_in >= CONFIRM_AFTER[0]
    assert [request.status for request in sogo.requests(user.name)[len(before) :]] == [UNAUTHORIZED]


async def test_a_new_credential_finds_the_mail_that_came_while_the_old_one_was_refused(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    diary = watches.start(user)
    await until_held(sogo, user)
    changed = await asyncio.to_thread(sogo.set_password, user.name, user.password[::-1])
    before = len(sogo.requests(user.name))

    sogo.deliver(user.name)
    await diary.until(lambda diary: not diary.watching)

    answers = [(request.command, request.status) for request in sogo.requests(user.name)[before:]]
    assert answers == [("Ping", 200), ("Sync", UNAUTHORIZED)]
    assert diary.changes == []
    await watches.stop(user)
    watches.start(changed)
    await diary.until(lambda diary: diary.changes == [MAIL])


@pytest.mark.parametrize(
    ("service", "kill"),
    [(Service.SOGOD, False), (Service.SOGOD, True), (Service.NGINX, True)],
    ids=["sogod stopped", "sogod killed", "nginx killed"],
)
async def test_a_mail_that_comes_during_an_outage_is_told_after_it(
    sogo: SogoServer, user: User, watches: Watches, service: Service, *, kill: bool
) -> None:
    diary = watches.start(user)
    await until_held(sogo, user)

    await asyncio.to_thread(sogo.stop, service, kill=kill)
    try:
        await diary.until(lambda diary: not diary.watching)
        sogo.deliver(user.name)
    finally:
        await asyncio.to_thread(sogo.start, service)

    await diary.until(lambda diary: diary.watching)
    assert diary.changes == [MAIL]


async def test_a_mail_after_an_outage_of_the_mail_store_is_told(sogo: SogoServer, user: User, watches: Watches) -> None:
    diary = watches.start(
        user, heartbeat=10
    )  # a Ping that begins while the mail store is down reports nothing until it expires
    await until_held(sogo, user)
    held = diary.pings

    await asyncio.to_thread(sogo.stop, Service.DOVECOT)
    try:
        await diary.until_next_ping(held)
        await until_held(sogo, user)
    finally:
        await asyncio.to_thread(sogo.start, Service.DOVECOT)
    sogo.deliver(user.name)

    await diary.until(lambda diary: diary.changes != [])
    assert diary.changes == [MAIL]


async def test_a_watch_that_starts_while_the_mail_store_is_down_waits_for_the_inbox(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    await asyncio.to_thread(sogo.stop, Service.DOVECOT)
    try:
        diary = watches.start(user, classes=THREE_CLASSES)
        await diary.until(lambda diary: diary.condition is not None)
    finally:
        await asyncio.to_thread(sogo.start, Service.DOVECOT)

    assert not diary.watching
    await until_held(sogo, user)
    sogo.deliver(user.name)
    await diary.until(lambda diary: diary.changes == [MAIL])


async def test_a_watch_that_starts_again_tells_of_what_came_meanwhile(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    diary = watches.start(user)
    await until_held(sogo, user)
    before = len(sogo.requests(user.name))
    await watches.stop(user)
    sogo.deliver(user.name)

    watches.start(user)

    held = diary.pings
    await diary.until_next_ping(held)
    assert diary.changes == [MAIL]
    commands = {request.command for request in sogo.requests(user.name)[before:]}
    assert commands <= {"Sync", "Ping"}


async def test_a_server_with_an_unknown_certificate_gets_no_request(sogo: SogoServer, user: User) -> None:
    before = sogo.requests(user.name)
    async with open_watches(sogo.url, None) as watches:
        diary = watches.start(user)
        await diary.until(lambda diary: diary.condition is not None)

    assert diary.condition is not None
    assert diary.condition.reason == "unreachable"
    assert "certificate" in diary.condition.detail
    assert sogo.requests(user.name) == before
