"""The HTTP/2 engine of a connection to APNs: h2 reads and keeps the state, the frames of requests are written here.

Bytes and events only, no I/O. h2 writes a request in three times the time that this module takes, and rejects every
frame after a GOAWAY. Header values are checked before they arrive here (hex tokens, configured topics, opaque ids), so
h2's own checks are off. Values that all requests share become references to the server's header table; values that
differ in each request never enter it.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, RemoteSettingsChanged
from h2.exceptions import FrameTooLargeError
from h2.settings import SettingCodes
from h2.stream import H2Stream, StreamInputs
from hpack import Encoder

from relay.push.apns.frame_budget import GOAWAY, FrameBudget

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
"""The headers that differ in each request, with the encoding of their names. In the table, which has 4,096 bytes and
must hold the provider token, they would push out all other entries."""

FRAME_HEADER: Final = 9  # bytes: length 3, type 1, flags 1, stream 4 [RFC 9113 4.1]
FRAME_LIMIT: Final = 16384  # bytes of a frame's payload; the relay never announces more
AT_ONCE: Final = 512.0
"""Units of the frame budget that one read may take, about 10 ms; the rest waits until the loop has done other work."""
REQUEST_SENT: Final = (StreamInputs.SEND_HEADERS, StreamInputs.SEND_DATA, StreamInputs.SEND_END_STREAM)
SHORT: Final = 127  # a length below this takes one byte [RFC 7541 5.1]
INDEXED: Final = 0x80  # the first bit of a header that is a reference to the table [RFC 7541 6.1]
TABLE_SIZE: Final = 0x20  # the first bits of a change of the table's size, before 5 bits of number [RFC 7541 6.3]
ENDED_KEPT: Final = 128  # streams that may have ended before h2 drops them: each sweep walks through all streams


class GoAway(NamedTuple):
    """The content of a GOAWAY frame: last stream id 4, error code 4, text [RFC 9113 6.8]."""

    last: int
    """The last stream that the server processed or may have processed; it did nothing with later ones."""
    code: int

    @property
    def graceful(self) -> bool:
        """True if the server will still answer the requests up to `last`."""
        return self.code == ErrorCodes.NO_ERROR


class FrameFilter:
    """A filter that counts the frames of a byte stream, and takes GOAWAY frames out of it.

    h2 rejects every frame after a GOAWAY, so the answers that the server still sends would be lost.
    """

    def __init__(self, budget: FrameBudget) -> None:
        self._budget = budget
        self._rest = b""
        self.more = False
        """Whether whole frames may be left for the next call, as enough were read at once."""
        self.whole = False
        """Whether the last call found a whole frame; its bytes one by one are no sign of life."""

    def sift(self, data: bytes) -> tuple[bytes, list[GoAway]]:
        """Return other whole frames, as many as may be read at once, and the GOAWAYs; raises FrameTooLargeError.

        h2 would wait for the whole of a frame that is too long, for ever if the peer does not speak HTTP/2 at all.
        Raises Flooded for frames beyond the budget.
        """
        data = self._rest + data if self._rest else data
        self._rest, self.more, self.whole = b"", False, False
        kept: list[bytes] = []
        goaways: list[GoAway] = []
        start = begin = 0
        price = 0.0
        while len(data) >= start + FRAME_HEADER and price < AT_ONCE:
            length = int.from_bytes(data[start : start + 3])
            if length > FRAME_LIMIT:
                raise FrameTooLargeError
            end = start + FRAME_HEADER + length
            if len(data) < end:
                break
            price += self._budget.spend(data[start + 3], length)
            if data[start + 3] == GOAWAY:
                payload = data[start + FRAME_HEADER : end]
                goaways.append(GoAway(int.from_bytes(payload[:4]) & 0x7FFF_FFFF, int.from_bytes(payload[4:8])))
                kept.append(data[begin:start])
                begin = end
            start = end
        kept.append(data[begin:start])
        self._rest = data[start:]
        self.more, self.whole = price >= AT_ONCE, price > 0.0
        return b"".join(kept), goaways


class HeaderWriter:
    """A writer of header blocks: headers written before become references, remembered until the table changes."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._references: dict[tuple[bytes, bytes], bytes] = {}
        self._sizes: tuple[int, int] | None = None

    def resize(self, size: int) -> None:
        """Adopt the size of its table that the server announces, in bytes."""
        smallest = size if self._sizes is None else min(size, self._sizes[0])
        self._sizes = smallest, size

    def write(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return one header block; without Huffman coding, which costs more time than its bytes do here."""
        block = [] if self._sizes is None else [self._table_size_change(self._sizes)]
        for name, value in headers:
            prefix = UNIQUE.get(name)
            if prefix is None:
                block.append(self._references.get((name, value)) or self._write(name, value))
            elif len(value) < SHORT:
                block.append(b"%b%c%b" % (prefix, len(value), value))
            else:
                block.append(prefix + integer(len(value), 7) + value)
        return b"".join(block)

    def _write(self, name: bytes, value: bytes) -> bytes:
        written: bytes = self._encoder.add((name, value), sensitive=False, huffman=False)
        if written[0] & INDEXED:
            self._references[name, value] = written
        else:
            self._references.clear()  # a new entry moves all others
        return written

    def _table_size_change(self, sizes: tuple[int, int]) -> bytes:
        """Return the beginning of a block after a change: the smallest size since the last block, and the last size.

        No other size may stand there [RFC 7541 4.2]; hpack would write all that were announced.
        """
        self._sizes = None
        self._references.clear()
        for size in sizes:
            self._encoder.header_table_size = size
        return b"".join(integer(size, 5, TABLE_SIZE) for size in dict.fromkeys(sizes))


class Engine:
    """One client's side of an HTTP/2 connection; the caller counts the streams and chooses their ids."""

    def __init__(self, now: float) -> None:
        self._h2 = _Connection(UNCHECKED)
        # A server that promises pushes of its own breaks the protocol then [RFC 9113 8.4].
        self._h2.local_settings.enable_push = 0
        self._headers = HeaderWriter()
        self._budget = FrameBudget(now)
        self._frames = FrameFilter(self._budget)
        self._unsent: list[bytes] = []
        self._sweep_at = ENDED_KEPT

    @property
    def window(self) -> int:
        """The bytes of body that a new stream may send at once."""
        return min(self._h2.outbound_flow_control_window, int(self._h2.remote_settings.initial_window_size))

    @property
    def streams(self) -> int:
        """The number of streams in memory; some of them may have ended."""
        return len(self._h2.streams)

    def begin(self) -> None:
        """Write the preface and our settings."""
        self._h2.initiate_connection()

    @property
    def more(self) -> bool:
        """True if frames may be left that were received: `receive` reads a limited number at once."""
        return self._frames.more

    @property
    def heard(self) -> bool:
        """True if the last call of `receive` found a whole frame."""
        return self._frames.whole

    def refill(self, now: float, in_flight: int) -> None:
        """Let the server send more frames, for the time that passed and the requests that wait for answers."""
        self._budget.refill(now, in_flight)

    def receive(self, data: bytes) -> tuple[list[Event], list[GoAway]]:
        """Read what the server sent; raises H2Error, and then `data_to_send` has our GOAWAY. Raises Flooded."""
        frames, goaways = self._frames.sift(data)
        events = self._h2.receive_data(frames)
        for event in events:
            if isinstance(event, RemoteSettingsChanged) and SettingCodes.HEADER_TABLE_SIZE in event.changed_settings:
                self._headers.resize(event.changed_settings[SettingCodes.HEADER_TABLE_SIZE].new_value)
        return events, goaways

    def data_to_send(self) -> bytes:
        """Return all bytes that were written since the last call."""
        self._unsent.append(self._h2.data_to_send())
        data = b"".join(self._unsent)
        self._unsent.clear()
        return data

    def request(self, stream_id: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole request: what `send_headers` and `send_data` of h2 would, at a third of their cost.

        The id must be higher than all before, the window must have room for the body, and the body must fit into one
        frame.
        """
        self._budget.asked()
        h2 = self._h2
        if len(h2.streams) >= self._sweep_at:
            self._sweep_at = 2 * h2.open_outbound_streams + ENDED_KEPT  # to count the open ones, h2 drops the others
        h2.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        stream = H2Stream(
            stream_id,
            config=h2.config,
            inbound_window_size=h2.local_settings.initial_window_size,
            outbound_window_size=h2.remote_settings.initial_window_size - len(body),
        )
        for step in REQUEST_SENT:
            stream.state_machine.process_input(step)
        h2.streams[stream_id] = stream
        h2.highest_outbound_stream_id = stream_id
        h2.outbound_flow_control_window -= len(body)
        block = self._headers.write(headers)
        # What h2 has written by now comes first: a reset, or an acknowledgement of settings that the block relies on.
        self._unsent += (
            h2.data_to_send(),
            b"%b\x01\x04%b%b%b\x00\x01%b%b"
            % (
                *(len(block).to_bytes(3), stream_id.to_bytes(4), block),  # HEADERS, END_HEADERS [RFC 9113 6.2]
                *(len(body).to_bytes(3), stream_id.to_bytes(4), body),  # DATA, END_STREAM [RFC 9113 6.1]
            ),
        )

    def reset(self, stream_id: int) -> None:
        """Cancel a request; raises H2Error."""
        self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)

    def give_back(self, length: int, stream_id: int) -> None:
        """Let the server send so many bytes more: without that, 65,535 bytes of refusals stall the connection."""
        self._h2.acknowledge_received_data(length, stream_id)

    def ping(self, content: bytes) -> None:
        """Ask for a sign of life; the content is 8 bytes."""
        self._h2.ping(content)


class _Connection(H2Connection):
    """h2's connection with a shorter memory of ended streams."""

    MAX_CLOSED_STREAMS = 1024
    """Enough for answers to streams that were reset meanwhile; h2 remembers 65,536 streams, which take 16 MB."""


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """Write a number in the last `bits` of a byte and the bytes after it, behind the bits `first` [RFC 7541 5.1]."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    written = [first | most]
    value -= most
    while value > SHORT:
        written.append(value & SHORT | 0x80)
        value >>= 7
    return bytes((*written, value))


def error_name(code: int) -> str:
    """Return the name of an error code [RFC 9113 7], or the number of an unknown one."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return str(code)
