"""Promise 4 at scale: a fleet of 50,000 mailboxes costs its server one request at a time, and the process few bytes."""

import asyncio
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from eas_watcher.breaker import EARLY
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import Unreachable
from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.names import MailboxId
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.fleet import Fleet
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask
from tests.unit.eas_watcher.running import EMPTY, KNOWN, account, command_of
from tests.unit.eas_watcher.watching import NOW

pytestmark = [pytest.mark.looptime, pytest.mark.timeout(900)]

MANY: Final = 50_000
RATE: Final = 500.0
HOUR: Final = 3600.0
WAITER: Final = 12_000  # bytes of the process for one mailbox that waits, all its objects included
ROUNDING: Final = 1e-5  # seconds


class Journal:
    """A journal that keeps the last condition of each mailbox."""

    def __init__(self) -> None:
        self.conditions: dict[MailboxId, Condition] = {}

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        if progress.condition is not None:
            self.conditions[mailbox] = progress.condition

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        pass

    @property
    def states(self) -> Counter[WatchState]:
        return Counter(condition.state for condition in self.conditions.values())


class Server(HoldsInTask):
    """A server that holds all Pings, or accepts no connection, and notes when each request came."""

    def __init__(self) -> None:
        self.away = False
        self.held: set[asyncio.Future[HttpReply]] = set()
        self.came: list[tuple[float, str]] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        self.came.append((asyncio.get_running_loop().time(), command_of(request)))
        if self.away:
            raise Unreachable("no connection: Connection refused", reached=False)
        if command_of(request) != "Ping":
            return EMPTY
        ping: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()
        self.held.add(ping)
        try:
            return await ping
        finally:
            self.held.discard(ping)

    def go(self) -> None:
        """Go away: cut all connections."""
        self.away = True
        for ping in self.held:
            ping.set_exception(Unreachable("the connection was lost"))

    async def until_held(self) -> None:
        while len(self.held) < MANY:  # noqa: ASYNC110 -- this time costs nothing
            await asyncio.sleep(1.0)


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def timers() -> int:
    """Count the timers of the loop, with cancelled ones."""
    scheduled: list[Any] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return len(scheduled)


def assert_paced(came: list[float]) -> None:
    """Fail unless the requests came at the rate, with jitter between them."""
    assert max(Counter(int(moment) for moment in came).values()) <= RATE * 1.05
    gaps = [after - before for before, after in pairwise(came)]
    assert min(gaps) >= 0.5 / RATE - EARLY - ROUNDING
    assert max(gaps) <= 1.5 / RATE + EARLY + ROUNDING
    assert max(gaps) - min(gaps) > 0.5 / RATE


async def test_fifty_thousand_mailboxes_start_wait_and_return_without_a_storm() -> None:
    server, journal = Server(), Journal()
    context = WatchContext(journal, Random(1), Admissions(64, Random(1), lambda: NOW))
    fleet = Fleet(context, lambda _: None)
    before = resident()
    for number in range(MANY):
        fleet.start(account(f"m{number}"), server, KNOWN, Policy(return_rate=RATE))
    await asyncio.sleep(0)
    ((_, door),) = context.admissions.items()
    assert door.waiting >= MANY - 1
    assert timers() <= 3
    assert (resident() - before) / MANY < WAITER
    await server.until_held()
    starts = [moment for moment, command in server.came if command == "Sync"]
    assert len(starts) == MANY
    assert_paced(starts)

    await asyncio.sleep(1)
    server.came.clear()
    server.go()
    await asyncio.sleep(HOUR)
    assert len(server.came) <= HOUR / 60 + 5
    assert min(after[0] - before[0] for before, after in pairwise(server.came[5:])) >= 60.0 - ROUNDING
    assert door.waiting >= MANY - 1
    assert timers() <= 3
    assert journal.states == {WatchState.WAITING: MANY}
    assert (resident() - before) / MANY < WAITER

    server.away = False
    server.came.clear()
    await server.until_held()
    probe, *returns = (moment for moment, command in server.came if command == "Sync")
    assert len(returns) == MANY - 1
    assert probe <= returns[0]
    assert_paced(returns)
    assert journal.states == {WatchState.WATCHING: MANY}
    await fleet.stop_all()
