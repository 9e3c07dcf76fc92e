"""One connection to APNs, on which every request gets its answer or an error.

Requests that came in one turn of the loop leave together, in one piece, and are recorded together before. Answers are
matched with requests by stream. A reset or a GOAWAY ends the requests that it concerns and no others, and PINGs find
out a silent server.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from aioapns.common import NotificationResult

from eas_watcher.http2.client import Http2Client
from eas_watcher.http2.events import Answered, Broken, Event, Failed, GoneAway
from eas_watcher.http2.keepalive import KeepaliveStep, KeepaliveTimings, Silence
from eas_watcher.http2.limits import Limits
from eas_watcher.http2.violations import error_name
from relay.push.apns.answers import read_body
from relay.push.apns.exchange import Answer, Ending, HeaderBlocks, MaybeSent, NotSent, Record, Request
from relay.push.egress.leaving import Unwritable

log = logging.getLogger(__name__)

LIMITS: Final = Limits(body=65_536, kept=4_194_304)
"""Apple's bodies have less than a hundred octets."""
WANTED: Final = frozenset({b"retry-after", b"content-length"})
"""The headers of answers that are read; apns-id repeats our own, which the stream names already."""

USER_TIMEOUT: Final = 30_000
"""Milliseconds that sent bytes may stay unacknowledged until the kernel drops the connection [tcp(7)]."""

GIVEN_UP: Final = 3
"""Requests in a row that were cancelled without an answer, as their time was over: the next ones use another
connection. The server may send signs of life and serve nothing."""

PING: Final = b"is there"  # 8 bytes of our choice [RFC 9113 6.7]
OK: Final = "200"


class Pending:
    """A request that waits for its answer, in the line for a stream or on one."""

    __slots__ = ("authorization", "connection", "future", "request", "stream_id")

    def __init__(self, request: Request, future: "asyncio.Future[Answer]") -> None:
        self.request = request
        self.future = future
        self.authorization = ""
        """The header that it went out with."""
        self.connection: ApnsConnection | None = None
        """None: it has no stream yet."""
        self.stream_id = 0

    def fail(self, error: Exception) -> None:
        """Raise an error to the request unless it was cancelled."""
        if not self.future.done():
            self.future.set_exception(error)


