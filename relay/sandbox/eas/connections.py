"""The connections of the simulated EAS server, and the faults that concern all of them."""

from typing import Protocol

from relay.sandbox.eas.holds import HeldPings
from relay.sandbox.eas.messages import HttpVersion


class Side(Protocol):
    """The connections of one version of HTTP."""

    def __len__(self) -> int:
        """Return the number of open connections."""

    def drop(self) -> None:
        """Cut all connections."""


class Multiplexed(Side, Protocol):
    """The connections of HTTP/2."""

    accepted: int
    resets: int
    violations: int
    pings: int
    streams: int

    @property
    def held(self) -> int:
        """The number of Pings held now."""

    @property
    def shares(self) -> list[int]:
        """How many Pings each connection holds."""

    def limit(self, streams: int) -> None:
        """Announce another number of concurrent streams."""

    def go_away(self, *, error: int = 0, graceful: bool = True) -> None:
        """Send GOAWAY on all connections."""

    def reset(self, error: int) -> None:
        """Reset the streams of all held Pings."""

    def freeze(self) -> None:
        """Neither read nor send any more."""


class Connections:
    """The connections of both versions of HTTP."""

    def __init__(self, pings: HeldPings, first: Side, second: Multiplexed) -> None:
        """Take the connections that speak HTTP/1.1 and those that speak HTTP/2."""
        self._pings = pings
        self._first = first
        self.http2 = second

    def drop(self) -> None:
        """Cut all connections."""
        self._first.drop()
        self.http2.drop()

    def state(self) -> dict[str, dict[str, int]]:
        """Return the counters of both versions of HTTP."""
        second = self.http2
        return {
            HttpVersion.HTTP_1_1: {"connections": len(self._first), "held": len(self._pings) - second.held},
            HttpVersion.HTTP_2: {
                "connections": len(second),
                "held": second.held,
                "accepted": second.accepted,
                "streams": second.streams,
                "resets": second.resets,
                "violations": second.violations,
                "pings": second.pings,
            },
        }
