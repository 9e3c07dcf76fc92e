"""Requests and answers of the simulated EAS server, whatever the version of HTTP that carries them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ssl import SSLObject
from typing import Final, NamedTuple, Protocol

from relay.sandbox.eas.requests import Target, read_target

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


class Request(NamedTuple):
    """One whole request."""

    method: str
    target: Target
    command: str
    """OPTIONS, or the command that the query names; empty: none."""
    headers: Mapping[str, str]
    """By name, in lower case."""
    body: bytes
    connection: Connection
    version: HttpVersion
    tls: SSLObject | None
    """The TLS of the connection; None: plain HTTP."""


def make_request(
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    connection: Connection,
    version: HttpVersion,
    tls: SSLObject | None,
) -> Request:
    """Return a request with the parts of its target."""
    parts = read_target(target)
    command = "OPTIONS" if method == "OPTIONS" else parts.query.get("Cmd", "")
    return Request(method, parts, command, headers, body, connection, version, tls)


class Response(NamedTuple):
    """One whole answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    pinged: str = ""
    """The user to whose Ping this answers status 2; empty: it answers something else."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The end of a request without an answer: HTTP/1.1 cuts its connection, HTTP/2 resets its stream."""

    error: int = INTERNAL_ERROR
    """The error code of the reset."""
