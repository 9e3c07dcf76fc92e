"""The event loop of a command: a job runs until it ends or a signal cancels it."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(job: Coroutine[Any, Any, T]) -> T | None:
    """Run a job on uvloop and return its result; None after SIGTERM or Ctrl-C, which cancel it and are no failure."""

    async def until_signal() -> T | None:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _cancel_once, task)
        try:
            return await job
        except asyncio.CancelledError:
            if task is None or not task.cancelling():
                raise
            return None

    import uvloop

    return uvloop.run(until_signal())


def _cancel_once(task: "asyncio.Task[Any] | None") -> None:
    if task is not None and not task.cancelling():
        task.cancel()
