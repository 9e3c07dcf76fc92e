"""Own what all runners of a process share, and what they count."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.ports import Journal, Now
from eas_watcher.runtime.timers import Timers
from eas_watcher.server.admission import ServerAdmission
from eas_watcher.server.idle_timeout import Lesson, PathKnowledge


@dataclass(slots=True)
class FleetStats:
    """Count what all watches of a process do, for metrics; plain numbers, read whenever wanted."""

    held: dict[MailboxId, float] = field(default_factory=dict)
    """Heartbeat in seconds of every Ping held now."""
    changes: Counter[CollectionClass] = field(default_factory=Counter)
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By command and what came of it: "answered" or the kind of failure."""
    doors: dict[str, ServerAdmission] = field(default_factory=dict)
    """By URL, the door to each server that was ever asked."""


@dataclass(frozen=True, slots=True)
class WatchContext:
    """Hold what all runners of a process share."""

    journal: Journal
    random: Random
    now: Now
    short_requests: int
    """How many requests other than held Pings may be under way at one server, so that no start or return is a storm."""
    stats: FleetStats = field(default_factory=FleetStats)
    waits: Timers = field(default_factory=Timers)
    lessons: Mapping[str, Lesson] = field(default_factory=dict)
    """By URL, what earlier processes learnt of the path to each server."""

    def door(self, url: str, rate: float) -> ServerAdmission:
        """Give the door to one server; each has its own, so that a server that hangs delays no other's mailboxes."""
        door = self.stats.doors.get(url)
        if door is None:
            door = self.stats.doors[url] = ServerAdmission(rate, self.short_requests, self.random, self.now)
            if (lesson := self.lessons.get(url)) is not None:
                door.path = PathKnowledge.recalled(lesson)
        return door
