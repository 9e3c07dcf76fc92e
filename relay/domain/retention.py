"""How long what has ended, or is of no use, is kept."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

UNPROVED: Final = timedelta(days=1)
"""How long a registration may wait to be accepted; mail servers are seldom away for longer."""
LONGEST_PERIOD: Final = 600.0
"""Seconds between two looks for what is kept no longer."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long registrations and their tombstones are kept; None: for ever."""

    tombstones: timedelta = timedelta(days=30)
    unproved: timedelta = UNPROVED
    """For registrations that no mail server ever accepted."""
    token_gone: timedelta | None = timedelta(days=30)
    """For those whose app is gone from the device."""
    refused: timedelta | None = timedelta(days=30)
    """For those whose credential the mail server does not take any more."""
    untouched: timedelta | None = timedelta(days=180)
    """For those whose app was not seen, and to which nothing was delivered."""
    events: timedelta = timedelta(hours=72)
    """For events of the timeline; zero: none is written."""
    events_of_one: int = 300
    """Events of one mailbox that are kept, the newest."""

    def of_tombstone(self, *, proved: bool) -> timedelta:
        """Return how long a tombstone is kept; strangers, whom no mail server ever accepted, leave nothing for long."""
        return self.tombstones if proved else min(self.tombstones, self.unproved)

    @property
    def period(self) -> float:
        """Seconds between two looks: half of the shortest time, so that nothing is kept much longer than that."""
        spans = (self.tombstones, self.unproved, self.token_gone, self.refused, self.untouched)
        shortest = min(span for span in spans if span is not None).total_seconds()
        return max(1.0, min(LONGEST_PERIOD, shortest / 2))
