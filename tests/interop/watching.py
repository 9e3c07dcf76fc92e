"""The watches of a test: a fleet over HTTPS, as the relay builds it, with diaries for a journal."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.heartbeat import Heartbeat
from eas_watcher.machine.state import RATE, Policy
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.fleet import Fleet
from eas_watcher.server.admission import ServerAdmission
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.http import HttpTransport, open_transport
from relay.process.clock import now
from tests.interop.diary import Diaries, Diary
from tests.interop.sogo.server import SogoServer, User
from tests.waiting import SOON

HEARTBEAT = 60  # seconds; a Ping that a test leaves behind occupies a worker of SOGo until then
PATIENCE = SOON  # seconds until a watch must hold a Ping
STEP = 0.05  # seconds between two looks into a log
EMAIL_ONLY = frozenset({CollectionClass.EMAIL})


def device_of(user: User) -> DeviceId:
    """Return the device id of a user's watch."""
    return DeviceId(f"relay{user.name}")


class Watches:
    """Watches of users at one server."""

    def __init__(self, url: str, transport: HttpTransport) -> None:
        self.transport = transport
        self.broken: list[MailboxId] = []
        self._url = url
        self._diaries = Diaries()
        self._admissions = Admissions(8, Random(1), now)
        context = WatchContext(self._diaries, Random(1), self._admissions)
        self._fleet = Fleet(context, self.broken.append)

    @property
    def admission(self) -> ServerAdmission:
        """The admission to the server."""
        return self._admissions.admission(self._url, RATE)

    def start(
        self,
        user: User,
        *,
        classes: frozenset[CollectionClass] = EMAIL_ONLY,
        subfolders: frozenset[CollectionClass] = frozenset(),
        heartbeat: int = HEARTBEAT,
        poll_interval: float | None = None,
    ) -> Diary:
        """Watch a user, from the state in his diary; return the diary. With `poll_interval` no Ping is held."""
        mailbox = MailboxId(user.name)
        diary = self._diaries[mailbox]
        account = Account(
            mailbox,
            self._url,
            user.name,
            device_of(user),
            BasicCredential(user.name, user.password),
        )
        policy = Policy(heartbeat=Heartbeat(heartbeat, minimum=min(heartbeat, HEARTBEAT)), poll_interval=poll_interval)
        self._fleet.start(account, self.transport, diary.memory(classes, subfolders), policy)
        return diary

    async def stop(self, user: User) -> None:
        """Stop watching a user."""
        await self._fleet.stop(MailboxId(user.name))

    async def close(self) -> None:
        """Stop all watches."""
        await self._fleet.stop_all()


@asynccontextmanager
async def open_watches(url: str, ca_file: Path | None, *, http2: bool = False) -> AsyncIterator[Watches]:
    """Open a fleet without watches that trusts `ca_file`, or else the system's CAs; no watch may break in it.

    `http2`: offer HTTP/2 to the server.
    """
    tls = ssl.create_default_context(cafile=ca_file)
    multiplexing = ssl.create_default_context(cafile=ca_file) if http2 else None
    async with open_transport(tls, http2=multiplexing) as transport:
        watches = Watches(url, transport)
        try:
            yield watches
        finally:
            await watches.close()
    assert not watches.broken


async def until_held(sogo: SogoServer, *users: User) -> None:
    """Return once SOGo holds a Ping of each user; raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        for user in users:
            while True:
                if sogo.holds_ping(user.name):
                    break
                await asyncio.sleep(STEP)
