"""Which connections a listener takes: decided when they are accepted, before TLS, and without I/O."""

import math
from collections import Counter
from enum import StrEnum
from typing import Final

from relay.http.addresses import NO_PROXIES, Proxies, shares

MOST: Final = 4096  # connections at once to one listener, however many files the process may open
PART: Final = 4
"""The API takes one in four of the files that the process may open; Pings, pushes and the database have the others."""
PER_CLIENT: Final = 256  # connections at once of one address; phones behind NAT have one together


class Refused(StrEnum):
    """Why a connection ended without a request, in the words of the metric."""

    FULL = "full"
    """The listener has all its connections."""
    ADDRESS = "address"
    """The client's address, or its network, has all its connections."""
    FILES = "files"
    """The process has no file left."""
    HANDSHAKE = "handshake"
    """The TLS handshake failed, or took too long."""
    SILENT = "silent"
    """No request came in time."""


class Admission:
    """The connections of one listener, counted in all and for each client."""

    def __init__(self, most: int = MOST, per_client: int = MOST, proxies: Proxies = NO_PROXIES) -> None:
        """Set up with the most connections in all and of one client; `proxies` may have all of them."""
        self._most = most
        self._per_client = per_client
        self._proxies = proxies
        self._clients: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        """The connections of each address, from which those of the clients are counted again when `proxies` change."""
        self.open = 0
        self.refused: Counter[Refused] = Counter()

    def enter(self, address: str) -> Refused | None:
        """Count a new connection; return instead why it must be closed at once."""
        refused = self._refusal(address)
        if refused is not None:
            self.refused[refused] += 1
            return refused
        self.open += 1
        self._addresses[address] += 1
        for key, _ in self._keys(address):
            self._clients[key] += 1
        return None

    def allow(self, per_client: int, proxies: Proxies) -> None:
        """Allow one client so many connections from now on, and `proxies` all of them."""
        self._per_client, self._proxies = per_client, proxies
        self._clients.clear()
        for address, number in self._addresses.items():
            for key, _ in self._keys(address):
                self._clients[key] += number

    def leave(self, address: str) -> None:
        """Count the end of a connection that entered."""
        self.open -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
        for key, _ in self._keys(address):
            self._clients[key] -= 1
            if not self._clients[key]:
                del self._clients[key]

    def _refusal(self, address: str) -> Refused | None:
        if self.open >= self._most:
            return Refused.FULL
        if any(self._clients[key] >= self._per_client * times for key, times in self._keys(address)):
            return Refused.ADDRESS
        return None

    def _keys(self, address: str) -> tuple[tuple[str, int], ...]:
        return () if address in self._proxies else shares(address)


def api_connections(files: int) -> int:
    """Return the most connections of the API in a process that may open so many files."""
    return min(MOST, files // PART)


class Pace:
    """How fast a listener begins connections, so that a flood takes a bounded part of the loop's time."""

    def __init__(self, per_second: float, burst: float) -> None:
        """Set up with the begun connections per second, and how many may begin at once after a pause."""
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = -math.inf

    def spend(self, cost: float) -> None:
        """Count what was done, in begun connections."""
        self._left -= cost

    def wait(self, now: float) -> float:
        """Return the seconds until the listener may go on; 0: at once."""
        passed, self._at = now - self._at, max(now, self._at)
        self._left = min(self._burst, self._left + max(0.0, passed) * self._per_second)
        return max(0.0, -self._left / self._per_second)
