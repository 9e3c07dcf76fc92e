"""Watches that start at one server: few at a time, so that thousands which wait for their turn cost next to nothing.

A watch on its way to its first Ping is a task, with frames and answers that are several times as large as what is left
of it while its Ping is held. If thousands were on their way at once, the memory would not come back: what is left lies
between what was given up.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

CROWD: Final = 128
"""Clients that wait for a server, so that no watch starts beside them; more than it serves at once."""
PAUSE: Final = 0.05  # seconds between two looks whether there is room: up to 2,560 watches start in a second


class Start:
    """The start of one watch, which waits."""

    __slots__ = ("_call", "_starts")

    def __init__(self, starts: "Starts", call: Callable[[], None]) -> None:
        """Take those it waits among, and what starts the watch."""
        self._starts = starts
        self._call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Never start the watch."""
        if self._call is not None:
            self._call = None
            self._starts.less()

    def begin(self) -> bool:
        """Start the watch unless that was cancelled; return True if it was not."""
        call, self._call = self._call, None
        if call is None:
            return False
        self._starts.less()
        call()
        return True


class Starts:
    """Starts watches in the order in which they came, when few clients wait for the server."""

    __slots__ = ("_crowd", "_live", "_room", "_timer", "_waiting")

    def __init__(self, crowd: Callable[[], int]) -> None:
        """Take how to learn how many clients wait for the server."""
        self._crowd = crowd
        self._waiting: deque[Start] = deque()
        self._live = 0
        self._room = 0
        """How many watches may still start until the next look; those that have just started wait for nothing yet."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many watches wait to be started."""
        return self._live

    def begin(self, call: Callable[[], None]) -> Start | None:
        """Start a watch now and return None, or return its start, which waits."""
        if self._timer is None:
            self._look()
        if not self._waiting and self._room > 0:
            self._room -= 1
            call()
            return None
        start = Start(self, call)
        self._waiting.append(start)
        self._live += 1
        return start

    def less(self) -> None:
        """Count one less that waits."""
        self._live -= 1

    def _look(self) -> None:
        """Start as many as there is room for; look again later."""
        self._timer = asyncio.get_running_loop().call_later(PAUSE, self._look_again)
        self._room = CROWD - self._crowd()
        while self._waiting and self._room > 0:
            self._room -= self._waiting.popleft().begin()

    def _look_again(self) -> None:
        self._timer = None
        if self._waiting:
            self._look()
