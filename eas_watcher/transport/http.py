"""HTTP to mail servers and token endpoints: the transport that sends each request once, and holds any number of them.

It repeats nothing, follows no redirect and keeps no cookie: a Sync sent twice by a transport can lose a mail
[observed: Z-Push 2.7.1, 2026-11], and a password must never follow a redirect.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.ports import Done
from eas_watcher.transport.connecting import Connector
from eas_watcher.transport.deadlines import Deadlines
from eas_watcher.transport.http1 import Exchange, Http1Connection
from eas_watcher.transport.origin import Connections
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.target import Origin, target_of
from eas_watcher.transport.tls import client_context
from eas_watcher.transport.tls_connection import Dialler, Reading


@asynccontextmanager
async def open_transport(
    tls: ssl.SSLContext | None = None, *, reuse: bool = True, sources: Iterable[str] = ()
) -> AsyncIterator["HttpTransport"]:
    """Open the transport to one server; without `tls`, it trusts the CAs of the system.

    Without `reuse` every connection carries one request. Connections come from the addresses `sources` of this host in
    turn.
    """
    connector = Connector(Sources(sources))
    dialler = Dialler(tls or client_context(), connector, Reading())
    transport = HttpTransport(dialler, Deadlines(), set(), reuse=reuse)
    try:
        yield transport
    finally:
        await connector.close()
        await transport.close()


class HttpTransport:
    """The transport for any number of watches."""

    __slots__ = ("_all", "_deadlines", "_dialler", "_origins", "_reuse")

    def __init__(self, dialler: Dialler, deadlines: Deadlines, every: set[Http1Connection], *, reuse: bool) -> None:
        """Connect by `dialler`; `every` has all connections. Without `reuse` each carries one request."""
        self._dialler = dialler
        self._deadlines = deadlines
        self._all = every
        self._reuse = reuse
        self._origins: dict[Origin, Connections] = {}

    def with_tls(self, tls: ssl.SSLContext) -> "HttpTransport":
        """Return a transport to the same server whose connections use another TLS context, and only that one."""
        return HttpTransport(self._dialler.with_tls(tls), self._deadlines, self._all, reuse=self._reuse)

    async def close(self) -> None:
        """End all connections, those of other TLS identities too."""
        while self._all:
            await asyncio.gather(*(carrier.leave() for carrier in list(self._all)))

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any HTTP answer; raises Unreachable when none arrived whole in time.

        Raises ProtocolViolation for an answer that is no HTTP or passes a limit. The body of an error that is larger
        than the request allows is left out. No request is sent twice.
        """
        answer: asyncio.Future[HttpReply | Exception] = asyncio.get_running_loop().create_future()
        exchange = await self.hold(request, partial(_settle, answer))
        try:
            result = await answer
        finally:
            exchange.drop()  # nothing if the answer has come
        if isinstance(result, HttpReply):
            return result
        try:
            raise result
        finally:
            del result, answer  # no cycle of references with the error's traceback

    async def hold(self, request: HttpRequest, done: Done) -> Exchange:
        """Send a request whose answer comes late; return once it is sent.

        Raises what `send` raises for a request that cannot be sent.
        """
        target = target_of(request)
        connections = self._origins.get(target.origin)
        if connections is None:
            connections = self._origins[target.origin] = Connections(
                target.origin, self._dialler, self._deadlines, self._all, reuse=self._reuse
            )
        return await connections.begin(request, target, done)


def _settle(answer: "asyncio.Future[HttpReply | Exception]", result: HttpReply | Exception) -> None:
    if not answer.done():
        answer.set_result(result)
