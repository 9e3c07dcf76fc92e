"""Own one HTTP/2 connection of the APNs simulator: frames become requests, verdicts and failures become frames."""

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

from relay.sandbox.apns_rules import Request, Verdict
from relay.sandbox.scripts import Answer, ApnsFailure, Close, Delay, Freeze, GoAway, Reset, Stall, Streams

STREAMS_AT_FIRST: Final = 1
STREAMS: Final = 1000
"""Streams at once before and after the first authenticated request, as Apple announces them."""
FORBIDDEN: Final = 403
HEADERS_LIMIT: Final = 65536  # bytes
LAST_STREAM: Final = 2**31 - 1
"""The id a graceful GOAWAY names: nothing is lost so far [RFC 9113 6.8]."""


class Judge(Protocol):
    """Decide about requests; `connections`, `accepted` and `pings` are kept by the connections themselves."""

    connections: "set[Connection]"
    accepted: int
    pings: int
    deaf: bool
    """Whether new connections get no word."""

    def scripted(self) -> ApnsFailure | None:
        """Take the failure of the next request."""

    def judge(self, request: Request, failure: ApnsFailure | None) -> tuple[Verdict, bool]:
        """Return the answer, and whether the sender has proved who it is."""

    def note(self, request: Request, status: int) -> None:
        """Remember a request; status 0: it gets no answer."""


class Connection(asyncio.Protocol):
    """Serve one client."""

    def __init__(self, judge: Judge) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._judge = judge
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
        self._under_way: set[int] = set()
        self._blocked: deque[tuple[int, bytes, bool]] = deque()
        """Parts of bodies that flow control has no room for; the last one ends its stream."""
        self._trusted = False
        self._leaving = False
        self._last = LAST_STREAM
        self._frozen = False
        self._transport: asyncio.Transport

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello; whoever did not agree on h2 by ALPN is cut off."""
        self._transport = cast("asyncio.Transport", transport)
        self._judge.connections.add(self)
        self._judge.accepted += 1
        tls = transport.get_extra_info("ssl_object")
        if tls is None or tls.selected_alpn_protocol() != "h2":
            self.cut()
            return
        self._certificate = {
            name: value for attributes in (tls.getpeercert() or {}).get("subject", ()) for name, value in attributes
        }
        if self._judge.deaf:
            self._frozen = True
            return
        self._http.initiate_connection()
        self._flush()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget everything under way."""
        self._judge.connections.discard(self)
        self._under_way.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take frames; a client that breaks the protocol is told so and cut off."""
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
            self._take(event)
        self._flush()

    # --- requests

    def cut(self) -> None:
        """End the connection without a word."""
        self._transport.abort()

    def freeze(self) -> None:
        """Read and say nothing any more."""
        self._frozen = True

    def leave(self) -> None:
        """Say goodbye: answer what is under way, then close."""
        if not self._leaving and not self._frozen:
            self._leave(self._last)
            self._close_when_left()

    def _take(self, event: Event) -> None:
        match event:
            case PingReceived():
                self._judge.pings += 1
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
        self._under_way.add(stream_id)
        match self._judge.scripted():
            case Stall():
                self._judge.note(request, 0)
            case Freeze():
                self._judge.note(request, 0)
                self.freeze()
            case Reset(code):
                self._judge.note(request, 0)
                self._http.reset_stream(stream_id, ErrorCodes(code))
                self._end(stream_id)
            case Close():
                self._judge.note(request, 0)
                self.cut()
            case GoAway(graceful=False, error_code=code):
                self._judge.note(request, 0)
                self._http.close_connection(error_code=code, last_stream_id=max(0, stream_id - 2))
                self._flush()
                self._transport.close()
            case GoAway(final=final):
                self._leave(stream_id if final else self._last)
                self._answer(stream_id, request, None)
            case Streams(limit):
                self._answer(stream_id, request, None)
                self._http.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limit})
            case Delay(seconds):
                self._loop.call_later(seconds, self._answer_late, stream_id, request)
            case failure:
                self._answer(stream_id, request, failure)

    def _leave(self, last: int) -> None:
        # h2 itself would refuse to answer what is under way after a GOAWAY, so the frame goes past it.
        self._flush()
        self._leaving = True
        self._last = last
        self._transport.write(GoAwayFrame(0, last_stream_id=last, error_code=0).serialize())

    def _answer_late(self, stream_id: int, request: Request) -> None:
        if stream_id in self._under_way and not self._frozen:
            self._answer(stream_id, request, None)
            self._flush()

    def _answer(self, stream_id: int, request: Request, failure: ApnsFailure | None) -> None:
        verdict, trusted = self._judge.judge(request, failure)
        self._judge.note(request, verdict.status)
        self._trust(trusted=trusted, refused=verdict.status == FORBIDDEN)
        script = failure if isinstance(failure, Answer) else Answer(verdict.status, verdict.reason)
        body = verdict.body
        # An answer bears the request's apns-id, or a new one [Apple: Handling notification responses from APNs].
        apns_id = request.headers.get("apns-id") or str(uuid4()).upper()
        headers = [(":status", str(verdict.status))]
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

    def _trust(self, *, trusted: bool, refused: bool) -> None:
        """Allow many streams once a client has proved who it is, one again after it was refused, as Apple does."""
        if trusted == self._trusted or not (trusted or refused):
            return
        self._trusted = trusted
        limit = STREAMS if trusted else STREAMS_AT_FIRST
        self._http.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limit})

    def _send_blocked(self) -> None:
        while self._blocked:
            stream_id, body, last = self._blocked[0]
            try:
                if self._http.local_flow_control_window(stream_id) < len(body):
                    return
                self._http.send_data(stream_id, body, end_stream=last)
            except StreamClosedError:
                pass  # the client gave the stream up meanwhile
            self._blocked.popleft()
            if last:
                self._end(stream_id)

    def _end(self, stream_id: int) -> None:
        self._under_way.discard(stream_id)
        self._close_when_left()

    def _close_when_left(self) -> None:
        if self._leaving and not self._under_way:
            self._flush()
            self._transport.close()

    def _flush(self) -> None:
        if not self._transport.is_closing() and (data := self._http.data_to_send()):
            self._transport.write(data)
