"""HTTP/2 over one connection: many requests at once, each with a credential of its own and a stream of its own.

What is held costs an entry in the engine's table and a `StreamExchange`, no task and no timer. All that is written in
one turn of the event loop leaves as one piece. No connection is ever authenticated as a whole: Kerberos and client
certificates, which need that, use HTTP/1.1.
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Protocol

from eas_watcher.commands.request import LARGE, SMALL, HttpReply, HttpRequest
from eas_watcher.errors import EasError, ProtocolViolation, Unreachable
from eas_watcher.http2.client import Http2Client
from eas_watcher.http2.events import Answered, Broken, Failed, GoneAway, Settled, Widened
from eas_watcher.http2.header_block import Header, header_block, header_name, string
from eas_watcher.http2.keepalive import KeepaliveStep, KeepaliveTimings, Silence
from eas_watcher.http2.limits import Limits
from eas_watcher.http2.violations import ErrorCode, error_name
from eas_watcher.ports import Done
from eas_watcher.transport.content_coding import decoded
from eas_watcher.transport.deadlines import Deadlines
from eas_watcher.transport.http1 import KEEP_IDLE, STALE, words
from eas_watcher.transport.target import Target
from eas_watcher.transport.tls_connection import GOODBYE, Connection

STREAMS: Final = 100
"""Requests at once on a connection, even where the server allows more: they are lost together."""
PATIENCE: Final = 20.0  # seconds from the TLS handshake until the server's settings came
TIMINGS: Final = KeepaliveTimings(idle=45.0, waiting=45.0, pong=20.0, tick=5.0)
"""A silent connection is found dead after a minute; firewalls forget a connection after 60 s at the earliest."""
LIMITS: Final = Limits(body=SMALL, kept=4 * LARGE, errors_whole=False)
ENDED: Final = "the server ends connections before they carry a request"
OK, MISDIRECTED = 200, 421
REPEATED: Final = frozenset({"ms-asprotocolcommands", "ms-asprotocolversions", "www-authenticate"})
"""Headers that may come in several lines, which commas join [RFC 9110 5.3]."""
REMEMBERED: Final = 64  # parts of header blocks that requests have in common
COMMON: Final = frozenset({"User-Agent", "Content-Type", "MS-ASProtocolVersion"})
"""Headers that are alike in the requests of all mailboxes."""
PING_SIZE: Final = 8  # octets of its content [RFC 9113 6.7]


class Http2Pool(Protocol):
    """What the connections to one server share."""

    @property
    def deadlines(self) -> Deadlines:
        """When requests and unused connections end."""

    def next_number(self) -> int:
        """Return the number of a new connection, unlike that of any other in this process."""

    def settled(self, connection: "Http2Connection") -> None:
        """Note that the settings of the server changed."""

    def freed(self, connection: "Http2Connection") -> None:
        """Note that a stream of a connection has ended."""

    def wants_http1(self, reason: str) -> None:
        """Note that the server, or what stands before it, serves HTTP/1.1 better."""

    def gone(self, connection: "Http2Connection") -> None:
        """Note that a connection takes no request any more."""

    def ended(self, connection: "Http2Connection") -> None:
        """Note that a connection has ended."""


class Http2Connection:
    """A connection that carries many requests at once."""

    __slots__ = (
        "_client",
        "_connection",
        "_fate",
        "_flushing",
        "_heard_at",
        "_leaving",
        "_loop",
        "_number",
        "_over",
        "_pings",
        "_pool",
        "_silence",
        "_slot",
        "_used",
        "_waits_until",
        "ready",
    )

    def __init__(self, connection: Connection, pool: Http2Pool) -> None:
        """Send our settings over a fresh connection."""
        loop = self._loop = asyncio.get_running_loop()
        """Kept, since to ask for it is a system call each time."""
        self._client: Http2Client[StreamExchange] = Http2Client(loop.time(), LIMITS)
        self._connection = connection
        self._pool = pool
        self._number = pool.next_number()
        self._silence = Silence(TIMINGS, loop.time())
        self._heard_at = loop.time()
        self._fate: EasError | None = None
        """Why the connection ended before it was ready."""
        self._over = False
        self._flushing = False
        self._pings = 0
        """How many PINGs were sent."""
        self._leaving: list[tuple[int, asyncio.Future[None]]] = []
        """Those who wait until the server has answered so many PINGs."""
        self._used = False
        self._waits_until = loop.time() + PATIENCE
        self.ready: asyncio.Future[None] = loop.create_future()
        """Done when the server's settings came, or never will."""
        self._slot = pool.deadlines.add(self, TIMINGS.tick)
        self._flush_soon()

    @property
    def requests(self) -> int:
        """The number of requests without an answer."""
        return len(self._client)

    @property
    def carried(self) -> bool:
        """True if a request was ever sent."""
        return self._used

    @property
    def room(self) -> int:
        """The number of requests that may be sent now."""
        if self._over or not self._client.ready:
            return 0
        return min(self._client.free, STREAMS - len(self._client))

    @property
    def streams(self) -> int:
        """The number of requests that the connection carries at once."""
        return min(self._client.limit, STREAMS)

    def check(self) -> None:
        """Raise Unreachable if the connection ended before it was ready, or takes no request since."""
        if self._fate is not None:
            raise self._fate
        if self._over or self._client.going:
            raise Unreachable(ENDED, reached=False)

    def carry(self, request: HttpRequest, target: Target, done: Done, seconds: float) -> "StreamExchange":
        """Send a request, whose answer must be whole within so many seconds; there must be room for it."""
        exchange = StreamExchange(self, request, done, self._loop.time())
        if not len(self._client):
            exchange.after_rest = self._used
            self._silence.asked(exchange.began)
        exchange.stream = self._client.request(http2_block(request, target), request.body, exchange, request.largest)
        exchange.slot = self._pool.deadlines.add(exchange, seconds)
        self._used = True
        self._flush_soon()
        return exchange

    # Called by the connection.

    def received(self, data: bytes) -> None:
        """Read frames, and report what they mean."""
        if self._over:
            return
        now = self._loop.time()
        events = self._client.receive(data, now)
        if self._client.heard:
            self._heard_at = now
            self._silence.heard(now)
        for event in events:
            if isinstance(event, Answered):
                self._answered(event)
            else:
                self._take(event)
        if self._leaving:
            self._pongs()
        if self._client.more and not self._over:
            self._loop.call_soon(self.received, b"")
        self._flush()
        if self._client.going and not len(self._client) and not self._over:
            self.end()

    def lost(self, error: Exception | None) -> None:
        """Report the end of the connection to all who wait for an answer."""
        self._abandon(f"connection lost: {words(error)}", error)

    def expire(self, slot: int) -> None:
        """Look for a sign of life; end a connection that is dead, or that nobody used for long."""
        if self._over or slot != self._slot:
            return
        now = self._loop.time()
        if not self._client.ready:
            if now >= self._waits_until:
                self._connection.abort()
                self._pool.wants_http1("it did not begin to speak HTTP/2")
                self._abandon("no connection in time: the server agreed on HTTP/2 and does not speak it", None)
                return
        else:
            match self._silence.check(now, waiting=bool(len(self._client))):
                case KeepaliveStep.GIVE_UP:
                    self._connection.abort()
                    self._abandon("connection lost: the server answers no PING", None)
                    return
                case KeepaliveStep.PING:
                    self._ping()
                    self._flush()
                case KeepaliveStep.NONE:
                    pass
            if not len(self._client):
                if now >= self._waits_until:
                    self.end()
                    return
            else:
                self._waits_until = now + KEEP_IDLE
        self._slot = self._pool.deadlines.add(self, TIMINGS.tick)

    # Called by exchanges and the pool.

    def drop(self, exchange: "StreamExchange") -> None:
        """Give one request up."""
        if self._over:
            return
        self._pool.deadlines.remove(exchange, exchange.slot)
        self._client.reset(exchange.stream)
        self._flush_soon()
        self._pool.freed(self)

    async def give_up(self, exchange: "StreamExchange") -> None:
        """Give one request up; return when the server has processed that, or some milliseconds later.

        The next Ping of its mailbox may take another connection, and would overtake the reset.
        """
        if self._over:
            return
        self.drop(exchange)
        self._ping()
        processed: asyncio.Future[None] = self._loop.create_future()
        self._leaving.append((self._pings, processed))
        await asyncio.wait([processed], timeout=GOODBYE)

    def end(self) -> None:
        """Close the connection at once; who waits for an answer gets none."""
        if self._over:
            return
        self._client.close()
        self._flush()
        self._connection.close()
        self._abandon("connection closed", None)

    async def leave(self) -> None:
        """Close the connection; return when the server has closed it too, or some milliseconds later."""
        if not self._over:
            self._client.close()
            self._flush()
            self._abandon("connection closed", None)
        await self._connection.leave()

    # What came.

    def _take(self, event: Failed["StreamExchange"] | Settled | GoneAway | Broken | Widened) -> None:
        match event:
            case Failed(_, exchange, code, text, unprocessed):
                self._failed(exchange, code, text, unprocessed=unprocessed)
            case Settled():
                self._settled()
            case GoneAway(code, _):
                self._gone_away(code)
            case Broken(code, text, flooded):
                self._broken(f"too many frames: {flooded}" if flooded else text or error_name(code))
            case Widened():
                pass

    def _answered(self, answer: Answered["StreamExchange"]) -> None:
        exchange = answer.owner
        if answer.status == MISDIRECTED:
            self._pool.wants_http1("it says that the request is for another connection (HTTP 421)")
            self._report(exchange, self._refused("the server wants another connection (HTTP 421)"))
            return
        try:
            reply = read_reply(answer.status, answer.headers, answer.body, exchange.largest)
        except ProtocolViolation as error:
            self._report(exchange, error)
        else:
            self._report(exchange, reply)

    def _failed(self, exchange: "StreamExchange", code: int, text: str, *, unprocessed: bool) -> None:
        error: EasError
        if text:
            error = ProtocolViolation(text)
        elif code == ErrorCode.HTTP_1_1_REQUIRED:
            self._pool.wants_http1("it asks for it (HTTP_1_1_REQUIRED)")
            error = self._refused("the server wants HTTP/1.1 for this request")
        elif unprocessed:
            error = self._refused("the server did not take the request")
        else:
            error = Unreachable(f"the server reset the request: {error_name(code)}", exchange.survived)
        self._report(exchange, error)

    def _refused(self, detail: str) -> Unreachable:
        """Return the failure of a request that the server did not process, though it is there."""
        return Unreachable(detail, reached=False, connection=self._number)

    def _settled(self) -> None:
        if not self.ready.done():
            self._waits_until = self._loop.time() + KEEP_IDLE
            self.ready.set_result(None)
        else:
            self._pool.settled(self)

    def _gone_away(self, code: int) -> None:
        if code == ErrorCode.HTTP_1_1_REQUIRED:
            self._pool.wants_http1("it asks for it (HTTP_1_1_REQUIRED)")
        self._pool.gone(self)

    def _broken(self, text: str) -> None:
        """End a connection whose server broke HTTP/2."""
        self._flush()  # our GOAWAY
        self._connection.close()
        self._pool.wants_http1(f"it broke HTTP/2: {text}")
        self._abandon(f"the server broke HTTP/2: {text}", None)

    def _abandon(self, detail: str, cause: Exception | None) -> None:
        """End all requests of a connection that is over."""
        if self._over:
            return
        self._over = True
        self._pool.deadlines.remove(self, self._slot)
        now = self._loop.time()
        for _, exchange in self._client.abandon():
            survived = now - exchange.began
            stale = exchange.after_rest and survived < STALE and self._heard_at <= exchange.began
            lost = Unreachable(detail, survived, stale=stale, connection=0 if stale else self._number)
            lost.__cause__ = cause
            self._report(exchange, lost)
        if not self.ready.done():
            self._fate = Unreachable(detail, reached=False)
            self._fate.__cause__ = cause
            self.ready.set_result(None)
        for _, processed in self._leaving:
            if not processed.done():
                processed.set_result(None)
        self._leaving.clear()
        self._pool.ended(self)

    def _report(self, exchange: "StreamExchange", result: HttpReply | EasError) -> None:
        self._pool.deadlines.remove(exchange, exchange.slot)
        exchange.report(result)
        self._pool.freed(self)

    def _pongs(self) -> None:
        """Let those go whose PING was answered: the server has processed what was sent before it."""
        while self._leaving and self._leaving[0][0] <= self._client.pongs:
            _, processed = self._leaving.pop(0)
            if not processed.done():
                processed.set_result(None)

    def _ping(self) -> None:
        self._pings += 1
        self._client.ping(self._pings.to_bytes(PING_SIZE))
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        data = self._client.take()
        if data and not self._over:
            self._connection.write(data)


