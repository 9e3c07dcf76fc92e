"""Threads that run functions for an event loop, in the order in which they were asked to."""

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from relay.domain.errors import StoreUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

LAST: Final = 30.0
"""Seconds that the end of the process waits for a function that still runs."""


class _Job(Generic[T]):
    """A function that waits for a thread, runs in it, or is done.

    `_turn` is taken once: by the thread that runs the function, or by the event loop that does not want it any more.
    """

    __slots__ = ("_function", "_loop", "_outcome", "_turn")

    def __init__(self, function: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._loop = loop
        self._outcome: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()
        self._turn = threading.Lock()

    async def result(self, patience: float) -> T:
        """Return or raise what the function does; raise StoreUnavailable if no thread began it within `patience`."""
        timer = self._loop.call_later(patience, self._give_up, patience)
        try:
            value, error = await self._outcome
        except asyncio.CancelledError:
            self._turn.acquire(blocking=False)  # one that has not begun never does; one that runs goes on to its end
            raise
        finally:
            timer.cancel()
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # without an error it is the function's

    def run(self) -> None:
        """Run the function in this thread, unless it is not wanted any more."""
        if not self._turn.acquire(blocking=False):
            return
        value: T | None = None
        error: BaseException | None = None
        try:
            value = self._function()
        except BaseException as raised:  # noqa: BLE001  # it is raised where the function was asked for
            error = raised
        try:
            self._loop.call_soon_threadsafe(self._finish, value, error)
        except RuntimeError:  # the loop is closed
            log.debug("a transaction ended after the process's event loop")

    def _finish(self, value: T | None, error: BaseException | None) -> None:
        if not self._outcome.done():
            self._outcome.set_result((value, error))

    def _give_up(self, patience: float) -> None:
        if self._turn.acquire(blocking=False) and not self._outcome.done():
            self._outcome.set_result((None, StoreUnavailable(f"no turn within {patience:g} seconds")))


class Workers:
    """Some threads that take functions from one queue; they start with the first function."""

    def __init__(self, name: str, number: int, patience: float) -> None:
        """Run up to `number` functions at a time; each begins within `patience` seconds, or never."""
        self._patience = patience
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(number)]
        self._started = False
        self._closed = False

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in one of the threads; return or raise what it does.

        A caller that is cancelled returns at once: a function that runs goes on to its end, another never begins.
        """
        if self._closed:
            raise StoreUnavailable("the database is closed")
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        job = _Job(function, asyncio.get_running_loop())
        self._jobs.put(job)
        return await job.result(self._patience)

    async def close(self) -> None:
        """Let the functions that wait run, and end the threads."""
        self._closed = True
        if not self._started:
            return
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join, LAST)
            if thread.is_alive():
                log.warning("a transaction does not end", extra={"seconds": LAST})

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # or the thread would keep the last function's values while it waits
