"""Own the HTTP/2 engine of a connection to APNs: h2, freed of what costs time here and teaches nothing.

Bytes and events only, no I/O. What goes into a header was checked before (hex, configured topics, opaque ids), so h2's
checks are off; what all requests share is written as references to the peer's table, what differs is never put there.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError
from h2.stream import StreamInputs
from hpack import Encoder
from hpack.hpack import encode_integer

UNCHECKED: Final = H2Configuration(
    header_encoding=None,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
    validate_inbound_headers=False,
)

UNIQUE: Final = {
    b":path": b"\x14",  # never indexed, name 4 of the static table [RFC 7541 6.2.3, appendix A]
    b"apns-id": b"\x10\x07apns-id",  # never indexed, new name of 7 bytes
    b"apns-collapse-id": b"\x10\x10apns-collapse-id",
    b"apns-expiration": b"\x10\x0fapns-expiration",
}
"""Headers that differ in each request, with how their names are written. In the table, whose 4,096 bytes the provider
token needs, they would push out all others at once."""

FRAME_HEADER: Final = 9  # bytes: length 3, type 1, flags 1, stream 4 [RFC 9113 4.1]
FRAME_LIMIT: Final = 16384  # bytes of a frame's payload, as we never announce more
GOAWAY: Final = 7  # [RFC 9113 6.8]: last stream id 4, error code 4, text
BEGUN: Final = (StreamInputs.SEND_HEADERS, StreamInputs.SEND_DATA, StreamInputs.SEND_END_STREAM)
SHORT: Final = 127  # a length below is one byte [RFC 7541 5.1]


class Farewell(NamedTuple):
    """Hold what a GOAWAY says."""

    last: int
    """The last stream that the server did or may have done something with; what was begun later it did not."""
    code: int

    @property
    def graceful(self) -> bool:
        """Tell whether what is under way up to `last` will still be answered."""
        return self.code == ErrorCodes.NO_ERROR


class Farewells:
    """Take GOAWAY frames out of a byte stream.

    h2 takes no frame after one, so the answers to what is under way, which the server still gives, would be lost.
    """

    def __init__(self) -> None:
        self._rest = b""

    def sift(self, data: bytes) -> tuple[bytes, list[Farewell]]:
        """Return the other whole frames, and the farewells; raises FrameTooLargeError.

        h2 would wait for the whole of a frame that is too long, for ever if what speaks there is not HTTP/2 at all.
        """
        data = self._rest + data if self._rest else data
        kept: list[bytes] = []
        farewells: list[Farewell] = []
        start = begin = 0
        while len(data) >= start + FRAME_HEADER:
            length = int.from_bytes(data[start : start + 3])
            if length > FRAME_LIMIT:
                raise FrameTooLargeError
            end = start + FRAME_HEADER + length
            if len(data) < end:
                break
            if data[start + 3] == GOAWAY:
                payload = data[start + FRAME_HEADER : end]
                farewells.append(Farewell(int.from_bytes(payload[:4]) & 0x7FFF_FFFF, int.from_bytes(payload[4:8])))
                kept.append(data[begin:start])
                begin = end
            start = end
        kept.append(data[begin:start])
        self._rest = data[start:]
        return b"".join(kept), farewells


class Shorthand(Encoder):
    """Write header blocks: what was written before as a reference, known by heart until the table changes."""

    def __init__(self) -> None:
        super().__init__()
        self._references: dict[tuple[bytes, bytes], bytes] = {}

    def encode(self, headers: Iterable[Any], huffman: bool = False) -> bytes:
        """Write one block of (name, value) in bytes; without Huffman's code, which costs more time than bytes here."""
        block: list[bytes] = []
        if self.header_table.resized:
            block.append(self._encode_table_size_change())
            self.header_table.resized = False
            self._references.clear()
        for name, value in headers:
            prefix = UNIQUE.get(name)
            if prefix is None:
                block.append(self._references.get((name, value)) or self._write(name, value, huffman=huffman))
            elif len(value) < SHORT:
                block.append(b"%b%c%b" % (prefix, len(value), value))
            else:
                block.append(prefix + bytes(encode_integer(len(value), 7)) + value)
        return b"".join(block)

    def _write(self, name: bytes, value: bytes, *, huffman: bool) -> bytes:
        found = self.header_table.search(name, value)
        written: bytes = self.add((name, value), sensitive=False, huffman=huffman)
        if found is not None and found[2] is not None:
            self._references[name, value] = written
        else:
            self._references.clear()  # a new entry moves all others
        return written


class Engine(H2Connection):
    """Be h2 for a client that keeps count of its streams itself."""

    MAX_CLOSED_STREAMS = 1024
    """Enough for what is still on its way to a stream that was reset; h2 keeps 65,536, as 16 MB."""

    def __init__(self) -> None:
        super().__init__(UNCHECKED)
        self.encoder = Shorthand()

    @property
    def room(self) -> int:
        """Tell how many bytes of body a new stream may send at once."""
        return min(self.outbound_flow_control_window, int(self.remote_settings.initial_window_size))

    def request(self, stream_id: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole request: what `send_headers` and `send_data` of h2 would, at a third of their cost.

        The stream is a new one, there is room for the body, and it fits into one frame.
        """
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        stream = self._begin_new_stream(stream_id, AllowedStreamIDs.ODD)
        for step in BEGUN:
            stream.state_machine.process_input(step)
        block = self.encoder.encode(headers)
        stream.outbound_flow_control_window -= len(body)
        self.outbound_flow_control_window -= len(body)
        self._data_to_send += b"%b\x01\x04%b%b%b\x00\x01%b%b" % (
            *(len(block).to_bytes(3), stream_id.to_bytes(4), block),  # HEADERS, END_HEADERS [RFC 9113 6.2]
            *(len(body).to_bytes(3), stream_id.to_bytes(4), body),  # DATA, END_STREAM [RFC 9113 6.1]
        )

    def forget(self, stream_id: int) -> None:
        """Take a stream that has ended from those under way."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self._closed_streams[stream_id] = stream.closed_by


def error_name(code: int) -> str:
    """Name an error code [RFC 9113 7]; one that it does not know is told by its number."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return str(code)
