"""Failures of the push simulators, scripts of them, their form in JSON, and the record of requests."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with a status and a reason, without checking the request."""

    status: int
    reason: str
    retry_after: str = ""
    """The Retry-After header, seconds or a date; empty: no header."""
    field: str = ""
    """The field at fault, e.g. message.token (only for INVALID_ARGUMENT of FCM); empty: the answer names no field."""
    timestamp: int | None = None
    """When the device token became invalid, milliseconds since 1970 (only for 410 of APNs)."""
    pieces: int = 1
    """The number of DATA frames of the body (APNs only)."""
    bare: bool = False
    """Whether the answer has no apns-id (APNs only)."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Answer as usual, `seconds` later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """Never answer, and keep the connection open."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the stream (HTTP/1.1: cut the connection)."""

    error_code: int = 7
    """[RFC 9113 7]; only 7, REFUSED_STREAM, says that the request was not processed."""


@dataclass(frozen=True, slots=True)
class Close:
    """Cut the connection with all requests in flight on it."""


@dataclass(frozen=True, slots=True)
class GoAway:
    """Send GOAWAY (HTTP/1.1: cut the connection).

    If graceful, the service still answers the requests in flight, then ends the connection. Otherwise it ends the
    connection at once, and the GOAWAY says that this request was not processed.
    """

    graceful: bool = False
    error_code: int = 0
    """[RFC 9113 7]; a graceful one is always 0."""
    final: bool = False
    """Whether a graceful one names this request as the last: later requests in flight are not processed."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop reading and sending on this connection without closing it, as if packets were lost (APNs only)."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Answer as usual, and allow at most `limit` requests at once on this connection from then on (APNs only)."""

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
"""The failures by their `kind` in JSON; their fields have the same names there."""
APNS_KINDS: Mapping[str, type[ApnsFailure]] = {**KINDS, "freeze": Freeze, "streams": Streams}
"""The failures that the APNs simulator can simulate."""
FCM_KINDS: Mapping[str, type[FcmFailure]] = {**KINDS, "cut": Cut, "page": Page}
"""The failures that the FCM simulator can simulate."""


class Received(NamedTuple):
    """One request and the status of its answer; 0: no answer."""

    moment: int
    """`time.perf_counter_ns()`."""
    headers: Mapping[str, str]
    body: bytes
    device_token: str
    status: int


class Mixture(Generic[F]):
    """Failures at random; the same seed and the same order of requests lead to the same failures."""

    def __init__(self, shares: Sequence[tuple[F, float]], seed: int) -> None:
        """`shares` are failures, each with its share of all requests; raises ValueError if their sum is above 1."""
        if any(share < 0 for _, share in shares) or sum(share for _, share in shares) > 1:
            raise ValueError("shares are 0 or more, and 1 at most all together")
        self._shares = tuple(shares)
        self._random = Random(seed)  # noqa: S311  # seeded randomness is the point

    def next(self) -> F | None:
        """Return the failure of the next request; None: no failure."""
        rest = self._random.random()
        for failure, share in self._shares:
            rest -= share
            if rest < 0:
                return failure
        return None


class Script(Generic[F]):
    """The failures of the next requests."""

    def __init__(self) -> None:
        self._steps: deque[tuple[F, int]] = deque()
        self._mixture: Mixture[F] | None = None

    def add(self, failure: F, times: int = 1) -> None:
        """Let `times` requests fail, after those of earlier calls; 0: all requests until `clear`."""
        self._steps.append((failure, times))

    def mix(self, mixture: Mixture[F]) -> None:
        """Let requests without another failure fail at random, until `clear`."""
        self._mixture = mixture

    @property
    def left(self) -> int:
        """The number of failures that `add` was given and that have not all happened."""
        return len(self._steps)

    def clear(self) -> None:
        """Forget all failures."""
        self._steps.clear()
        self._mixture = None

    def next(self) -> F | None:
        """Return the failure of the next request; None: no failure."""
        if not self._steps:
            return None if self._mixture is None else self._mixture.next()
        failure, times = self._steps[0]
        if times == 1:
            self._steps.popleft()
        elif times > 1:
            self._steps[0] = failure, times - 1
        return failure


class Inbox:
    """The requests received, oldest first."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._arrived = asyncio.Event()

    def add(self, received: Received) -> None:
        """Add one request."""
        self.received.append(received)
        self._arrived.set()

    async def wait(self, count: int, timeout_s: float) -> list[Received]:
        """Return all requests as soon as there are `count`; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while len(self.received) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return list(self.received)


def read_failure(fields: Mapping[str, Any], kinds: Mapping[str, type[F]]) -> tuple[F, int]:
    """Return the failure that {"kind", "times", its fields} describes, and `times`; raises ValueError."""
    rest = dict(fields)
    times = rest.pop("times", 1)
    if not isinstance(times, int) or times < 0:
        raise ValueError("times is a number, 0 for always")
    return _read_kind(rest, kinds), times


def read_mixture(fields: Mapping[str, Any], kinds: Mapping[str, type[F]]) -> Mixture[F]:
    """Return the mixture that {"seed", "failures": [{"kind", "share", its fields}]} describes; raises ValueError."""
    seed, failures = fields.get("seed", 1), fields.get("failures")
    if not isinstance(seed, int) or not isinstance(failures, list):
        raise ValueError("failures is a list, seed a number")  # noqa: TRY004 -- a fault of the JSON, not of the code
    shares: list[tuple[F, float]] = []
    for failure in failures:
        rest = dict(failure) if isinstance(failure, dict) else {}
        share = rest.pop("share", None)
        if not isinstance(share, int | float):
            raise ValueError("each failure has a share, 0 to 1")  # noqa: TRY004 -- a fault of the JSON, not of the code
        shares.append((_read_kind(rest, kinds), share))
    return Mixture(shares, seed)


def _read_kind(fields: dict[str, Any], kinds: Mapping[str, type[F]]) -> F:
    kind = fields.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"kind is one of {', '.join(kinds)}")
    try:
        return kinds[kind](**fields)
    except TypeError as error:
        raise ValueError(f"{kind}: {error}") from error
