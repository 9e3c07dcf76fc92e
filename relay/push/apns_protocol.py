"""Own one HTTP/2 connection to APNs: what aioapns' protocol lacks so that every request gets its answer or its end.

aioapns 4.0 makes the requests; here are the answers. They are matched by stream, bodies are put together and their room
given back, resets and farewells end what they concern and nothing else.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, NoReturn

from aioapns import NotificationRequest
from aioapns.common import NotificationResult
from aioapns.connection import APNsBaseClientProtocol, APNsTLSClientProtocol, AuthorizationHeaderProvider
from aioapns.exceptions import ConnectionClosed
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import FrameTooLargeError, H2Error, NoAvailableStreamIDError
from h2.settings import SettingCodes
from hpack import NeverIndexedHeaderTuple

from relay.push.apns_answers import read_body

KEEP_IDLE: Final = 240
"""Seconds an unused connection is kept: Apple asks to keep it, and firewalls forget it silently after five minutes."""

UNANNOUNCED: Final = 100
"""Streams at once on a server that announces no limit."""

UNCHECKED: Final = H2Configuration(
    header_encoding=None,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
    validate_inbound_headers=False,
)

UNIQUE: Final = frozenset({":path", "apns-id", "apns-collapse-id"})

FRAME_HEADER: Final = 9  # bytes: length 3, type 1, flags 1, stream 4 [RFC 9113 4.1]
FRAME_LIMIT: Final = 16384  # bytes of a frame's payload, as we never announce more
GOAWAY: Final = 7  # [RFC 9113 6.8]: last stream id 4, error code 4, text


class NotSent(ConnectionClosed):
    """Tell that the server did nothing with the request: it may be sent again at once."""


class Streams:
    """Hand out stream ids in order, as many at once as the server allows; takes the place of aioapns' ChannelPool."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._used = 0
        self._next = 1
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._end: Exception | None = None

    @property
    def bound(self) -> int:
        """Tell how many streams may be open; a new value counts at once, whatever is open."""
        return self._bound

    @bound.setter
    def bound(self, bound: int) -> None:
        self._bound = bound
        self._hand_out()

    async def acquire(self) -> int:
        """Wait for a free stream and return its id; raises what `destroy` was given."""
        if self._end is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            self._hand_out()
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.release()
                raise
        if self._end is not None:
            raise self._end
        stream_id = self._next
        if stream_id > H2Connection.HIGHEST_ALLOWED_STREAM_ID:
            raise NoAvailableStreamIDError
        self._next += 2
        return stream_id

    def release(self) -> None:
        """Take a stream back."""
        self._used -= 1
        self._hand_out()

    def destroy(self, error: Exception) -> None:
        """Let everybody who waits, and whoever comes, have this error."""
        self._end = self._end or error
        self._bound = self._used + len(self._waiters)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiters and self._used < self._bound:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._used += 1
                waiter.set_result(None)


class Farewells:
    """Take graceful GOAWAY frames out of a byte stream.

    h2 takes no frame after one, so the answers to what is under way, which the server still gives, would be lost.
    """

    def __init__(self) -> None:
        self._rest = b""

    def sift(self, data: bytes) -> tuple[bytes, list[int]]:
        """Return the other whole frames, and the last stream id of each farewell; raises FrameTooLargeError.

        h2 would wait for the whole of a frame that is too long, for ever if what speaks there is not HTTP/2 at all.
        """
        data = self._rest + data
        kept: list[bytes] = []
        farewells: list[int] = []
        start = 0
        while len(data) >= start + FRAME_HEADER:
            length = int.from_bytes(data[start : start + 3])
            if length > FRAME_LIMIT:
                raise FrameTooLargeError
            end = start + FRAME_HEADER + length
            if len(data) < end:
                break
            payload = data[start + FRAME_HEADER : end]
            if data[start + 3] == GOAWAY and payload[4:8] == b"\0\0\0\0":
                farewells.append(int.from_bytes(payload[:4]) & 0x7FFF_FFFF)
            else:
                kept.append(data[start:end])
            start = end
        self._rest = data[start:]
        return b"".join(kept), farewells


class _Http(H2Connection):
    """Keep what differs in each request out of the compression table, whose 4,096 bytes the provider token needs."""

    def send_headers(self, stream_id: int, headers: Iterable[tuple[str, str]], **options: Any) -> None:  # type: ignore[override]  # narrower, as aioapns calls it
        marked = [NeverIndexedHeaderTuple(*field) if field[0] in UNIQUE else field for field in headers]
        super().send_headers(stream_id, marked, **options)


