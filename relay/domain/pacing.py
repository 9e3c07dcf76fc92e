"""Own how fast marks may leave: changes of one class add up, recipients are spread, and old news is dropped.

Pure: moments and randomness come in as arguments.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random, SystemRandom
from typing import Final

from relay.domain.model import Mark

COALESCE_MOST: Final = 60.0  # seconds; more would be a delay that people feel as a fault
JITTER_MOST: Final = 300.0  # seconds; with COALESCE_MOST it stays below what the store takes for a wrong clock

NOTICES: Final = frozenset({Mark.ATTENTION, Mark.TEST})
"""Marks that a person waits for, or that nobody could tell a mail's recipients by: they leave at once."""
LASTING: Final = frozenset({Mark.ATTENTION})
"""Marks that stay true however old they are."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """Hold the pace of a deployment; the default lets everything leave at once."""

    coalesce: float = 0.0
    """Seconds between two pushes of one class to one registration, at least; what comes meanwhile adds up."""
    jitter: float = 0.0
    """Seconds within which a push leaves at a random moment."""
    expire: timedelta = timedelta(days=1)
    """Age of its newest change at which a mark is dropped."""
    random: Random = field(default_factory=SystemRandom)

    def wait(self, mark: Mark, pushed_at: datetime | None, now: datetime) -> float:
        """Tell how many seconds a mark that may leave now still waits; `pushed_at`: when its class was last pushed."""
        if mark in NOTICES:
            return 0.0
        spread = self.random.uniform(0.0, self.jitter) if self.jitter else 0.0
        return max(spread, self._rest(pushed_at, now))

    def next_due(self, mark: Mark, now: datetime) -> datetime:
        """Tell when what came during a push that was just delivered may leave, at the earliest."""
        return now if mark in NOTICES else now + timedelta(seconds=self.coalesce)

    def expires_before(self, now: datetime) -> datetime:
        """Tell since when a mark must have had a change to be still worth a push."""
        return now - self.expire

    def _rest(self, pushed_at: datetime | None, now: datetime) -> float:
        if pushed_at is None:
            return 0.0
        ago = (now - pushed_at).total_seconds()
        # A moment further ahead than another host's clock may be was written while the clock was wrong.
        return 0.0 if ago < -self.coalesce else min(self.coalesce, max(0.0, self.coalesce - ago))
