"""The server's side of an HTTP/2 connection, for simulators that answer thousands of requests a second; no I/O.

It is strict, so that a client's faults show: more streams than allowed, wrong stream ids, bodies beyond a window or
unlike their length, malformed headers and frames on streams that are over end the connection.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from hpack import Decoder, HPACKError

from eas_watcher.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_FRAME_SIZE,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    NUMBER,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
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
from eas_watcher.http2.header_block import NO_TABLE, Header, HeaderReader
from eas_watcher.http2.violations import ErrorCode, Violation
from relay.sandbox.request_head import check_trailers, read_head, read_head_again, wrong

TOO_WIDE: Final = "a window larger than HTTP/2 has"
CONTINUATIONS: Final = 64
"""The most frames of one header block."""
_LENGTHS: Final = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
"""Octets that frames of these kinds have."""
_ON_STREAM: Final = frozenset({PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION})
_ON_CONNECTION: Final = frozenset({SETTINGS, PING, GOAWAY})


class Asked(NamedTuple):
    """A whole request."""

    stream_id: int
    headers: Mapping[str, str]
    """By name, in lower case, with the pseudo-headers; values of one name are joined. Not to be changed."""
    body: bytes


class Cancelled(NamedTuple):
    """The client reset a stream, or did what ended it."""

    stream_id: int


class Pinged(NamedTuple):
    """The client sent a PING, which is answered."""


Event: TypeAlias = Asked | Cancelled | Pinged


class _Stream:
    """A stream that is open on our side."""

    __slots__ = ("asked", "credit", "head", "pending", "pieces", "window")

    def __init__(self, head: Mapping[str, str], window: int) -> None:
        self.head = head
        self.pieces: list[bytes] = []  # of the request's body
        self.credit = WINDOW  # octets that the client may still send
        self.asked = False  # whether the request is whole
        self.window = window  # octets that we may send
        self.pending: list[bytes] = []  # of the answer's body


class Http2Server:
    """One connection."""

    def __init__(self, streams: int, headers: int, unannounced: int | None = None, *, remembers: bool = False) -> None:
        """Allow so many streams at once, and so many octets of headers in one request.

        `unannounced` is the limit of streams before the client acknowledges the first one; None: no limit.
        `remembers` is whether clients send the same heads again and again, so that it pays to remember them.
        """
        self._remembers = remembers
        self._frames = FrameReader()
        self._preface = PREFACE
        self._largest = headers
        self._plain: HeaderReader | None = None
        self._decoder: Decoder | None = None
        self._streams: dict[int, _Stream] = {}
        self._cut: set[int] = set()  # streams that we reset before their requests were whole
        self._last = 0  # the highest stream that the client opened
        self._gone = False  # whether the client went away
        self._fragments: tuple[int, int, list[bytes]] | None = None
        self._announced: deque[int | None] = deque([streams])  # limits of streams, by SETTINGS without their ACK
        self._limit = unannounced  # the limit that the client has acknowledged
        self._window = WINDOW
        self._initial = WINDOW
        self._credit = WINDOW
        self._used: set[int] = set()  # streams whose windows the client used since the last update
        self._prefix = b""  # of the next block that we send
        self._out = [settings_frame([(MAX_CONCURRENT_STREAMS, streams), (MAX_HEADER_LIST_SIZE, headers)])]

    def __contains__(self, stream_id: object) -> bool:
        """Return True if a stream is open: its answer is not sent whole."""
        return stream_id in self._streams

    def busy(self, last: int) -> bool:
        """Return True if a stream up to `last` is open."""
        return any(stream_id <= last for stream_id in self._streams)

    # --- sending

    def answer(self, stream_id: int, block: bytes, pieces: Sequence[bytes] = ()) -> None:
        """Answer a request with a header block, which refers to no table. Nothing if it was reset.

        The body goes out in these pieces, as flow control allows.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if self._prefix:
            block, self._prefix = self._prefix + block, b""
        self._out.append(header_frames(stream_id, block, FRAME_SIZE, end=not pieces))
        if pieces:
            stream.pending += pieces
            self._send(stream_id, stream)
        else:
            del self._streams[stream_id]

    def reset(self, stream_id: int, code: int) -> None:
        """Reset a stream."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._out.append(reset_frame(stream_id, code))
            if not stream.asked:
                self._cut.add(stream_id)

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
        pending = stream.pending
        while pending:
            piece = pending[0]
            size = min(len(piece), self._window, stream.window, FRAME_SIZE)
            if size <= 0 < len(piece):
                return
            if size < len(piece):
                pending[0] = piece[size:]
                piece = piece[:size]
            else:
                del pending[0]
            self._window -= size
            stream.window -= size
            self._out.append(frame(DATA, 0 if pending else END_STREAM, stream_id, piece))
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
        if self._credit * 2 < WINDOW:
            self._out.append(window_frame(0, WINDOW - self._credit))
            self._credit = WINDOW
        if self._used:
            self._give_back()
        return events

    def _give_back(self) -> None:
        """Widen the windows of bodies that are under way, by what the client sent; of those half used up."""
        for stream_id in self._used:
            stream = self._streams.get(stream_id)
            if stream is not None and not stream.asked and stream.credit * 2 < WINDOW:
                self._out.append(window_frame(stream_id, WINDOW - stream.credit))
                stream.credit = WINDOW
        self._used.clear()

    def _receive(self, data: bytes, events: list[Event]) -> None:
        if self._preface:
            size = min(len(data), len(self._preface))
            if data[:size] != self._preface[:size]:
                raise wrong("not the preface of HTTP/2")
            self._preface, data = self._preface[size:], data[size:]
        frames = self._frames
        frames.add(data)
        while (found := frames.next()) is not None:
            kind, flags, stream_id, payload = found
            if self._fragments is not None and (kind != CONTINUATION or stream_id != self._fragments[0]):
                raise wrong("a frame inside of a header block")
            if kind == HEADERS:
                self._headers_came(flags, stream_id, payload, events)
            elif kind == DATA:
                self._data_came(flags, stream_id, payload, events)
            else:
                self._other(kind, flags, stream_id, payload, events)

    def _headers_came(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if not stream_id & 1:
            raise wrong("headers on a stream with an even number")
        piece = payload
        if flags & ~(END_STREAM | END_HEADERS):
            piece = header_piece(flags, payload)
            if flags & PRIORITISED:
                _check_priority(stream_id, unpad(flags, payload))
        if flags & END_HEADERS:
            self._block_came(flags, stream_id, piece, events)
        else:
            self._fragments = (stream_id, flags, [piece])

    def _block_came(self, flags: int, stream_id: int, block: bytes, events: list[Event]) -> None:
        if stream_id <= self._last:
            self._trailers_came(flags, stream_id, self._read(block), events)
            return
        if self._gone:
            raise wrong("a request after GOAWAY")
        if self._limit is not None and len(self._streams) >= self._limit:
            raise wrong(f"more than {self._limit} streams")
        head = self._read_head(block)
        self._last = stream_id
        stream = self._streams[stream_id] = _Stream(head, self._initial)
        if flags & END_STREAM:
            self._asked(stream_id, stream, events)

    def _trailers_came(self, flags: int, stream_id: int, headers: Sequence[Header], events: list[Event]) -> None:
        stream = self._open(stream_id)
        if stream is None:
            return
        if not flags & END_STREAM:
            raise wrong("trailers that do not end their request")
        check_trailers(headers)
        self._asked(stream_id, stream, events)

    def _open(self, stream_id: int) -> _Stream | None:
        """Return the stream of a request that is not whole; None: we reset it. Raises Violation."""
        stream = self._streams.get(stream_id)
        if stream is None and stream_id in self._cut:
            return None
        if stream is None or stream.asked:
            raise Violation(ErrorCode.STREAM_CLOSED, "a frame after the end of its request")
        return stream

    def _read_head(self, block: bytes) -> Mapping[str, str]:
        if self._remembers and self._plain is not None:
            return read_head_again(block, self._largest)
        return read_head(self._read(block))

    def _read(self, block: bytes) -> Sequence[Header]:
        if self._plain is not None:
            return self._plain.read(block)
        if self._decoder is None:
            if block[:1] == NO_TABLE and block[1:2] != NO_TABLE:
                self._plain = HeaderReader(self._largest)
                return self._plain.read(block)
            self._decoder = Decoder(self._largest)
        try:
            decoded = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            raise Violation(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        return [(bytes(name), bytes(value)) for name, value in decoded]

    def _data_came(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if not stream_id & 1 or stream_id > self._last:
            raise wrong("a body on a stream that is not open")
        self._credit -= len(payload)
        if self._credit < 0:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
        stream = self._open(stream_id)
        if stream is None:
            return
        stream.credit -= len(payload)
        if stream.credit < 0:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "more than the stream's window")
        stream.pieces.append(unpad(flags, payload))
        if flags & END_STREAM:
            self._asked(stream_id, stream, events)
        else:
            self._used.add(stream_id)

    def _asked(self, stream_id: int, stream: _Stream, events: list[Event]) -> None:
        head, pieces = stream.head, stream.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        length = head.get("content-length")
        if length is not None and length != str(len(body)):
            raise wrong("a body of another length than its head says")
        stream.asked = True
        stream.head, stream.pieces = {}, []
        events.append(Asked(stream_id, head, body))

    def _other(self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != _LENGTHS.get(kind, len(payload)):
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a frame of kind {kind} with {len(payload)} octets")
        if kind in (_ON_CONNECTION if stream_id else _ON_STREAM):
            raise wrong(f"a frame of kind {kind} on stream {stream_id}")
        if kind == WINDOW_UPDATE:
            self._window_came(stream_id, NUMBER.unpack(payload)[0] & LARGEST_WINDOW, events)
        elif stream_id:
            self._stream_frame(kind, flags, stream_id, payload, events)
        elif kind == SETTINGS:
            self._settings_came(flags, payload)
        elif kind == PING and not flags & ACK:
            self._out.append(frame(PING, ACK, 0, payload))
            events.append(Pinged())
        elif kind == GOAWAY:
            if len(payload) < TWO_NUMBERS.size:
                raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a GOAWAY of {len(payload)} octets")
            self._gone = True

    def _stream_frame(self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if kind == CONTINUATION:
            self._continuation(flags, payload, events)
        elif kind == RST_STREAM:
            self._check_opened(stream_id)
            if self._streams.pop(stream_id, None) is not None:
                events.append(Cancelled(stream_id))
        elif kind == PRIORITY:
            _check_priority(stream_id, payload)
        elif kind == PUSH_PROMISE:
            raise wrong("a promise of a push by a client")

    def _check_opened(self, stream_id: int) -> None:
        if not stream_id & 1 or stream_id > self._last:
            raise wrong("a frame on a stream that was not opened")

    def _continuation(self, flags: int, payload: bytes, events: list[Event]) -> None:
        if self._fragments is None:
            raise wrong("a CONTINUATION of nothing")
        stream_id, first, pieces = self._fragments
        pieces.append(payload)
        if len(pieces) > CONTINUATIONS or sum(map(len, pieces)) > self._largest:
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "a header block longer than its limit")
        if flags & END_HEADERS:
            self._fragments = None
            self._block_came(first, stream_id, b"".join(pieces), events)

    def _settings_came(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            if payload:
                raise Violation(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of settings with a content")
            if not self._announced:
                raise wrong("an acknowledgement of no settings")
            self._limit = self._announced.popleft()
            return
        if len(payload) % SETTING.size:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"settings of {len(payload)} octets")
        for name, value in SETTING.iter_unpack(payload):
            _check_setting(name, value)
        settings: dict[int, int] = dict(SETTING.iter_unpack(payload))
        if HEADER_TABLE_SIZE in settings:
            self._prefix = NO_TABLE  # what shrinks must be said [RFC 7541 4.2], and our blocks need no table
        window = settings.get(INITIAL_WINDOW_SIZE, self._initial)
        for stream in self._streams.values():
            stream.window += window - self._initial
            if stream.window > LARGEST_WINDOW:
                raise Violation(ErrorCode.FLOW_CONTROL_ERROR, TOO_WIDE)
        self._initial = window
        self._out.append(frame(SETTINGS, ACK, 0))
        self._send_all()

    def _window_came(self, stream_id: int, octets: int, events: list[Event]) -> None:
        if not octets:
            raise wrong("a window that grows by nothing")
        if stream_id:
            self._check_opened(stream_id)
            stream = self._streams.get(stream_id)
            if stream is None:
                return
            stream.window += octets
            if stream.window > LARGEST_WINDOW:
                self.reset(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
                events.append(Cancelled(stream_id))
        else:
            self._window += octets
            if self._window > LARGEST_WINDOW:
                raise Violation(ErrorCode.FLOW_CONTROL_ERROR, TOO_WIDE)
        self._send_all()


def _check_priority(stream_id: int, payload: bytes) -> None:
    """Raise Violation for a stream that depends on itself; the payload begins with the stream that it depends on."""
    if NUMBER.unpack_from(payload)[0] & LARGEST_WINDOW == stream_id:
        raise wrong("a stream that depends on itself")


def _check_setting(name: int, value: int) -> None:
    """Raise Violation for a value that a setting of a client cannot have [RFC 9113 6.5.2]."""
    if name == ENABLE_PUSH and value not in {0, 1}:
        raise wrong(f"pushes of kind {value}")
    if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
        raise Violation(ErrorCode.FLOW_CONTROL_ERROR, TOO_WIDE)
    if name == MAX_FRAME_SIZE and not FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
        raise wrong(f"a largest frame of {value} octets")
