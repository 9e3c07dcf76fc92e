"""The fixture with a simple client: its features, and that acts of other people end a held Ping."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import aiohttp
import pytest

from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.options import Options
from eas_watcher.commands.ping import Ping, PingReply, PingStatus
from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.commands.sync import CollectionReply, CollectionRequest, Sync
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ProtocolVersion
from tests.interop.sogo.daemons import Service
from tests.interop.sogo.server import PASSWORD_CACHE, POLL, SogoServer, User

R = TypeVar("R")

VERSION = ProtocolVersion.V14_1
HEARTBEAT = 60  # seconds
SLACK = 25.0  # seconds by which a busy machine may answer later than the poll that saw the change; less than HEARTBEAT
INBOX, CALENDAR, CONTACTS = 2, 8, 9  # folder types [MS-ASCMD 2.2.3.186.3]


class Refused(Exception):
    """A request was refused, with an HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class Phone:
    """An ActiveSync client for one user, with one folder."""

    def __init__(self, sogo: SogoServer, user: User, session: aiohttp.ClientSession) -> None:
        self.user = user
        self._sogo = sogo
        self._session = session
        self._collection = CollectionId("")
        self._class = CollectionClass.EMAIL
        self._key = NO_SYNC_KEY

    async def send(self, command: Command[R], password: str | None = None) -> R:
        """Send one command and read its answer; raises Refused."""
        method = "POST" if command.name else "OPTIONS"
        query = {"Cmd": command.name, "User": self.user.name, "DeviceId": "a1b2c3", "DeviceType": "Test"}
        answer = await self._session.request(
            method,
            self._sogo.url,
            params=query if command.name else {},
            data=command.encode(VERSION),
            headers={
                "Authorization": aiohttp.encode_basic_auth(self.user.name, password or self.user.password),
                "Content-Type": "application/vnd.ms-sync.wbxml",
                "MS-ASProtocolVersion": VERSION.wire,
            },
        )
        body = await answer.read()
        if answer.status != 200:
            raise Refused(answer.status)
        return command.read(HttpReply(200, {name.lower(): value for name, value in answer.headers.items()}, body))

    async def open(self, folder_type: int) -> None:
        """Choose a folder and Sync it until nothing is left."""
        folders = await self.send(FolderSync(NO_SYNC_KEY))
        folder = next(folder for folder in folders.added if folder.type == folder_type)
        assert folder.cls is not None
        self._collection, self._class, self._key = folder.id, folder.cls, NO_SYNC_KEY
        await self._sync()
        await self.catch_up()

    async def catch_up(self) -> int:
        """Sync the folder until nothing is left; return how many items were added."""
        added = 0
        while (reply := await self._sync()) is not None and (reply.has_commands or reply.more_available):
            added += len(reply.adds)
        return added

    async def ping(self) -> PingReply:
        """Send a Ping for the folder and return its answer."""
        return await self.send(Ping(HEARTBEAT, ((self._collection, self._class),)))

    async def _sync(self) -> CollectionReply | None:
        reply = await self.send(Sync((CollectionRequest(self._collection, self._class, self._key),)))
        for collection in reply.collections:
            assert collection.status == 1
            self._key = collection.sync_key or self._key
            return collection
        return None


@pytest.fixture
async def phone(sogo: SogoServer, user: User) -> AsyncIterator[Phone]:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=sogo.ca_file))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Phone(sogo, user, session)


async def ping_during(phone: Phone, act: Callable[[], object]) -> PingReply:
    """Hold a Ping, act while it is held, and return what ended it; raises TimeoutError after one poll."""
    async with asyncio.TaskGroup() as tasks:
        held = tasks.create_task(phone.ping())
        await asyncio.sleep(0.5)
        assert not held.done()
        await asyncio.to_thread(act)
        async with asyncio.timeout(POLL + SLACK):
            return await held


async def status_of(request: Awaitable[object]) -> int:
    """Send a request and return its HTTP status."""
    try:
        await request
    except Refused as refused:
        return refused.status
    return 200


async def test_options_offers_the_versions_that_the_relay_speaks(phone: Phone) -> None:
    assert VERSION in (await phone.send(Options())).versions


async def test_a_wrong_password_is_refused_with_401(phone: Phone) -> None:
    assert await status_of(phone.send(Options(), password="wrong")) == 401


async def test_a_client_that_does_not_know_the_authority_refuses_the_server(sogo: SogoServer) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.options(sogo.url)


async def test_folder_sync_shows_inbox_calendar_and_contacts(phone: Phone) -> None:
    types = [folder.type for folder in (await phone.send(FolderSync(NO_SYNC_KEY))).added]

    assert types.count(INBOX) == types.count(CALENDAR) == types.count(CONTACTS) == 1


async def test_a_delivered_mail_ends_a_held_ping_and_is_one_add(sogo: SogoServer, phone: Phone) -> None:
    await phone.open(INBOX)

    reply = await ping_during(phone, lambda: sogo.deliver(phone.user.name, "Hello", "Hello."))

    assert reply.status is PingStatus.CHANGED
    assert await phone.catch_up() == 1


async def test_a_new_event_ends_a_held_ping_and_is_one_add(sogo: SogoServer, phone: Phone) -> None:
    await phone.open(CALENDAR)

    for _ in range(2):
        reply = await ping_during(phone, lambda: sogo.add_event(phone.user.name))

        assert reply.status is PingStatus.CHANGED
        assert await phone.catch_up() == 1


async def test_a_new_contact_ends_a_held_ping_and_is_one_add(sogo: SogoServer, phone: Phone) -> None:
    await phone.open(CONTACTS)

    for _ in range(2):
        reply = await ping_during(phone, lambda: sogo.add_contact(phone.user.name))

        assert reply.status is PingStatus.CHANGED
        assert await phone.catch_up() == 1


async def test_reading_and_deleting_end_a_held_ping_without_an_add(sogo: SogoServer, phone: Phone) -> None:
    name = phone.user.name
    for _ in range(3):
        sogo.deliver(name)
    await phone.open(INBOX)

    for act in (lambda: sogo.mark_read(name), lambda: sogo.delete(name, 1), lambda: sogo.delete_all(name)):
        reply = await ping_during(phone, act)

        assert reply.status is PingStatus.CHANGED
        assert await phone.catch_up() == 0
    await phone.open(INBOX)
    assert await phone.catch_up() == 0


async def test_a_new_password_replaces_the_old_one(sogo: SogoServer, phone: Phone) -> None:
    old = phone.user.password
    await phone.send(Options())

    changed = await asyncio.to_thread(sogo.set_password, phone.user.name, old[::-1])

    assert sogo.users[phone.user.name] == changed
    await phone.send(FolderSync(NO_SYNC_KEY), password=changed.password)
    async with asyncio.timeout(PASSWORD_CACHE + SLACK):
        while True:
            if await status_of(phone.send(Options(), password=old)) == 401:
                break
            await asyncio.sleep(0.2)


async def test_a_killed_sogod_breaks_off_the_ping_and_comes_back_with_its_state(sogo: SogoServer, phone: Phone) -> None:
    await phone.open(INBOX)
    async with asyncio.TaskGroup() as tasks:
        held = tasks.create_task(status_of(phone.ping()))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(sogo.stop, Service.SOGOD, kill=True)
        assert await held == 502
    sogo.deliver(phone.user.name)

    await asyncio.to_thread(sogo.start, Service.SOGOD)

    assert (await phone.ping()).status is PingStatus.CHANGED
    assert await phone.catch_up() == 1
