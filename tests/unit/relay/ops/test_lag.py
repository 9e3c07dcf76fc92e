import asyncio
import time

import pytest

from relay.ops.lag import PERIOD, LoopLag


@pytest.mark.looptime
async def test_timers_in_time_are_no_lag() -> None:
    lag = LoopLag()
    assert lag.worst == 0.0
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(lag.run())
        await asyncio.sleep(PERIOD * 3)
        task.cancel()

    assert lag.worst == pytest.approx(0.0, abs=0.01)


async def test_a_blocked_loop_is_measured() -> None:
    lag = LoopLag(period=0.01)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(lag.run())
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 -- the very thing to be seen
        async with asyncio.timeout(5):
            while lag.worst == 0.0:  # noqa: ASYNC110 -- nobody tells of a measurement
                await asyncio.sleep(0)
        task.cancel()

    assert lag.worst >= 0.15
