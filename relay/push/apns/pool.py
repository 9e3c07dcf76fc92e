"""Own the connections of one account to one environment: one at a time, opened once for all who wait, kept warm.

It takes the place of aioapns' pool, which repeats blindly, polls, and has no time limit. Here every push ends as an
answer, NotSent, MaybeSent or the error that kept it from being connected, and whoever sends decides about repeating.
"""

import asyncio
import ssl
from collections.abc import Callable
from random import Random
from typing import Final

from aioapns.connection import APNsBaseClientProtocol, APNsBaseConnectionPool

from relay.network.dialling import Dialler
from relay.push.apns.config import Endpoint
from relay.push.apns.connection import ApnsConnection
from relay.push.apns.exchange import Answer, NotBegun, NotSent, Request
from relay.push.apns.keepalive import KeepaliveTimings

PAUSE_FIRST: Final = 0.25
"""Seconds until the third try to connect; the second may come at once."""
PAUSE_CEILING: Final = 8.0
"""Seconds between two tries, however often it failed; rows and channels have longer waits of their own."""


class ApnsPool(APNsBaseConnectionPool):
    """Open a connection when it is wanted, and another when that one is lost or the server has said goodbye to it."""

    def __init__(
        self,
        place: Endpoint,
        dialler: Dialler,
        tls: ssl.SSLContext,
        authorization: Callable[[], str] | None,
        *,
        most: int,
        pace: KeepaliveTimings,
        random: Random,
    ) -> None:
        """Take where and how to connect, what gives the authorization header, and the most pushes under way.

        Needs a running loop.
        """
        super().__init__(max_connections=1, max_connection_attempts=1)
        self.ssl_context = tls
        self._place = place
        self._authorization = authorization
        self._most = most
        self._pace = pace
        self._random = random
        self._dialler = dialler
        self._current: ApnsConnection | None = None
        self._opening: asyncio.Task[ApnsConnection] | None = None
        self._failures = 0
        self._failure: Exception | None = None
        self._next_try_at = 0.0
        self._closed = False

    async def send_notification(self, request: Request) -> Answer:  # type: ignore[override]  # narrower
        """Send one request; raises NotSent, MaybeSent, and OSError or TimeoutError when there is no connection."""
        while True:
            connection = self._current
            if connection is None or not connection.usable:
                connection = await self.acquire()
            try:
                return await connection.send_notification(request)
            except NotBegun:
                continue  # it waits on for the next connection; who sends has a time limit

    async def acquire(self) -> ApnsConnection:
        """Return the connection of now; all who wait while one is opened share its fate."""
        if self._closed:
            raise NotSent("relay-stops")
        if self._opening is None:
            if self._failure is not None and self.loop.time() < self._next_try_at:
                raise self._failure.with_traceback(None)
            self._opening = self.loop.create_task(self.create_connection(), name="APNs connect")
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError as error:
            if opening.cancelled():
                raise NotSent("connecting-stopped") from error
            raise

    async def create_connection(self) -> ApnsConnection:
        """Connect; raises OSError, TimeoutError."""
        connection = await self._dialler.connect(self._make, self._place.host, self._place.port, self.ssl_context)
        if not connection.usable:
            raise ConnectionResetError("lost while connecting")
        self.connections.append(connection)
        return connection

    def retire(self, tls: ssl.SSLContext | None = None) -> None:
        """Let the next push open a new connection, perhaps with another certificate; what is under way goes on."""
        if tls is not None:
            self.ssl_context = tls
        if self._current is not None:
            self._current.leave("key-changed")
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        self._failure = None

    async def drain(self, patience: float) -> None:
        """Take nothing new, let what is under way end within so many seconds, and cut all connections."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        connections = [connection for connection in self.connections if isinstance(connection, ApnsConnection)]
        for connection in connections:
            connection.leave("relay-stops")
        if connections:
            ends = [self.loop.create_task(connection.lost.wait()) for connection in connections]
            await asyncio.wait(ends, timeout=patience)
            self.close()
            await asyncio.wait(ends)

    def discard_connection(self, connection: APNsBaseClientProtocol) -> None:
        """Forget a connection that is lost."""
        if connection in self.connections:
            self.connections.remove(connection)

    def _make(self) -> ApnsConnection:
        return ApnsConnection(
            self._place.host,
            self._authorization,
            self._most,
            self._pace,
            on_leaving=self._leave,
            on_lost=self.discard_connection,
        )

    def _opened(self, opening: "asyncio.Task[ApnsConnection]") -> None:
        if self._opening is opening:
            self._opening = None
        if opening.cancelled():
            return
        error = opening.exception()  # seen; those who wait get it, and there may be none left
        if error is None:
            self._current = opening.result()
            self._failure = None
        elif isinstance(error, Exception):
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._failure = error
        if self._failures > 1:
            pause = min(PAUSE_CEILING, PAUSE_FIRST * 2.0 ** min(self._failures - 2, 32))
            self._next_try_at = self.loop.time() + pause * self._random.uniform(0.5, 1.0)

    def _leave(self, connection: ApnsConnection) -> None:
        if connection.answered:
            self._failures = 0
        else:
            # What takes connections and answers nothing on them is as good as away.
            self._failed(ConnectionResetError("ended before it answered anything"))
        if self._current is connection:
            self._current = None
