"""Waits of many watches, which share one timer of the event loop; a wait is a call that is due, and no task."""

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, TypeAlias

CROWDED: Final = 1024  # entries of the heap; with more, waits that were cancelled are removed

Entry: TypeAlias = "tuple[float, int, Wait]"


class Wait:
    """One call that is due at some time, unless it is hastened or cancelled."""

    __slots__ = ("_call", "_timers")

    def __init__(self, timers: "Timers", call: Callable[[], None]) -> None:
        """Take the timers that make the call."""
        self._timers = timers
        self._call: Callable[[], None] | None = call

    @property
    def over(self) -> bool:
        """True if the call was made or cancelled."""
        return self._call is None

    def hasten(self) -> None:
        """Have the call made by the next turn of the event loop, if it is still due."""
        if self._call is not None:
            self._timers.add(self, 0.0)

    def cancel(self) -> None:
        """Make the call no more."""
        if self._call is not None:
            self._call = None
            self._timers.less()

    def end(self) -> None:
        """Make the call, if it is still due."""
        call, self._call = self._call, None
        if call is not None:
            self._timers.less()
            call()


class Timers:
    """Makes any number of calls at their times, in one event loop."""

    __slots__ = ("_heap", "_live", "_numbers", "_rings_at", "_timer")

    def __init__(self) -> None:
        """Set no timer: there is one only while a call is due."""
        self._heap: list[Entry] = []
        self._numbers = count()
        self._live = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def __len__(self) -> int:
        """Return how many calls are due."""
        return self._live

    def begin(self, seconds: float, call: Callable[[], None]) -> Wait:
        """Make a call after so many seconds; never before this returns."""
        wait = Wait(self, call)
        self._live += 1
        self.add(wait, seconds)
        return wait

    def add(self, wait: Wait, seconds: float) -> None:
        """End a wait after so many seconds at the latest."""
        loop = asyncio.get_running_loop()
        heappush(self._heap, (loop.time() + seconds, next(self._numbers), wait))
        self._set(loop)

    def less(self) -> None:
        """Count one wait less; remove those that are over, when they are most of the heap."""
        self._live -= 1
        if len(self._heap) >= CROWDED and len(self._heap) > 2 * self._live:
            self._heap = [entry for entry in self._heap if not entry[2].over]
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
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].over):
            _, _, wait = heappop(self._heap)
            wait.end()
        if self._heap:
            self._set(loop)
