"""One HTTP/2 connection of the APNs simulator: what Apple does, and what scripts do instead."""

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol, cast
from uuid import uuid4

from eas_watcher.http2.header_block import header_field
from eas_watcher.http2.violations import Violation
from relay.sandbox.apns_rules import ApnsResponse, Request
from relay.sandbox.http2_server import Asked, Event, Http2Server, Pinged
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
        self._http = Http2Server(STREAMS_AT_FIRST, HEADERS_LIMIT)
        self._certificate: Mapping[str, str] = {}
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
        self._flush()

    def connection_lost(self, _: Exception | None) -> None:
        """Leave the simulator."""
        self._service.connections.discard(self)
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Process frames; answer a violation of the protocol with GOAWAY and close."""
        if self._frozen:
            return
        try:
            events = self._http.receive(data)
        except Violation:
            self._flush()
            self._transport.close()
            return
        for event in events:
            if self._transport.is_closing() or self._frozen:
                return
            self._process(event)
        self._close_if_finished()
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
            case Asked() if event.stream_id <= self._last:
                self._complete(event)
            case Pinged():
                self._service.pings += 1
            case _:
                pass

    def _complete(self, asked: Asked) -> None:
        stream_id, headers = asked.stream_id, asked.headers
        request = Request(headers[":method"], headers[":path"], headers, asked.body, self._certificate)
        match self._service.next_failure():
            case Stall():
                self._service.record(request, 0)
            case Freeze():
                self._service.record(request, 0)
                self.freeze()
            case Reset(code):
                self._service.record(request, 0)
                self._http.reset(stream_id, code)
            case Close():
                self._service.record(request, 0)
                self.cut()
            case GoAway(graceful=False, error_code=code):
                self._service.record(request, 0)
                self._http.go_away(max(0, stream_id - 2), code)
                self._flush()
                self._transport.close()
            case GoAway(final=final):
                self._go_away(stream_id if final else self._last)
                self._answer(stream_id, request, None)
            case Streams(limit):
                self._answer(stream_id, request, None)
                self._http.announce(limit)
            case Delay(seconds):
                self._loop.call_later(seconds, self._answer_late, stream_id, request)
            case failure:
                self._answer(stream_id, request, failure)

    def _go_away(self, last: int) -> None:
        self._going_away = True
        self._last = last
        self._http.go_away(last)
        self._flush()

    def _answer_late(self, stream_id: int, request: Request) -> None:
        if stream_id in self._http and not self._frozen:
            self._answer(stream_id, request, None)
            self._close_if_finished()
            self._flush()

    def _answer(self, stream_id: int, request: Request, failure: ApnsFailure | None) -> None:
        response, authenticated = self._service.answer(request, failure)
        self._service.record(request, response.status)
        self._limit_streams(authenticated=authenticated, refused=response.status == FORBIDDEN)
        script = failure if isinstance(failure, Answer) else Answer(response.status, response.reason)
        body = response.body
        # An answer has the apns-id of its request, or a new one [Apple: Handling notification responses from APNs].
        apns_id = request.headers.get("apns-id") or str(uuid4()).upper()
        block = header_field(b":status", b"%d" % response.status)
        if not script.bare:
            block += header_field(b"apns-id", apns_id.encode())
        if script.retry_after:
            block += header_field(b"retry-after", script.retry_after.encode())
        size = -(-len(body) // script.pieces)
        self._http.answer(stream_id, block, [body[at : at + size] for at in range(0, len(body), size or 1)])

    def _limit_streams(self, *, authenticated: bool, refused: bool) -> None:
        """Allow STREAMS after an authenticated request, STREAMS_AT_FIRST again after a refused one, as Apple does."""
        if authenticated == self._authenticated or not (authenticated or refused):
            return
        self._authenticated = authenticated
        limit = STREAMS if authenticated else STREAMS_AT_FIRST
        self._http.announce(limit)

    def _close_if_finished(self) -> None:
        if self._going_away and not self._http.busy(self._last):
            self._flush()
            self._transport.close()

    def _flush(self) -> None:
        if not self._transport.is_closing() and (data := self._http.take()):
            self._transport.write(data)
