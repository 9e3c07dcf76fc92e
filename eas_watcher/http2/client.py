"""One client's side of an HTTP/2 connection: bytes in, events and bytes out; no I/O, no clock [RFC 9113].

A caller uses it so:

    client = Http2Client(now)               # `take` has the preface and our settings now
    client.receive(data, now)               # returns events; after each call, write what `take` returns
    client.request(block, body, owner)      # while `free` is above 0; `owner` comes back in the answer's event
    client.reset(stream_id)                 # gives one request up; no event follows for it
    client.take()                           # all bytes to write since the last call, as one piece

`receive` reads a limited number of frames at once. While `more` is true the caller calls it again, with b"", when the
loop has done other work, and reads nothing from the socket until then. Nothing here raises for what a server does:
faults of one stream end as Failed, others as Broken, the last event, after which `receive` returns nothing. When the
connection is lost, `abandon` returns the requests that were not answered.

A stream costs an entry in a table until its answer begins; what answers have in common lies on the connection.
"""

from typing import Final, Generic

from eas_watcher.http2.answer import INTERIM, Head, HeadReader, PartialAnswer, check_interim, check_size
from eas_watcher.http2.budget import Flooded, FrameBudget
from eas_watcher.http2.events import Answered, Broken, Event, Failed, GoneAway, Owner, Settled, Widened
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
    LAST_STREAM,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    NUMBER,
    PADDED,
    PING,
    PREFACE,
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
    goaway_frame,
    header_piece,
    reset_frame,
    settings_frame,
    unpad,
    window_frame,
)
from eas_watcher.http2.header_block import NO_TABLE
from eas_watcher.http2.limits import Limits
from eas_watcher.http2.outflow import Outflow
from eas_watcher.http2.violations import ErrorCode, Malformed, Violation

UNANNOUNCED: Final = 100
"""Streams at once on a server that announces no limit, or has not announced it yet."""
AT_ONCE: Final = 512
"""Frames that one call of `receive` reads, a few milliseconds."""
LIMITS: Final = Limits()
OK: Final = 200

_LENGTHS: Final = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
"""Octets that frames of these kinds have."""
_ON_STREAM: Final = frozenset({PRIORITY, RST_STREAM})
_ON_CONNECTION: Final = frozenset({SETTINGS, PING, GOAWAY})


