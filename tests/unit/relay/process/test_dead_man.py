"""Test that the kernel ends a process that stands still, and only then."""

import os
import signal
import subprocess
import sys
import time

import pytest

RUN = """
import sys, time
from relay.process.dead_man import DeadManTimer
timer = DeadManTimer()
assert timer.works
{lines}
print("alive", flush=True)
time.sleep(0.6)
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
    assert run("timer.set(0.2)", stop=True) == (-signal.SIGKILL, "alive\n")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("lines", ["", "timer.set(0.2); timer.off()", "timer.set(0.2); timer.set(30)"])
def test_a_process_that_renews_in_time_lives(lines: str) -> None:
    assert run(lines) == (0, "alive\nstill alive\n")
