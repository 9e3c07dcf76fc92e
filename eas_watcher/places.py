"""Places for what may go on only so many times at once, e.g. requests or handshakes."""

import asyncio
from collections import deque


class Places:
    """A number of places, each given to the task that has waited longest; costs a third of asyncio's semaphore."""

    __slots__ = ("_turns", "free", "waiting")

    def __init__(self, number: int) -> None:
        """Make so many places."""
        self.free = number
        """How many may be taken at once; 0 while a task waits."""
        self.waiting = 0
        """How many wait for a place."""
        self._turns: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Return when there is a place."""
        if self.free:
            self.free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.release()
            raise
        finally:
            self.waiting -= 1

    def release(self) -> None:
        """Give a place back, to the first that waits and has not given up."""
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    __aenter__ = acquire

    async def __aexit__(self, *_: object) -> None:
        """Give the place back."""
        self.release()