class Http2Client(Generic[Owner]):
    """One connection."""

    __slots__ = (
        "_answers",
        "_budget",
        "_credit",
        "_ended",
        "_fragments",
        "_frames",
        "_heads",
        "_kept",
        "_largest",
        "_limit",
        "_limits",
        "_next",
        "_out",
        "_outflow",
        "_owners",
        "_prefix",
        "_used",
        "going",
        "heard",
        "more",
        "pongs",
        "ready",
    )

    def __init__(self, now: float, limits: Limits = LIMITS, wanted: frozenset[bytes] | None = None) -> None:
        """Write preface and settings. `now` is `loop.time()`.

        `wanted` are the names of headers that answers have in their events; None: all. Leave out what nobody reads.
        """
        self._limits = limits
        self._budget = FrameBudget(now)
        self._frames = FrameReader()
        self._heads = HeadReader(limits.headers, wanted)
        self._owners: dict[int, Owner] = {}
        self._answers: dict[int, PartialAnswer] = {}
        self._largest: dict[int, int] = {}  # limits of bodies, where a request gave its own
        self._kept = 0  # octets of all bodies that are not whole
        self._fragments: tuple[int, int, list[bytes], int] | None = None
        """The header block that CONTINUATION frames continue: stream, flags, pieces, octets."""
        self._prefix = NO_TABLE  # of the first block
        self._next = 1
        self._limit = UNANNOUNCED
        self._used = 0  # octets of the connection's window that came since we gave back some
        self._credit = max(limits.window, WINDOW)
        self._ended = False
        self.ready = False
        """True once the server's settings came: it speaks HTTP/2."""
        self.going = False
        """True once no stream may be opened any more: the server goes away, or the connection is broken."""
        self.heard = False
        """True if the last call of `receive` found a whole frame."""
        self.more = False
        """True if frames are left that were received."""
        self.pongs = 0
        """How many PINGs the server has answered: it has read what was written before them."""
        ours = (
            (HEADER_TABLE_SIZE, 0),
            (ENABLE_PUSH, 0),
            # One octet more than is allowed: a longer body shows itself instead of stopping.
            (INITIAL_WINDOW_SIZE, limits.body + 1),
            (MAX_HEADER_LIST_SIZE, limits.headers),
        )
        self._out = [PREFACE, settings_frame(ours)]
        if limits.window > WINDOW:
            self._out.append(window_frame(0, limits.window - WINDOW))
        self._outflow = Outflow(self._out)

    # --- requests

    def __len__(self) -> int:
        """Return the number of requests without an answer."""
        return len(self._owners)

    def __contains__(self, stream_id: object) -> bool:
        """Return True if the request on this stream has no answer yet."""
        return stream_id in self._owners

    @property
    def limit(self) -> int:
        """The number of streams that the server allows at once."""
        return self._limit

    @property
    def free(self) -> int:
        """The number of streams that may be opened now."""
        if self.going:
            return 0
        left = (LAST_STREAM - self._next) // 2 + 1  # ids that are not used yet
        return max(min(self._limit - len(self._owners), left), 0)

    @property
    def exhausted(self) -> bool:
        """True if all ids of streams are used up: another connection has more."""
        return self._next > LAST_STREAM

    @property
    def window(self) -> int:
        """The octets of bodies that the server takes now, on the connection."""
        return self._outflow.window

    @property
    def room(self) -> int:
        """The octets of body that a new stream may send at once."""
        return self._outflow.room

    def request(self, block: bytes, body: bytes, owner: Owner, largest: int | None = None) -> int:
        """Write a request; return its stream. `block` is a header block, the body of the answer has at most `largest`.

        A stream must be free. A body beyond `room` goes out piece by piece, as the server lets it.
        """
        stream_id = self._next
        self._next += 2
        self._owners[stream_id] = owner
        self._budget.asked()
        if self._prefix:
            block, self._prefix = self._prefix + block, b""
        self._outflow.request(stream_id, block, body)
        if largest is not None and largest != self._limits.body:
            self._largest[stream_id] = largest
            if largest > self._limits.body:
                self._out.append(window_frame(stream_id, largest - self._limits.body))
        return stream_id

    def reset(self, stream_id: int, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """Give a request up; no event follows for it. One that was answered is left alone."""
        if stream_id in self._owners:
            self._forget(stream_id)
            self._out.append(reset_frame(stream_id, code))

    def ping(self, content: bytes) -> None:
        """Ask for a sign of life; the content is 8 octets."""
        self._out.append(frame(PING, 0, 0, content))

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        """Write our GOAWAY, once; no stream may be opened and nothing is read any more."""
        if not self._ended:
            self._ended = self.going = True
            self._out.append(goaway_frame(code, text))

    def abandon(self) -> list[tuple[int, Owner]]:
        """Return the requests without an answer, by stream, and forget them: the connection is lost."""
        left = list(self._owners.items())
        for stream_id, _ in left:
            self._forget(stream_id)
        self.going = True
        return left

    def take(self) -> bytes:
        """Return all bytes that were written since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _forget(self, stream_id: int) -> Owner:
        if self._answers and (answer := self._answers.pop(stream_id, None)) is not None:
            self._kept -= answer.size
        if self._outflow.unsent:
            self._outflow.forget(stream_id)
        if self._largest:
            self._largest.pop(stream_id, None)
        return self._owners.pop(stream_id)

    # --- frames

    def receive(self, data: bytes, now: float) -> list[Event[Owner]]:  # noqa: C901 -- one loop over frames, for its speed
        """Read what the server sent; return what it means, in order."""
        events: list[Event[Owner]] = []
        self.heard = False
        if self._ended:
            self.more = False
            return events
        frames = self._frames
        budget = self._budget
        budget.refill(now, len(self._owners))
        if data:
            frames.add(data)
        try:
            for _ in range(AT_ONCE):
                found = frames.next()
                if found is None:
                    self.more = False
                    break
                self.heard = True
                kind, flags, stream_id, payload = found
                budget.spend(kind, len(payload))
                if self._fragments is not None or not self.ready:
                    self._check_order(kind, flags, stream_id)
                if kind == HEADERS:
                    self._headers_came(flags, stream_id, payload, events)
                elif kind == DATA:
                    self._data_came(flags, stream_id, payload, events)
                elif kind == CONTINUATION:
                    self._continuation(flags, payload, events)
                else:
                    self._other(kind, flags, stream_id, payload, events)
            else:
                self.more = True
        except Violation as violation:
            self.close(violation.code, str(violation))
            self.more = False
            flooded = str(violation) if isinstance(violation, Flooded) else ""
            events.append(Broken(violation.code, str(violation), flooded))
        if self._used * 2 >= self._credit and not self._ended:
            self._out.append(window_frame(0, self._used))
            self._used = 0
        return events

    def _check_order(self, kind: int, flags: int, stream_id: int) -> None:
        """Raise Violation unless settings come first, and a begun header block is continued."""
        if not self.ready:
            if kind != SETTINGS or flags & ACK:
                raise _wrong("the server does not begin with its settings")
        elif self._fragments is not None and (kind != CONTINUATION or stream_id != self._fragments[0]):
            raise _wrong("a frame inside of a header block")

    # --- answers

    def _headers_came(self, flags: int, stream_id: int, payload: bytes, events: list[Event[Owner]]) -> None:
        self._check_opened(stream_id)
        piece = header_piece(flags, payload) if flags & ~(END_STREAM | END_HEADERS) else payload
        if flags & END_HEADERS:
            self._block_came(flags, stream_id, piece, events)
        else:
            self._fragments = (stream_id, flags, [piece], len(piece))

    def _continuation(self, flags: int, payload: bytes, events: list[Event[Owner]]) -> None:
        if self._fragments is None:
            raise _wrong("a CONTINUATION of nothing")
        stream_id, first, pieces, size = self._fragments
        size += len(payload)
        if size > self._limits.headers:
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "a header block longer than its limit")
        pieces.append(payload)
        if flags & END_HEADERS:
            self._fragments = None
            self._block_came(first, stream_id, b"".join(pieces), events)
        else:
            self._fragments = (stream_id, first, pieces, size)

    def _block_came(self, flags: int, stream_id: int, block: bytes, events: list[Event[Owner]]) -> None:
        awaited = stream_id in self._owners  # otherwise of a request that was given up
        ends = bool(flags & END_STREAM)
        answer = self._answers.get(stream_id)
        try:
            if answer is not None:
                self._heads.check_trailers(block, ends=ends)
                self._whole(stream_id, answer, events)
                return
            head = self._heads.read(block)
            if not awaited:
                return
            if head.status < INTERIM:
                check_interim(head, ends=ends)
            elif ends:
                check_size(0, head)
                self._answered(stream_id, head, b"", events)
            else:
                self._answers[stream_id] = PartialAnswer(head)
        except Malformed as fault:
            if awaited:
                self._fault(stream_id, fault, events)

    def _data_came(self, flags: int, stream_id: int, payload: bytes, events: list[Event[Owner]]) -> None:
        self._used += len(payload)
        if self._used > self._credit:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
        answer = self._answers.get(stream_id)
        if answer is None:
            self._check_opened(stream_id)
            if stream_id in self._owners:
                self._fault(stream_id, Malformed("a body without a head"), events)
            else:
                self._budget.discard(len(payload))
            return
        data = payload
        if flags & PADDED:
            data = unpad(flags, payload)
            self._out.append(window_frame(stream_id, len(payload) - len(data)))
        try:
            if data and not self._keep(stream_id, answer, data):
                self._out.append(reset_frame(stream_id, ErrorCode.CANCEL))
                self._answered(stream_id, answer.head, b"", events)
                return
            if flags & END_STREAM:
                self._whole(stream_id, answer, events)
        except Violation as violation:
            self._fault(stream_id, violation, events)

    def _keep(self, stream_id: int, answer: PartialAnswer, data: bytes) -> bool:
        """Keep a piece of a body; return False if the body is too long, but that of an error, which says enough."""
        answer.size += len(data)
        self._kept += len(data)
        if answer.size > self._largest.get(stream_id, self._limits.body):
            if answer.head.status != OK and not self._limits.errors_whole:
                return False
            raise Violation(ErrorCode.CANCEL, "a body longer than its limit")
        if self._kept > self._limits.kept:
            raise Violation(ErrorCode.CANCEL, "bodies longer than the limit of all together")
        answer.pieces.append(data)
        return True

    def _whole(self, stream_id: int, answer: PartialAnswer, events: list[Event[Owner]]) -> None:
        self._answered(stream_id, answer.head, answer.body(), events)

    def _answered(self, stream_id: int, head: Head, body: bytes, events: list[Event[Owner]]) -> None:
        if stream_id in self._outflow.unsent:
            # The server did not wait for the rest of the request [RFC 9113 8.1].
            self._out.append(reset_frame(stream_id, ErrorCode.NO_ERROR))
        events.append(Answered(stream_id, self._forget(stream_id), head.status, head.headers, body))

    def _fault(self, stream_id: int, violation: Violation, events: list[Event[Owner]]) -> None:
        """End one stream for a fault of the server."""
        self._out.append(reset_frame(stream_id, violation.code))
        owner = self._forget(stream_id)
        events.append(Failed(stream_id, owner, violation.code, str(violation), unprocessed=False))

    def _check_opened(self, stream_id: int) -> None:
        """Raise Violation for a stream that we never opened; one that is over is none of them."""
        if not stream_id & 1 or stream_id >= self._next:
            raise _wrong("a frame on a stream that we did not open")

    # --- the rest

    def _other(self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event[Owner]]) -> None:
        length = _LENGTHS.get(kind)
        if length is not None and len(payload) != length:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a frame of kind {kind} with {len(payload)} octets")
        if (kind in _ON_STREAM and not stream_id) or (kind in _ON_CONNECTION and stream_id):
            raise _wrong(f"a frame of kind {kind} on stream {stream_id}")
        if kind == RST_STREAM:
            self._reset_came(stream_id, NUMBER.unpack(payload)[0], events)
        elif kind == SETTINGS:
            self._settings_came(flags, payload, events)
        elif kind == PING:
            if flags & ACK:
                self.pongs += 1
            else:
                self._out.append(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self._goaway_came(payload, events)
        elif kind == WINDOW_UPDATE:
            self._window_came(stream_id, NUMBER.unpack(payload)[0] & LARGEST_WINDOW, events)
        elif kind == PUSH_PROMISE:
            raise _wrong("a promise of a push, which our settings refuse")

    def _reset_came(self, stream_id: int, code: int, events: list[Event[Owner]]) -> None:
        self._check_opened(stream_id)
        if stream_id in self._owners:
            unprocessed = code == ErrorCode.REFUSED_STREAM
            events.append(Failed(stream_id, self._forget(stream_id), code, "", unprocessed))

    def _settings_came(self, flags: int, payload: bytes, events: list[Event[Owner]]) -> None:
        if flags & ACK:
            if payload:
                raise Violation(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of settings with a content")
            return
        if len(payload) % SETTING.size:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"settings of {len(payload)} octets")
        # Only the last value of each counts at the end; each of them must be a possible one.
        for name, value in SETTING.iter_unpack(payload):
            self._check_setting(name, value)
        settings: dict[int, int] = dict(SETTING.iter_unpack(payload))
        self._limit = settings.get(MAX_CONCURRENT_STREAMS, self._limit)
        self._outflow.adopt(settings.get(INITIAL_WINDOW_SIZE), settings.get(MAX_FRAME_SIZE))
        self.ready = True
        self._out.append(frame(SETTINGS, ACK, 0))
        self._outflow.send()
        events.append(Settled())

    @staticmethod
    def _check_setting(name: int, value: int) -> None:
        if name == ENABLE_PUSH and value:
            raise _wrong("a server that allows us to push")
        if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "a window larger than HTTP/2 has")
        if name == MAX_FRAME_SIZE and not FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
            raise _wrong(f"a largest frame of {value} octets")

    def _goaway_came(self, payload: bytes, events: list[Event[Owner]]) -> None:
        if len(payload) < TWO_NUMBERS.size:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a GOAWAY of {len(payload)} octets")
        last, code = TWO_NUMBERS.unpack_from(payload)
        last &= LAST_STREAM
        self.going = True
        events.append(GoneAway(code, last))
        for stream_id in [stream_id for stream_id in self._owners if stream_id > last]:
            owner = self._forget(stream_id)
            events.append(Failed(stream_id, owner, ErrorCode.REFUSED_STREAM, "", unprocessed=True))

    def _window_came(self, stream_id: int, octets: int, events: list[Event[Owner]]) -> None:
        if not stream_id:
            self._outflow.widen(octets)
            events.append(Widened())
            return
        self._check_opened(stream_id)
        if stream_id in self._owners:
            try:
                self._outflow.widen_stream(stream_id, octets)
            except Violation as violation:
                self._fault(stream_id, violation, events)


def _wrong(text: str) -> Violation:
    return Violation(ErrorCode.PROTOCOL_ERROR, text)
