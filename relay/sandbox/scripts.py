"""Own what the push simulators share: scripts of failures, and the memory of what was received."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with a status and a reason instead of looking at the request."""

    status: int
    reason: str
    retry_after: str = ""
    """The Retry-After header, seconds or a date; empty: none."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Answer as usual, but so many seconds later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """Never answer; the connection stays."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the stream with REFUSED_STREAM (HTTP/1.1: cut the connection)."""


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


Failure: TypeAlias = Answer | Delay | Stall | Reset | Close | GoAway

KINDS: Mapping[str, type[Failure]] = {
    "answer": Answer,
    "delay": Delay,
    "stall": Stall,
    "reset": Reset,
    "close": Close,
    "goaway": GoAway,
}
"""The names of failures in JSON; their fields bear the same names as here."""


class Received(NamedTuple):
    """Hold one request as it came and the status it was answered with; 0: no answer."""

    moment: int
    """`time.perf_counter_ns()`."""
    headers: Mapping[str, str]
    body: bytes
    device_token: str
    status: int


class Script:
    """Hold what happens to the next requests."""

    def __init__(self) -> None:
        self._steps: deque[tuple[Failure, int]] = deque()

    def add(self, failure: Failure, times: int = 1) -> None:
        """Let a failure happen to so many requests after those already scripted; 0: to all until `clear`."""
        self._steps.append((failure, times))

    def clear(self) -> None:
        """Let nothing fail any more."""
        self._steps.clear()

    def next(self) -> Failure | None:
        """Take the failure of the next request; None: it is treated as usual."""
        if not self._steps:
            return None
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
