"""Own the shape of every command: what goes out, what comes back, and how the two meet HTTP."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from eas_watcher.names import PolicyKey, ProtocolVersion

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """Hold one whole HTTP answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    set_cookies: tuple[str, ...] = ()
    """The values of all Set-Cookie headers, in order."""


class Command(ABC, Generic[R_co]):
    """Describe one request to the server whose answer reads as `R_co`."""

    name: ClassVar[str]
    """The `Cmd` parameter; empty for OPTIONS, which is no command."""

    policy_key: PolicyKey | None = None
    """A policy key that this request must carry instead of the partnership's (Provision only)."""

    carries_policy_key: ClassVar[bool] = True
    """Whether X-MS-PolicyKey belongs on this request; not on Ping and OPTIONS [MS-ASHTTP 2.2.1.1.2.6]."""

    @abstractmethod
    def encode(self, version: ProtocolVersion) -> bytes:
        """Write the request body; empty bytes mean that no body is sent."""

    @abstractmethod
    def read(self, reply: HttpReply) -> R_co:
        """Read a 200 answer; raise an EasError for a status that has a remedy of its own."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """Hold one request as it goes on the wire."""

    method: str
    url: str
    """Absolute, already encoded."""
    headers: Mapping[str, str]
    body: bytes
    deadline: float
    """Seconds until a whole answer must be there."""
