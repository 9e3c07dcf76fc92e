import asyncio

import pytest

from eas_watcher.transport.deadlines import RESOLUTION, Deadlines

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("seconds", [10.0, 10.2, 10.9])
async def test_ends_a_wait_that_takes_too_long_at_most_a_second_late_whenever_it_begins(seconds: float) -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()

    async def wait(begins: float) -> float:
        await asyncio.sleep(begins)
        began = loop.time()
        with pytest.raises(TimeoutError), deadlines.within(seconds):
            await asyncio.sleep(3600)
        return loop.time() - began

    waits = await asyncio.gather(*(wait(tenth / 10.0) for tenth in range(1, 31)))

    assert min(waits) >= seconds
    assert max(waits) <= seconds + RESOLUTION


async def test_leaves_a_wait_that_ends_in_time_alone() -> None:
    with Deadlines().within(10.0):
        await asyncio.sleep(9.0)

    await asyncio.sleep(60)


async def test_a_cancellation_from_outside_stays_a_cancellation() -> None:
    async def wait() -> None:
        with Deadlines().within(10.0):
            await asyncio.sleep(3600)

    task = asyncio.get_running_loop().create_task(wait())
    await asyncio.sleep(1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_body_passes() -> None:
    with pytest.raises(KeyError), Deadlines().within(10.0):
        raise KeyError


async def test_many_waits_share_one_timer_and_the_timer_stops_with_the_last() -> None:
    deadlines = Deadlines()

    async def wait(seconds: float) -> bool:
        try:
            with deadlines.within(seconds):
                await asyncio.sleep(3600)
        except TimeoutError:
            return True
        return False

    assert all(await asyncio.gather(*(wait(float(n % 7 + 1)) for n in range(200))))
    await asyncio.sleep(5)
    assert deadlines._timer is None
    assert not deadlines._slots


async def test_limits_the_wait_of_a_task_only() -> None:
    loop = asyncio.get_running_loop()
    seen: list[BaseException] = []

    def outside_any_task() -> None:
        try:
            with Deadlines().within(1.0):
                pass
        except RuntimeError as error:
            seen.append(error)

    loop.call_soon(outside_any_task)
    await asyncio.sleep(0.1)
    assert len(seen) == 1
