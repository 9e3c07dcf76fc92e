"""Own one connection to APNs: what aioapns' protocol lacks so that every request gets its answer or its end.

aioapns 4.0 is the base; the answers are ours. They are matched by stream, bodies are put together and their room given
back, resets and farewells end what they concern and nothing else, and a silent peer is found out by PING.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, cast

from aioapns.connection import APNsBaseClientProtocol, APNsTLSClientProtocol
from h2.errors import ErrorCodes
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

from relay.push.apns.exchange import Answer, Call, MaybeSent, NotBegun, NotSent, Request
from relay.push.apns.h2_engine import Engine, Farewell, Farewells, error_name
from relay.push.apns.inflight import UnderWay
from relay.push.apns.keepalive import Doubt, KeepaliveTimings, Silence
from relay.push.apns.streams import Streams

log = logging.getLogger(__name__)

UNANNOUNCED: Final = 100
"""Streams at once on a server that announces no limit."""

USER_TIMEOUT: Final = 30_000
"""Milliseconds until the kernel gives up a connection whose bytes nobody acknowledges [tcp(7) TCP_USER_TIMEOUT]."""

PING: Final = b"is there"  # 8 bytes of our choice [RFC 9113 6.7]


class ApnsConnection(APNsTLSClientProtocol):
    """Be one connection; `on_leaving` is told once when no new request may use it."""

    def __init__(
        self,
        host: str,
        authorization: Callable[[], str] | None,
        most: int,
        pace: KeepaliveTimings,
        on_leaving: "Callable[[ApnsConnection], None]",
        on_lost: "Callable[[APNsBaseClientProtocol], None]",
    ) -> None:
        """Take the host's name, what gives the authorization header, and how many requests may be under way."""
        super().__init__("", asyncio.get_running_loop())
        self.conn: Engine = Engine()  # the engine: nothing beyond this class knows it
        # One stream until the server has spoken: more than its limit would be reset.
        self.free_channels: Streams = Streams(1, most, lambda: self.conn.room)  # type: ignore[assignment]  # it does what aioapns calls
        self.lost = asyncio.Event()
        self._authorization = authorization
        self._pace = pace
        self._on_leaving = on_leaving
        self._on_lost = on_lost
        self._host = host.encode()
        self._farewells = Farewells()
        self._requests = UnderWay(self.conn, self.free_channels)
        self._greeted = False
        self._leaving = False
        self._writing = False
        self._why = "connection-lost"
        self._ticking: asyncio.TimerHandle | None = None
        self._silence = Silence(pace, self.loop.time())

    # --- requests

    @property
    def usable(self) -> bool:
        """Tell whether a new request may use this connection."""
        return not self._leaving

    @property
    def answered(self) -> bool:
        """Tell whether the server has answered anything at all."""
        return self._requests.answered

    @property
    def under_way(self) -> int:
        """Count the requests that wait for their answers."""
        return len(self._requests)

    async def send_notification(self, request: Request) -> Answer:  # type: ignore[override]  # narrower
        """Send one request and wait for its answer; raises NotSent, MaybeSent.

        Whoever stops waiting resets the stream, and nobody else notices.
        """
        try:
            stream_id = await self.free_channels.acquire(len(request.body))
        except NoAvailableStreamIDError as error:
            self.leave("stream-ids-used-up")
            raise NotBegun("stream-ids-used-up") from error
        authorization = "" if self._authorization is None else self._authorization()
        try:
            self.conn.request(stream_id, request.headers(self._host, authorization), request.body)
        except H2Error as error:
            self.free_channels.release()
            self._give_up("connection-broken")
            raise NotSent("connection-broken") from error
        self.flush()
        if not self._requests:
            self._silence.asked(self.loop.time())
        call = Call(self.loop.create_future(), request.notification_id, authorization)
        self._requests.add(stream_id, call)
        try:
            return await call.future
        except asyncio.CancelledError:
            self._reset(stream_id)
            raise

    def _reset(self, stream_id: int) -> None:
        """End one stream that nobody waits for any more."""
        if stream_id in self._requests and not self.lost.is_set():
            try:
                self.conn.reset_stream(stream_id, ErrorCodes.CANCEL)
            except H2Error:
                self._give_up("connection-broken")
            self.flush()
        self._requests.end(stream_id)
        self._close_when_left()

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, and let the kernel watch over the connection, too."""
        self.transport = cast("asyncio.Transport", transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        self.conn.initiate_connection()
        self._write()
        self._silence.heard(self.loop.time())
        self._tick()

    def data_received(self, data: bytes) -> None:
        """Take frames; a server that breaks the protocol is cut off."""
        self._silence.heard(self.loop.time())
        try:
            frames, farewells = self._farewells.sift(data)
            for event in self.conn.receive_data(frames):
                self._take(event)
        except H2Error:
            self._write()
            self._give_up("no-http2" if not self._greeted else "connection-broken")
            return
        for farewell in farewells:
            self._part(farewell)
        self._close_when_left()
        self.flush()

    def pause_writing(self) -> None:
        """Let nobody in while the socket takes no more."""
        self.free_channels.paused = True

    def resume_writing(self) -> None:
        """Let them in again."""
        self.free_channels.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        """End everything under way; the reason that we know says more than the kernel's."""
        log.debug("APNs connection lost", extra={"reason": self._why, "detail": str(exc or "")})
        if self._ticking is not None:
            self._ticking.cancel()
        self.lost.set()
        self._depart(self._why)
        self._requests.fail(MaybeSent, self._why)
        self._on_lost(self)

    # --- leaving

    def leave(self, why: str) -> None:
        """Take no new request, and close when nothing is under way any more."""
        self._depart(why)
        self._close_when_left()

    def close(self) -> None:
        """Cut the connection without the goodbyes of TLS, for which a silent server would be waited for."""
        self._depart(self._why)
        if self.transport is not None:
            self.transport.abort()

    def refresh_inactivity_timer(self) -> None:
        """Do nothing: aioapns would close what was not used for ten seconds, and Apple asks to keep connections."""

    def _give_up(self, why: str) -> None:
        if not self._leaving:
            self._why = why
        self.close()

    def _depart(self, why: str) -> None:
        if not self._leaving:
            self._leaving = True
            self.free_channels.destroy(NotBegun(why))
            self._on_leaving(self)

    def _part(self, farewell: Farewell) -> None:
        """Take a GOAWAY: what the server left out may be sent elsewhere at once, the rest is still answered or lost."""
        self._depart("server-goes-away")
        self._requests.fail(NotSent, "server-goes-away", farewell.last)
        if not farewell.graceful:
            self._why = f"server-hangs-up: {error_name(farewell.code)}"
            self.close()

    def _close_when_left(self) -> None:
        if self._leaving and not self._requests:
            self.close()

    # --- frames

    def flush(self) -> None:
        """Write what h2 has to say once per turn of the loop, so that a burst of pushes shares TLS records."""
        if not self._writing:
            self._writing = True
            self.loop.call_soon(self._write)

    def _write(self) -> None:
        self._writing = False
        if self.transport is not None and not self.transport.is_closing():
            data = self.conn.data_to_send()
            if data:
                self.transport.write(data)

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived() | DataReceived() | StreamEnded() | StreamReset():
                self._requests.take(event)
            case WindowUpdated():
                self.free_channels.hand_out()
            case RemoteSettingsChanged(changed_settings=changed):
                self._bound(changed.get(SettingCodes.MAX_CONCURRENT_STREAMS))
            case _:
                pass

    def _bound(self, announced: ChangedSetting | None) -> None:
        if announced is not None:
            self.free_channels.bound = announced.new_value
        elif not self._greeted:
            self.free_channels.bound = UNANNOUNCED
        else:
            self.free_channels.hand_out()  # the room of new streams may have changed
        self._greeted = True

    # --- silence

    def _tick(self) -> None:
        """Ask a server that was silent for long whether it is there; give it up when it does not answer."""
        match self._silence.look(self.loop.time(), waiting=bool(self._requests)):
            case Doubt.LOST:
                self._give_up("connection-silent")
                return
            case Doubt.ASK:
                self.conn.ping(PING)
                self._write()
            case Doubt.NONE:
                pass
        self._ticking = self.loop.call_later(self._pace.tick, self._tick)
