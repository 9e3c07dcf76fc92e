"""Where the loop of the relay differs from asyncio's own: its timers that are about to fire are plain handles."""

import asyncio
from random import Random

import uvloop

from eas_watcher.runtime.timers import Timers
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from tests.unit.eas_watcher.watching import NOW


async def start_many() -> int:
    door, waits = ServerAdmission(5000.0, 8, Random(1), lambda: NOW), Timers()
    passed = 0

    async def start(name: int) -> None:
        nonlocal passed
        await door.enter(ClientAdmission(name))
        over = asyncio.Event()
        waits.begin(0.0001, over.set)
        await over.wait()
        passed += 1

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for name in range(200):
            tasks.create_task(start(name))
    return passed


def test_starts_and_waits_that_are_all_but_over_end() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(start_many()) == 200
