"""The server's side of an HTTP/2 connection, for simulators that answer thousands of requests a second; no I/O.

It is strict, so that a client's faults show: more streams than allowed, wrong stream ids, bodies beyond a window and
malformed headers end the connection.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from hpack import Decoder, HPACKError

from eas_watcher.http2 import frames
from eas_watcher.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    NUMBER,
    PING,
    PREFACE,
    RST_STREAM,
    SETTING,
    SETTINGS,
    TWO_NUMBERS,
    WINDOW,
    WINDOW_UPDATE,
    FrameReader,
    frame,
    header_frames,
    header_piece,
    reset_frame,
    settings_frame,
    unpad,
    window_frame,
)
from eas_watcher.http2.header_block import NO_TABLE, Header, HeaderReader, header_block
from eas_watcher.http2.violations import ErrorCode, Violation

PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path"})
"""The pseudo-headers of a request [RFC 9113 8.3.1]; all but the authority must be there."""
NEEDED: Final = PSEUDO - {b":authority"}
_LENGTHS: Final = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}


class Asked(NamedTuple):
    """A whole request."""

    stream_id: int
    headers: dict[str, str]
    """With the pseudo-headers; of several of one name the last."""
    body: bytes


class Cancelled(NamedTuple):
    """The client reset a stream."""

    stream_id: int


class Pinged(NamedTuple):
    """The client sent a PING, which is answered."""


Event: TypeAlias = Asked | Cancelled | Pinged


class _Stream:
    """A stream that is open on our side."""

    __slots__ = ("asked", "credit", "headers", "pending", "pieces", "window")

    def __init__(self, headers: list[Header], window: int) -> None:
        self.headers = headers
        self.pieces: list[bytes] = []  # of the request's body
        self.credit = WINDOW  # octets that the client may still send
        self.asked = False  # whether the request is whole
        self.window = window  # octets that we may send
        self.pending: deque[bytes] = deque()  # of the answer's body


class Http2Server:
    """One connection."""

    def __init__(self, streams: int, headers: int) -> None:
        """Allow so many streams at once, and so many octets of headers in one request."""
        self._frames = FrameReader()
        self._preface = PREFACE
        self._largest = headers
        self._plain: HeaderReader | None = None
        self._decoder: Decoder | None = None
        self._streams: dict[int, _Stream] = {}
        self._last = 0  # the highest stream that the client opened
        self._fragments: tuple[int, int, list[bytes]] | None = None
        self._announced: deque[int | None] = deque([streams])  # limits of streams, by SETTINGS without their ACK
        self._limit: int | None = None  # the limit that the client has acknowledged
        self._window = WINDOW
        self._initial = WINDOW
        self._credit = WINDOW
        self._used: set[int] = set()  # streams whose windows the client used since the last update
        self._out = [settings_frame([(MAX_CONCURRENT_STREAMS, streams), (MAX_HEADER_LIST_SIZE, headers)])]

    def __contains__(self, stream_id: object) -> bool:
        """Return True if a stream is open: its answer is not sent whole."""
        return stream_id in self._streams

    def busy(self, last: int) -> bool:
        """Return True if a stream up to `last` is open."""
        return any(stream_id <= last for stream_id in self._streams)

    # --- sending

    def answer(self, stream_id: int, headers: Iterable[tuple[str, str]], pieces: Sequence[bytes] = ()) -> None:
        """Answer a request; the body goes out in these pieces, as flow control allows. Nothing if it was reset."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        block = header_block([(name.encode(), value.encode()) for name, value in headers])
        self._out.append(header_frames(stream_id, block, FRAME_SIZE, end=not pieces))
        if pieces:
            stream.pending.extend(pieces)
            self._send(stream_id, stream)
        else:
            del self._streams[stream_id]

    def reset(self, stream_id: int, code: int) -> None:
        """Reset a stream."""
        if self._streams.pop(stream_id, None) is not None:
            self._out.append(reset_frame(stream_id, code))

    def announce(self, streams: int) -> None:
        """Announce another limit of streams."""
        self._announced.append(streams)
        self._out.append(settings_frame([(MAX_CONCURRENT_STREAMS, streams)]))

    def go_away(self, last: int, code: int = 0) -> None:
        """Send GOAWAY; streams go on."""
        self._out.append(frame(GOAWAY, 0, 0, TWO_NUMBERS.pack(last, code)))

    def take(self) -> bytes:
        """Return all bytes that were written since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _send(self, stream_id: int, stream: _Stream) -> None:
        while stream.pending:
            piece = stream.pending[0]
            size = min(len(piece), self._window, stream.window, FRAME_SIZE)
            if size <= 0 < len(piece):
                return
            stream.pending.popleft()
            if size < len(piece):
                stream.pending.appendleft(piece[size:])
            self._window -= size
            stream.window -= size
            self._out.append(frame(DATA, 0 if stream.pending else END_STREAM, stream_id, piece[:size]))
        del self._streams[stream_id]

    def _send_all(self) -> None:
        for stream_id, stream in list(self._streams.items()):
            if stream.pending:
                self._send(stream_id, stream)

    # --- receiving

    def receive(self, data: bytes) -> list[Event]:
        """Read what a client sent; raises Violation, after which `take` has our GOAWAY and nothing more is read."""
        events: list[Event] = []
        try:
            self._receive(data, events)
        except Violation as violation:
            self.go_away(self._last, violation.code)
            raise
        self._give_back()
        return events

    def _give_back(self) -> None:
        """Let the client send again as much as it sent."""
        if self._credit < WINDOW:
            self._out.append(window_frame(0, WINDOW - self._credit))
            self._credit = WINDOW
        for stream_id in self._used:
            stream = self._streams.get(stream_id)
            if stream is not None and not stream.asked and stream.credit < WINDOW:
                self._out.append(window_frame(stream_id, WINDOW - stream.credit))
                stream.credit = WINDOW
        self._used.clear()

    def _receive(self, data: bytes, events: list[Event]) -> None:
        if self._preface:
            size = min(len(data), len(self._preface))
            if data[:size] != self._preface[:size]:
                raise _wrong("not the preface of HTTP/2")
            self._preface, data = self._preface[size:], data[size:]
        self._frames.add(data)
        while (found := self._frames.next()) is not None:
            kind, flags, stream_id, payload = found
            if self._fragments is not None and (kind != CONTINUATION or stream_id != self._fragments[0]):
                raise _wrong("a frame inside of a header block")
            if kind == HEADERS:
                self._headers_came(flags, stream_id, payload, events)
            elif kind == DATA:
                self._data_came(flags, stream_id, payload, events)
            else:
                self._other(kind, flags, stream_id, payload, events)

    def _headers_came(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        piece = header_piece(flags, payload)
        if not flags & END_HEADERS:
            self._fragments = (stream_id, flags, [piece])
        else:
            self._block_came(flags, stream_id, piece, events)

    def _block_came(self, flags: int, stream_id: int, block: bytes, events: list[Event]) -> None:
        headers = self._read(block)
        if stream_id <= self._last:
            stream = self._streams.get(stream_id)
            if stream is not None and (stream.asked or not flags & END_STREAM):
                raise _wrong("headers after a request, or trailers that do not end it")
        else:
            if not stream_id & 1:
                raise _wrong("a stream with an even number")
            if self._limit is not None and len(self._streams) >= self._limit:
                raise _wrong(f"more than {self._limit} streams")
            _check(headers)
            self._last = stream_id
            stream = self._streams[stream_id] = _Stream(headers, self._initial)
        if stream is not None and flags & END_STREAM:
            self._asked(stream_id, stream, events)

    def _read(self, block: bytes) -> list[Header]:
        if self._plain is None and self._decoder is None:
            if block[:1] == NO_TABLE and block[1:2] != NO_TABLE:
                self._plain = HeaderReader(self._largest)
            else:
                self._decoder = Decoder(self._largest)
        if self._plain is not None:
            return self._plain.read(block)
        try:
            decoded = self._decoder.decode(block, raw=True) if self._decoder is not None else []
        except HPACKError as error:
            raise Violation(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        return [(bytes(name), bytes(value)) for name, value in decoded]

    def _data_came(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if not stream_id & 1 or stream_id > self._last:
            raise _wrong("a body on a stream that is not open")
        self._credit -= len(payload)
        if self._credit < 0:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.asked:
            raise Violation(ErrorCode.STREAM_CLOSED, "a body after the end of its request")
        stream.credit -= len(payload)
        if stream.credit < 0:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "more than the stream's window")
        stream.pieces.append(unpad(flags, payload))
        if flags & END_STREAM:
            self._asked(stream_id, stream, events)
        else:
            self._used.add(stream_id)

    def _asked(self, stream_id: int, stream: _Stream, events: list[Event]) -> None:
        stream.asked = True
        headers = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in stream.headers}
        events.append(Asked(stream_id, headers, b"".join(stream.pieces)))
        stream.headers, stream.pieces = [], []

    def _other(self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != _LENGTHS.get(kind, len(payload)):
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a frame of kind {kind} with {len(payload)} octets")
        match kind:
            case frames.CONTINUATION:
                self._continuation(flags, payload, events)
            case frames.SETTINGS:
                self._settings_came(flags, payload)
            case frames.WINDOW_UPDATE:
                self._window_came(stream_id, NUMBER.unpack(payload)[0] & LARGEST_WINDOW)
            case frames.RST_STREAM:
                if not stream_id & 1 or stream_id > self._last:
                    raise _wrong("a reset of a stream that was not opened")
                if self._streams.pop(stream_id, None) is not None:
                    events.append(Cancelled(stream_id))
            case frames.PING if not flags & ACK:
                self._out.append(frame(PING, ACK, 0, payload))
                events.append(Pinged())
            case frames.PUSH_PROMISE:
                raise _wrong("a promise of a push by a client")
            case _:
                pass

    def _continuation(self, flags: int, payload: bytes, events: list[Event]) -> None:
        if self._fragments is None:
            raise _wrong("a CONTINUATION of nothing")
        stream_id, first, pieces = self._fragments
        pieces.append(payload)
        if sum(map(len, pieces)) > self._largest:
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "a header block longer than its limit")
        if flags & END_HEADERS:
            self._fragments = None
            self._block_came(first, stream_id, b"".join(pieces), events)

    def _settings_came(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            if not self._announced:
                raise _wrong("an acknowledgement of no settings")
            self._limit = self._announced.popleft()
            return
        if len(payload) % SETTING.size:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"settings of {len(payload)} octets")
        window = dict(SETTING.iter_unpack(payload)).get(INITIAL_WINDOW_SIZE, self._initial)
        if window > LARGEST_WINDOW:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "a window larger than HTTP/2 has")
        for stream in self._streams.values():
            stream.window += window - self._initial
        self._initial = window
        self._out.append(frame(SETTINGS, ACK, 0))
        self._send_all()

    def _window_came(self, stream_id: int, octets: int) -> None:
        if not octets:
            raise _wrong("a window that grows by nothing")
        if stream_id:
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.window += octets
        else:
            self._window += octets
            if self._window > LARGEST_WINDOW:
                raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "a window larger than HTTP/2 has")
        self._send_all()


def _check(headers: Sequence[Header]) -> None:
    """Raise Violation for headers that are no request's [RFC 9113 8.2, 8.3]."""
    pseudo = [name for name, _ in headers if name[:1] == b":"]
    if not NEEDED <= set(pseudo) <= PSEUDO or len(set(pseudo)) != len(pseudo):
        raise _wrong("a request without its pseudo-headers, or with others")
    if any(name[:1] == b":" for name, _ in headers[len(pseudo) :]) or any(name != name.lower() for name, _ in headers):
        raise _wrong("a pseudo-header after others, or a name in upper case")


def _wrong(text: str) -> Violation:
    return Violation(ErrorCode.PROTOCOL_ERROR, text)
