import asyncio

import pytest

from eas_watcher.server.starts import CROWD, PAUSE, Start, Starts

pytestmark = pytest.mark.looptime


class Door:
    """Starts of numbered watches, at a server for which `crowd` clients wait."""

    def __init__(self, crowd: int = 0) -> None:
        self.crowd = crowd
        self.starts = Starts(lambda: self.crowd)
        self.begun: list[int] = []

    def begin(self, number: int) -> Start | None:
        return self.starts.begin(lambda: self.begun.append(number))


async def test_a_watch_starts_at_once_while_few_clients_wait() -> None:
    door = Door(crowd=CROWD - 1)

    assert door.begin(1) is None

    assert (door.begun, len(door.starts)) == ([1], 0)


async def test_of_many_watches_those_that_came_first_start_first_and_few_at_a_time() -> None:
    door = Door()
    for number in range(3 * CROWD):
        door.begin(number)
    assert (door.begun, len(door.starts)) == ([*range(CROWD)], 2 * CROWD)

    await asyncio.sleep(1.5 * PAUSE)
    assert (door.begun, len(door.starts)) == ([*range(2 * CROWD)], CROWD)
    await asyncio.sleep(PAUSE)
    assert (door.begun, len(door.starts)) == ([*range(3 * CROWD)], 0)


async def test_no_watch_starts_while_a_crowd_waits_and_none_overtakes_those_that_came_before() -> None:
    door = Door(crowd=CROWD)
    assert door.begin(1) is not None
    await asyncio.sleep(100)
    assert door.begun == []

    door.crowd = 0
    assert door.begin(2) is not None
    await asyncio.sleep(PAUSE)

    assert door.begun == [1, 2]


async def test_a_watch_that_was_stopped_before_its_start_never_starts_and_takes_no_place() -> None:
    door = Door(crowd=CROWD)
    stopped, other = door.begin(1), door.begin(2)
    assert stopped is not None
    assert other is not None

    stopped.cancel()
    stopped.cancel()
    assert len(door.starts) == 1
    door.crowd = CROWD - 1
    await asyncio.sleep(PAUSE)
    other.cancel()

    assert (door.begun, len(door.starts)) == ([2], 0)


async def test_nothing_looks_while_no_watch_waits() -> None:
    looks: list[float] = []

    def look() -> int:
        looks.append(asyncio.get_running_loop().time())
        return 0

    Starts(look).begin(lambda: None)
    await asyncio.sleep(100)

    assert len(looks) == 1
