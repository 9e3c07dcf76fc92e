"""What all watches of a process share, and what they count."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from eas_watcher.machine.sharing import Sharing
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.ports import Journal, Tries
from eas_watcher.runtime.timers import Timers
from eas_watcher.server.admissions import Admissions


@dataclass(slots=True)
class FleetStats:
    """What all watches of a process do, counted for metrics; plain numbers, read at any time."""

    held: dict[MailboxId, float] = field(default_factory=dict)
    """Heartbeat in seconds of every Ping held now."""
    changes: Counter[CollectionClass] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class WatchContext:
    """What all runners of a process share."""

    journal: Journal
    random: Random
    admissions: Admissions
    stats: FleetStats = field(default_factory=FleetStats)
    timers: Timers = field(default_factory=Timers)
    sharing: Sharing = field(default_factory=Sharing)
    tries: Tries | None = None
    """Counts the tries of refused credentials; None: nobody else shows credentials of these accounts."""

    def now(self) -> datetime:
        """Return now as an aware UTC datetime."""
        return self.admissions.now()

    def ping_begins(self, mailbox: MailboxId, heartbeat: float) -> None:
        """Note that a Ping of `heartbeat` seconds is held from now on."""
        seconds = self.sharing.seconds(heartbeat)
        self.stats.held[mailbox] = seconds
        self.journal.pinged(mailbox, seconds)

    def ping_ends(self, mailbox: MailboxId) -> None:
        """Note that it is not held any more."""
        self.stats.held.pop(mailbox, None)
