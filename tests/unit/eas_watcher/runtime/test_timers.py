import asyncio

import pytest

from eas_watcher.runtime.timers import CROWDED, Timers

pytestmark = pytest.mark.looptime


def clock() -> float:
    return asyncio.get_running_loop().time()


async def test_each_wait_ends_at_its_time() -> None:
    waits, ended = Timers(), []

    async def sleep(seconds: float) -> None:
        await waits.sleep(seconds)
        ended.append((seconds, clock()))

    async with asyncio.TaskGroup() as tasks:
        for seconds in (30.0, 5.0, 12.5, 5.0, 0.0):
            tasks.create_task(sleep(seconds))

    assert ended == [(0.0, 0.0), (5.0, 5.0), (5.0, 5.0), (12.5, 12.5), (30.0, 30.0)]
    assert len(waits) == 0


async def test_any_number_of_waits_is_one_timer() -> None:
    waits, loop = Timers(), asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        sleepers = [tasks.create_task(waits.sleep(1000.0 - number / 10)) for number in range(5000)]
        await asyncio.sleep(1)
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert (len(waits), len(timers)) == (5000, 1)
        for sleeper in sleepers:
            sleeper.cancel()


async def test_a_wait_given_up_disturbs_no_other() -> None:
    waits = Timers()
    async with asyncio.TaskGroup() as tasks:
        first, second = (tasks.create_task(waits.sleep(seconds)) for seconds in (5.0, 9.0))
        await asyncio.sleep(1)
        first.cancel()
        await second
        assert (clock(), len(waits)) == (9.0, 0)


async def test_waits_given_up_take_no_room_for_ever() -> None:
    waits = Timers()
    async with asyncio.TaskGroup() as tasks:
        sleepers = [tasks.create_task(waits.sleep(1e6)) for _ in range(CROWDED + 1)]
        await asyncio.sleep(1)
        for sleeper in sleepers:
            sleeper.cancel()
        await asyncio.sleep(1)

    assert (len(waits), waits._heap) == (0, [])


async def test_a_sleeper_cancelled_as_its_time_comes_is_counted_once() -> None:
    waits = Timers()
    async with asyncio.TaskGroup() as tasks:
        sleeper = tasks.create_task(waits.sleep(5.0))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(5.0, sleeper.cancel)
        await asyncio.wait({sleeper})

    assert (sleeper.cancelled(), len(waits)) == (True, 0)
