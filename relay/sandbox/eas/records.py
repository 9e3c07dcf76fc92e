"""The records of the simulated EAS server about its clients, for tests, benchmarks and developers of apps."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

LOG_KEPT: Final = 1000  # requests per user
COMPLAINTS_KEPT: Final = 1000


class LoggedRequest(NamedTuple):
    """One request; `moment` is the time of the event loop in seconds."""

    command: str
    moment: float


@dataclass(frozen=True, slots=True)
class Complaint:
    """One fault of a client, in a fixed text."""

    user: str
    command: str
    text: str


@dataclass(slots=True)
class EasRecords:
    """Counters and logs."""

    requests: Counter[str] = field(default_factory=Counter)
    """Requests by command, OPTIONS and refused ones included."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Wrong passwords by user."""
    overlaps: Counter[str] = field(default_factory=Counter)
    """Pings that arrived while the server held another Ping of the same device, by user."""
    broken: Counter[str] = field(default_factory=Counter)
    """Held Pings whose client closed its connection or stream before there was an answer, by user."""
    complaints: deque[Complaint] = field(default_factory=lambda: deque(maxlen=COMPLAINTS_KEPT))
    ping_answered_at: dict[str, int] = field(default_factory=dict)
    """User -> when the last Ping answer with status 2 was sent, in nanoseconds of `time.perf_counter_ns`."""
    max_held: int = 0
    """The most Pings held at once."""
    at_once: int = 0
    """The requests being answered now, except Pings."""
    max_at_once: int = 0
    _logs: defaultdict[str, deque[LoggedRequest]] = field(
        default_factory=lambda: defaultdict(partial(deque, maxlen=LOG_KEPT))
    )

    def note(self, user: str, command: str, moment: float) -> None:
        """Record a request."""
        self.requests[command] += 1
        self._logs[user].append(LoggedRequest(command, moment))

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request while it is being answered."""
        self.at_once += 1
        self.max_at_once = max(self.max_at_once, self.at_once)
        try:
            yield
        finally:
            self.at_once -= 1

    def answered_at_once(self) -> None:
        """Count a request beside those that are being answered; it is answered before any other."""
        if self.at_once >= self.max_at_once:
            self.max_at_once = self.at_once + 1

    def log(self, user: str) -> tuple[LoggedRequest, ...]:
        """Return the last requests of a user, oldest first."""
        return tuple(self._logs.get(user, ()))
