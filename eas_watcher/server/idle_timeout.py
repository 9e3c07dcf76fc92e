"""What the relay knows of the path to a mail server: which heartbeat Pings survive, and which idle timeout cuts them.

Firewalls, balancers and proxies drop connections that are silent for a fixed time. So Pings that are cut at different
moments, each after nearly the same time, show an idle timeout; Pings that are cut at the same moment, after different
times, show that the server was restarted. A mailbox starts with what the others have learnt.
"""

from dataclasses import dataclass
from typing import Final

from eas_watcher.heartbeat import HELD, Heartbeat
from eas_watcher.values import replace

KEPT: Final = 8  # cuts
ENOUGH: Final = 3  # cuts that agree
SPREAD: Final = 4.0  # seconds between the shortest and the longest of them: 2 s more or less
OFTEN: Final = 120  # seconds; if each mailbox sends a request more often than that, the operator should know
APART: Final = 1.0  # seconds; cuts closer together are one event


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """The range of seconds after which Pings are cut."""

    shortest: float
    longest: float

    @property
    def middle(self) -> float:
        """The likely idle timeout in seconds."""
        return (self.shortest + self.longest) / 2

    def covers(self, survived: float) -> bool:
        """Return whether this timeout explains a cut after `survived` seconds."""
        return self.longest - SPREAD <= survived <= self.shortest + SPREAD


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is kept of a server and the path to it for the next process."""

    interval: int | None
    """A heartbeat that survived, in seconds; None: unknown."""
    cut_off: IdleTimeout | None = None
    capacity: int | None = None
    """How many Pings the server holds at once; None: as many as it is asked to hold."""


@dataclass(frozen=True, slots=True)
class PathKnowledge:
    """What all Pings to one server have shown."""

    proven: Heartbeat | None = None
    """The last heartbeat that survived; None: none has in this process."""
    cuts: tuple[tuple[float, float], ...] = ()
    """The last cuts, oldest first: the moment of each, and the seconds that its Ping survived."""
    cut_off: IdleTimeout | None = None
    remembered: int | None = None
    """A heartbeat that survived in an earlier process, in seconds; None: unknown."""

    @classmethod
    def recalled(cls, lesson: Lesson) -> "PathKnowledge":
        """Return the knowledge with which a process starts: that of an earlier one."""
        return cls(cut_off=lesson.cut_off, remembered=lesson.interval)

    @property
    def lesson(self) -> Lesson | None:
        """What the next process should know; None: nothing."""
        interval = self.remembered if self.proven is None else self.proven.interval
        return None if interval is None else Lesson(interval, self.cut_off)

    def start(self, configured: Heartbeat) -> Heartbeat:
        """Return the heartbeat with which a mailbox starts, within the bounds of the settings or of the server."""
        if self.proven is not None:
            return replace(self.proven, expiries=0)
        if self.remembered is None:
            return configured
        interval = min(max(self.remembered, configured.minimum), configured.maximum)
        return replace(configured, interval=interval, cut_off=None if self.cut_off is None else interval)

    def held(self, heartbeat: Heartbeat, seconds: float) -> "PathKnowledge":
        """Return the knowledge after a Ping was held to its end, for `seconds`.

        A Ping that outlasts a known idle timeout disproves it.
        """
        if self.cut_off is not None and seconds > self.cut_off.longest + SPREAD:
            return PathKnowledge(heartbeat)
        if heartbeat.cut_off is not None or seconds < heartbeat.interval * 0.75:
            return self  # a mailbox that lowered its heartbeat after a cut shows nothing about others
        return replace(self, proven=heartbeat)

    def cut(self, heartbeat: Heartbeat, survived: float, now: float) -> "PathKnowledge":
        """Return the knowledge after a Ping was cut after `survived` seconds.

        `heartbeat` is the one that its mailbox uses from now on; `now` is seconds of any monotonic clock. A single cut
        may have any cause, so it changes the heartbeat of its own mailbox only.
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
        """Return in words for an operator what cuts Pings; empty if no idle timeout is known."""
        if self.cut_off is None:
            return ""
        low, high = round(self.cut_off.shortest), round(self.cut_off.longest)
        span = f"{low} s" if low == high else f"{low}\N{EN DASH}{high} s"
        timeout = round(self.cut_off.middle)
        text = f"Pings to {server} are cut after {span}: an idle timeout of {timeout} s lies on the path"
        interval = self.remembered if self.proven is None else self.proven.interval
        if interval is not None and interval < OFTEN:
            text += f", and each mailbox asks again every {interval} s"
        return text
