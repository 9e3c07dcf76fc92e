"""Waits of many watches, which share one timer of the event loop."""

import asyncio
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, TypeAlias

CROWDED: Final = 1024  # entries of the heap; with more, waits that were given up are removed

Wait: TypeAlias = "tuple[float, int, asyncio.Future[None]]"


class Timers:
    """Lets any number of tasks of one event loop sleep."""

    __slots__ = ("_heap", "_live", "_numbers", "_rings_at", "_timer")

    def __init__(self) -> None:
        """Set no timer: there is one only while a task sleeps."""
        self._heap: list[Wait] = []
        self._numbers = count()
        self._live = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def __len__(self) -> int:
        """Return how many tasks sleep."""
        return self._live

    async def sleep(self, seconds: float, ends: "asyncio.Future[None] | None" = None) -> None:
        """Return after so many seconds, or sooner when `ends` is done."""
        loop = asyncio.get_running_loop()
        ends = loop.create_future() if ends is None else ends
        heappush(self._heap, (loop.time() + seconds, next(self._numbers), ends))
        self._live += 1
        self._set(loop)
        try:
            await ends
        finally:
            self._live -= 1
            self._tidy()

    def _tidy(self) -> None:
        """Remove the waits that were given up, when they are most of the heap."""
        if len(self._heap) >= CROWDED and len(self._heap) > 2 * self._live:
            self._heap = [wait for wait in self._heap if not wait[2].done()]
            heapify(self._heap)

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        first = self._heap[0][0]
        if self._timer is not None:
            if self._rings_at <= first:
                return
            self._timer.cancel()
        # Kept here, because uvloop's TimerHandle.when() is wrong for a timer that is about to run.
        self._rings_at = first
        self._timer = loop.call_at(first, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].done()):
            _, _, ends = heappop(self._heap)
            if not ends.done():
                ends.set_result(None)
        if self._heap:
            self._set(loop)
