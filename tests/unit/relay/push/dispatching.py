"""A provider whose answers a test sets, and running dispatchers, for tests with looptime."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

from relay.domain.model import DuePush, Platform
from relay.domain.outcome import Delivered, Outcome
from relay.domain.ports.outbox import Capacities
from relay.push.breaker import unbounded
from relay.push.dispatch import Dispatcher
from tests.fakes.outbox import MemoryOutbox, loop_clock


class Provider:
    """Takes `seconds` for each push, and gives the answer that the test sets."""

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds
        self.answer: Callable[[DuePush], Outcome] = lambda push: Delivered()
        self.sent: list[tuple[float, DuePush]] = []
        self.at_once = 0
        self.most_at_once = 0

    async def send(self, push: DuePush) -> Outcome:
        self.sent.append((asyncio.get_running_loop().time(), push))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.at_once -= 1
        return self.answer(push)

    @property
    def moments(self) -> list[float]:
        return [moment for moment, _ in self.sent]

    @property
    def numbers(self) -> list[int]:
        return [int(push.registration_id.rpartition("-")[2]) for _, push in self.sent]


def dispatcher(
    outbox: MemoryOutbox, provider: Provider, platform: Platform = Platform.APNS, capacities: Capacities = unbounded
) -> Dispatcher:
    return Dispatcher(
        outbox, platform, provider, outbox.wakeups, loop_clock, Random(1), "node-1", capacities=capacities
    )


@asynccontextmanager
async def running(*dispatchers: Dispatcher) -> AsyncIterator[list[asyncio.Task[None]]]:
    async with asyncio.TaskGroup() as tasks:
        runs = [tasks.create_task(each.run()) for each in dispatchers]
        await asyncio.sleep(0.01)  # they have looked once
        yield runs
        for run in runs:
            run.cancel()
