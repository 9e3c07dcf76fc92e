"""The frames of HTTP/2: written as bytes, and read from a stream of bytes that may be cut anywhere [RFC 9113 4, 6]."""

from collections.abc import Iterable
from struct import Struct
from typing import Final, TypeAlias

from eas_watcher.http2.violations import ErrorCode, Violation

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client [RFC 9113 3.4]."""

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

KINDS: Final = (
    "DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY WINDOW_UPDATE CONTINUATION".split()  # noqa: SIM905 -- ten names in the order of their numbers
)

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

HEAD_SIZE: Final = 9  # octets: length 3, type 1, flags 1, stream 4
FRAME_SIZE: Final = 16_384  # octets of payload that each side takes before other settings; ours never change
LARGEST_FRAME_SIZE: Final = (1 << 24) - 1
LARGEST_WINDOW: Final = (1 << 31) - 1
LAST_STREAM: Final = (1 << 31) - 1
WINDOW: Final = 65_535  # octets of each window before other settings [RFC 9113 6.9.2]

HEAD: Final = Struct(">IBI")
"""Length and type in one number, flags, stream."""
SETTING: Final = Struct(">HI")
NUMBER: Final = Struct(">I")
TWO_NUMBERS: Final = Struct(">II")


Frame: TypeAlias = tuple[int, int, int, bytes]
"""Kind, flags, stream and payload of a frame as it was received."""


class FrameReader:
    """Finds whole frames in what a server sends."""

    __slots__ = ("_at", "_data", "_missing", "_needed")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._missing: list[bytes] = []  # pieces of a frame that is not whole yet
        self._needed = 0  # octets until it is

    def add(self, data: bytes) -> None:
        """Take what was received; the frames come out of `next`."""
        if self._missing or self._needed:
            self._missing.append(data)
            self._needed -= len(data)
            if self._needed > 0:
                return
            data = b"".join(self._missing)
            self._missing.clear()
            self._needed = 0
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next(self) -> Frame | None:
        """Return the next frame as (kind, flags, stream, payload); None: it is not whole yet. Raises Violation."""
        data, at = self._data, self._at
        body = at + HEAD_SIZE
        if body > len(data):
            self._wait(body)
            return None
        length, flags, stream_id = HEAD.unpack_from(data, at)
        kind = length & 0xFF
        length >>= 8
        if length > FRAME_SIZE:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} octets")
        end = body + length
        if end > len(data):
            self._wait(end)
            return None
        self._at = end
        return kind, flags, stream_id & LAST_STREAM, data[body:end]

    def _wait(self, end: int) -> None:
        """Put the part of a frame aside until the rest is there, so that a slow server costs no copies."""
        if self._at < len(self._data):
            self._missing.append(self._data[self._at :])
            self._needed = end - len(self._data)
        self._data = b""
        self._at = 0


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def settings_frame(settings: Iterable[tuple[int, int]]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in settings))


def window_frame(stream_id: int, octets: int) -> bytes:
    """Return a frame that lets the server send so many octets more; stream 0: on the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, NUMBER.pack(octets))


def reset_frame(stream_id: int, code: int) -> bytes:
    """Return a frame that ends a stream."""
    return frame(RST_STREAM, 0, stream_id, NUMBER.pack(code))


def goaway_frame(code: int, text: str = "") -> bytes:
    """Return a frame that ends the connection; the server opened no streams, so none of its was processed."""
    return frame(GOAWAY, 0, 0, TWO_NUMBERS.pack(0, code) + text.encode("ascii", "replace"))


def header_frames(stream_id: int, block: bytes, largest: int, *, end: bool) -> bytes:
    """Return a header block as one HEADERS frame, and CONTINUATION frames if it is longer than `largest` octets."""
    flags = END_STREAM if end else 0
    if len(block) <= largest:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    pieces = [block[at : at + largest] for at in range(0, len(block), largest)]
    written = [frame(HEADERS, flags, stream_id, pieces[0])]
    written += [frame(CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]]
    written.append(frame(CONTINUATION, END_HEADERS, stream_id, pieces[-1]))
    return b"".join(written)


def unpad(flags: int, payload: bytes) -> bytes:
    """Return a payload without its padding; raises Violation when the padding is longer than the frame."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Violation(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


def header_piece(flags: int, payload: bytes) -> bytes:
    """Return the part of a header block in a HEADERS frame, without padding and priority; raises Violation."""
    piece = unpad(flags, payload)
    if not flags & PRIORITISED:
        return piece
    if len(piece) < 5:  # noqa: PLR2004 -- a stream and a weight
        raise Violation(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame without room for its priority")
    return piece[5:]
