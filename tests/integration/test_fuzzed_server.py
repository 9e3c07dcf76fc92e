"""A broken or hostile server hurts only its own mailbox: the others get their changes, memory and CPU stay bounded."""

import asyncio
import gc
import gzip
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Final, Self

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.memory import Memory
from eas_watcher.machine.state import Policy
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.ports import Transport
from eas_watcher.runtime.account import Account
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.transport.http import open_transport
from tests.fakes.gzip_bomb import MEGABYTE, gzip_bomb
from tests.fakes.tls import Authority, Talk, talking
from tests.integration.eas_world import ANN, ONE_MAIL, WatchWorld, hurried, hurry, world
from tests.integration.mean_server import garble_tls, keep_silent, mean_talks
from tests.unit.eas_watcher.watching import EMAIL, INBOX, PARTNERSHIP
from tests.waiting import until

BEN: Final = MailboxId("ben")
TALKS: Final = mean_talks()
MEMORY: Final = 64 * MEGABYTE
CPU: Final = 40.0
"""Seconds for five answers, the hostile server's own work, TLS and coverage's tracing included: some five times what a
busy machine needs for the worst of them, and nothing beside what an unbounded answer would take."""
REQUESTS: Final = 5  # that the mean server must have answered
SLOW: Final = 0.5  # seconds
TURNS: Final = 2000
ONE_OF_EACH_KIND: Final = {
    "random document",
    "mutated answers",
    "random status",
    "half a document",
    "too long a length",
    "chunks without end",
    "200 MB until the end",
    "a gzip bomb",
    "headers without end",
    "cookies",
    "deep elements",
    "silence",
}
"""The others are slow tests."""
INNOCENT: Final = {"mutated answers"}
"""Answers that may contain a valid new item."""


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class CountedTransport(HoldsInTask):
    """A transport that counts requests and shows whether one is in flight."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.sent = 0
        self.under_way_since: float | None = None

    async def send(self, request: HttpRequest) -> HttpReply:
        self.sent += 1
        self.under_way_since = perf_counter()
        try:
            return await self._transport.send(request)
        finally:
            self.under_way_since = None

    @property
    def slow(self) -> bool:
        """True if a request is in flight for so long that only a time limit can end it."""
        return self.under_way_since is None or perf_counter() - self.under_way_since > SLOW


@asynccontextmanager
async def beside(authority: Authority, url: str) -> AsyncIterator[tuple[WatchWorld, CountedTransport]]:
    """Watch ann on a good server and ben on a hostile one, from stored keys, in one fleet."""
    async with world() as watched, open_transport(authority.client) as opened:
        watched.start()
        await watched.until_held()
        transport = CountedTransport(opened)
        account = Account(BEN, f"{url}/eas", "ben", DeviceId("Dben"), BasicCredential("ben", "secret"))
        watched.fleet.start(account, transport, Memory(PARTNERSHIP, (INBOX,), EMAIL), Policy())
        try:
            yield watched, transport
        finally:
            await watched.fleet.stop(BEN)


class Watermark:
    """The peak of resident memory while the block runs."""

    def __init__(self) -> None:
        self.before = self.most = 0

    async def __aenter__(self) -> Self:
        gc.collect()
        self.before = self.most = resident()
        self._task = asyncio.get_running_loop().create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    @property
    def growth(self) -> int:
        return self.most - self.before

    async def _look(self) -> None:
        while True:
            self.most = max(self.most, resident())
            await asyncio.sleep(0.005)


async def endure(watched: WatchWorld, mean: CountedTransport) -> None:
    """Move the time forward until the hostile server was asked often enough; meanwhile ann's mail comes."""
    for number in range(1, REQUESTS + 1):
        watched.ann.changes.clear()
        watched.simulator.deliver(ANN, subject=f"Mail {number}")
        await until(lambda: watched.ann.changes == ONE_MAIL)
        for _ in range(TURNS):
            if mean.sent >= number and mean.under_way_since is None:
                break
            await asyncio.sleep(0.01)
            if mean.slow:
                hurry(20.0)
        else:
            raise AssertionError("the mean server was given up")


def test_the_bomb_is_a_valid_one() -> None:
    assert gzip.decompress(gzip_bomb(3)) == bytes(3 * MEGABYTE)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ONE_OF_EACH_KIND else pytest.mark.slow) for name in TALKS]
)
@hurried
async def test_a_mean_server_hurts_only_its_own_mailbox(name: str) -> None:
    authority = Authority()
    async with talking(authority, TALKS[name]) as url, beside(authority, url) as (watched, mean):
        async with Watermark() as memory:
            began = process_time()
            await endure(watched, mean)
            used = process_time() - began

        assert BEN in watched.fleet
        assert name in INNOCENT or watched.journal.kept[BEN].changes == []
        assert memory.growth < MEMORY
        assert used < CPU


@pytest.mark.parametrize("talk", [garble_tls, keep_silent], ids=["garbled", "silent"])
@hurried
async def test_a_server_without_tls_hurts_only_its_own_mailbox(talk: Talk) -> None:
    authority = Authority()
    async with talking(None, talk) as url, beside(authority, url) as (watched, mean):
        await endure(watched, mean)

        assert watched.journal.kept[BEN].conditions[-1].reason == "unreachable"
