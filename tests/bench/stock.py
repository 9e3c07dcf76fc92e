"""Hold Pings as a simple client would: stock asyncio, a stock aiohttp session, a timeout per request.

The watches are the relay's, so that only the transport differs. Prints its memory per watch and ends.
"""

import asyncio
import gc
import hashlib
import os
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import aiohttp
from yarl import URL

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.memory import Memory, Progress
from eas_watcher.machine.state import Policy
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import FleetStats, WatchContext
from eas_watcher.runtime.fleet import Fleet
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask
from relay.sandbox.sandbox import PASSWORD
from tests.bench.site import memory_kb
from tests.planting import user

PATIENCE = 300.0  # seconds until all Pings must be held


class StockTransport(HoldsInTask):
    """A transport that sends requests with aiohttp's defaults."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return the answer."""
        async with self._session.request(
            request.method,
            URL(request.url, encoded=True),
            headers=request.headers,
            data=request.body or None,
            timeout=aiohttp.ClientTimeout(total=request.deadline),
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return HttpReply(response.status, headers, await response.read(), ())


class NoJournal:
    """A journal that keeps nothing."""

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        """Forget."""

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        """Forget."""


async def hold(url: str, ca: str, mailboxes: int) -> None:
    """Print kB per watch."""
    tls = ssl.create_default_context(cafile=ca)
    stats = FleetStats()
    admissions = Admissions(64, Random(1), lambda: datetime.now(UTC))  # noqa: TID251 -- a program of its own
    context = WatchContext(NoJournal(), Random(1), admissions, stats)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=tls)) as session:
        fleet, transport = Fleet(context, lambda _: None), StockTransport(session)
        gc.collect()
        before = memory_kb(os.getpid())
        for number in range(1, mailboxes + 1):
            name = user(number)
            device = DeviceId(hashlib.sha256(name.encode()).hexdigest()[:32])
            account = Account(MailboxId(name), url, name, device, BasicCredential(name, PASSWORD))
            fleet.start(account, transport, Memory(), Policy())
        async with asyncio.timeout(PATIENCE):
            while len(stats.held) < mailboxes:  # noqa: ASYNC110 -- plain numbers, no event
                await asyncio.sleep(0.2)
        gc.collect()
        print((memory_kb(os.getpid()) - before) / mailboxes, flush=True)  # noqa: T201 -- the answer
        await fleet.stop_all()


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], sys.argv[2], int(sys.argv[3])))
