"""The mailboxes of one server that wait because their credential is doubtful, with one timer for all.

`doubts.py` decides whose turn it is; this module gives it what it needs of the event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from eas_watcher.machine.state import Doubt
from eas_watcher.server.doubts import Doubts, Look

LookOnce = Callable[[], Awaitable[Look | None]]
"""Asks the server for its options without any credential; returns None when no answer came."""


class DoubtfulMailboxes:
    """Lets the doubtful mailboxes of one server wait for its signs; made for the running event loop."""

    def __init__(self, rate: float) -> None:
        """Take how many mailboxes per second return once the server accepts them again."""
        self.rate = rate
        self._doubts = Doubts()
        self._turns: dict[Hashable, asyncio.Future[float | None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many mailboxes wait."""
        return len(self._doubts)

    @property
    def others_accepted(self) -> bool:
        """True if the server accepted others while it refused one of these."""
        return self._doubts.others_accepted

    @property
    def expected_wait(self) -> float | None:
        """Seconds until the next one is shown again, unless there is a sign before; None: none waits."""
        next_at = self._doubts.next_at
        return None if next_at is None else max(0.0, next_at - asyncio.get_running_loop().time())

    async def wait(self, mailbox: Hashable, seconds: float, doubt: Doubt, look: LookOnce) -> float:
        """Return when a credential may be shown again: after how many seconds less than `seconds`."""
        clock = asyncio.get_running_loop().time
        self._doubts.begin(mailbox, seconds, doubt.rest, clock(), others_accepted=doubt.others_accepted)
        try:
            while (early := await self._turn(mailbox)) is None:
                found = await look()
                self._doubts.looked(found, clock())
        finally:
            self._doubts.end(mailbox)
            self._pump()
        return early

    def accepted(self, mailbox: Hashable, began: float, *, was_refused: bool) -> None:
        """Note that the server accepted a mailbox, one that it had refused or another, with a request of `began`."""
        if self._doubts and self._doubts.accepted(mailbox, began, was_refused=was_refused):
            self._pump()

    def changed(self) -> None:
        """Note a weak sign: the server came back from an absence."""
        if self._doubts:
            self._doubts.changed()
            self._pump()

    async def _turn(self, mailbox: Hashable) -> float | None:
        """Return how many seconds early a credential may be shown; None: its client looks."""
        turn: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        self._turns[mailbox] = turn
        self._pump()
        try:
            return await turn
        finally:
            del self._turns[mailbox]

    def _ring(self) -> None:
        self._timer = None
        self._pump()

    def _pump(self) -> None:
        """Give the turns that are due, and look again when the next one may be."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for mailbox in [mailbox for mailbox, turn in self._turns.items() if turn.cancelled()]:
            self._doubts.end(mailbox)
        while (turn := self._doubts.next_try(now, self.rate)) is not None:
            self._give(*turn)
        looks = self._doubts.next_look(now)
        if looks is not None:
            self._give(looks, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ring_at = self._doubts.ring_at()
        if ring_at is not None:
            self._timer = loop.call_at(ring_at, self._ring)

    def _give(self, mailbox: Hashable, early: float | None) -> None:
        turn = self._turns[mailbox]
        if not turn.done():
            turn.set_result(early)
