"""Own waits of many watches with one timer of the event loop, whatever their number."""

import asyncio
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, TypeAlias

CROWDED: Final = 1024  # entries of the heap from which on waits that were given up are cleared away

Wait: TypeAlias = "tuple[float, int, asyncio.Future[None]]"


class Timers:
    """Let tasks of one event loop sleep."""

    __slots__ = ("_heap", "_live", "_numbers", "_rings_at", "_timer")

    def __init__(self) -> None:
        """Begin without a timer; there is one only while somebody waits."""
        self._heap: list[Wait] = []
        self._numbers = count()
        self._live = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def __len__(self) -> int:
        """Count who waits."""
        return self._live

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        loop = asyncio.get_running_loop()
        ends: asyncio.Future[None] = loop.create_future()
        heappush(self._heap, (loop.time() + seconds, next(self._numbers), ends))
        self._live += 1
        self._set(loop)
        try:
            await ends
        finally:
            self._live -= 1
            self._tidy()

    def _tidy(self) -> None:
        """Clear the heap of waits given up, when they are most of it."""
        if len(self._heap) >= CROWDED and len(self._heap) > 2 * self._live:
            self._heap = [wait for wait in self._heap if not wait[2].done()]
            heapify(self._heap)

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        first = self._heap[0][0]
        if self._timer is not None:
            if self._rings_at <= first:
                return
            self._timer.cancel()
        self._rings_at = first  # uvloop's handle of a moment that has all but come does not tell it
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
