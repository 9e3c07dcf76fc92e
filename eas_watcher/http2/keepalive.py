"""When a silent connection is asked for a sign of life, and when it counts as dead; no I/O, no clock.

Moments are `loop.time()` in seconds.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


@dataclass(frozen=True, slots=True)
class KeepaliveTimings:
    """The times of one connection, in seconds."""

    idle: float = 30.0
    """Silence of the server until the relay sends a PING; firewalls forget a connection after 300."""
    waiting: float = 5.0
    """The same while requests wait for their answers."""
    pong: float = 10.0
    """From a PING until the connection counts as dead."""
    tick: float = 1.0
    """Between two checks."""


KEEPALIVE_TIMINGS: Final = KeepaliveTimings()


class KeepaliveStep(Enum):
    """What to do about a silent server."""

    NONE = auto()
    PING = auto()
    GIVE_UP = auto()
    """The last PING was not answered in time."""


class Silence:
    """How long the server has been silent. Any byte is a sign of life, not just the answer to a PING."""

    def __init__(self, timings: KeepaliveTimings, now: float) -> None:
        self._timings = timings
        self._heard_at = self._asked_at = now
        self._pinged_at: float | None = None

    def heard(self, now: float) -> None:
        """Note that something came."""
        self._heard_at = now
        self._pinged_at = None

    def asked(self, now: float) -> None:
        """Note that a request was sent while no other was in flight: before, there was nothing to answer."""
        self._asked_at = now

    def check(self, now: float, *, waiting: bool) -> KeepaliveStep:
        """Decide what to do; `waiting` is True if requests wait for answers."""
        if self._pinged_at is not None:
            return KeepaliveStep.GIVE_UP if now - self._pinged_at >= self._timings.pong else KeepaliveStep.NONE
        silent = now - self._heard_at
        unanswered = now - max(self._heard_at, self._asked_at) if waiting else 0.0
        if silent < self._timings.idle and unanswered < self._timings.waiting:
            return KeepaliveStep.NONE
        self._pinged_at = now
        return KeepaliveStep.PING
