"""How fast marks may leave: changes of one class add up, recipients are spread, and old marks are dropped. Pure."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random, SystemRandom
from typing import Final

from relay.domain.model import Mark

COALESCE_MOST: Final = 60.0  # seconds; people take a longer delay for a fault
JITTER_MOST: Final = 300.0  # seconds; COALESCE_MOST added, it stays below what the store takes for a wrong clock

NOTICES: Final = frozenset({Mark.ATTENTION, Mark.TEST, Mark.CHALLENGE})
"""Marks that leave at once: a person waits for them, and they do not show who got the same mail."""
LASTING: Final = frozenset({Mark.ATTENTION})
"""Marks that stay true at any age."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """The pace of a deployment; the default lets everything leave at once."""

    coalesce: float = 0.0
    """Seconds between two pushes of one class to one registration, at least; changes in between add up."""
    jitter: float = 0.0
    """A push leaves at a random moment within so many seconds."""
    expire: timedelta = timedelta(days=1)
    """Age of its newest change at which a mark is dropped."""
    random: Random = field(default_factory=SystemRandom)

    def wait(self, mark: Mark, pushed_at: datetime | None, now: datetime) -> float:
        """Return how many seconds a due mark still waits; `pushed_at` is when its class was last pushed."""
        if mark in NOTICES:
            return 0.0
        spread = self.random.uniform(0.0, self.jitter) if self.jitter else 0.0
        return max(spread, self._rest(pushed_at, now))

    def next_due(self, mark: Mark, now: datetime) -> datetime:
        """Return when the changes that came during a push just delivered may leave, at the earliest."""
        return now if mark in NOTICES else now + timedelta(seconds=self.coalesce)

    def expires_before(self, now: datetime) -> datetime:
        """Return the moment before which a mark's newest change is too old for a push."""
        return now - self.expire

    def _rest(self, pushed_at: datetime | None, now: datetime) -> float:
        if pushed_at is None:
            return 0.0
        ago = (now - pushed_at).total_seconds()
        # A moment further in the future than hosts' clocks differ was written while the clock was wrong.
        return 0.0 if ago < -self.coalesce else min(self.coalesce, max(0.0, self.coalesce - ago))


AT_ONCE: Final = Pacing()
"""Everything leaves at once."""