class ApnsConnection(asyncio.Protocol):
    """One connection; needs a running loop."""

    def __init__(
        self,
        host: str,
        authorization: Callable[[], str] | None,
        in_flight: int,
        timings: KeepaliveTimings,
        line: deque[Pending],
        record: Record,
        on_leaving: "Callable[[ApnsConnection], None]",
        on_lost: "Callable[[ApnsConnection], None]",
    ) -> None:
        """Take requests from `line`, at most `in_flight` at once; `authorization` returns the header of that name.

        `on_leaving` is called once, when no new request may use this connection any more; `on_lost` when it is closed.
        """
        self.lost = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._engine: Http2Client[Pending] = Http2Client(self._loop.time(), LIMITS, WANTED)
        self._blocks = HeaderBlocks(host)
        self._host = host
        self._authorization = authorization
        self._ceiling = in_flight
        self._timings = timings
        self._line = line
        self._record = record
        self._on_leaving = on_leaving
        self._on_lost = on_lost
        self._leaving = False
        self._paused = False
        """Whether the socket accepts no more bytes."""
        self._reading_on = False
        """Whether frames that were received wait for the next turn of the loop."""
        self.flood = ""
        """The kind of frames that the server floods us with; empty: it does not."""
        self.answered = False
        """True once the server has answered a request."""
        self._unanswered = 0
        """Requests that were cancelled since the last answer."""
        self._last: int | None = None
        """The last stream that a GOAWAY lets be answered; None: none came."""
        self._ending = Ending.CONNECTION_LOST
        self._detail = ""
        self._ticking: asyncio.TimerHandle | None = None
        self._silence = Silence(timings, self._loop.time())

    # --- requests

    @property
    def usable(self) -> bool:
        """True if a new request may use this connection."""
        return not self._leaving

    @property
    def in_flight(self) -> int:
        """The number of requests that wait for their answers."""
        return len(self._engine)

    @property
    def stream_limit(self) -> int:
        """The number of requests that may be in flight now."""
        # One stream until the server has announced its limit: it would reset more than that.
        return min(self._engine.limit if self._engine.ready else 1, self._ceiling)

    def serve(self) -> None:
        """Send the requests at the head of the line that may open a stream now: first come, first served.

        A request opens a stream only if the server allows one more and flow control has room for its whole body.
        """
        if self._leaving or self._paused or self._transport is None or self._transport.is_closing():
            return
        if self._engine.exhausted:
            self.leave(Ending.STREAM_IDS_USED_UP)
            return
        admitted = self._admit()
        if not admitted:
            return
        try:
            self._record([pending.request for pending in admitted])
        except Unwritable as error:
            # Nothing may leave that is not recorded; the sender reports each push as not tried.
            for pending in (*admitted, *self._line):
                pending.fail(error)
            self._line.clear()
            return
        if not len(self._engine):
            self._silence.asked(self._loop.time())
        authorization = "" if self._authorization is None else self._authorization()
        for pending in admitted:
            request = pending.request
            pending.connection = self
            pending.authorization = authorization
            pending.stream_id = self._engine.request(self._blocks.write(request, authorization), request.body, pending)
        self._write()

    def _admit(self) -> list[Pending]:
        """Take requests from the line: as many as may open a stream now. Cancelled ones leave it too."""
        line, engine = self._line, self._engine
        free = min(self.stream_limit - len(engine), engine.free)
        window, room = engine.window, engine.room
        admitted: list[Pending] = []
        while line:
            pending = line[0]
            if not pending.future.done():
                size = len(pending.request.body)
                if len(admitted) >= free or size > room or size > window:
                    break
                window -= size
                admitted.append(pending)
            line.popleft()
        return admitted

    def give_up(self, pending: Pending) -> None:
        """Reset the stream of a cancelled request; others are not affected."""
        if pending.stream_id not in self._engine:
            return
        self._engine.reset(pending.stream_id)
        self._write()
        self._unanswered += 1
        if self._unanswered >= GIVEN_UP:
            self._refuse_new(Ending.CONNECTION_SILENT)
        self._close_when_empty()
        self.serve()

    # --- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface, and have the kernel watch the connection too."""
        self._transport = cast("asyncio.Transport", transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        self._write()
        self._silence.heard(self._loop.time())
        self._tick()

    def data_received(self, data: bytes) -> None:
        """Handle frames, a limited number at once; a server that breaks the protocol or floods us is cut off."""
        self._read(data)
        if self._engine.more and self._transport is not None and not self._reading_on:
            self._reading_on = True
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Handle more of the frames that were received; read from the socket again when none is left."""
        if self._transport is None or self._transport.is_closing():
            return
        self._read(b"")
        if self._engine.more:
            self._loop.call_soon(self._read_on)
        elif not self._transport.is_closing():
            self._reading_on = False
            self._transport.resume_reading()

    def _read(self, data: bytes) -> None:
        now = self._loop.time()
        events = self._engine.receive(data, now)
        if self._engine.heard:
            self._silence.heard(now)
        for event in events:
            if isinstance(event, Answered):
                self._unanswered = 0
                self.answered = True
                _finish(event)
            else:
                self._handle(event)
        self._write()
        self._close_when_empty()
        if self._line:
            self.serve()

    def pause_writing(self) -> None:
        """Admit no request while the socket accepts no more bytes."""
        self._paused = True

    def resume_writing(self) -> None:
        """Admit requests again."""
        self._paused = False
        self.serve()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all requests in flight, with our own reason if there is one: it says more than the kernel's."""
        log.debug("APNs connection lost", extra={"reason": self._ending, "detail": self._detail or str(exc or "")})
        self._transport = None
        if self._ticking is not None:
            self._ticking.cancel()
        while self._engine.more:
            self._read(b"")  # answers that came before the end
        self.lost.set()
        self._refuse_new(self._ending)
        for _, pending in self._engine.abandon():
            pending.fail(MaybeSent(self._ending, self._detail))
        self._on_lost(self)

    # --- leaving

    def leave(self, why: Ending) -> None:
        """Accept no new request, and close when none is in flight any more."""
        self._refuse_new(why)
        self._close_when_empty()

    def close(self) -> None:
        """Cut the connection at once: a TLS goodbye would wait for a silent server."""
        self._refuse_new(self._ending)
        if self._transport is not None:
            self._transport.abort()

    def _give_up(self, why: Ending) -> None:
        if not self._leaving:
            self._ending = why
        self.close()

    def _refuse_new(self, why: Ending) -> None:
        if not self._leaving:
            self._leaving = True
            log.debug("APNs connection takes no more requests", extra={"reason": why, "host": self._host})
            self._on_leaving(self)

    def _close_when_empty(self) -> None:
        if self._leaving and not len(self._engine):
            self.close()

    # --- events

    def _write(self) -> None:
        data = self._engine.take()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _handle(self, event: Event[Pending]) -> None:
        match event:
            case Failed(unprocessed=True) if self._last is not None and event.stream_id > self._last:
                event.owner.fail(NotSent(Ending.SERVER_GOES_AWAY))
            case Failed(unprocessed=True):
                event.owner.fail(NotSent(Ending.STREAM_REFUSED))
            case Failed():
                event.owner.fail(MaybeSent(Ending.STREAM_RESET, error_name(event.code)))
            case GoneAway():
                # The requests that the server left out may go elsewhere at once. It answers or loses the others.
                self._last = event.last
                self._refuse_new(Ending.SERVER_GOES_AWAY)
                if event.code:
                    self._ending, self._detail = Ending.SERVER_HANGS_UP, error_name(event.code)
                    self.close()
            case Broken():
                self._break(event)
            case _:
                pass

    def _break(self, broken: Broken) -> None:
        self._write()
        if broken.flooded:
            self.flood = broken.flooded
            fields = {"host": self._host, "frames": self.flood}
            log.warning("APNs connection given up: the server floods it", extra=fields)
            self._ending, self._detail = Ending.SERVER_FLOODS, self.flood
            self.close()
        else:
            self._give_up(Ending.CONNECTION_BROKEN if self._engine.ready else Ending.NO_HTTP2)

    # --- silence

    def _tick(self) -> None:
        """Send a PING to a server that was silent for long; cut the connection when the server does not answer it."""
        match self._silence.check(self._loop.time(), waiting=len(self._engine) > 0):
            case KeepaliveStep.GIVE_UP:
                self._give_up(Ending.CONNECTION_SILENT)
                return
            case KeepaliveStep.PING:
                self._engine.ping(PING)
                self._write()
            case KeepaliveStep.NONE:
                pass
        self._ticking = self._loop.call_later(self._timings.tick, self._tick)


def _finish(answered: Answered[Pending]) -> None:
    """Give an answer to its request unless that was cancelled."""
    pending = answered.owner
    if pending.future.done():
        return
    identity = pending.request.notification.notification_id
    if answered.status == 200 and not answered.headers:  # noqa: PLR2004 -- HTTP's OK
        pending.future.set_result(Answer(NotificationResult(identity, OK, "", None), "", pending.authorization))
        return
    reason, timestamp = read_body(answered.body) if answered.body else ("", None)
    retry_after = "".join(
        value.decode("ascii", "replace") for name, value in answered.headers if name == b"retry-after"
    )
    result = NotificationResult(identity, str(answered.status), reason, timestamp)
    pending.future.set_result(Answer(result, retry_after, pending.authorization))
