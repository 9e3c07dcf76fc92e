"""HTTP to mail servers and token endpoints: the transport that sends each request once, and holds any number of them.

It repeats nothing, follows no redirect and keeps no cookie: a Sync sent twice by a transport can lose a mail
[observed: Z-Push 2.7.1, 2026-11], and a password must never follow a redirect.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import Unreachable
from eas_watcher.ports import Done
from eas_watcher.proxy.proxy import Proxy
from eas_watcher.transport.connecting import Connector
from eas_watcher.transport.deadlines import Deadlines
from eas_watcher.transport.http1 import Exchange, Http1Connection
from eas_watcher.transport.http2 import Http2Connection, StreamExchange
from eas_watcher.transport.http2_pool import ALPN, HTTP_1_1, HTTP_2
from eas_watcher.transport.origin import Connections, Multiplexing
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.target import Origin, target_of
from eas_watcher.transport.tls import client_context
from eas_watcher.transport.tls_connection import Dialler, Reading
from eas_watcher.transport.tunnel import tunnels_over


@asynccontextmanager
async def open_transport(
    tls: ssl.SSLContext | None = None,
    *,
    reuse: bool = True,
    sources: Iterable[str] = (),
    http2: ssl.SSLContext | None = None,
    proxy: Proxy | None = None,
) -> AsyncIterator["HttpTransport"]:
    """Open the transport to one server; without `tls`, it trusts the CAs of the system.

    Without `reuse` every connection carries one request. Connections come from the addresses `sources` of this host in
    turn. `http2` trusts the same CAs as `tls`; with it, connections speak HTTP/2 where the server chooses it.
    With `proxy` all of them go through it.
    """
    connector = Connector(Sources(sources))
    reading = Reading()
    tunnels = None if proxy is None else tunnels_over(proxy, connector)
    dialler = Dialler(tls or client_context(), connector, reading, tunnels)
    multiplexing = None
    if http2 is not None:
        http2.set_alpn_protocols(ALPN)
        multiplexing = Multiplexing(Dialler(http2, connector, reading, tunnels), count(1))
    transport = HttpTransport(dialler, Deadlines(), set(), reuse=reuse, multiplexing=multiplexing)
    try:
        yield transport
    finally:
        await connector.close()
        await transport.close()


class HttpTransport:
    """The transport for any number of watches."""

    __slots__ = ("_all", "_deadlines", "_dialler", "_multiplexing", "_origins", "_reuse")

    def __init__(
        self,
        dialler: Dialler,
        deadlines: Deadlines,
        every: set[Http1Connection | Http2Connection],
        *,
        reuse: bool,
        multiplexing: Multiplexing | None = None,
    ) -> None:
        """Connect by `dialler`; `every` has all connections. Without `reuse` each carries one request.

        Without `multiplexing` they speak HTTP/1.1 only.
        """
        self._dialler = dialler
        self._deadlines = deadlines
        self._all = every
        self._reuse = reuse
        self._multiplexing = multiplexing
        self._origins: dict[Origin, Connections] = {}

    def with_tls(self, tls: ssl.SSLContext) -> "HttpTransport":
        """Return a transport to the same server whose connections use another TLS context, and only that one.

        It speaks HTTP/1.1: a client certificate authenticates a connection, which no other mailbox may use.
        """
        return HttpTransport(self._dialler.with_tls(tls), self._deadlines, self._all, reuse=self._reuse)

    async def close(self) -> None:
        """End all connections, those of other TLS identities too."""
        await asyncio.gather(*(connections.close() for connections in self._origins.values()))
        while self._all:
            await asyncio.gather(*(carrier.leave() for carrier in list(self._all)))

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any HTTP answer; raises Unreachable when none arrived whole in time.

        Raises ProtocolViolation for an answer that is no HTTP or passes a limit. The body of an error that is larger
        than the request allows is left out. No request is sent twice, but one that the server did not process because
        it wants HTTP/1.1 for it.
        """
        result = await self._send(request)
        if isinstance(result, Unreachable) and result.connection and not result.reached and self._wants_http1(request):
            result = await self._send(request)
        if isinstance(result, HttpReply):
            return result
        try:
            raise result
        finally:
            del result  # no cycle of references with the error's traceback

    async def _send(self, request: HttpRequest) -> HttpReply | Exception:
        answer: asyncio.Future[HttpReply | Exception] = asyncio.get_running_loop().create_future()
        exchange = await self.hold(request, partial(_settle, answer))
        try:
            return await answer
        finally:
            exchange.drop()  # nothing if the answer has come

    async def hold(self, request: HttpRequest, done: Done) -> Exchange | StreamExchange:
        """Send a request whose answer comes late; return once it is sent.

        Raises what `send` raises for a request that cannot be sent.
        """
        target = target_of(request)
        return await self._connections(target.origin).begin(request, target, done)

    def used(self) -> dict[str, tuple[int, int]]:
        """Return the connections and the requests on them, by the version of HTTP."""
        found = {HTTP_1_1: (0, 0), HTTP_2: (0, 0)}
        for carrier in self._all:
            version = HTTP_2 if isinstance(carrier, Http2Connection) else HTTP_1_1
            connections, requests = found[version]
            found[version] = connections + 1, requests + carrier.requests
        return found

    def _connections(self, origin: Origin) -> Connections:
        connections = self._origins.get(origin)
        if connections is None:
            connections = self._origins[origin] = Connections(
                origin,
                self._dialler,
                self._deadlines,
                self._all,
                reuse=self._reuse,
                multiplexing=self._multiplexing,
            )
        return connections

    def _wants_http1(self, request: HttpRequest) -> bool:
        """Return True if the server of a request gets HTTP/1.1 now."""
        return self._connections(target_of(request).origin).speaks_http1


def _settle(answer: "asyncio.Future[HttpReply | Exception]", result: HttpReply | Exception) -> None:
    if not answer.done():
        answer.set_result(result)
