"""Own what the simulated EAS server notes of its clients, for tests, benchmarks and whoever writes an app."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

LOG_KEPT: Final = 1000  # requests per user
COMPLAINTS_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """Hold one request; `moment` is the event loop's time in seconds."""

    command: str
    moment: float


@dataclass(frozen=True, slots=True)
class Complaint:
    """Hold one fault of a client, in fixed words."""

    user: str
    command: str
    text: str


@dataclass(slots=True)
class EasRecords:
    """Count and log; plain values, read whenever wanted."""

    requests: Counter[str] = field(default_factory=Counter)
    """By command, OPTIONS among them, refused ones too."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Wrong passwords, by user."""
    overlaps: Counter[str] = field(default_factory=Counter)
    """Pings that came while another Ping of the same device was held, by user."""
    complaints: deque[Complaint] = field(default_factory=lambda: deque(maxlen=COMPLAINTS_KEPT))
    ping_answered_at: dict[str, int] = field(default_factory=dict)
    """By user, when the last Ping answer with status 2 left, in nanoseconds of `time.perf_counter_ns`."""
    max_held: int = 0
    at_once: int = 0
    """Requests that are being answered now, held Pings left out."""
    max_at_once: int = 0
    _logs: dict[str, deque[LoggedRequest]] = field(default_factory=dict)

    def note(self, user: str, command: str, moment: float) -> None:
        """Note that a request came."""
        self.requests[command] += 1
        self._logs.setdefault(user, deque(maxlen=LOG_KEPT)).append(LoggedRequest(command, moment))

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request as long as it is being answered."""
        self.at_once += 1
        self.max_at_once = max(self.max_at_once, self.at_once)
        try:
            yield
        finally:
            self.at_once -= 1

    def log(self, user: str) -> tuple[LoggedRequest, ...]:
        """Return the last requests of a user, oldest first."""
        return tuple(self._logs.get(user, ()))
