"""Requests and answers of the simulated EAS server, whatever the version of HTTP that carries them."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ssl import SSLObject
from typing import Final, Protocol

INTERNAL_ERROR: Final = 2
HTTP_1_1_REQUIRED: Final = 13
"""Error codes of HTTP/2 [RFC 9113 7]."""


class HttpVersion(StrEnum):
    """The version of HTTP of a connection."""

    HTTP_1_1 = "http/1.1"
    HTTP_2 = "h2"


class Connection(Protocol):
    """What carries requests; equal only to itself."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None: the connection is closed."""


class Fields(Mapping[str, str]):
    """The headers of a request; the names ignore case."""

    __slots__ = ("_values",)

    def __init__(self, headers: Iterable[tuple[object, object]]) -> None:
        """Take names, in lower case, and values."""
        self._values: dict[str, str] = {}
        for name, value in headers:
            before = self._values.get(str(name))
            separator = "; " if name == "cookie" else ", "  # [RFC 9113 8.2.3, RFC 9110 5.3]
            self._values[str(name)] = str(value) if before is None else f"{before}{separator}{value}"

    def __getitem__(self, name: str) -> str:
        """Return the value of a header; raises KeyError."""
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        """Yield the names in lower case."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._values)


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request."""

    method: str
    path: str
    query: str
    """Still encoded."""
    headers: Mapping[str, str]
    """Its names ignore case."""
    body: bytes
    connection: Connection
    version: HttpVersion
    tls: SSLObject | None
    """The TLS of the connection; None: plain HTTP."""


@dataclass(frozen=True, slots=True)
class Response:
    """One whole answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = field(default=())
    pinged: str = ""
    """The user to whose Ping this answers status 2; empty: it answers something else."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The end of a request without an answer: HTTP/1.1 cuts its connection, HTTP/2 resets its stream."""

    error: int = INTERNAL_ERROR
    """The error code of the reset."""
