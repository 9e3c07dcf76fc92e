"""The heartbeat interval: how long the server may hold a Ping, learnt from Pings that expired or were cut.

After two expiries in a row the interval rises. After a cut of a held Ping it falls to three quarters of the time that
the Ping survived, and stays there for a day only: a restarted server cuts Pings, too, and must not be pinged every
minute for ever. A Ping that fails within its first seconds says nothing about idle timeouts.

Some servers end every Ping after a time of their own, whatever they are asked for, and name no limit [observed: Horde's
setting forcedheartbeat]. Two early ends in a row after the same time show such a hold.
"""

from dataclasses import dataclass
from typing import Final

from eas_watcher.values import replace

START: Final = 600  # seconds; keeps Exchange's average above its 540 s alert threshold (event 1040)
MINIMUM: Final = 60  # seconds, Exchange's default lower bound [MS-ASCMD 2.2.3.79.1]
MAXIMUM: Final = 1680  # seconds
LONGEST: Final = 3540  # seconds, the upper bound of the protocol [MS-ASCMD 2.2.3.79.1]
STEP: Final = 300  # seconds
EXPIRIES_TO_RAISE: Final = 2
TRUST: Final = 24 * 3600  # seconds of Pings held to their end, after which a higher interval is tried again
JITTER: Final = 0.1  # up to 10 % longer, so that Pings that begin together do not end together for ever
EARLY: Final = 0.75  # share of the interval; a Ping that the server ends before that ends early
ALIKE: Final = 0.1  # holds of a server differ by this share, or by
LOOK: Final = 2.0  # seconds, because servers look for changes every few seconds only
SHORTEST_HOLD: Final = 5.0  # seconds; Pings that end faster are no hold, but the work of a second client
HELD: Final = 30.0  # seconds; a connection lost earlier was lost by the server, not by an idle timeout


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The interval in whole seconds, its bounds, and how many Pings in a row expired."""

    interval: int = START
    minimum: int = MINIMUM
    maximum: int = MAXIMUM
    expiries: int = 0
    cut_off: int | None = None
    """The upper bound learnt from a cut; None: no Ping was cut, or not within the last day."""
    ended_early: float | None = None
    """Seconds after which the server ended the last Ping, if that was early; None: it was not."""
    hold: float | None = None
    """Seconds after which the server ends every Ping, whatever it is asked for; None: it does not."""

    def spread(self, share: float) -> int:
        """Return how many seconds to ask for: the interval and up to `share` (0 to JITTER) more, within the bounds."""
        ceiling = self.maximum if self.cut_off is None else min(self.maximum, self.cut_off)
        return max(self.interval, min(ceiling, int(self.interval * (1.0 + share))))

    def expired(self) -> "Heartbeat":
        """Return the heartbeat after a Ping that the server held to its end."""
        expiries = self.expiries + 1
        ceiling = self.maximum
        if self.cut_off is not None:
            if expiries * self.interval >= TRUST:
                return replace(self, expiries=0, cut_off=None)
            ceiling = min(self.maximum, self.cut_off)
        if expiries < EXPIRIES_TO_RAISE or self.interval >= ceiling:
            return replace(self, expiries=expiries)
        return replace(self, interval=min(ceiling, self.interval + STEP), expiries=0)

    def is_early(self, held: float) -> bool:
        """Return True if a Ping that the server ended after `held` seconds should have been held longer."""
        return held < self.interval * EARLY

    def explains(self, held: float) -> bool:
        """Return True if the server's own hold explains that a Ping ended after `held` seconds."""
        return self.hold is not None and _are_alike(self.hold, held)

    def ended(self, held: float) -> "Heartbeat":
        """Return the heartbeat after the server ended a Ping without a change after `held` seconds, early or not."""
        if not self.is_early(held):
            return replace(self, ended_early=None, hold=None)
        if self.explains(held):
            return replace(self, ended_early=held)
        last = self.ended_early
        repeated = last is not None and held >= SHORTEST_HOLD and _are_alike(last, held)
        longer = self.hold is not None and held > self.hold
        return replace(self, ended_early=held, hold=held if repeated else None if longer else self.hold)

    def cut(self, survived: float) -> "Heartbeat":
        """Return the heartbeat after a Ping whose connection was cut after `survived` seconds."""
        if survived < HELD:
            return replace(self, expiries=0)
        ceiling = max(self.minimum, min(int(survived * 0.75), self.interval))
        return replace(self, interval=ceiling, expiries=0, cut_off=ceiling)

    def adopt_limit(self, limit: int, asked: int) -> "Heartbeat":
        """Return the heartbeat with a bound that the server named (Ping status 5) [MS-ASCMD 2.2.3.177.11].

        It is an upper bound if the Ping `asked` for more, which may be more than the interval (see JITTER). A limit
        beyond the protocol's is ignored: a Ping held for a year would report nothing.
        """
        limit = min(max(1, limit), LONGEST)
        if limit < asked:
            interval, minimum = min(self.interval, limit), min(self.minimum, limit)
            return replace(self, interval=interval, minimum=minimum, maximum=limit, expiries=0)
        interval, maximum = max(self.interval, limit), max(self.maximum, limit)
        return replace(self, interval=interval, minimum=limit, maximum=maximum, expiries=0)


def _are_alike(one: float, other: float) -> bool:
    return abs(one - other) <= max(LOOK, ALIKE * one)


def deadline(interval: float) -> float:
    """Return after how many seconds an unanswered Ping counts as lost; servers hold it longer than asked.

    A Ping of 660 s took 665.3 s [observed: SOGo 5.8, 2026-11].
    """
    return interval * 1.1 + 30.0