class ApnsConnection(APNsTLSClientProtocol):
    """Be one connection; `leaving` is told when no new request may use it."""

    INACTIVITY_TIME = KEEP_IDLE
    TOKENS: ClassVar[AuthorizationHeaderProvider | None] = None

    def __init__(
        self,
        apns_topic: str,
        loop: asyncio.AbstractEventLoop | None = None,
        on_connection_lost: Callable[[APNsBaseClientProtocol], NoReturn] | None = None,
        auth_provider: AuthorizationHeaderProvider | None = None,
    ) -> None:
        super().__init__(apns_topic, loop, on_connection_lost, self.TOKENS or auth_provider)
        # What goes into a header is checked before (hex, configured topics, opaque ids); h2's checks cost a third.
        self.conn = _Http(UNCHECKED)
        # One stream until the server has spoken: more than its limit would be reset.
        self.free_channels: Streams = Streams(1)  # type: ignore[assignment]  # it does what aioapns calls
        self.lost = asyncio.Event()
        self.on_leaving: Callable[[ApnsConnection], None] | None = None
        self._farewells = Farewells()
        self._greeted = False
        self._leaving = False
        self._writing = False
        self._statuses: dict[int, str] = {}
        self._bodies: dict[int, bytes] = {}

    async def send_notification(self, request: NotificationRequest) -> NotificationResult:
        """Send one request and wait for its answer; raises NotSent, ConnectionClosed, H2Error."""
        try:
            return await super().send_notification(request)
        finally:
            self.requests.pop(request.notification_id, None)
            self._close_when_left()

    def data_received(self, data: bytes) -> None:
        """Take frames; a server that breaks the protocol is cut off."""
        try:
            frames, farewells = self._farewells.sift(data)
            for event in self.conn.receive_data(frames):
                self._take(event)
        except H2Error:
            self._write()
            self.close()
            return
        for last in farewells:
            self._leave(last)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """End everything under way."""
        self.requests = {id_: answer for id_, answer in self.requests.items() if not answer.done()}
        super().connection_lost(exc)
        self.lost.set()

    def close(self) -> None:
        """Cut the connection without the goodbyes of TLS, for which a silent server would be waited for."""
        if self.inactivity_timer:
            self.inactivity_timer.cancel()
        if self.transport is not None:
            self.transport.abort()

    def flush(self) -> None:
        """Write what h2 has to say once per turn of the loop, so that a burst of pushes shares TLS records."""
        if not self._writing:
            self._writing = True
            self.loop.call_soon(self._write)

    def _write(self) -> None:
        self._writing = False
        if self.transport is not None and not self.transport.is_closing():
            self.refresh_inactivity_timer()
            self.transport.write(self.conn.data_to_send())

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived(stream_id=int(stream_id), headers=headers):
                self._statuses[stream_id] = next(value for name, value in headers if name == b":status").decode()
            case DataReceived(stream_id=int(stream_id), data=bytes(data), flow_controlled_length=int(length)):
                # Its room in the window goes back, else 65,535 bytes of refusals stall all.
                self.conn.acknowledge_received_data(length, stream_id)
                self._bodies[stream_id] = self._bodies.get(stream_id, b"") + data
            case StreamEnded(stream_id=int(stream_id)):
                self._answer(stream_id)
            case StreamReset(stream_id=int(stream_id), error_code=ErrorCodes.REFUSED_STREAM):
                self._fail(stream_id, NotSent("stream refused"))
            case StreamReset(stream_id=int(stream_id)):
                self._fail(stream_id, ConnectionClosed("stream reset"))
            case RemoteSettingsChanged(changed_settings=changed):
                limit = changed.get(SettingCodes.MAX_CONCURRENT_STREAMS)
                self._bound(None if limit is None else limit.new_value)
            case ConnectionTerminated():
                self.close()
            case _:
                pass

    def _bound(self, announced: int | None) -> None:
        if announced is not None:
            self.free_channels.bound = announced
        elif not self._greeted:
            self.free_channels.bound = UNANNOUNCED
        self._greeted = True

    def _answer(self, stream_id: int) -> None:
        reason, timestamp = read_body(self._bodies.pop(stream_id, b""))
        status = self._statuses.pop(stream_id, "")
        answer = self._ended(stream_id)
        if answer is not None:
            id_, future = answer
            future.set_result(NotificationResult(id_, status, reason, timestamp))

    def _fail(self, stream_id: int, error: ConnectionClosed) -> None:
        self._bodies.pop(stream_id, None)
        self._statuses.pop(stream_id, None)
        answer = self._ended(stream_id)
        if answer is not None:
            answer[1].set_exception(error)

    def _ended(self, stream_id: int) -> "tuple[str, asyncio.Future[NotificationResult]] | None":
        """Free a stream; return whose it was if somebody still waits."""
        id_ = self.request_streams.pop(stream_id, None)
        if id_ is None:
            return None
        self.free_channels.release()
        future = self.requests.pop(id_, None)
        return None if future is None or future.done() else (id_, future)

    def _leave(self, last: int) -> None:
        self._leaving = True
        if self.on_leaving is not None:
            self.on_leaving(self)
        self.free_channels.destroy(NotSent("server goes away"))
        for stream_id in [stream_id for stream_id in self.request_streams if stream_id > last]:
            self._fail(stream_id, NotSent("server goes away"))
        self._close_when_left()

    def _close_when_left(self) -> None:
        if self._leaving and not self.requests:
            self.close()
