"""Own what is known of the path to a mail server: which heartbeat its Pings have survived, and what cuts them.

Firewalls, balancers and proxies forget connections that are silent for some time, each after a constant one. So cuts
after nearly the same time, at different moments, tell of an idle timeout; cuts at one moment after any time tell of a
server that was restarted. What one mailbox learnt is where the next one starts.
"""

from dataclasses import dataclass, replace
from typing import Final

from eas_watcher.heartbeat import HELD, Heartbeat

KEPT: Final = 8  # cuts
ENOUGH: Final = 3  # cuts that agree
SPREAD: Final = 4.0  # seconds between the shortest and the longest of them: 2 s more or less
OFTEN: Final = 120  # seconds; a request of each mailbox more often than that is worth a word to the operator
APART: Final = 1.0  # seconds; cuts closer together are one event


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """Hold between how many seconds Pings are cut."""

    shortest: float
    longest: float

    @property
    def middle(self) -> float:
        """The likely idle timeout in seconds."""
        return (self.shortest + self.longest) / 2

    def covers(self, survived: float) -> bool:
        """Tell whether a cut after `survived` seconds is one of these."""
        return self.longest - SPREAD <= survived <= self.shortest + SPREAD


@dataclass(frozen=True, slots=True)
class Lesson:
    """Hold what is worth keeping of a path when the process ends."""

    interval: int
    """Seconds of a heartbeat that survived."""
    cut_off: IdleTimeout | None = None


@dataclass(frozen=True, slots=True)
class PathKnowledge:
    """Hold what all Pings to one server have taught."""

    proven: Heartbeat | None = None
    """The last heartbeat that survived; None: none so far in this process."""
    cuts: tuple[tuple[float, float], ...] = ()
    """Of the last cuts the moment and the seconds survived, oldest first."""
    cut_off: IdleTimeout | None = None
    remembered: int | None = None
    """Seconds of a heartbeat that survived in an earlier process."""

    @classmethod
    def recalled(cls, lesson: Lesson) -> "PathKnowledge":
        """Begin with what an earlier process learnt."""
        return cls(cut_off=lesson.cut_off, remembered=lesson.interval)

    @property
    def lesson(self) -> Lesson | None:
        """What is worth keeping; None: nothing so far."""
        interval = self.remembered if self.proven is None else self.proven.interval
        return None if interval is None else Lesson(interval, self.cut_off)

    def start(self, configured: Heartbeat) -> Heartbeat:
        """Tell from which heartbeat a mailbox starts; the bounds are those configured now, or told by the server."""
        if self.proven is not None:
            return replace(self.proven, expiries=0)
        if self.remembered is None:
            return configured
        interval = min(max(self.remembered, configured.minimum), configured.maximum)
        return replace(configured, interval=interval, cut_off=None if self.cut_off is None else interval)

    def held(self, heartbeat: Heartbeat, seconds: float) -> "PathKnowledge":
        """Learn that a Ping was held to its end, `seconds` long; what held longer than a cut-off disproves it."""
        if self.cut_off is not None and seconds > self.cut_off.longest + SPREAD:
            return PathKnowledge(heartbeat)
        if heartbeat.cut_off is not None or seconds < heartbeat.interval * 0.75:
            return self  # what a mailbox came down to after a cut of its own is no measure for others
        return replace(self, proven=heartbeat)

    def cut(self, heartbeat: Heartbeat, survived: float, now: float) -> "PathKnowledge":
        """Learn that a Ping was cut after `survived` seconds; `heartbeat` is what its mailbox goes on with.

        `now` is seconds of any monotonic clock. A single cut teaches the mailbox alone: it may have been anything.
        """
        if survived < HELD or (self.cuts and now - self.cuts[-1][0] < APART):
            return self
        cuts = (*self.cuts, (now, survived))[-KEPT:]
        alike = [seconds for _, seconds in cuts if abs(seconds - survived) <= SPREAD]
        shortest, longest = min(alike), max(alike)
        if len(alike) < ENOUGH or longest - shortest > SPREAD:
            return replace(self, cuts=cuts)
        return PathKnowledge(heartbeat, cuts, IdleTimeout(shortest, longest))

    def describe(self, server: str) -> str:
        """Say what cuts Pings, in words for an operator; empty while nothing is known to."""
        if self.cut_off is None:
            return ""
        low, high = round(self.cut_off.shortest), round(self.cut_off.longest)
        span = f"{low} s" if low == high else f"{low}\N{EN DASH}{high} s"
        timeout = round(self.cut_off.middle)
        said = f"Pings to {server} are cut after {span}: an idle timeout of {timeout} s lies on the path"
        lesson = self.lesson
        if lesson is not None and lesson.interval < OFTEN:
            said += f", and each mailbox asks anew every {lesson.interval} s"
        return said
