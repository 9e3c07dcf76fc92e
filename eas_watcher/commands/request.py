"""The form of every command, and of the HTTP requests and answers that carry it."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Generic, TypeVar

from eas_watcher.names import PolicyKey, ProtocolVersion
from eas_watcher.values import by_slots

SMALL: Final = 256 * 1024  # octets; answers but those of Sync and FolderSync have a few thousand
LARGE: Final = 8 * 1024 * 1024  # octets; a Sync answer of 100 items without bodies has about 50 KiB

R_co = TypeVar("R_co", covariant=True)


@by_slots
@dataclass(frozen=True, slots=True)
class HttpReply:
    """One whole HTTP answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    set_cookies: tuple[str, ...] = ()
    """The values of all Set-Cookie headers, in order."""


class Command(Generic[R_co]):
    """One request to the server, whose answer reads as `R_co`.

    Its metaclass is not that of ABC, whose `isinstance` is a call in Python, of which each mail made three.
    """

    name: ClassVar[str]
    """The `Cmd` parameter; empty for OPTIONS, which is not a command."""

    policy_key: PolicyKey | None = None
    """A policy key that this request carries instead of the partnership's (Provision only)."""

    carries_policy_key: ClassVar[bool] = True
    """True if this request carries X-MS-PolicyKey; Ping and OPTIONS do not [MS-ASHTTP 2.2.1.1.2.6]."""

    largest: ClassVar[int] = SMALL
    """The most octets that the body of the answer may have."""

    @abstractmethod
    def encode(self, version: ProtocolVersion) -> bytes:
        """Return the request body; empty: no body is sent."""

    @abstractmethod
    def read(self, reply: HttpReply) -> R_co:
        """Read an answer with HTTP 200; raise an EasError for a failing status of the command."""


@by_slots
@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request as it is sent."""

    method: str
    url: str
    """Absolute and already encoded."""
    headers: Mapping[str, str]
    body: bytes
    deadline: float
    """Seconds within which the whole answer must arrive."""
    largest: int = SMALL
    """The most octets that the body of the answer may have, and most of what it may take on the wire."""
