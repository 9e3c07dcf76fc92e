"""Test that the kernel ends a process that stands still, and only then."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from relay.process.dead_man import WRITER, give_signs_of_life
from relay.process.service_manager import ServiceManager

RUN = """
import sys, time
from relay.process.dead_man import DeadManTimer
timer = DeadManTimer()
assert timer.works
{lines}
print("alive", flush=True)
time.sleep(1.0)
print("still alive", flush=True)
"""


def run(lines: str, *, stop: bool = False) -> tuple[int, str]:
    """Run a process with a timer; return its exit status and what it printed."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN.format(lines=lines)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        if stop:
            os.kill(process.pid, signal.SIGSTOP)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        said += process.stdout.read()
    return process.returncode, said


def test_a_process_that_stands_still_is_killed_although_it_is_stopped() -> None:
    began = time.monotonic()
    assert run("timer.set(0.6)", stop=True) == (-signal.SIGKILL, "alive\n")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("lines", ["", "timer.set(0.6); timer.off()", "timer.set(0.6); timer.set(30)"])
def test_a_process_that_renews_in_time_lives(lines: str) -> None:
    assert run(lines) == (0, "alive\nstill alive\n")


class Told(ServiceManager):
    """A service manager that notes what it is told."""

    def __init__(self, watchdog: float | None) -> None:
        super().__init__("", watchdog)
        self.signs = 0
        self.statuses: list[str] = []

    def alive(self) -> None:
        self.signs += 1

    def status(self, status: str) -> None:
        self.statuses.append(status)


async def signs(manager: Told, seconds: float, writes_for: Callable[[], float] = lambda: 0.0) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await give_signs_of_life(manager, lambda: "all is well", writes_for)


@pytest.mark.looptime
async def test_signs_of_life_come_more_often_than_the_manager_wants_them() -> None:
    manager = Told(9.0)
    await signs(manager, 29.5)

    assert manager.signs == 10
    assert manager.statuses == ["all is well"], "a status that stays is told once"


@pytest.mark.looptime
async def test_a_manager_without_a_watchdog_gets_a_status_alone() -> None:
    manager = Told(None)
    await signs(manager, 30.0)

    assert (manager.signs, manager.statuses) == (0, ["all is well"])


@pytest.mark.looptime
async def test_a_writer_that_hangs_gives_no_sign_of_life_until_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    manager, hangs = Told(15.0), [WRITER + 1]
    async with asyncio.TaskGroup() as tasks:
        giving = tasks.create_task(signs(manager, 60.0, lambda: hangs[0]))
        await asyncio.sleep(29.0)
        assert manager.signs == 0
        hangs[0] = 0.0
        await giving

    assert manager.signs == 6
    assert [record.message for record in caplog.records].count(
        "the database's writer hangs: no more signs of life"
    ) == 1
