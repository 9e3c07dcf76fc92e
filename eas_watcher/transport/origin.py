"""The connections to one server, of one TLS identity: which one carries the next request, over which HTTP."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from eas_watcher.commands.request import HttpRequest
from eas_watcher.errors import Unreachable
from eas_watcher.ports import Done
from eas_watcher.transport.deadlines import Deadlines
from eas_watcher.transport.http1 import Exchange, Http1Connection
from eas_watcher.transport.http2 import Http2Connection, StreamExchange
from eas_watcher.transport.http2_pool import Http2Connections
from eas_watcher.transport.target import Origin, Target
from eas_watcher.transport.tls_connection import Connection, Dialler


class Multiplexing(NamedTuple):
    """What connections need that may speak HTTP/2."""

    dialler: Dialler
    """Offers it by ALPN."""
    numbers: Iterator[int]
    """Of new connections."""


class Connections:
    """The connections to one origin."""

    __slots__ = ("_all", "_dialler", "_idle", "_multiplexed", "_origin", "_reuse", "deadlines")

    def __init__(
        self,
        origin: Origin,
        dialler: Dialler,
        deadlines: Deadlines,
        every: set[Http1Connection | Http2Connection],
        *,
        reuse: bool,
        multiplexing: Multiplexing | None = None,
    ) -> None:
        """Have none yet; `every` has all connections of a transport. Without `reuse` each carries one request.

        Without `multiplexing` they speak HTTP/1.1 only.
        """
        self._origin = origin
        self._dialler = dialler
        self.deadlines = deadlines
        self._all = every
        self._reuse = reuse
        self._idle: dict[Http1Connection, None] = {}
        self._multiplexed: Http2Connections | None = None
        if multiplexing is not None and origin.secure and reuse:
            self._multiplexed = Http2Connections(
                origin, multiplexing.dialler, deadlines, every, multiplexing.numbers, self._keep
            )

    @property
    def speaks_http1(self) -> bool:
        """True if the server gets HTTP/1.1 now."""
        return self._multiplexed is None or self._multiplexed.speaks_http1

    async def close(self) -> None:
        """Make no more connections over which HTTP/2 is spoken."""
        if self._multiplexed is not None:
            await self._multiplexed.close()

    async def begin(self, request: HttpRequest, target: Target, done: Done) -> Exchange | StreamExchange:
        """Send a request over an unused connection, or a new one; raises Unreachable if it cannot be sent.

        The time that a connection takes is the request's.
        """
        if self._multiplexed is not None:
            exchange = await self._multiplexed.begin(request, target, done)
            if exchange is not None:
                return exchange
        if self._idle:  # the one that was used last: the others end for want of use
            return self._idle.popitem()[0].carry(request, target, done, request.deadline)
        clock = asyncio.get_running_loop().time
        ends = clock() + request.deadline
        try:
            with self.deadlines.within(request.deadline):
                carrier = await self._dialler.dial(self._origin.endpoint, self._made, secure=self._origin.secure)
        except TimeoutError as error:
            raise Unreachable("no connection in time", reached=False) from error
        left = ends - clock()
        if left <= 0:  # the wait ends up to a second late
            carrier.end()
            raise Unreachable("no connection in time", reached=False)
        return carrier.carry(request, target, done, left)

    def _made(self, connection: Connection) -> Http1Connection:
        """Return what carries requests over a new connection."""
        carrier = Http1Connection(connection, self)
        self._all.add(carrier)
        return carrier

    def _keep(self, connection: Connection) -> Http1Connection:
        """Keep a new connection on which the server did not choose HTTP/2."""
        carrier = self._made(connection)
        if self.unused(carrier):
            carrier.rest()
        return carrier

    def unused(self, connection: Http1Connection) -> bool:
        """Keep a connection for the next request; return False if none may use it."""
        if self._reuse:
            self._idle[connection] = None
        return self._reuse

    def gone(self, connection: Http1Connection) -> None:
        """Forget a connection."""
        self._all.discard(connection)
        self._idle.pop(connection, None)
