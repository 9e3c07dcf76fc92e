"""How often one client address may ask for a new registration: token buckets in bounded memory."""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relay.registration.errors import TooManyRequests

CAPACITY: Final = 10_000
"""The most addresses, about 300 bytes each; the address without a request for the longest time is dropped first."""
IPV6_PREFIX: Final = 64  # bits; one client has all addresses of this prefix [RFC 6177]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """Allows each address `per_minute` requests, and a burst of as many."""

    def __init__(self, per_minute: float, clock: Callable[[], float], *, capacity: int = CAPACITY) -> None:
        """Set up with the rate, at least 1, and a clock in seconds that never goes back."""
        self._burst = max(1.0, per_minute)
        self._per_second = self._burst / 60
        self._clock = clock
        self._capacity = capacity
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, address: str) -> None:
        """Count a request; raise TooManyRequests if the address has asked too often."""
        now = self._clock()
        key = _client(address)
        bucket = self._buckets.setdefault(key, _Bucket(self._burst, now))
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
        if bucket.tokens < 1:
            raise TooManyRequests((1 - bucket.tokens) / self._per_second)
        bucket.tokens -= 1


def client_address(peer: str | None, forwarded_for: str | None, *, behind_proxy: bool) -> str:
    """Return the client: behind a proxy the last address of X-Forwarded-For, which that proxy wrote; else the peer."""
    if behind_proxy and forwarded_for is not None:
        last = forwarded_for.rpartition(",")[2].strip()
        if _parsed(last) is not None:
            return last
    return peer or "unknown"


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def _client(address: str) -> str:
    """Return one key for all addresses of one client."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), IPV6_PREFIX), strict=False))
    return address
