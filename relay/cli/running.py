"""The event loop of a command: a job runs until it ends or a signal cancels it."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from relay.cli.output import FAILED, fail

T = TypeVar("T")

ENDING: Final = (signal.SIGTERM, signal.SIGINT)


def run(job: Coroutine[Any, Any, T]) -> T | None:
    """Run a job on uvloop and return its result; None after SIGTERM or Ctrl-C, which cancel it and are no failure."""

    async def until_signal() -> T | None:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, _cancel_once, task)
        try:
            return await job
        except asyncio.CancelledError:
            if task is None or not task.cancelling():
                raise
            return None
        finally:
            for number in ENDING:  # a question to the user after the job must end with Ctrl-C, too
                loop.remove_signal_handler(number)

    import uvloop

    return uvloop.run(until_signal())


def complete(job: Coroutine[Any, Any, T], otherwise: str = "") -> T:
    """Run a job and return its result; end the command with status 1 if a signal ended the job before its end.

    Then the command says so, and how things stand `otherwise`.
    """

    async def completing() -> tuple[T]:
        return (await job,)

    done = run(completing())
    if done is None:
        fail(f"ended by a signal: {otherwise}" if otherwise else "ended by a signal", FAILED)
    return done[0]


def _cancel_once(task: "asyncio.Task[Any] | None") -> None:
    if task is not None and not task.cancelling():
        task.cancel()
