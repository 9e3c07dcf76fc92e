"""The HTTP/2 connections to one server, of one TLS identity: which one carries the next request, and when none does.

A new connection is made only when all are full. Servers that do not speak HTTP/2, or want HTTP/1.1, are remembered for
some time, so that requests need not find it out one by one.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from eas_watcher.commands.request import HttpRequest
from eas_watcher.errors import Unreachable
from eas_watcher.ports import Done
from eas_watcher.transport.deadlines import Deadlines
from eas_watcher.transport.http1 import Http1Connection
from eas_watcher.transport.http2 import ENDED, STREAMS, Http2Connection, StreamExchange
from eas_watcher.transport.target import Origin, Target
from eas_watcher.transport.tls_connection import Connection, Dialler

HTTP_1_1, HTTP_2 = "http/1.1", "h2"
ALPN: Final = (HTTP_2, HTTP_1_1)
"""What a client offers that may speak HTTP/2 [RFC 9113 3.2]."""
REMEMBERED: Final = 3600.0
"""Seconds for which a server gets HTTP/1.1 after it did not choose HTTP/2, or asked for HTTP/1.1."""
VAIN: Final = 3
"""Connections that may end without a request while one waits. Without a limit a server that ends each one, as some do
while they shut down, would get hundreds per second."""

log = logging.getLogger(__name__)


class Http2Connections:
    """The connections to one origin that carry many requests at once."""

    __slots__ = (
        "_all",
        "_dialler",
        "_dials",
        "_http1_until",
        "_keep_http1",
        "_known",
        "_loop",
        "_numbers",
        "_origin",
        "_roomy",
        "_streams",
        "_vain",
        "_waiting",
        "deadlines",
    )

    def __init__(
        self,
        origin: Origin,
        dialler: Dialler,
        deadlines: Deadlines,
        every: "set[Http1Connection | Http2Connection]",
        numbers: Iterator[int],
        keep_http1: Callable[[Connection], Http1Connection],
    ) -> None:
        """Have none yet; `dialler` offers ALPN, `every` has all connections of a transport, `numbers` are for new ones.

        `keep_http1` takes a connection on which the server did not choose HTTP/2.
        """
        self._loop = asyncio.get_running_loop()
        """Kept, since Python 3.11 makes a system call to return it."""
        self._origin = origin
        self._dialler = dialler
        self.deadlines = deadlines
        self._all = every
        self._numbers = numbers
        self._keep_http1 = keep_http1
        self._roomy: dict[Http2Connection, None] = {}
        """Those that may have room for one more request."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        """Requests that wait for room."""
        self._dials: set[asyncio.Task[None]] = set()
        self._known = False
        """True once the server has spoken HTTP/2: several connections may be made at once."""
        self._streams = STREAMS
        self._vain = 0
        """How many connections have ended that never carried a request."""
        self._http1_until = 0.0

    async def begin(self, request: HttpRequest, target: Target, done: Done) -> StreamExchange | None:
        """Send a request over a connection with room; None: this server gets HTTP/1.1 now.

        The time that a new connection takes is the request's. Raises Unreachable if the request cannot be sent.
        """
        clock = self._loop.time
        ends, most = clock() + request.deadline, self._vain + VAIN
        while clock() >= self._http1_until:
            carrier = self._with_room()
            if carrier is not None:
                return carrier.carry(request, target, done, ends - clock())
            if self._vain >= most:
                raise Unreachable(ENDED, reached=False)
            try:
                async with asyncio.timeout_at(ends):
                    await self._room()
            except TimeoutError as error:
                raise Unreachable("no connection in time", reached=False) from error
        return None

    @property
    def speaks_http1(self) -> bool:
        """True if the server gets HTTP/1.1 now."""
        return self._loop.time() < self._http1_until

    async def close(self) -> None:
        """Make no more connections."""
        dials = list(self._dials)
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
        while self._waiting:
            self._failed(Unreachable("the relay closes its connections", reached=False))

    # Called by connections.

    def next_number(self) -> int:
        """Return the number of a new connection."""
        return next(self._numbers)

    def settled(self, connection: Http2Connection) -> None:
        """Note how many requests a connection carries at once."""
        self._streams = max(1, connection.streams)
        self.freed(connection)

    def freed(self, connection: Http2Connection) -> None:
        """Let a request that waits take the room of another one that is over."""
        self._roomy[connection] = None
        if self._waiting:
            self._wake(connection.room)

    def wants_http1(self, reason: str) -> None:
        """Send new requests over HTTP/1.1 for some time."""
        if not self.speaks_http1:
            self._remember_http1()
            server = self._origin.endpoint
            log.warning(
                "mail server gets HTTP/1.1 for an hour",
                extra={"server": f"{server.host}:{server.port}", "detail": reason},
            )

    def gone(self, connection: Http2Connection) -> None:
        """Send nothing more over a connection."""
        self._roomy.pop(connection, None)

    def ended(self, connection: Http2Connection) -> None:
        """Forget a connection."""
        self._vain += not connection.carried
        self._all.discard(connection)
        self._roomy.pop(connection, None)

    def _remember_http1(self) -> None:
        self._http1_until = self._loop.time() + REMEMBERED
        self._known = False
        self._wake(len(self._waiting))

    def _with_room(self) -> Http2Connection | None:
        """Return the connection that had room last."""
        while self._roomy:
            connection = next(reversed(self._roomy))
            if connection.room:
                return connection
            del self._roomy[connection]
        return None

    async def _room(self) -> None:
        """Return when there may be room."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        self._dial_enough()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._wake(1)
            raise

    def _wake(self, number: int) -> None:
        """Let so many waiting requests look for room."""
        while self._waiting and number > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                number -= 1

    def _dial_enough(self) -> None:
        """Make connections for all that wait; one, as long as nobody knows what the server speaks."""
        wanted = -(-len(self._waiting) // self._streams) if self._known else 1
        for _ in range(wanted - len(self._dials)):
            dial = self._loop.create_task(self._dial(), name="HTTP/2 connection")
            self._dials.add(dial)
            dial.add_done_callback(self._dialled)

    def _dialled(self, dial: "asyncio.Task[None]") -> None:
        """Make more connections, if one was not enough."""
        self._dials.discard(dial)
        if self._waiting and not dial.cancelled():
            self._dial_enough()

    async def _dial(self) -> None:
        """Make a connection, and let those that wait use it."""
        try:
            carrier = await self._dialler.dial(self._origin.endpoint, self._made)
            if isinstance(carrier, Http1Connection):
                self._remember_http1()
                return
            await carrier.ready
            carrier.check()
        except Unreachable as error:
            self._failed(error)
            return
        if carrier.streams:
            self._known = True
            self.settled(carrier)
        else:
            self.wants_http1("it allows no request over HTTP/2")

    def _made(self, connection: Connection) -> Http1Connection | Http2Connection:
        if connection.alpn != HTTP_2:
            return self._keep_http1(connection)
        carrier = Http2Connection(connection, self)
        self._all.add(carrier)
        return carrier

    def _failed(self, error: Unreachable) -> None:
        """Report to those that waited for a connection that it was not made."""
        for _ in range(min(len(self._waiting), self._streams)):
            turn = self._waiting.popleft()
            if not turn.done():
                failure = Unreachable(str(error), reached=False, reason=error.reason)
                failure.__cause__ = error.__cause__
                turn.set_exception(failure)
