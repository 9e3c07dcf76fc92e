"""A server that ends every Ping with status 1 after a time of its own, whatever it is asked for, e.g. Horde."""

import asyncio
from functools import partial
from random import Random

import pytest

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.reasons import Reason
from eas_watcher.transport.holding import HoldsInTask
from tests.unit.eas_watcher.running import EMPTY, World, command_of, folders, mails, pinged
from tests.waiting import until

pytestmark = pytest.mark.looptime


class ForcedHold(HoldsInTask):
    """Holds Pings for `hold` seconds, and notes for how long it held any."""

    def __init__(self, hold: float, ending: HttpReply | None = None) -> None:
        self.longest = hold
        self.ending = ending or pinged(1)
        self.held = 0.0
        self.syncs = 0
        self.unseen = 0
        self.arrived = asyncio.Event()

    async def send(self, request: HttpRequest) -> HttpReply:
        loop = asyncio.get_running_loop()
        if command_of(request) == "Ping":
            began = loop.time()
            try:
                async with asyncio.timeout(self.longest):
                    await self.arrived.wait()
            except TimeoutError:
                return self.ending
            finally:
                self.held += loop.time() - began
            return pinged(2, "5")
        if command_of(request) == "FolderSync":
            return folders("h2")
        self.syncs += 1
        if not self.unseen:
            return EMPTY
        self.unseen -= 1
        self.arrived.clear()
        return mails(f"k{self.syncs}", f"5:{self.syncs}")

    def deliver(self) -> None:
        self.unseen += 1
        self.arrived.set()


def told(world: World, changes: int) -> bool:
    return len(world.journal.changes) >= changes


@pytest.mark.parametrize(
    "hold", [pytest.param(5.0, marks=pytest.mark.slow), 10.0, 30.0, 60.0, 120.0, 149.0, 151.0, 300.0]
)
async def test_a_mail_is_told_as_soon_as_the_server_tells_of_it(hold: float) -> None:
    world, server = World(), ForcedHold(hold)
    clock, chance = asyncio.get_running_loop().time, Random(7)
    mails_sent, lateness = 12, []
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(world.run(server))
        for number in range(1, mails_sent + 1):
            await asyncio.sleep(chance.uniform(600.0, 4000.0))
            delivered = clock()
            server.deliver()
            await until(partial(told, world, number))
            lateness.append(clock() - delivered)
        total = clock()
        watch.cancel()

    conditions = [progress.condition for progress in world.journal.commits if progress.condition is not None]
    assert max(lateness) <= 6.0
    assert server.held >= 0.99 * total - 10.0
    assert Reason.PING_TOO_FAST not in {condition.reason for condition in conditions}
    assert conditions[-1].detail == f"the server ends every Ping after {hold:.0f} s, whatever it is asked for"
    assert server.syncs <= 3 * mails_sent + total / 3600, "the server's own hold is no doubt that asks for a Sync"


PAGE = HttpReply(200, {"content-type": "text/html"}, b"<html>")


@pytest.mark.parametrize(
    "ending",
    [HttpReply(200, {}, b""), HttpReply(500, {}, b""), HttpReply(503, {}, b""), PAGE, pinged(9), pinged(111)],
    ids=["empty", "500", "503", "page", "unknown", "111"],
)
async def test_a_mail_is_told_soon_where_pings_end_with_a_failure(ending: HttpReply) -> None:
    """The server, or what stands before it, ends each Ping so after a time of its own."""
    world, server = World(), ForcedHold(30.0, ending)
    clock, lateness = asyncio.get_running_loop().time, []
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(world.run(server))
        for number in range(1, 6):
            await asyncio.sleep(1234.5 * number)
            delivered = clock()
            server.deliver()
            await until(partial(told, world, number))
            lateness.append(clock() - delivered)
        total = clock()
        watch.cancel()

    assert max(lateness) <= 10.0
    assert server.held >= 0.8 * total