class StreamExchange:
    """A request whose answer has not come."""

    __slots__ = ("_carrier", "_done", "after_rest", "began", "largest", "slot", "stream")

    def __init__(self, carrier: Http2Connection, request: HttpRequest, done: Done, now: float) -> None:
        """Call `done` once; `stream` and `slot` are set when the request is sent. `now` is `loop.time()`."""
        self._carrier = carrier
        self._done: Done | None = done
        self.largest = request.largest
        self.began = now
        self.after_rest = False
        """True if the connection had carried requests before, and none when this one was sent."""
        self.stream = self.slot = 0

    @property
    def survived(self) -> float:
        """For how many seconds the request has been held."""
        return asyncio.get_running_loop().time() - self.began

    async def give_up(self) -> None:
        """Reset its stream, without a call of its `Done`; return when the server has processed that."""
        if self._done is not None:
            self._done = None
            await self._carrier.give_up(self)

    def drop(self) -> None:
        """Reset its stream, without a call of its `Done`."""
        if self._done is not None:
            self._done = None
            self._carrier.drop(self)

    def expire(self, slot: int) -> None:
        """End a request that takes too long."""
        if slot == self.slot and self._done is not None:
            done, self._done = self._done, None
            self._carrier.drop(self)
            done(Unreachable("no answer in time", self.survived))

    def report(self, result: HttpReply | EasError) -> None:
        """Hand over the answer, or what came instead; once."""
        done, self._done = self._done, None
        if done is not None:
            done(result)


