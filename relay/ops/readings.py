"""What the ops listener of a process says: its health and its metrics, as another program reads them over HTTP."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from relay.ops.health import PartState

TIMEOUT: Final = 5.0  # seconds for connecting, and for each part of an answer
LARGEST: Final = 16_000_000  # bytes of an answer; thousands of servers would fit
ALIVE: Final = "/livez"
READY: Final = "/readyz"


@dataclass(frozen=True, slots=True)
class Sample:
    """The value of a metric for some labels."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class PartReading:
    """The state of a part, as /healthz tells it."""

    name: str
    state: PartState
    since: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What one process said at one moment."""

    url: str
    """http://HOST:PORT of its ops listener."""
    at: float
    """When it was read, in seconds of the reader's monotonic clock."""
    trouble: str = ""
    """Why it said nothing; empty: it did."""
    parts: tuple[PartReading, ...] = ()
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """By the name of the metric."""

    def of(self, name: str, **labels: str) -> list[Sample]:
        """Return the values of a metric that have these labels."""
        found = self.samples.get(name, ())
        return [each for each in found if all(each.labels.get(key) == value for key, value in labels.items())]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all labels but these."""
        return sum(each.value for each in self.of(name, **labels))

    def label(self, name: str, label: str) -> str:
        """Return a label of a metric that has one value."""
        return next((each.labels.get(label, "") for each in self.of(name)), "")

    @property
    def state(self) -> PartState:
        """The state of the process, that of its worst part; one that says nothing has failed."""
        return PartState.FAILED if self.trouble else worst_of(part.state for part in self.parts)


def worst_of(states: Iterable[PartState]) -> PartState:
    """Return the worst of some states; OK if there are none."""
    found = set(states)
    return next((state for state in (PartState.FAILED, PartState.DEGRADED) if state in found), PartState.OK)


def read(url: str, at: float, health: bytes, metrics: bytes) -> Reading:
    """Read the bodies of /healthz and /metrics; raises ValueError if they are not those of a relay."""
    try:
        parts = tuple(map(_part, json.loads(health)["parts"]))
        samples: dict[str, list[Sample]] = {}
        for family in text_string_to_metric_families(metrics.decode()):
            for each in family.samples:
                samples.setdefault(each.name, []).append(Sample(each.labels, each.value))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("answers, but not as a relay does") from error
    return Reading(url, at, parts=parts, samples=samples)


def _part(part: Any) -> PartReading:
    state = PartState(part["state"])
    return PartReading(str(part["part"]), state, str(part["since"]), str(part["reason"]), str(part["remedy"]))


def ask(url: str, at: float, timeout: float = TIMEOUT) -> Reading:
    """Ask a process for its health and its metrics; a process that does not answer is a reading with its trouble."""
    try:
        connection = _connection(url, timeout)
        try:
            health, metrics = _get(connection, "/healthz")[1], _get(connection, "/metrics")[1]
        finally:
            connection.close()
        return read(url, at, health, metrics)
    except (OSError, HTTPException, ValueError) as error:
        return Reading(url, at, trouble=_describe(error))


def ask_any(urls: Sequence[str], at: float, timeout: float = TIMEOUT) -> Reading:
    """Ask one process that may be reached at several addresses, one after the other; return its first answer."""
    reading = ask(urls[0], at, timeout)
    for url in urls[1:]:
        if reading.trouble:
            reading = ask(url, at, timeout)
    return reading


def probe(url: str, path: str, timeout: float = TIMEOUT) -> str:
    """Ask for ALIVE or READY; return why the process is not, or nothing."""
    try:
        connection = _connection(url, timeout)
        try:
            status, _ = _get(connection, path)
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError) as error:
        return _describe(error)
    return "" if status == 200 else f"answers {status} to {path}"  # noqa: PLR2004 -- HTTP's OK


def is_listener(url: str) -> bool:
    """Return True if a text is the http:// URL of a host, with a port or without."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and bool(parts.hostname) and parts.port != 0 and not parts.path.strip("/")
    except ValueError:
        return False


def _connection(url: str, timeout: float) -> HTTPConnection:
    parts = urlsplit(url)
    return HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)


def _get(connection: HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read(LARGEST + 1)
    if len(body) > LARGEST:
        raise ValueError("answers more than any relay")
    return response.status, body


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "gives no answer in time"
    if isinstance(error, OSError):
        return f"cannot be reached: {error.strerror or error}"
    return str(error) if isinstance(error, ValueError) else "answers, but not as HTTP"
