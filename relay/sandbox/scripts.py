"""Own what the push simulators share: scripts of failures, and the memory of what was received."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Generic, NamedTuple, TypeAlias, TypeVar


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with a status and a reason instead of looking at the request."""

    status: int
    reason: str
    retry_after: str = ""
    """The Retry-After header, seconds or a date; empty: none."""
    field: str = ""
    """The field that is at fault, e.g. message.token (FCM's INVALID_ARGUMENT only); empty: none is named."""
    timestamp: int | None = None
    """Since when the device token is gone, milliseconds since 1970 (APNs' 410 only)."""
    pieces: int = 1
    """In how many DATA frames the body comes (APNs only)."""
    bare: bool = False
    """Whether the answer bears no apns-id (APNs only)."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Answer as usual, but so many seconds later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """Never answer; the connection stays."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the stream (HTTP/1.1: cut the connection)."""

    error_code: int = 7
    """[RFC 9113 7]; 7, REFUSED_STREAM, alone says that nothing was done with the request."""


@dataclass(frozen=True, slots=True)
class Close:
    """Cut the connection with everything under way on it."""


@dataclass(frozen=True, slots=True)
class GoAway:
    """Say GOAWAY (HTTP/1.1: cut the connection).

    Graceful: everything begun before is still answered, then the connection ends. Otherwise it ends at once, and this
    request counts as not processed.
    """

    graceful: bool = False
    error_code: int = 0
    """[RFC 9113 7]; a graceful one is always 0."""
    final: bool = False
    """Whether a graceful one names this request as the last: what was begun after it is left out."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Read and say nothing any more on this connection, as if what is on the way had swallowed it (APNs only)."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Answer as usual, and from then on allow so many requests at once on this connection (APNs only)."""

    limit: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut the connection in the middle of the answer (FCM only)."""


@dataclass(frozen=True, slots=True)
class Page:
    """Answer with an HTML page, as proxies and captive portals do (FCM only)."""

    status: int = 200


Failure: TypeAlias = Answer | Delay | Stall | Reset | Close | GoAway
ApnsFailure: TypeAlias = Failure | Freeze | Streams
FcmFailure: TypeAlias = Failure | Cut | Page

F = TypeVar("F")

KINDS: Mapping[str, type[Failure]] = {
    "answer": Answer,
    "delay": Delay,
    "stall": Stall,
    "reset": Reset,
    "close": Close,
    "goaway": GoAway,
}
"""The names of failures in JSON; their fields bear the same names as here."""
APNS_KINDS: Mapping[str, type[ApnsFailure]] = {**KINDS, "freeze": Freeze, "streams": Streams}
"""Those that the APNs simulator knows."""
FCM_KINDS: Mapping[str, type[FcmFailure]] = {**KINDS, "cut": Cut, "page": Page}
"""Those that the FCM simulator knows."""


class Received(NamedTuple):
    """Hold one request as it came and the status it was answered with; 0: no answer."""

    moment: int
    """`time.perf_counter_ns()`."""
    headers: Mapping[str, str]
    body: bytes
    device_token: str
    status: int


class Mixture(Generic[F]):
    """Let requests fail at random, the same way for the same seed and the same order of requests."""

    def __init__(self, shares: Sequence[tuple[F, float]], seed: int) -> None:
        """Take failures, each with the share of requests it happens to; raises ValueError unless they fit into 1."""
        if any(share < 0 for _, share in shares) or sum(share for _, share in shares) > 1:
            raise ValueError("shares are 0 or more, and 1 at most all together")
        self._shares = tuple(shares)
        self._random = Random(seed)  # noqa: S311  # seeded randomness is the point

    def next(self) -> F | None:
        """Draw the failure of the next request; None: it is treated as usual."""
        rest = self._random.random()
        for failure, share in self._shares:
            rest -= share
            if rest < 0:
                return failure
        return None


class Script(Generic[F]):
    """Hold what happens to the next requests."""

    def __init__(self) -> None:
        self._steps: deque[tuple[F, int]] = deque()
        self._mixture: Mixture[F] | None = None

    def add(self, failure: F, times: int = 1) -> None:
        """Let a failure happen to so many requests after those already scripted; 0: to all until `clear`."""
        self._steps.append((failure, times))

    def mix(self, mixture: Mixture[F]) -> None:
        """Let all requests fail at random for which nothing else is scripted, until `clear`."""
        self._mixture = mixture

    def clear(self) -> None:
        """Let nothing fail any more."""
        self._steps.clear()
        self._mixture = None

    def next(self) -> F | None:
        """Take the failure of the next request; None: it is treated as usual."""
        if not self._steps:
            return None if self._mixture is None else self._mixture.next()
        failure, times = self._steps[0]
        if times == 1:
            self._steps.popleft()
        elif times > 1:
            self._steps[0] = failure, times - 1
        return failure


class Inbox:
    """Keep what was received, in order, and let others wait for it."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._came = asyncio.Event()

    def add(self, received: Received) -> None:
        """Keep one request."""
        self.received.append(received)
        self._came.set()

    async def wait(self, count: int, timeout_s: float) -> list[Received]:
        """Wait until at least so many were received, and return all; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while len(self.received) < count:
                self._came.clear()
                await self._came.wait()
        return list(self.received)
