"""How long what has ended, or is of no use, is kept."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

UNPROVED: Final = timedelta(days=1)
"""How long a registration may wait to be accepted; mail servers are seldom away for longer."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long registrations and their tombstones are kept."""

    tombstones: timedelta = timedelta(days=30)
    unproved: timedelta = UNPROVED
    """For registrations that no mail server ever accepted."""

    def of_tombstone(self, *, proved: bool) -> timedelta:
        """Return how long a tombstone is kept; strangers, whom no mail server ever accepted, leave nothing for long."""
        return self.tombstones if proved else min(self.tombstones, self.unproved)
