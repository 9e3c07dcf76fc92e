import asyncio
from collections.abc import Awaitable, Callable

import pytest

from eas_watcher.machine.state import Doubt
from eas_watcher.server.doubtful import DoubtfulMailboxes
from eas_watcher.server.doubts import LOOK, PACE, Look, read_look

pytestmark = pytest.mark.looptime

HOUR = 3600.0
DOUBT = Doubt(rest=1800.0)
REFUSES, ANSWERS = read_look(401, {}), read_look(200, {})


def clock() -> float:
    return asyncio.get_running_loop().time()


class Server:
    """What looks at a server find: ANSWERS from `renewed_at` on."""

    def __init__(self, renewed_at: float = 10 * HOUR, takes: float = 0.0) -> None:
        self.doubtful = DoubtfulMailboxes(rate=10.0)
        self.looked: list[float] = []
        self._renewed_at = renewed_at
        self._takes = takes

    async def look(self) -> Look | None:
        self.looked.append(clock())
        await asyncio.sleep(self._takes)
        return ANSWERS if clock() >= self._renewed_at else REFUSES

    def wait(self, mailbox: str, look: Callable[[], Awaitable[Look | None]] | None = None) -> asyncio.Task[float]:
        return asyncio.ensure_future(self.doubtful.wait(mailbox, HOUR, DOUBT, look or self.look))


async def test_waits_out_the_time_and_looks_meanwhile() -> None:
    server = Server()
    ann, ben = server.wait("ann"), server.wait("ben")
    await asyncio.sleep(0)
    assert (len(server.doubtful), server.doubtful.expected_wait) == (2, HOUR)
    assert not server.doubtful.others_accepted

    assert (await ann, clock()) == (0.0, HOUR)
    assert (await ben, clock()) == (0.0, HOUR + PACE)

    assert server.looked == [number * LOOK for number in range(15)]
    assert (len(server.doubtful), server.doubtful.expected_wait) == (0, None)


async def test_an_acceptance_lets_all_pass_after_the_lock_out_window() -> None:
    server = Server()
    waiting = [server.wait("ann"), server.wait("ben")]
    await asyncio.sleep(100)
    server.doubtful.accepted("cleo", clock(), was_refused=False)

    early = [await task for task in waiting]

    assert clock() == pytest.approx(1800.1)
    assert early == pytest.approx([1800.0, 1799.9])


async def test_what_a_look_finds_lets_one_pass() -> None:
    server = Server(renewed_at=2000.0)
    ann, ben = server.wait("ann"), server.wait("ben")

    assert await ann == HOUR - 2100.0
    assert not ben.done()
    ben.cancel()


async def test_a_sign_without_doubt_does_nothing() -> None:
    server = Server()

    server.doubtful.accepted("ann", 1.0, was_refused=True)
    server.doubtful.changed()

    assert len(server.doubtful) == 0


async def test_a_mailbox_that_is_stopped_as_it_waits_or_looks_leaves_its_turn_to_others() -> None:
    server = Server(renewed_at=2000.0, takes=50.0)
    ann = server.wait("ann")
    await asyncio.sleep(10)
    ben = server.wait("ben")
    await asyncio.sleep(10)
    ann.cancel()
    await asyncio.sleep(1)
    assert server.looked == [0.0, 20.0]

    cleo = server.wait("cleo")
    await asyncio.sleep(2000)
    server.doubtful.changed()
    await asyncio.sleep(0)
    assert ben.done()
    cleo.cancel()
    await asyncio.sleep(1)
    assert len(server.doubtful) == 0


async def test_a_mailbox_that_is_stopped_as_its_turn_comes_leaves_it_to_another() -> None:
    server = Server()
    ann, ben = server.wait("ann"), server.wait("ben")
    await asyncio.sleep(1900)
    ann.cancel()
    server.doubtful.changed()
    await asyncio.sleep(1)

    assert ann.cancelled()
    assert ben.done()
