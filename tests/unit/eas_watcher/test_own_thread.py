"""Tests of calls in a thread of their own: results, errors, and callers that wait no longer."""

import asyncio
import threading

import pytest

from eas_watcher.own_thread import in_own_thread
from tests.waiting import until


def fail() -> int:
    raise OSError("no disk")


async def test_a_call_returns_or_raises() -> None:
    assert await in_own_thread(lambda: 7, "a test") == 7
    with pytest.raises(OSError, match="no disk"):
        await in_own_thread(fail, "a test")


async def test_a_call_that_nobody_waits_for_ends_by_itself() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait()
        ended.set()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(in_own_thread(work, "unwanted"), 0.01)
    go_on.set()
    await until(ended.is_set)
    await until(lambda: "unwanted" not in {thread.name for thread in threading.enumerate()})
    await asyncio.sleep(0)  # its result arrives, and is dropped


async def test_a_thread_does_not_hold_the_end_of_the_process() -> None:
    assert await in_own_thread(lambda: threading.current_thread().daemon, "a test")


def test_a_call_may_outlive_its_loop() -> None:
    go_on = threading.Event()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_own_thread(go_on.wait, "outlives"), 0.01)

    with asyncio.Runner() as runner:
        runner.run(give_up())
    (thread,) = (each for each in threading.enumerate() if each.name == "outlives")
    go_on.set()
    thread.join()


async def test_a_host_without_a_further_thread_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(OSError, match="starts no further thread: raise TasksMax="):
        await in_own_thread(fail, "a test")
