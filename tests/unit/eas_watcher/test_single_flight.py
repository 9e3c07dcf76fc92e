import asyncio
import gc
from weakref import ref

from eas_watcher.single_flight import SingleFlight


class Renewals:
    """An operation that ends when a test says so."""

    def __init__(self) -> None:
        self.flight = SingleFlight[int]("renewal")
        self.runs = 0
        self.ends: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.failures: list[BaseException] = []

    def begin(self) -> "asyncio.Task[int]":
        return self.flight.begin(self.run, self.failures.append)

    async def run(self) -> int:
        self.runs += 1
        return await self.ends


async def test_callers_share_one_run_and_the_next_one_starts_another() -> None:
    renewals = Renewals()
    first, second = renewals.begin(), renewals.begin()
    assert first is second is renewals.flight.task

    renewals.ends.set_result(1)

    assert await first == 1
    await asyncio.sleep(0)
    assert renewals.flight.task is None
    assert await renewals.begin() == 1
    assert renewals.runs == 2


async def test_a_caller_that_gives_up_does_not_disturb_the_others() -> None:
    renewals = Renewals()

    async def caller() -> int:
        return await asyncio.shield(renewals.begin())

    loop = asyncio.get_running_loop()
    impatient, patient = loop.create_task(caller()), loop.create_task(caller())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.sleep(0)
    renewals.ends.set_result(1)

    assert await patient == 1
    assert impatient.cancelled()


async def test_a_failure_is_reported_though_all_callers_have_gone() -> None:
    renewals = Renewals()
    task = renewals.begin()
    error = ValueError("refused")
    renewals.ends.set_exception(error)
    await asyncio.wait({task})
    await asyncio.sleep(0)

    assert renewals.failures == [error]
    assert renewals.flight.task is None


async def test_a_cancelled_run_is_no_failure() -> None:
    renewals = Renewals()
    task = renewals.begin()
    await renewals.flight.cancel()

    assert task.cancelled()
    assert renewals.failures == []
    await renewals.flight.cancel()  # there is nothing left to cancel


async def test_the_owner_of_the_operation_is_kept_alive_by_a_run_only() -> None:
    gc.disable()
    try:
        renewals = Renewals()
        alive, ends, task = ref(renewals), renewals.ends, renewals.begin()
        del renewals
        await asyncio.sleep(0)
        assert alive() is not None

        ends.set_result(1)
        assert await task == 1
        del task
        await asyncio.sleep(0)
        assert alive() is None
    finally:
        gc.enable()
