"""When a dispatcher looks for due marks again. Pure: moments come in as arguments.

`now` is the wall clock, in which marks fall due; `time` is `loop.time()` in seconds, in which a dispatcher waits.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from relay.domain.model import Lane
from relay.domain.ports.outbox import Claims

SLOW_POLL: Final = 30.0
"""Seconds until the next look at the latest, for wake-ups that were lost and for claims of other processes that ran
out."""
SHORTEST: Final = 0.05
"""Seconds until the next look while a mark is due that cannot be claimed, e.g. as another process has locked it. Each
such look that claims nothing doubles it."""
LONGEST_SHORT: Final = 1.6
"""Seconds; the limit of that doubling, and of the rest below."""
CALM: Final = 4.0
"""While a lane is blocked, a look reads all marks that wait there. So the dispatcher rests for this many times as long
as the look took."""


class ClaimSchedule:
    """What one dispatcher knows of the marks that it has not claimed, and of its free slots."""

    def __init__(self) -> None:
        self.wakes = 0
        """Wake-ups since the start."""
        self.full = False
        """Whether the last look filled every slot, so that more marks may be due."""
        self._unfinished = False
        """Whether the last look put off so many marks that it did not see all that are due."""
        self._fruitless = 0
        """Looks in a row that claimed nothing although a mark was due."""
        self._due: datetime | None = None
        """When the next mark falls due; None: no mark waits."""
        self._asked_at: float | None = None
        """When the store was asked for `_due`; None: ask again."""
        self._blocked: frozenset[Lane] = frozenset()
        """The lanes that `_due` leaves out."""

    def wake(self) -> None:
        """Count a wake-up."""
        self.wakes += 1

    def begin_look(self) -> None:
        """Forget what the look before left unfinished."""
        self._unfinished = False

    def learn(self, claims: Claims) -> None:
        """Note which marks a claim put off."""
        if claims.delayed_until is not None:
            self._expect([claims.delayed_until])
        self._unfinished = self._unfinished or claims.unfinished

    def must_ask(self, now: datetime, time: float, blocked: frozenset[Lane]) -> bool:
        """Return True if the store must say when the next mark falls due: what we know is past, old, or of other lanes.

        Our own retries are known without asking. An unfinished look is followed by another one anyway.
        """
        if self._unfinished:
            return False
        old = self._asked_at is None or time - self._asked_at >= SLOW_POLL
        return old or blocked != self._blocked or (self._due is not None and self._due <= now)

    def answer(self, due: datetime | None, asked_at: float, blocked: frozenset[Lane]) -> None:
        """Note when the next mark falls due outside the lanes in `blocked`, as the store said."""
        self._due, self._asked_at, self._blocked = due, asked_at, blocked

    def next_look(self, now: datetime, time: float, claimed: int, next_at: float | None) -> float:
        """Return the seconds until the next look, after one that claimed so many marks and left slots free.

        `next_at` is when the next blocked lane may be tried, in `loop.time()`; None: no lane waits for a moment.
        """
        if self._unfinished:
            # A mark is put off once, so this ends; marks that are looked at late would leave late.
            self._fruitless = 0
            return 0.0
        waits = [SLOW_POLL]
        if next_at is not None:
            waits.append(max(0.0, next_at - time))
        if self._due is not None:
            left = (self._due - now).total_seconds()
            self._fruitless = 0 if left > 0 or claimed else self._fruitless + 1
            waits.append(left if left > 0 else min(LONGEST_SHORT, SHORTEST * 2.0 ** min(self._fruitless, 10)))
        return min(waits)

    def settle(
        self, retries: Sequence[datetime], wakes: Iterable[int], blocked: frozenset[Lane], *, limited: bool
    ) -> bool:
        """Note that pushes are settled; return True if the dispatcher must look at once.

        `retries` are the moments when failed pushes are due again, `wakes` the wake-ups that there had been when each
        push was claimed, `blocked` the lanes that are blocked now, `limited` whether some lanes take few pushes.
        """
        if retries:
            self._expect(retries)
        # A mark that grew while its push was under way is due again soon, and its wake-up is long past.
        grew = any(before != self.wakes for before in wakes)
        if grew:
            self._asked_at = None
        return self.full or bool(retries) or grew or limited or blocked != self._blocked

    def _expect(self, moments: Sequence[datetime]) -> None:
        """Note when marks fall due, without asking the store."""
        self._due = min(moments if self._due is None else [self._due, *moments])


def rest(seconds: float) -> float:
    """Return how long a dispatcher rests after a look that took so many seconds while a lane was blocked."""
    return min(LONGEST_SHORT, CALM * seconds)
