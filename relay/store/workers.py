"""Threads that run functions for an event loop, in the order in which they were asked to."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import groupby
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final, Generic, TypeAlias, TypeVar

from relay.domain.errors import StoreUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

LAST: Final = 30.0
"""Seconds that the end of the process waits for a function that still runs."""
TOGETHER: Final = 0.01
"""Seconds after which no more functions join those that run together: the first of them waits for the last."""


class Job(Generic[T]):
    """A function that waits for a thread, runs in it, or is done.

    `_turn` is taken once: by the thread that runs the function, or by the event loop that does not want it any more.
    """

    __slots__ = ("_loop", "_outcome", "_turn", "error", "function", "joins", "value")

    def __init__(self, function: Callable[..., T], loop: asyncio.AbstractEventLoop, *, joins: bool) -> None:
        """Wait for the turn of a function; `joins`: it may run together with others."""
        self.function = function
        self.joins = joins
        self.value: T | None = None
        self.error: BaseException | None = None
        """What the caller gets instead of the value."""
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

    def begin(self) -> bool:
        """Take the function's turn; return False if it is not wanted any more."""
        return self._turn.acquire(blocking=False)

    def run(self, *arguments: object) -> None:
        """Run the function, and note what it returns or raises."""
        try:
            self.value = self.function(*arguments)
        except BaseException as raised:  # noqa: BLE001  # it is raised where the function was asked for
            self.error = raised

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that waits for the function."""
        return self._loop

    def finish(self) -> None:
        """Hand over what the function did, in the event loop."""
        if not self._outcome.done():
            self._outcome.set_result((self.value, self.error))

    def _give_up(self, patience: float) -> None:
        if self._turn.acquire(blocking=False) and not self._outcome.done():
            self._outcome.set_result((None, StoreUnavailable(f"no turn within {patience:g} seconds")))


Jobs: TypeAlias = Iterator[Job[Any]]
"""Jobs that have begun, each the moment before it is taken; the first always comes, others if they wait for a turn."""


class Workers:
    """Some threads that take functions from one queue; they start with the first function."""

    def __init__(self, name: str, number: int, patience: float, run: Callable[[Jobs], list[Job[Any]]]) -> None:
        """Run up to `number` functions at a time; each begins within `patience` seconds, or never.

        `run` runs jobs in a thread, and returns those that it took, once it is known what each of them did.
        """
        self._patience = patience
        self._run = run
        self._jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(number)]
        self._started = False
        self._closed = False
        self._began: dict[int, float] = {}
        """When what a thread runs now began, by thread."""

    @property
    def longest(self) -> float:
        """The seconds for which the oldest of the functions that run now has run; 0.0: none runs."""
        began = list(self._began.values())  # one step: the threads change it meanwhile
        return monotonic() - min(began) if began else 0.0

    async def run(self, function: Callable[..., T], *, joins: bool = False) -> T:
        """Run a function in one of the threads; return or raise what it does.

        A caller that is cancelled returns at once: a function that runs goes on to its end, another never begins. One
        that `joins` may run together with others that do, so that all of them are done at the same moment.
        """
        if self._closed:
            raise StoreUnavailable("the database is closed")
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        job = Job(function, asyncio.get_running_loop(), joins=joins)
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
        thread = threading.get_ident()
        ahead: deque[Job[Any] | None] = deque()  # what was taken from the queue, and could not join
        while (job := ahead.popleft() if ahead else self._jobs.get()) is not None:
            if job.begin():
                self._began[thread] = monotonic()
                done = self._run(self._joined(job, ahead))
                del self._began[thread]
                _finish(done)
                del done
            del job  # or the thread would keep the last function's values while it waits

    def _joined(self, job: Job[Any], ahead: deque[Job[Any] | None]) -> Jobs:
        """Yield a job that has begun, and those that wait behind it as long as they may join it."""
        ends = monotonic() + TOGETHER
        joins = job.joins
        yield job
        del job
        while joins and monotonic() < ends:
            try:
                following = self._jobs.get_nowait()
            except Empty:
                return
            if following is None or not following.joins:
                ahead.append(following)
                return
            if following.begin():
                yield following
            del following


def _finish(jobs: list[Job[Any]]) -> None:
    """Hand over what jobs did, to each event loop at once."""
    for loop, some in groupby(jobs, key=lambda job: job.loop):
        finished = list(some)
        try:
            loop.call_soon_threadsafe(_finish_all, finished)
        except RuntimeError:  # the loop is closed
            log.debug("a transaction ended after the process's event loop")


def _finish_all(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        job.finish()
