"""HTTP/1.1 over one connection: one request after the other, and nothing but the request's own state while it is held.

A request is written once and never again: a Sync sent twice by a transport can lose a mail
[observed: Z-Push 2.7.1, 2026-11].
"""

import asyncio
import ssl
from typing import Final, Protocol

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import ProtocolViolation, Unreachable
from eas_watcher.ports import Done
from eas_watcher.transport.deadlines import Deadlines
from eas_watcher.transport.http1_reader import AnswerReader
from eas_watcher.transport.target import Target, http1_request
from eas_watcher.transport.tls import in_words
from eas_watcher.transport.tls_connection import Connection

KEEP_IDLE: Final = 75.0  # seconds an unused connection waits for its next request
STALE: Final = 5.0
"""Seconds until a kept connection that the server had closed shows it: a round trip on a busy machine."""


class Http1Pool(Protocol):
    """What the connections to one server share."""

    @property
    def deadlines(self) -> Deadlines:
        """When requests and unused connections end."""

    def unused(self, connection: "Http1Connection") -> bool:
        """Take a connection that carried a request; return False if it shall not carry another."""

    def gone(self, connection: "Http1Connection") -> None:
        """Note that a connection has ended."""


class Http1Connection:
    """A connection that carries one request at a time."""

    __slots__ = ("_connection", "_exchange", "_fate", "_pool", "_slot", "_used")

    def __init__(self, connection: Connection, pool: Http1Pool) -> None:
        """Carry requests over a fresh connection."""
        self._connection = connection
        self._pool = pool
        self._exchange: Exchange | None = None
        self._fate: Exception | None = None
        """Why the connection was lost before it carried anything."""
        self._used = False
        self._slot = 0
        """Of the deadline of the request, or of the time without one."""

    @property
    def requests(self) -> int:
        """The number of requests without an answer."""
        return int(self._exchange is not None)

    def carry(self, request: HttpRequest, target: Target, done: Done, seconds: float) -> "Exchange":
        """Send a request, whose answer must be whole within so many seconds.

        Raises Unreachable if the connection was lost before, or is lost by that.
        """
        if not self._connection.open:
            raise _lost(self._fate, reached=False)
        exchange = Exchange(self, request, kept=self._used)
        self._wait(exchange, seconds)
        self._used = True
        self._connection.write(http1_request(request, target))
        if not self._connection.open:
            raise exchange.lost(self._fate)
        exchange.report_to(done)
        return exchange

    def rest(self) -> None:
        """Wait for a request for some time, then end."""
        self._wait(None, KEEP_IDLE)

    def received(self, data: bytes) -> None:
        """Read some of the answer."""
        exchange = self._exchange
        if exchange is None:
            self.end()  # nobody asked for anything
            return
        try:
            reply = exchange.read(data)
        except ProtocolViolation as error:
            self.end()
            exchange.report(error)
            return
        if reply is not None:
            if exchange.keeps and not self._connection.unsent and self._pool.unused(self):
                self.rest()
            else:
                self.end()
            exchange.report(reply)

    def lost(self, error: Exception | None) -> None:
        """Report the end of the connection to who waits for the answer."""
        exchange = self._exchange
        self._forget()
        self._fate = error
        if exchange is not None:
            reply = exchange.at_the_end() if error is None else None
            exchange.report(reply or exchange.lost(error))

    def expire(self, slot: int) -> None:
        """End a request that takes too long, or a connection that nobody used for long."""
        if slot != self._slot:
            return
        exchange = self._exchange
        self.end()
        if exchange is not None:
            exchange.report(Unreachable("no answer in time", exchange.survived))

    def end(self) -> None:
        """Close the connection at once."""
        self._forget()
        self._connection.close()

    async def leave(self) -> None:
        """Close the connection; return when the server has closed it too, or some milliseconds later."""
        exchange = self._exchange
        self._forget()
        await self._connection.leave()
        if exchange is not None:  # given up, which reports nothing, or the transport closes
            exchange.report(exchange.lost(ConnectionAbortedError("the relay closed it")))

    def _wait(self, exchange: "Exchange | None", seconds: float) -> None:
        """Wait for the answer to a request, or for the next request."""
        self._pool.deadlines.remove(self, self._slot)
        self._exchange = exchange
        self._slot = self._pool.deadlines.add(self, seconds)

    def _forget(self) -> None:
        """Wait for nothing any more."""
        self._pool.deadlines.remove(self, self._slot)
        self._slot, self._exchange = 0, None
        self._pool.gone(self)


class Exchange:
    """A request whose answer has not come."""

    __slots__ = ("_began", "_carrier", "_done", "_kept", "_largest", "_method", "_reader")

    def __init__(self, carrier: Http1Connection, request: HttpRequest, *, kept: bool) -> None:
        """Report to nobody yet; `kept`: the connection carried other requests before."""
        self._carrier = carrier
        self._method = request.method
        self._largest = request.largest
        self._done: Done | None = None
        self._kept = kept
        self._began = asyncio.get_running_loop().time()
        self._reader: AnswerReader | None = None
        """None: no byte has come."""

    def report_to(self, done: Done) -> None:
        """Call `done` once, with the answer or what came instead."""
        self._done = done

    async def give_up(self) -> None:
        """Close it, without a call of its `Done`; return when the server holds it no longer, as far as can be known."""
        if self._done is not None:
            self._done = None
            await self._carrier.leave()

    def drop(self) -> None:
        """Close it at once, without a call of its `Done`."""
        if self._done is not None:
            self._done = None
            self._carrier.end()

    @property
    def survived(self) -> float:
        """For how many seconds the request has been held."""
        return asyncio.get_running_loop().time() - self._began

    @property
    def keeps(self) -> bool:
        """True if the answer is whole and leaves the connection to other requests."""
        return self._reader is not None and self._reader.keep

    def read(self, data: bytes) -> HttpReply | None:
        """Return the answer once it is whole; raises ProtocolViolation."""
        if self._reader is None:
            self._reader = AnswerReader(self._method, self._largest)
        return self._reader.feed(data)

    def at_the_end(self) -> HttpReply | None:
        """Return the answer, if the end of the connection is its end."""
        try:
            return None if self._reader is None else self._reader.end()
        except ProtocolViolation:
            return None

    def lost(self, error: Exception | None) -> Unreachable:
        """Return what the loss of the connection means."""
        survived = self.survived
        return _lost(error, survived, stale=self._kept and self._reader is None and survived < STALE)

    def report(self, result: HttpReply | Exception) -> None:
        """Hand over the answer, or what came instead; once."""
        done, self._done = self._done, None
        if done is not None:
            done(result)


def _lost(error: Exception | None, survived: float = 0.0, *, reached: bool = True, stale: bool = False) -> Unreachable:
    failure = Unreachable(f"connection lost: {words(error)}", survived, reached, stale)
    failure.__cause__ = error
    return failure


def words(error: Exception | None) -> str:
    """Return how a connection was lost, without addresses that change."""
    match error:
        case None:
            return "the server closed it"
        case ssl.SSLError():
            return in_words(error)
        case OSError(strerror=str(text)):
            return text
        case _:
            return str(error) or type(error).__name__
