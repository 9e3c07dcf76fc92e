"""Own HTTP POST to providers: a pool of connections by one way, requests written by hand, answers read up to a limit.

aiohttp keeps the connections and reads the answers. What its sessions add to each request (cookies, redirects, proxies
of the environment, encodings, tasks) is of no use here and costs as much again.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from relay.network.dialling import Dialler
from relay.network.http import DialledConnector
from relay.network.route import Route

KEPT: Final = 60.0
"""Seconds a connection without traffic is kept: below the idle timeouts of firewalls and of Google's own servers."""
LARGEST: Final = 65536  # bytes of an answer that are read; those of providers have a few hundred
UNLIMITED: Final = aiohttp.ClientTimeout(total=None)
REMEMBERED: Final = 64  # URLs, origins and heads; FCM has two of each, push services one for each phone
TARGET: Final = re.compile(r"/[\x21-\x7e]*", re.ASCII)
VALUE: Final = re.compile(r"[\x20-\x7e]*", re.ASCII)
"""What may stand in a request's first line and in a header [RFC 9110 5.5], so that no line ends early."""


class Reply(NamedTuple):
    """Hold an answer; its headers are found by names in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Poster:
    """Send requests; the pool is opened at the first one, inside the running loop."""

    def __init__(self, ca_file: Path | None, in_flight: int, route: Route) -> None:
        """Take whom to trust, None being the system's CAs, how many connections to a host there may be, and the way.

        Raises OSError when a file holds no CA.
        """
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._dialler = Dialler(route)
        self._in_flight = in_flight
        self._connector: DialledConnector | None = None
        self._places = lru_cache(REMEMBERED)(_Place)
        self._origins = lru_cache(REMEMBERED)(_ask)
        self._lines = lru_cache(REMEMBERED)(_lines)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send one request to a URL that is encoded already, with these headers and those that HTTP itself needs.

        Raises aiohttp.ClientError, OSError or TimeoutError; ValueError for a header that is none. The caller bounds
        the time. No redirect is followed: whatever a request bears is meant for its own URL alone.
        """
        place = self._places(url)
        head = f"{place.head}{self._lines(*headers.items())}Content-Length: {len(body)}\r\n\r\n"
        request = head.encode("ascii") + body
        connection = await self._pool().connect(self._origins(place.origin), [], UNLIMITED)
        whole = False
        try:
            reply = await _exchange(connection, request)
            whole = len(reply.body) <= LARGEST
        except HttpProcessingError as error:
            raise aiohttp.ClientPayloadError(error.message) from error
        finally:
            # What is broken off, or goes on for too long, cannot be used again.
            if whole:
                connection.release()
            else:
                connection.close()
        return reply

    async def close(self) -> None:
        """Close all connections."""
        if self._connector is not None:
            await self._connector.close()
            self._connector = None

    def _pool(self) -> DialledConnector:
        if self._connector is None:
            # The limit is per host: a renewal of a token waits for no push.
            self._connector = DialledConnector(self._dialler, self._tls, limit_per_host=self._in_flight, keepalive=KEPT)
        return self._connector


class _Place:
    """Hold what all requests to one URL have in common; raises aiohttp.InvalidURL."""

    def __init__(self, url: str) -> None:
        parsed = URL(url, encoded=True)
        host, target = parsed.host_port_subcomponent, parsed.raw_path_qs
        if parsed.scheme not in {"http", "https"} or not host or not VALUE.fullmatch(host):
            raise aiohttp.InvalidURL("no URL of a host")
        if not TARGET.fullmatch(target):
            raise aiohttp.InvalidURL("no encoded path")
        self.head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: push-relay\r\n"
        self.origin = parsed.origin()


def _ask(origin: URL) -> ClientRequest:
    """Make what aiohttp's pool wants to see: it asks to which host, and whether over TLS."""
    return ClientRequest("POST", origin, loop=asyncio.get_running_loop())


def _lines(*headers: tuple[str, str]) -> str:
    for _, value in headers:
        if not VALUE.fullmatch(value):
            raise ValueError("a header's value has other characters than visible ones")
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


async def _exchange(connection: Connection, request: bytes) -> Reply:
    """Write a request and read the whole answer, or a little more of it than is believed."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None:
        raise aiohttp.ServerDisconnectedError
    protocol.set_response_params(read_until_eof=True)
    transport.write(request)
    while True:
        message, payload = await protocol.read()
        if message.code >= 200:  # noqa: PLR2004  # 1xx are not the answer yet [RFC 9110 15.2]
            break
    body = await payload.readany()
    while not payload.at_eof() and len(body) <= LARGEST:
        body += await payload.readany()
    return Reply(message.code, message.headers, body)
