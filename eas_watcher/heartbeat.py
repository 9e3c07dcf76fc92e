"""Own the heartbeat interval: how long the server may hold a Ping, learnt from what survived.

Raise after two expiries in a row; after a cut of a held Ping come down to three quarters of what survived and stay
there. A Ping that fails within its first seconds says nothing about idle timeouts.
"""

from dataclasses import dataclass, replace
from typing import Final

START: Final = 600  # seconds; keeps Exchange's average above its 540 s alert threshold (event 1040)
MINIMUM: Final = 60  # seconds, Exchange's default lower bound [MS-ASCMD 2.2.3.79.1]
MAXIMUM: Final = 1680  # seconds
STEP: Final = 300  # seconds
EXPIRIES_TO_RAISE: Final = 2
HELD: Final = 30.0  # seconds; a connection lost before was the server's trouble, not an idle timeout


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Hold the interval in whole seconds, its bounds, and how many Pings in a row ran to their end."""

    interval: int = START
    minimum: int = MINIMUM
    maximum: int = MAXIMUM
    expiries: int = 0

    def expired(self) -> "Heartbeat":
        """Learn that the server held a Ping to its end."""
        expiries = self.expiries + 1
        if expiries < EXPIRIES_TO_RAISE or self.interval >= self.maximum:
            return replace(self, expiries=expiries)
        return replace(self, interval=min(self.maximum, self.interval + STEP), expiries=0)

    def cut(self, survived: float) -> "Heartbeat":
        """Learn that a Ping held for `survived` seconds was cut on the way."""
        if survived < HELD:
            return replace(self, expiries=0)
        ceiling = max(self.minimum, min(int(survived * 0.75), self.interval))
        return replace(self, interval=ceiling, maximum=ceiling, expiries=0)

    def told(self, limit: int) -> "Heartbeat":
        """Adopt the nearest limit that the server named (Ping status 5) as a bound [MS-ASCMD 2.2.3.177.11]."""
        limit = max(1, limit)
        if limit < self.interval:
            return replace(self, interval=limit, minimum=min(self.minimum, limit), maximum=limit, expiries=0)
        return replace(self, interval=limit, minimum=limit, maximum=max(self.maximum, limit), expiries=0)


def deadline(interval: float) -> float:
    """Tell after how many seconds an unanswered Ping is dead: servers hold longer than asked.

    660 s took 665.3 s [observed: SOGo 5.8, 2026-11].
    """
    return interval * 1.1 + 30.0
