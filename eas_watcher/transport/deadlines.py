"""Deadlines of many long waits, with one timer per second for all of them.

A timer of the event loop costs an object and a place in a heap for every held Ping; here a wait is one entry in a set.
"""

import asyncio
from types import TracebackType
from typing import Final, Protocol

RESOLUTION: Final = 1.0  # seconds; a wait ends at most this much late, never early


class Expiring(Protocol):
    """What waits until a deadline."""

    def expire(self, slot: int) -> None:
        """End the wait if its slot is still this one: the deadline has passed."""


class Deadlines:
    """The deadlines of many waits."""

    def __init__(self) -> None:
        """Start without a timer; it runs only while there is a wait."""
        self._slots: dict[int, set[Expiring]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        """Kept from the first wait on, since Python 3.11 makes a system call to return it."""
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> "Deadline":
        """Return a context whose body is cancelled after `seconds` and then raises TimeoutError."""
        return Deadline(self, seconds)

    def add(self, wait: Expiring, seconds: float) -> int:
        """Add a wait of so many seconds; return its slot."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        slot = int((loop.time() + seconds) / RESOLUTION) + 1
        waits = self._slots.get(slot)
        if waits is None:
            self._slots[slot] = {wait}
        else:
            waits.add(wait)
        if self._timer is None:
            self._look_again(loop)
        return slot

    def remove(self, wait: Expiring, slot: int) -> None:
        """Remove a wait; nothing if it has ended."""
        waits = self._slots.get(slot)
        if waits is not None:
            waits.discard(wait)
            if not waits:
                del self._slots[slot]

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = int(loop.time() / RESOLUTION)
        for slot in [slot for slot in self._slots if slot <= now]:
            for wait in self._slots.pop(slot):
                loop.call_soon(wait.expire, slot)  # a fault in one leaves the others alone
        self._timer = None
        if self._slots:
            self._look_again(loop)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer to the end of the next slot: another moment would double the delay with which a wait ends."""
        ends = (int(loop.time() / RESOLUTION) + 1) * RESOLUTION
        self._timer = loop.call_at(ends, self._tick, loop)


class Deadline:
    """The limit of one wait of one task; behaves like `asyncio.timeout`."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_seconds", "_slot", "_task")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        """Prepare the wait; it begins with the context."""
        self._deadlines = deadlines
        self._seconds = seconds
        self._expired = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._slot = 0

    def __enter__(self) -> None:
        """Begin the wait."""
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a deadline limits the wait of a task")
        self._cancelling = self._task.cancelling()
        self._slot = self._deadlines.add(self, self._seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the wait; turn our own cancellation into a TimeoutError, and pass on any other."""
        self._deadlines.remove(self, self._slot)
        task, self._task = self._task, None
        if (
            self._expired
            and task is not None
            and task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def expire(self, slot: int) -> None:
        """Cancel the wait."""
        if self._task is not None and slot == self._slot:
            self._expired = True
            self._task.cancel()
