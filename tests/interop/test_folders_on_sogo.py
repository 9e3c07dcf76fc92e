"""The watch follows folders on SOGo: below the Inbox, removed, gone with the mail store; and it polls."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.folder_sync import FolderSync, FolderSyncReply
from eas_watcher.errors import ServerBusy
from eas_watcher.machine.folders import read_hierarchy, recall
from eas_watcher.machine.memory import Change, Memory
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import compose
from eas_watcher.transport.http import open_transport
from tests.interop.diary import Diary
from tests.interop.sogo.daemons import Service
from tests.interop.sogo.server import SogoServer, User
from tests.interop.watching import Watches, device_of, open_watches, until_held

MAIL = frozenset({CollectionClass.EMAIL})
IN_INBOX = Change(CollectionClass.EMAIL, 1)
IN_SUBFOLDER = Change(CollectionClass.EMAIL, 1, sub=True)
POLL = 2.0  # seconds


@pytest.fixture
async def watches(sogo: SogoServer) -> AsyncIterator[Watches]:
    async with open_watches(sogo.url, sogo.ca_file) as opened:
        yield opened


def subfolders(diary: Diary) -> list[str]:
    return [collection.id for collection in diary.memory(MAIL, MAIL).collections if collection.sub]


async def read_folders(sogo: SogoServer, user: User, known: Memory) -> FolderSyncReply:
    """Ask for the folders as the watch of a user does, with its stored key."""
    command = FolderSync(known.partnership.hierarchy_key)
    account = Account(
        MailboxId(user.name),
        sogo.url,
        user.name,
        device_of(user),
        BasicCredential(user.name, user.password),
    )
    async with open_transport(ssl.create_default_context(cafile=sogo.ca_file)) as transport:
        return command.read(await transport.send(compose(account, command, known.partnership.version, None)))


def count(sogo: SogoServer, user: User, command: str) -> int:
    return sum(request.command == command for request in sogo.requests(user.name))


async def test_mail_that_is_filed_below_the_inbox_is_told_to_whoever_asked(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    for mailbox in ("INBOX/Projects", "INBOX/Projects/Rome", "Beside"):
        await asyncio.to_thread(sogo.add_mailbox, user.name, mailbox)
    diary = watches.start(user, subfolders=MAIL)
    await until_held(sogo, user)
    assert len(subfolders(diary)) == 2

    held = diary.pings
    sogo.deliver(user.name, mailbox="INBOX/Projects/Rome")
    await diary.until(lambda diary: diary.changes == [IN_SUBFOLDER])
    await diary.until_next_ping(held)
    await until_held(sogo, user)
    sogo.deliver(user.name, mailbox="Beside")
    sogo.deliver(user.name)
    await diary.until(lambda diary: len(diary.changes) > 1)
    assert diary.changes == [IN_SUBFOLDER, IN_INBOX]


async def test_the_first_who_asks_for_subfolders_gets_no_push_for_what_is_there(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    await asyncio.to_thread(sogo.add_mailbox, user.name, "INBOX/Projects")
    for mailbox in ("INBOX", "INBOX/Projects"):
        sogo.deliver(user.name, mailbox=mailbox)
    diary = watches.start(user)
    await until_held(sogo, user)
    await watches.stop(user)

    held = diary.pings
    watches.start(user, subfolders=MAIL)  # reads all folders again, which voids every key of the device here
    await diary.until_next_ping(held)
    await until_held(sogo, user)

    assert diary.changes == []
    await asyncio.sleep(1.0)  # mails are dated in whole seconds; one of the same second is not newer
    sogo.deliver(user.name, mailbox="INBOX/Projects")
    await diary.until(lambda diary: diary.changes != [])
    assert diary.changes == [IN_SUBFOLDER]


async def test_a_folder_that_was_removed_leaves_the_inbox_watched(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    await asyncio.to_thread(sogo.add_mailbox, user.name, "INBOX/Projects")
    diary = watches.start(user, subfolders=MAIL, heartbeat=10)
    await until_held(sogo, user)
    assert len(subfolders(diary)) == 1

    await asyncio.to_thread(sogo.remove_mailbox, user.name, "INBOX/Projects")
    await diary.until_next_ping(diary.pings)
    await until_held(sogo, user)
    sogo.deliver(user.name)

    await diary.until(lambda diary: diary.changes != [])
    assert diary.changes == [IN_INBOX]


async def test_all_mail_folders_deleted_at_once_are_not_given_up(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    await asyncio.to_thread(sogo.add_mailbox, user.name, "INBOX/Projects")
    sogo.deliver(user.name)
    diary = watches.start(user, subfolders=MAIL)
    await until_held(sogo, user)
    await watches.stop(user)
    known = diary.memory(MAIL, MAIL)
    assert known.hierarchy is not None

    await asyncio.to_thread(sogo.stop, Service.DOVECOT)
    try:
        reply = await read_folders(sogo, user, known)
        # The server reports that all mail folders are gone, and remembers that.
        assert {c.id for c in known.collections if c.cls is CollectionClass.EMAIL} <= set(reply.deleted)
        with pytest.raises(ServerBusy):
            read_hierarchy(recall(known, Policy())[0], reply)
    finally:
        await asyncio.to_thread(sogo.start, Service.DOVECOT)
    watches.start(user, subfolders=MAIL)
    await diary.until_next_ping(diary.pings)
    await until_held(sogo, user)
    assert diary.changes == []
    assert {c.id for c in diary.memory(MAIL, MAIL).collections} == {c.id for c in known.collections}

    await asyncio.sleep(1.0)  # mails are dated in whole seconds; one of the same second is not newer
    sogo.deliver(user.name, mailbox="INBOX/Projects")
    sogo.deliver(user.name)
    await diary.until(lambda diary: len(diary.changes) > 1)
    assert sorted(diary.changes, key=lambda change: change.sub) == [IN_INBOX, IN_SUBFOLDER]


async def test_a_mail_store_that_is_down_when_somebody_asks_for_subfolders_costs_no_folder(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    await asyncio.to_thread(sogo.add_mailbox, user.name, "INBOX/Projects")
    diary = watches.start(user)
    await until_held(sogo, user)
    await watches.stop(user)
    before = {c.id for c in diary.memory(MAIL).collections}

    await asyncio.to_thread(sogo.stop, Service.DOVECOT)
    try:
        watches.start(user, subfolders=MAIL)
        await diary.until(lambda diary: not diary.watching)
        assert {c.id for c in diary.memory(MAIL).collections} == before
    finally:
        await asyncio.to_thread(sogo.start, Service.DOVECOT)
    await diary.until(lambda diary: diary.watching)
    await until_held(sogo, user)

    assert len(subfolders(diary)) == 1
    assert diary.changes == []


async def test_a_mailbox_that_is_polled_ties_up_no_worker_and_hears_of_its_mail(
    sogo: SogoServer, user: User, watches: Watches
) -> None:
    diary = watches.start(user, poll_interval=POLL)
    await diary.until(lambda diary: diary.watching)

    for number in (1, 2):
        sogo.deliver(user.name)
        await diary.until(lambda diary, number=number: diary.changes == [IN_INBOX] * number)  # type: ignore[misc]

    assert count(sogo, user, "Ping") == 0
    assert not sogo.holds_ping(user.name)
    await watches.stop(user)
