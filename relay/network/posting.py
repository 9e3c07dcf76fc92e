"""HTTP POST to providers: connections by one route, kept for the next request; answers are read up to a limit.

aiohttp reads the answers. Requests are written here, because aiohttp's sessions add work to each that is of no use here
and costs as much again (cookies, redirects, proxies of the environment, encodings, tasks). Connections are pooled here,
because aiohttp's connectors accept those of a dialler only through a private method.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
from aiohttp import StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from yarl import URL

from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.transport.tls import client_context
from relay.network.dialling import Dialler
from relay.network.faults import floods
from relay.network.route import Route

KEPT: Final = 60.0
"""Seconds a connection without traffic is kept: below the idle timeouts of firewalls and of Google's own servers."""
LARGEST: Final = 65536  # bytes of an answer that are read; those of providers have a few hundred
REMEMBERED: Final = 64  # URLs and heads; FCM has two of each, push services one for each phone
TARGET: Final = re.compile(r"/[\x21-\x7e]*", re.ASCII)
VALUE: Final = re.compile(r"[\x20-\x7e]*", re.ASCII)
"""The characters of a request's first line and of a header [RFC 9110 5.5]: no line may end early."""
INTERIM: Final = 8
"""Answers 1xx to one request; servers send one, if any."""
SLICE: Final = 16_384
"""Bytes that are parsed before the number of answers is looked at: one read can hold 10,000 of them."""
RAW: Final = LARGEST + 2 * SLICE
"""Bytes of an answer that are parsed, head and chunks included; as chunks of a byte they hold 16,000."""


class Reply(NamedTuple):
    """An answer; its headers are found by names in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection(ResponseHandler):
    """A connection whose server may send few answers to a request; aiohttp limits the size of their heads."""

    flooded = False
    """Whether the server sent more than an answer may have; nothing was parsed from there on."""
    _answers = 0
    _raw = 0

    def expect(self) -> None:
        """Be ready for the answer to one request. A compressed one was not asked for, and is left as it is."""
        self._answers = self._raw = 0
        self.set_response_params(read_until_eof=True, auto_decompress=False)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Note one more answer."""
        self._answers += 1
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Parse bytes of answers, unless there are too many of either."""
        for start in range(0, max(1, len(data)), SLICE):
            self._raw += min(len(data) - start, SLICE)
            super().data_received(data[start : start + SLICE])
            if self._answers > INTERIM + 1 or self._raw > RAW:
                self.flooded = True
                self.abort()
                return


class Poster:
    """A client that sends requests by one route."""

    def __init__(
        self,
        ca_file: Path | None,
        in_flight: int,
        route: Route,
        *,
        clocks: PeerClocks | None = None,
        kept: float = KEPT,
    ) -> None:
        """Trust the CAs of a file, or the system's if it is None; open at most `in_flight` connections to one host.

        `clocks` gets the dates of answers. A connection is kept for so many seconds without traffic. Raises OSError
        when a file holds no CA.
        """
        self._tls = client_context(ca_file)
        self._dialler = Dialler(route)
        self._in_flight = in_flight
        self._clocks = clocks
        self._kept = kept
        self._pools: dict[Origin, _Pool] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False
        self._targets = lru_cache(REMEMBERED)(_Target)
        self._lines = lru_cache(REMEMBERED)(_lines)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send one request to an encoded URL, with these headers and those that HTTP itself needs.

        Raises aiohttp.ClientError, OSError or TimeoutError; ValueError for an invalid header. The caller limits the
        time. No redirect is followed: a request and its credentials are meant for its own URL alone.
        """
        target = self._targets(url)
        head = f"{target.head}{self._lines(*headers.items())}Content-Length: {len(body)}\r\n\r\n"
        request = head.encode("ascii") + body
        pool = self._pools.get(target.origin)
        if pool is None:
            pool = self._pools[target.origin] = _Pool(self._in_flight)
        pool.users += 1
        try:
            async with pool.slots:
                return await self._send(target.origin, pool, request)
        finally:
            pool.users -= 1
            self._forget_unused(target.origin, pool)

    async def close(self) -> None:
        """Cut all connections; requests in flight or waiting end with aiohttp.ClientConnectionError."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        ends = [end for pool in self._pools.values() for end in pool.cut()]
        self._pools.clear()
        await asyncio.gather(*ends, return_exceptions=True)

    async def _send(self, origin: "Origin", pool: "_Pool", request: bytes) -> Reply:
        loop = asyncio.get_running_loop()
        connection = pool.take(loop.time() - self._kept)
        if connection is None:
            connection = await self._dial(loop, origin)
        pool.busy.add(connection)
        began, whole = loop.time(), False
        try:
            reply = await _exchange(connection, request)
            whole = len(reply.body) <= LARGEST
            if self._clocks is not None:
                self._clocks.answered(origin.host, reply.headers.get("Date", ""), loop.time() - began)
        except (aiohttp.ClientError, RuntimeError) as error:
            if connection.flooded:
                raise floods("more than an answer has") from error
            raise
        except HttpProcessingError as error:
            raise aiohttp.ClientPayloadError(error.message) from error
        finally:
            pool.busy.discard(connection)
            # After an interrupted answer, or one that is too long, the connection cannot be used again.
            if whole and _usable(connection) and not self._closed:
                pool.idle.append((connection, loop.time()))
                if self._sweeping is None:
                    self._sweeping = loop.call_later(self._kept, self._sweep, loop)
            else:
                connection.abort()
        return reply

    async def _dial(self, loop: asyncio.AbstractEventLoop, origin: "Origin") -> _Connection:
        if not self._closed:
            tls = self._tls if origin.tls else None
            connection = await self._dialler.connect(partial(_Connection, loop), origin.host, origin.port, tls)
            if not self._closed:
                return connection
            connection.abort()
        raise aiohttp.ClientConnectionError("the relay stops")

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the connections that were idle for too long, and come back while others are left."""
        self._sweeping = None
        for origin, pool in list(self._pools.items()):
            pool.close_idle(loop.time() - self._kept)
            self._forget_unused(origin, pool)
        if any(pool.idle for pool in self._pools.values()):
            self._sweeping = loop.call_later(self._kept, self._sweep, loop)

    def _forget_unused(self, origin: "Origin", pool: "_Pool") -> None:
        if not pool.users and not pool.idle and self._pools.get(origin) is pool:
            del self._pools[origin]


