"""Own when a connection that says nothing is asked whether it lives, and when it is given up; no I/O, no clock.

Moments are `loop.time()` in seconds.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


@dataclass(frozen=True, slots=True)
class KeepaliveTimings:
    """Hold how long is waited for what; all in seconds."""

    idle: float = 30.0
    """Without a word from the server until it is asked by PING whether it is there; firewalls forget after 300."""
    waiting: float = 5.0
    """The same while requests wait for their answers."""
    pong: float = 10.0
    """For the answer to a PING, before the connection is given up."""
    tick: float = 1.0
    """Between two looks at all that."""


KEEPALIVE_TIMINGS: Final = KeepaliveTimings()


class Doubt(Enum):
    """Say what to do about a silence."""

    NONE = auto()
    ASK = auto()
    """Send a PING."""
    LOST = auto()
    """The last PING was not answered in time."""


class Silence:
    """Know when a server was heard last. Any word of it is a sign of life, not just the answer to a PING."""

    def __init__(self, pace: KeepaliveTimings, now: float) -> None:
        self._pace = pace
        self._heard_at = self._asked_at = now
        self._pinged_at: float | None = None

    def heard(self, now: float) -> None:
        """Hear that something came."""
        self._heard_at = now
        self._pinged_at = None

    def asked(self, now: float) -> None:
        """Hear that the first of some requests was sent: there was nothing to answer before."""
        self._asked_at = now

    def look(self, now: float, *, waiting: bool) -> Doubt:
        """Decide, given whether requests wait for answers."""
        if self._pinged_at is not None:
            return Doubt.LOST if now - self._pinged_at >= self._pace.pong else Doubt.NONE
        silent = now - self._heard_at
        unanswered = now - max(self._heard_at, self._asked_at) if waiting else 0.0
        if silent < self._pace.idle and unanswered < self._pace.waiting:
            return Doubt.NONE
        self._pinged_at = now
        return Doubt.ASK
