"""The connections to one server, of one TLS identity: which one carries the next request."""

import asyncio

from eas_watcher.commands.request import HttpRequest
from eas_watcher.errors import Unreachable
from eas_watcher.ports import Done
from eas_watcher.transport.deadlines import Deadlines
from eas_watcher.transport.http1 import Exchange, Http1Connection
from eas_watcher.transport.target import Origin, Target
from eas_watcher.transport.tls_connection import Connection, Dialler


class Connections:
    """The connections to one origin."""

    __slots__ = ("_all", "_dialler", "_idle", "_origin", "_reuse", "deadlines")

    def __init__(
        self, origin: Origin, dialler: Dialler, deadlines: Deadlines, every: set[Http1Connection], *, reuse: bool
    ) -> None:
        """Have none yet; `every` has all connections of a transport. Without `reuse` each carries one request."""
        self._origin = origin
        self._dialler = dialler
        self.deadlines = deadlines
        self._all = every
        self._reuse = reuse
        self._idle: dict[Http1Connection, None] = {}

    async def begin(self, request: HttpRequest, target: Target, done: Done) -> Exchange:
        """Send a request over an unused connection, or a new one; raises Unreachable if it cannot be sent.

        The time that a connection takes is the request's.
        """
        if self._idle:  # the one that was used last: the others end for want of use
            return self._idle.popitem()[0].carry(request, target, done, request.deadline)
        clock = asyncio.get_running_loop().time
        ends = clock() + request.deadline
        try:
            async with asyncio.timeout_at(ends):
                carrier = await self._dialler.dial(self._origin.endpoint, self._made, secure=self._origin.secure)
        except TimeoutError as error:
            raise Unreachable("no connection in time", reached=False) from error
        return carrier.carry(request, target, done, ends - clock())

    def _made(self, connection: Connection) -> Http1Connection:
        """Return what carries requests over a new connection."""
        carrier = Http1Connection(connection, self)
        self._all.add(carrier)
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
