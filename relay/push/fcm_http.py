"""Own the HTTP to Google: one pool of connections for pushes and access tokens, so that both go the same way.

aiohttp keeps the connections and reads the answers. What its sessions add to each request (cookies, redirects, proxies
of the environment, encodings, tasks) is of no use here and costs as much again, so requests are written by hand.
"""

import asyncio
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
from relay.network.way import Way

KEPT: Final = 60.0
"""Seconds a connection without traffic is kept: below the idle timeouts of firewalls and of Google's own servers."""
LARGEST: Final = 65536  # bytes of an answer that are read; Google's have a few hundred
UNLIMITED: Final = aiohttp.ClientTimeout(total=None)
PLACES: Final = 16  # hosts and paths that are remembered; a process has two or three


class Reply(NamedTuple):
    """Hold an answer; header names are read in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class FcmHttp:
    """Send requests; the pool is opened at the first one, inside the running loop."""

    def __init__(self, ca_file: Path | None, in_flight: int, way: Way) -> None:
        """Take whom to trust, None being the system's CAs, how many connections to a host there may be, and the way.

        Raises OSError when a file holds no CA.
        """
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._dialler = Dialler(way)
        self._in_flight = in_flight
        self._connector: DialledConnector | None = None
        self._place = lru_cache(PLACES)(_Place)

    async def post(self, url: str, headers: str, body: bytes) -> Reply:
        """Send one request; raises aiohttp.ClientError, OSError or TimeoutError. The caller bounds the time.

        `headers` are whole lines, each with its end, without those that HTTP itself needs. No redirect is followed:
        whatever a request bears is meant for its own URL alone.
        """
        place = self._place(url)
        connection = await self._pool().connect(place.request, [], UNLIMITED)
        whole = False
        try:
            reply = await _exchange(
                connection, f"{place.head}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body
            )
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
            # The limit is per host: a renewal of the token waits for no push.
            self._connector = DialledConnector(self._dialler, self._tls, limit_per_host=self._in_flight, keepalive=KEPT)
        return self._connector


class _Place:
    """Hold what all requests to one URL have in common."""

    def __init__(self, url: str) -> None:
        parsed = URL(url, encoded=True)
        port = "" if parsed.is_default_port() else f":{parsed.port}"
        self.head = f"POST {parsed.raw_path_qs} HTTP/1.1\r\nHost: {parsed.raw_host}{port}\r\nUser-Agent: push-relay\r\n"
        # The pool asks it for one thing: to which host, over TLS or not.
        self.request = ClientRequest("POST", parsed, loop=asyncio.get_running_loop())


async def _exchange(connection: Connection, request: bytes) -> Reply:
    """Write a request and read the whole answer, or more of it than is believed."""
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
