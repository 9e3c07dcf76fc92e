"""One HTTP/2 connection of the APNs simulator."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final, Protocol, cast
from uuid import uuid4

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, PingReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from relay.sandbox.apns_rules import ApnsResponse, Request
from relay.sandbox.scripts import Answer, ApnsFailure, Close, Delay, Freeze, GoAway, Reset, Stall, Streams

STREAMS_AT_FIRST: Final = 1
STREAMS: Final = 1000
"""The number of concurrent streams before and after the first authenticated request, as Apple announces it."""
FORBIDDEN: Final = 403
HEADERS_LIMIT: Final = 65536  # bytes
LAST_STREAM: Final = 2**31 - 1
"""The stream id in the first graceful GOAWAY: all streams are still processed [RFC 9113 6.8]."""


class Service(Protocol):
    """The simulator, as its connections see it; they keep `connections`, `accepted` and `pings` up to date."""

    connections: "set[Connection]"
    accepted: int
    pings: int
    deaf: bool
    """Whether the server sends nothing on new connections after the TLS handshake."""

    def next_failure(self) -> ApnsFailure | None:
        """Return the scripted failure of the next request."""

    def answer(self, request: Request, failure: ApnsFailure | None) -> tuple[ApnsResponse, bool]:
        """Return the answer, and whether the request is authenticated."""

    def record(self, request: Request, status: int) -> None:
        """Record a request and the status of its answer; 0: no answer."""


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, service: Service) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the connection is closed."""
        self._loop = loop
        self._service = service
        config = H2Configuration(
            client_side=False,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._http = H2Connection(config)
        limits = {
            SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_AT_FIRST,
            SettingCodes.MAX_HEADER_LIST_SIZE: HEADERS_LIMIT,
        }
        self._http.local_settings = Settings(client=False, initial_values=limits)
        self._certificate: Mapping[str, str] = {}
        self._requests: dict[int, tuple[dict[str, str], bytearray]] = {}
        """Stream id -> headers and body of a request that is not complete yet."""
        self._inflight: set[int] = set()
        """The streams of complete requests without a complete answer."""
        self._blocked: deque[tuple[int, bytes, bool]] = deque()
        """Parts of answers that wait for flow control: stream id, bytes, whether the part ends its stream."""
        self._authenticated = False
        self._going_away = False
        self._last = LAST_STREAM
        """The last stream that is processed."""
        self._frozen = False
        """Whether the connection neither reads nor sends any more."""
        self._transport: asyncio.Transport

    # --- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send SETTINGS; cut a connection whose client did not choose h2 by ALPN."""
        self._transport = cast("asyncio.Transport", transport)
        self._service.connections.add(self)
        self._service.accepted += 1
        tls = transport.get_extra_info("ssl_object")
        if tls is None or tls.selected_alpn_protocol() != "h2":
            self.cut()
            return
        self._certificate = {
            name: value for attributes in (tls.getpeercert() or {}).get("subject", ()) for name, value in attributes
        }
        if self._service.deaf:
            self._frozen = True
            return
        self._http.initiate_connection()
        self._flush()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the requests in flight."""
        self._service.connections.discard(self)
        self._inflight.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Process frames; answer a violation of the protocol with GOAWAY and close."""
        if self._frozen:
            return
        try:
            events = self._http.receive_data(data)
        except ProtocolError:
            self._flush()
            self._transport.close()
            return
        for event in events:
            if self._transport.is_closing() or self._frozen:
                return
            self._process(event)
        self._flush()

    # --- called by the simulator

    def cut(self) -> None:
        """Abort the connection without GOAWAY."""
        self._transport.abort()

    def freeze(self) -> None:
        """Stop reading and sending without closing the connection."""
        self._frozen = True

    def go_away(self) -> None:
        """Send a graceful GOAWAY, answer the requests in flight, then close."""
        if not self._going_away and not self._frozen:
            self._go_away(self._last)
            self._close_if_finished()

    # --- requests

    def _process(self, event: Event) -> None:
        match event:
            case PingReceived():
                self._service.pings += 1
            case RequestReceived(stream_id=int(stream_id), headers=headers) if stream_id <= self._last:
                self._requests[stream_id] = {str(name): str(value) for name, value in headers}, bytearray()
            case DataReceived(stream_id=int(stream_id), data=bytes(data), flow_controlled_length=int(length)):
                self._http.acknowledge_received_data(length, stream_id)
                if stream_id in self._requests:
                    self._requests[stream_id][1].extend(data)
            case StreamEnded(stream_id=int(stream_id)) if stream_id in self._requests:
                self._complete(stream_id)
            case StreamReset(stream_id=int(stream_id)):
                self._requests.pop(stream_id, None)
                self._end(stream_id)
            case WindowUpdated():
                self._send_blocked()
            case _:
                pass

    def _complete(self, stream_id: int) -> None:
        headers, body = self._requests.pop(stream_id)
        method, path = headers.pop(":method", ""), headers.pop(":path", "")
        request = Request(method, path, headers, bytes(body), self._certificate)
        self._inflight.add(stream_id)
        match self._service.next_failure():
            case Stall():
                self._service.record(request, 0)
            case Freeze():
                self._service.record(request, 0)
                self.freeze()
            case Reset(code):
                self._service.record(request, 0)
                self._http.reset_stream(stream_id, ErrorCodes(code))
                self._end(stream_id)
            case Close():
                self._service.record(request, 0)
                self.cut()
            case GoAway(graceful=False, error_code=code):
                self._service.record(request, 0)
                self._http.close_connection(error_code=code, last_stream_id=max(0, stream_id - 2))
                self._flush()
                self._transport.close()
            case GoAway(final=final):
                self._go_away(stream_id if final else self._last)
                self._answer(stream_id, request, None)
            case Streams(limit):
                self._answer(stream_id, request, None)
                self._http.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limit})
            case Delay(seconds):
                self._loop.call_later(seconds, self._answer_late, stream_id, request)
            case failure:
                self._answer(stream_id, request, failure)

    def _go_away(self, last: int) -> None:
        # h2 refuses to send answers after its own GOAWAY, so this one does not pass through h2.
        self._flush()
        self._going_away = True
        self._last = last
        self._transport.write(GoAwayFrame(0, last_stream_id=last, error_code=0).serialize())

    def _answer_late(self, stream_id: int, request: Request) -> None:
        if stream_id in self._inflight and not self._frozen:
            self._answer(stream_id, request, None)
            self._flush()

    def _answer(self, stream_id: int, request: Request, failure: ApnsFailure | None) -> None:
        response, authenticated = self._service.answer(request, failure)
        self._service.record(request, response.status)
        self._limit_streams(authenticated=authenticated, refused=response.status == FORBIDDEN)
        script = failure if isinstance(failure, Answer) else Answer(response.status, response.reason)
        body = response.body
        # An answer has the apns-id of its request, or a new one [Apple: Handling notification responses from APNs].
        apns_id = request.headers.get("apns-id") or str(uuid4()).upper()
        headers = [(":status", str(response.status))]
        if not script.bare:
            headers.append(("apns-id", apns_id))
        if script.retry_after:
            headers.append(("retry-after", script.retry_after))
        self._http.send_headers(stream_id, headers, end_stream=not body)
        if body:
            size = -(-len(body) // script.pieces)
            self._blocked += [
                (stream_id, body[at : at + size], at + size >= len(body)) for at in range(0, len(body), size)
            ]
            self._send_blocked()
        else:
            self._end(stream_id)

    def _limit_streams(self, *, authenticated: bool, refused: bool) -> None:
        """Allow STREAMS after an authenticated request, STREAMS_AT_FIRST again after a refused one, as Apple does."""
        if authenticated == self._authenticated or not (authenticated or refused):
            return
        self._authenticated = authenticated
        limit = STREAMS if authenticated else STREAMS_AT_FIRST
        self._http.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limit})

    def _send_blocked(self) -> None:
        while self._blocked:
            stream_id, body, last = self._blocked[0]
            try:
                if self._http.local_flow_control_window(stream_id) < len(body):
                    return
                self._http.send_data(stream_id, body, end_stream=last)
            except StreamClosedError:
                pass  # the client reset the stream meanwhile
            self._blocked.popleft()
            if last:
                self._end(stream_id)

    def _end(self, stream_id: int) -> None:
        self._inflight.discard(stream_id)
        self._close_if_finished()

    def _close_if_finished(self) -> None:
        if self._going_away and not self._inflight:
            self._flush()
            self._transport.close()

    def _flush(self) -> None:
        if not self._transport.is_closing() and (data := self._http.data_to_send()):
            self._transport.write(data)
