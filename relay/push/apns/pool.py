"""The connections of one account to one environment: one at a time, opened once for all that wait, kept open.

Requests wait here in one line, from which the connection takes those that may leave. Every request ends as an answer,
NotSent, MaybeSent or the error that prevented a connection. The pool repeats no request; the sender decides about that.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final

from eas_watcher.breaker import Breaker, Failure, Rules, Turn
from eas_watcher.http2.keepalive import KeepaliveTimings
from relay.network.dialling import Dialler
from relay.push.apns.config import Endpoint
from relay.push.apns.connection import ApnsConnection, Pending
from relay.push.apns.exchange import Answer, Ending, NotSent, Record, Request

CONNECTING: Final = Rules(first=0.25, ceiling=8.0, spread=0.3, failures=2)
"""The second attempt to connect may follow the first at once; rows and channels have longer waits of their own."""


class ApnsPool:
    """A pool that opens a connection for the first request, and another when the server ends that one; needs a loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        dialler: Dialler,
        tls: ssl.SSLContext,
        authorization: Callable[[], str] | None,
        *,
        in_flight: int,
        timings: KeepaliveTimings,
        random: Random,
        record: Record,
    ) -> None:
        """Allow at most `in_flight` requests at once; `authorization` returns the header of that name."""
        self.connections: list[ApnsConnection] = []
        """The connection for new requests, and older ones that still wait for answers."""
        self._loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._dialler = dialler
        self._tls = tls
        self._authorization = authorization
        self._in_flight = in_flight
        self._timings = timings
        self._random = random
        self._record = record
        self._line: deque[Pending] = deque()
        self._serving = False
        """Whether the line is looked at in the next turn of the loop."""
        self._current: ApnsConnection | None = None
        self._opening: asyncio.Task[ApnsConnection] | None = None
        self._breaker = Breaker(CONNECTING)
        self._failure: Exception | None = None
        """Why the last attempt to connect failed; None: it did not."""
        self._closed = False

    @property
    def in_flight(self) -> int:
        """The number of requests that wait for a connection or for an answer."""
        return len(self._line) + sum(connection.in_flight for connection in self.connections)

    @property
    def failure(self) -> Exception | None:
        """Why the last attempt to connect failed; None: it did not."""
        return self._failure

    async def send(self, request: Request) -> Answer:
        """Send one request and wait for its answer.

        Raises NotSent, MaybeSent, Unwritable, and OSError or TimeoutError when there is no connection. A cancelled
        request resets its stream.
        """
        if self._closed:
            raise NotSent(Ending.RELAY_STOPS)
        pending = Pending(request, self._loop.create_future())
        self._line.append(pending)
        if not self._serving:
            self._serve_soon()
        try:
            return await pending.future
        except asyncio.CancelledError:
            if pending.connection is None:
                self._serve_soon()  # the next request in the line may need less room
            else:
                pending.connection.give_up(pending)
            raise

    def retire(self, tls: ssl.SSLContext | None = None) -> None:
        """Open a new connection for the next request, with another certificate if `tls` is given.

        Requests in flight end on the old connection.
        """
        if tls is not None:
            self._tls = tls
        if self._current is not None:
            self._current.leave(Ending.KEY_CHANGED)
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        now = self._loop.time()
        self._breaker = self._breaker.probe_lost(now).hurried(now)
        self._serve_soon()

    async def drain(self, patience: float) -> None:
        """Accept no new request, wait so many seconds for those in flight, and cut all connections."""
        self._closed = True
        self._fail_all(NotSent(Ending.RELAY_STOPS))
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        connections = list(self.connections)
        for connection in connections:
            connection.leave(Ending.RELAY_STOPS)
        if connections:
            ends = [self._loop.create_task(connection.lost.wait()) for connection in connections]
            await asyncio.wait(ends, timeout=patience)
            for connection in connections:
                connection.close()
            await asyncio.wait(ends)

    # --- the line

    def _serve_soon(self) -> None:
        """Look at the line once per turn of the loop, so that pushes of one burst leave together."""
        if not self._serving:
            self._serving = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Let the connection take requests from the line, or open one for those that wait there."""
        self._serving = False
        if self._current is not None and self._current.usable:
            self._current.serve()
        elif self._opening is None and not self._closed and any(not each.future.done() for each in self._line):
            self._open_or_fail()

    def _fail_all(self, error: Exception) -> None:
        """Raise an error to all requests in the line."""
        while self._line:
            self._line.popleft().fail(error)

    # --- connections

    def _open_or_fail(self) -> None:
        """Connect for all requests in the line, unless the last attempt failed a moment ago: they get its error."""
        self._breaker, turn = self._breaker.admit(self._loop.time(), self._random)
        if turn is Turn.WAITS and self._failure is not None:
            self._fail_all(self._failure)
            return
        self._opening = self._loop.create_task(self._open(), name="APNs connect")
        self._opening.add_done_callback(self._opened)

    async def _open(self) -> ApnsConnection:
        """Connect; raises OSError, TimeoutError."""
        connection = await self._dialler.connect(self._make, self._endpoint.host, self._endpoint.port, self._tls)
        if not connection.usable:
            raise ConnectionResetError("lost while connecting")
        self.connections.append(connection)
        return connection

    def _make(self) -> ApnsConnection:
        return ApnsConnection(
            self._endpoint.host,
            self._authorization,
            self._in_flight,
            self._timings,
            self._line,
            self._record,
            on_leaving=self._leave,
            on_lost=self._forget,
        )

    def _opened(self, opening: "asyncio.Task[ApnsConnection]") -> None:
        if self._opening is opening:
            self._opening = None
        if opening.cancelled():
            return
        error = opening.exception()  # retrieved here because there may be no request left that waits for it
        if error is None:
            self._current = opening.result()
            self._failure = None
            self._serve()
        elif isinstance(error, Exception):
            self._failed(error)
            self._fail_all(error)

    def _failed(self, error: Exception) -> None:
        self._failure = error
        self._breaker = self._breaker.failed(None, Failure(), self._loop.time(), self._random, probe=True)

    def _leave(self, connection: ApnsConnection) -> None:
        if connection.flood:
            self._failed(NotSent(Ending.SERVER_FLOODS, connection.flood))
        elif connection.answered:
            self._breaker = self._breaker.answered(self._loop.time(), probe=True)
        else:
            # A server that accepts connections and answers nothing on them counts as unreachable.
            self._failed(ConnectionResetError("ended before it answered anything"))
        if self._current is connection:
            self._current = None
        self._serve_soon()

    def _forget(self, connection: ApnsConnection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
