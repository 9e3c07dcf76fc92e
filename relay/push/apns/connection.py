"""One connection to APNs, on which every request gets its answer or an error.

Answers are matched with requests by stream. A reset or a GOAWAY ends the requests that it concerns and no others, and
PINGs find out a silent server.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, cast

from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error, NoAvailableStreamIDError
from h2.settings import ChangedSetting, SettingCodes

from eas_watcher.http2.keepalive import KeepaliveStep, KeepaliveTimings, Silence
from relay.push.apns.exchange import Answer, Ending, MaybeSent, NotBegun, NotSent, Request
from relay.push.apns.frame_budget import Flooded
from relay.push.apns.h2_engine import Engine, GoAway, error_name
from relay.push.apns.streams import InFlight, PendingAnswer, StreamSlots

log = logging.getLogger(__name__)

UNANNOUNCED: Final = 100
"""Streams at once on a server that announces no limit."""

USER_TIMEOUT: Final = 30_000
"""Milliseconds that sent bytes may stay unacknowledged until the kernel drops the connection [tcp(7)]."""

GIVEN_UP: Final = 3
"""Requests in a row that were cancelled without an answer, as their time was over: the next ones use another
connection. The server may send signs of life and serve nothing."""

PING: Final = b"is there"  # 8 bytes of our choice [RFC 9113 6.7]


class ApnsConnection(asyncio.Protocol):
    """One connection; needs a running loop."""

    def __init__(
        self,
        host: str,
        authorization: Callable[[], str] | None,
        in_flight: int,
        timings: KeepaliveTimings,
        on_leaving: "Callable[[ApnsConnection], None]",
        on_lost: "Callable[[ApnsConnection], None]",
    ) -> None:
        """Allow at most `in_flight` requests at once; `authorization` returns the header of that name.

        `on_leaving` is called once, when no new request may use this connection any more; `on_lost` when it is closed.
        """
        self.lost = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._engine = Engine(self._loop.time())
        # One stream until the server has announced its limit: it would reset more than that.
        self._slots = StreamSlots(1, in_flight, lambda: self._engine.window)
        self._requests = InFlight(self._engine, self._slots)
        self._host = host.encode()
        self._authorization = authorization
        self._timings = timings
        self._on_leaving = on_leaving
        self._on_lost = on_lost
        self._greeted = False
        self._leaving = False
        self._writing = False
        self._reading_on = False
        """Whether frames that were received wait for the next turn of the loop."""
        self.flood = ""
        """The kind of frames that the server floods us with; empty: it does not."""
        self._unanswered = 0
        """Requests that were cancelled since the last answer."""
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
    def answered(self) -> bool:
        """True once the server has answered a request."""
        return self._requests.answered

    @property
    def in_flight(self) -> int:
        """The number of requests that wait for their answers."""
        return len(self._requests)

    @property
    def stream_limit(self) -> int:
        """The number of requests that may be in flight now."""
        return self._slots.limit

    async def send(self, request: Request) -> Answer:
        """Send one request and wait for its answer; raises NotSent, MaybeSent.

        A cancelled request resets its stream; others are not affected.
        """
        try:
            stream_id = await self._slots.acquire(len(request.body))
        except NoAvailableStreamIDError as error:
            self.leave(Ending.STREAM_IDS_USED_UP)
            raise NotBegun(Ending.STREAM_IDS_USED_UP) from error
        authorization = "" if self._authorization is None else self._authorization()
        try:
            self._engine.request(stream_id, request.headers(self._host, authorization), request.body)
        except H2Error as error:
            self._slots.release()
            self._give_up(Ending.CONNECTION_BROKEN)
            raise NotSent(Ending.CONNECTION_BROKEN) from error
        self._write_soon()
        if not self._requests:
            self._silence.asked(self._loop.time())
        pending = PendingAnswer(self._loop.create_future(), request.notification.notification_id, authorization)
        self._requests.add(stream_id, pending)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._cancel(stream_id)
            raise

    def _cancel(self, stream_id: int) -> None:
        """Reset the stream of a cancelled request."""
        if stream_id in self._requests and not self.lost.is_set():
            try:
                self._engine.reset(stream_id)
            except H2Error:
                self._give_up(Ending.CONNECTION_BROKEN)
            self._write_soon()
        if self._requests.end(stream_id) is not None:
            self._unanswered += 1
        if self._unanswered >= GIVEN_UP:
            self._refuse_new(Ending.CONNECTION_SILENT)
        self._close_when_empty()

    # --- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface, and have the kernel watch the connection too."""
        self._transport = cast("asyncio.Transport", transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        self._engine.begin()
        self._write()
        self._silence.heard(self._loop.time())
        self._tick()

    def data_received(self, data: bytes) -> None:
        """Handle frames, a limited number at once; a server that breaks the protocol or floods us is cut off."""
        self._engine.refill(self._loop.time(), len(self._requests))
        self._read(data)
        if self._engine.more and self._transport is not None and not self._reading_on:
            self._reading_on = True
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Handle more of the frames that were received; read from the socket again when none is left."""
        if self.lost.is_set() or self._transport is None or self._transport.is_closing():
            return
        self._read(b"")
        if self._engine.more:
            self._loop.call_soon(self._read_on)
        elif not self._transport.is_closing():
            self._reading_on = False
            self._transport.resume_reading()

    def _read(self, data: bytes) -> None:
        try:
            events, goaways = self._engine.receive(data)
            if self._engine.heard:
                self._silence.heard(self._loop.time())
            for event in events:
                self._handle(event)
        except Flooded as flood:
            self.flood = str(flood)
            fields = {"host": self._host.decode(), "frames": self.flood}
            log.warning("APNs connection given up: the server floods it", extra=fields)
            self._ending, self._detail = Ending.SERVER_FLOODS, self.flood
            self.close()
            return
        except H2Error:
            self._write()
            self._give_up(Ending.CONNECTION_BROKEN if self._greeted else Ending.NO_HTTP2)
            return
        for goaway in goaways:
            self._handle_goaway(goaway)
        self._close_when_empty()
        self._write_soon()

    def pause_writing(self) -> None:
        """Admit no request while the socket accepts no more bytes."""
        self._slots.paused = True

    def resume_writing(self) -> None:
        """Admit requests again."""
        self._slots.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        """End all requests in flight, with our own reason if there is one: it says more than the kernel's."""
        log.debug("APNs connection lost", extra={"reason": self._ending, "detail": self._detail or str(exc or "")})
        if self._ticking is not None:
            self._ticking.cancel()
        while self._engine.more and not self.flood:
            self._read(b"")  # answers that came before the end
        self.lost.set()
        self._refuse_new(self._ending)
        self._requests.fail(MaybeSent, self._ending, self._detail)
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
            self._slots.close(NotBegun(why))
            self._on_leaving(self)

    def _handle_goaway(self, goaway: GoAway) -> None:
        """Fail the requests that the server left out: they may go elsewhere at once. It answers or loses the others."""
        self._refuse_new(Ending.SERVER_GOES_AWAY)
        self._requests.fail(NotSent, Ending.SERVER_GOES_AWAY, beyond=goaway.last)
        if not goaway.graceful:
            self._ending, self._detail = Ending.SERVER_HANGS_UP, error_name(goaway.code)
            self.close()

    def _close_when_empty(self) -> None:
        if self._leaving and not self._requests:
            self.close()

    # --- frames

    def _write_soon(self) -> None:
        """Write once per turn of the loop, so that pushes of one burst share TLS records."""
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._writing = False
        if self._transport is not None and not self._transport.is_closing():
            data = self._engine.data_to_send()
            if data:
                self._transport.write(data)

    def _handle(self, event: Event) -> None:
        match event:
            case StreamEnded():
                self._unanswered = 0
                self._requests.handle(event)
            case ResponseReceived() | DataReceived() | StreamReset():
                self._requests.handle(event)
            case WindowUpdated():
                self._slots.admit()
            case RemoteSettingsChanged(changed_settings=changed):
                self._adopt_limit(changed.get(SettingCodes.MAX_CONCURRENT_STREAMS))
            case _:
                pass

    def _adopt_limit(self, announced: ChangedSetting | None) -> None:
        if announced is not None:
            self._slots.limit = announced.new_value
        elif not self._greeted:
            self._slots.limit = UNANNOUNCED
        else:
            self._slots.admit()  # the window of new streams may have changed
        self._greeted = True

    # --- silence

    def _tick(self) -> None:
        """Send a PING to a server that was silent for long; cut the connection when the server does not answer it."""
        match self._silence.check(self._loop.time(), waiting=bool(self._requests)):
            case KeepaliveStep.GIVE_UP:
                self._give_up(Ending.CONNECTION_SILENT)
                return
            case KeepaliveStep.PING:
                self._engine.ping(PING)
                self._write()
            case KeepaliveStep.NONE:
                pass
        self._ticking = self._loop.call_later(self._timings.tick, self._tick)
