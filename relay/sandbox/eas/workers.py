"""The workers of the simulated EAS server: how many requests it serves at once, and which wait for one that is free."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Workers:
    """Gives each request a worker, in the order in which they came; a held Ping keeps its worker."""

    __slots__ = ("_number", "_queue", "_taken")

    def __init__(self, number: int | None) -> None:
        """Take the number of workers; None: unlimited."""
        self._number = number
        self._taken = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def number(self) -> int | None:
        """The number of workers; None: unlimited."""
        return self._number

    @property
    def queued(self) -> int:
        """How many requests wait for a worker."""
        return sum(not turn.done() for turn in self._queue)

    def resize(self, number: int | None) -> None:
        """Change the number of workers; requests that have one keep it."""
        self._number = number
        self.serve()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a worker, and occupy it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self.serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise
        try:
            yield
        finally:
            self.release()

    def keep(self) -> None:
        """Occupy one more worker, until it is released: that of a Ping whose client has gone."""
        self._taken += 1

    def serve(self) -> None:
        """Give free workers to the requests that wait."""
        while self._queue and (self._number is None or self._taken < self._number):
            turn = self._queue.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)

    def release(self) -> None:
        """Free a worker."""
        self._taken -= 1
        self.serve()
