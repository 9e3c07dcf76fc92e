"""How often one client address may ask: token buckets in bounded memory."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relay.http.addresses import shares
from relay.registration.errors import TooManyRequests

CAPACITY: Final = 10_000
"""The most buckets, about 300 bytes each; the one without a request for the longest time is dropped first."""


MINUTE: Final = 60  # seconds


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a limit leaves to a client, as the fields RateLimit and RateLimit-Policy say it."""

    name: str
    quota: int
    """Requests at most in `window` seconds."""
    window: int
    left: int
    """Requests that are possible now."""
    full_in: int
    """Seconds until all of them are."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """Allows each client `per_minute` requests, and a burst of some; networks of IPv6 have limits of their own."""

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float],
        *,
        burst: float | None = None,
        capacity: int = CAPACITY,
        refusal: type[TooManyRequests] = TooManyRequests,
    ) -> None:
        """Set up with the rate, at least 1, and a clock in seconds that never goes back; a burst may be a minute's.

        A request too many raises `refusal`.
        """
        self._refusal = refusal
        self._per_minute = max(1.0, per_minute)
        self._burst = self._per_minute if burst is None else burst
        self._fixed_burst = burst
        self._clock = clock
        self._capacity = capacity
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def allow(self, per_minute: float) -> None:
        """Allow another rate from now on; what clients have used of the old one stays used."""
        self._per_minute = max(1.0, per_minute)
        self._burst = self._per_minute if self._fixed_burst is None else self._fixed_burst

    def take(self, client: str) -> None:
        """Count a request of an address; raise TooManyRequests, and count nothing, if it has asked too often."""
        now = self._clock()
        filled = [(self._filled(key, times, now), times) for key, times in shares(client)]
        wait = max((1 - bucket.tokens) * 60 / (self._per_minute * times) for bucket, times in filled)
        if wait > 0:
            raise self._refusal(wait)
        for bucket, _ in filled:
            bucket.tokens -= 1

    def allowance(self, name: str, client: str) -> Allowance:
        """Return what is left to an address; the scarcest of its limits counts."""
        now = self._clock()
        filled = [(self._filled(key, times, now).tokens, times) for key, times in shares(client)]
        tokens, times = min(filled)
        missing = self._burst * times - tokens
        return Allowance(
            name, int(self._per_minute), MINUTE, int(tokens), math.ceil(missing * MINUTE / (self._per_minute * times))
        )

    def give_back(self, client: str) -> None:
        """Take back the count of a request of an address."""
        now = self._clock()
        for key, times in shares(client):
            bucket = self._filled(key, times, now)
            bucket.tokens = min(self._burst * times, bucket.tokens + 1)

    def _filled(self, key: str, times: int, now: float) -> _Bucket:
        """Return a bucket with what has flown into it since it was used last."""
        most = self._burst * times
        bucket = self._buckets.setdefault(key, _Bucket(most, now))
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * self._per_minute * times / 60)
        bucket.at = now
        return bucket
