"""Own who may send when on one HTTP/2 connection: as many streams as the server allows, no body without room for it."""

import asyncio
from collections import deque
from collections.abc import Callable

from h2.connection import H2Connection
from h2.exceptions import NoAvailableStreamIDError


class Streams:
    """Hand out stream ids in order, first come first served; takes the place of aioapns' ChannelPool."""

    def __init__(self, bound: int, most: int, room: Callable[[], int]) -> None:
        """Begin with `bound` streams at once, never more than `most`; `room` tells what flow control lets in."""
        self._most = most
        self._room = room
        self._bound = min(bound, most)
        self._used = 0
        self._promised = 0  # bytes of those let in who have not sent so far
        self._paused = False
        self._next = 1
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self._end: Exception | None = None

    @property
    def bound(self) -> int:
        """Tell how many streams may be open; a new value counts at once, whatever is open."""
        return self._bound

    @bound.setter
    def bound(self, bound: int) -> None:
        self._bound = min(bound, self._most)
        self.hand_out()

    @property
    def paused(self) -> bool:
        """Tell whether nobody is let in because the socket takes no more."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused
        self.hand_out()

    async def acquire(self, size: int = 0) -> int:
        """Wait for a free stream with room for a body of so many bytes; return its id, to be used without waiting.

        Raises what `destroy` was given.
        """
        if self._end is None:
            if self._waiters or not self._fits(size):
                await self._wait(size)
            else:
                self._used += 1
        if self._end is not None:
            raise self._end.with_traceback(None)
        stream_id = self._next
        if stream_id > H2Connection.HIGHEST_ALLOWED_STREAM_ID:
            raise NoAvailableStreamIDError
        self._next += 2
        return stream_id

    def release(self) -> None:
        """Take a stream back."""
        self._used -= 1
        if self._waiters:
            self.hand_out()

    def destroy(self, error: Exception) -> None:
        """Let everybody who waits, and whoever comes, have this error."""
        self._end = self._end or error
        while self._waiters:
            waiter, size = self._waiters.popleft()
            self._let_in(waiter, size)

    def hand_out(self) -> None:
        """Let in whoever there is room for by now."""
        while self._waiters:
            waiter, size = self._waiters[0]
            if not waiter.done():
                if not self._fits(size):
                    return
                self._let_in(waiter, size)
            self._waiters.popleft()

    def _fits(self, size: int) -> bool:
        return self._used < self._bound and not self._paused and self._room() - self._promised >= size

    def _let_in(self, waiter: "asyncio.Future[None]", size: int) -> None:
        if not waiter.done():
            self._used += 1
            self._promised += size
            waiter.set_result(None)

    async def _wait(self, size: int) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((waiter, size))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._promised -= size
                self.release()
            self.hand_out()  # whoever stands behind may need less
            raise
        self._promised -= size