def http2_block(request: HttpRequest, target: Target) -> bytes:
    """Return the header block of a request; its values enter no table, for one of them is a password."""
    block = [_start(request.method, target.authority), string(target.path.encode("ascii"))]
    for name, value in request.headers.items():
        if name in COMMON:
            block.append(_field(name, value))
        else:
            # A server's cookie goes back as it came, in whatever encoding.
            block += (_named(name), string(value.encode("utf-8", "surrogateescape")))
    if request.body or request.method == "POST":
        block += (_named("content-length"), string(b"%d" % len(request.body)))
    return b"".join(block)


@lru_cache(REMEMBERED)
def _start(method: str, authority: str) -> bytes:
    """Return the headers of all requests to a server, up to the value of `:path`."""
    start = ((b":method", method.encode("ascii")), (b":scheme", b"https"), (b":authority", authority.encode("ascii")))
    return header_block(start) + header_name(b":path")


@lru_cache(REMEMBERED)
def _field(name: str, value: str) -> bytes:
    """Return a header that all requests have in common, or many."""
    return _named(name) + string(value.encode("utf-8", "surrogateescape"))


@lru_cache(REMEMBERED)
def _named(name: str) -> bytes:
    return header_name(name.lower().encode("ascii"))


def read_reply(status: int, headers: Sequence[Header], body: bytes, largest: int) -> HttpReply:
    """Return an answer; raises ProtocolViolation for a body that is not what its Content-Encoding says."""
    found: dict[str, str] = {}
    cookies: list[str] = []
    for written, octets in headers:
        name, value = written.decode("ascii", "replace"), octets.decode("utf-8", "surrogateescape")
        if name == "set-cookie":
            cookies.append(value)
        if name in REPEATED and name in found:
            value = f"{found[name]},{value}"
        found[name] = value
    coding = found.get("content-encoding")
    if body and coding is not None:
        body = _decoded(status, body, coding, largest)
    return HttpReply(status, found, body, tuple(cookies))


def _decoded(status: int, body: bytes, coding: str, largest: int) -> bytes:
    try:
        content = decoded(body, coding, largest)
    except ProtocolViolation:
        if status == OK:
            raise
        return b""
    if content is None and status == OK:
        raise ProtocolViolation(f"the answer is larger than {largest // 1024} KiB")
    return content or b""