class Origin(NamedTuple):
    """The server of a URL."""

    host: str
    port: int
    tls: bool


class _Target:
    """The common parts of all requests to one URL; raises aiohttp.InvalidURL."""

    def __init__(self, url: str) -> None:
        parsed = URL(url, encoded=True)
        host, target = parsed.host_port_subcomponent, parsed.raw_path_qs
        if parsed.scheme not in {"http", "https"} or not host or not VALUE.fullmatch(host):
            raise aiohttp.InvalidURL("no URL of a host")
        if not TARGET.fullmatch(target):
            raise aiohttp.InvalidURL("no encoded path")
        self.head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: push-relay\r\n"
        self.origin = Origin(parsed.raw_host or "", parsed.port or 0, parsed.scheme == "https")


class _Pool:
    """The connections to one server."""

    def __init__(self, limit: int) -> None:
        self.users = 0
        """The number of requests that have a connection or wait for one."""
        self.slots = asyncio.Semaphore(limit)
        """First come, first served."""
        self.busy: set[_Connection] = set()
        self.idle: list[tuple[_Connection, float]] = []
        """With the moment of the last use; the connection that was used last stands last."""

    def take(self, since: float) -> _Connection | None:
        """Return the connection that was used last, if that was after a moment: it is the most likely to be open."""
        while self.idle:
            connection, used_at = self.idle.pop()
            if _usable(connection) and used_at > since:
                return connection
            connection.close()
        return None

    def close_idle(self, since: float) -> None:
        """Close the connections that were last used before a moment, and those that cannot be used again."""
        idle, self.idle = self.idle, []
        for connection, used_at in idle:
            if _usable(connection) and used_at > since:
                self.idle.append((connection, used_at))
            else:
                connection.close()

    def cut(self) -> Iterator["asyncio.Future[None]"]:
        """Cut all connections without a TLS goodbye, which a silent server would delay; yield when each has ended."""
        for connection in [*self.busy, *(connection for connection, _ in self.idle)]:
            ended = connection.closed
            connection.abort()
            if ended is not None:
                yield ended
        self.idle.clear()


def _usable(connection: _Connection) -> bool:
    """Return True if the server has neither closed an idle connection nor sent anything that was not asked for."""
    return connection.is_connected() and not connection.should_close


def _lines(*headers: tuple[str, str]) -> str:
    for _, value in headers:
        if not VALUE.fullmatch(value):
            raise ValueError("a header's value has other characters than visible ones")
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


async def _exchange(connection: _Connection, request: bytes) -> Reply:
    """Write a request and read the whole answer, or slightly more than the limit."""
    if connection.transport is None:
        raise aiohttp.ServerDisconnectedError
    connection.expect()
    connection.transport.write(request)
    while True:
        message, payload = await connection.read()
        if message.code >= 200:  # noqa: PLR2004  # 1xx are not the answer yet [RFC 9110 15.2]
            break
    body = await payload.readany()
    while not payload.at_eof() and len(body) <= LARGEST:
        body += await payload.readany()
    return Reply(message.code, message.headers, body)
