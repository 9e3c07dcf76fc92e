import asyncio

import pytest

from eas_watcher.runtime.timers import CROWDED, Timers, Wait

pytestmark = pytest.mark.looptime


def clock() -> float:
    return asyncio.get_running_loop().time()


class Calls:
    """Note which calls were made, and when."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.made: list[tuple[str, float]] = []

    def begin(self, seconds: float, name: str = "call") -> Wait:
        return self.timers.begin(seconds, lambda: self.made.append((name, clock())))


async def test_each_call_is_made_at_its_time() -> None:
    calls = Calls()
    for seconds in (30.0, 5.0, 12.5, 5.0, 0.0):
        calls.begin(seconds, f"after {seconds}")
    assert (calls.made, len(calls.timers)) == ([], 5)

    await asyncio.sleep(40)

    moments = (0.0, 5.0, 5.0, 12.5, 30.0)
    assert calls.made == [(f"after {moment}", moment) for moment in moments]
    assert len(calls.timers) == 0


async def test_any_number_of_calls_is_one_timer() -> None:
    calls, loop = Calls(), asyncio.get_running_loop()
    waits = [calls.begin(1000.0 - number / 10) for number in range(5000)]

    timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]

    assert (len(calls.timers), len(timers)) == (5000, 1)
    for wait in waits:
        wait.cancel()


async def test_a_cancelled_call_is_not_made_and_disturbs_no_other() -> None:
    calls = Calls()
    first = calls.begin(5.0, "first")
    calls.begin(9.0, "second")
    await asyncio.sleep(1)

    first.cancel()
    first.cancel()
    first.hasten()
    await asyncio.sleep(20)

    assert (calls.made, len(calls.timers)) == ([("second", 9.0)], 0)


async def test_a_hastened_call_is_made_once_and_by_the_loop() -> None:
    calls = Calls()
    wait = calls.begin(100.0)
    await asyncio.sleep(7)

    wait.hasten()
    wait.hasten()
    assert calls.made == []
    await asyncio.sleep(200)

    assert (calls.made, wait.over, len(calls.timers)) == ([("call", 7.0)], True, 0)


async def test_cancelled_calls_take_no_room_for_ever() -> None:
    calls = Calls()
    waits = [calls.begin(1e6) for _ in range(CROWDED + 1)]

    for wait in waits:
        wait.cancel()

    assert len(calls.timers) == 0
    assert len(calls.timers._heap) < CROWDED


async def test_a_call_may_begin_the_next_wait() -> None:
    timers, made = Timers(), list[float]()

    def again() -> None:
        made.append(clock())
        if len(made) < 3:
            timers.begin(10.0, again)

    timers.begin(10.0, again)
    await asyncio.sleep(100)

    assert made == [10.0, 20.0, 30.0]
