"""A server that answers every APNs request with 200, in a process of its own, too fast to count in the figures.

It frames HTTP/2 itself and reads only the apns-id from header blocks, undecoded, and the answer repeats it: as it was
written to a client that keeps no table, else in Huffman's code as Apple's do. Prints its port.
"""

import asyncio
import ssl
import sys
from struct import Struct
from typing import cast

import uvloop
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, ACK = 0x1, 0x1
STREAMS = 1000  # at once, as Apple announces
STATIC = 61  # entries of the static table [RFC 7541 appendix A]
HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
CODES = {chr(byte): (REQUEST_CODES[byte], REQUEST_CODES_LENGTH[byte]) for byte in b"0123456789abcdefABCDEF-"}


def literal(text: bytes) -> bytes:
    """Return a string in Huffman's code, shorter than 127 bytes."""
    coded = HUFFMAN.encode(text)
    return bytes([0x80 | len(coded)]) + coded


NAMES = {b"\x07apns-id", literal(b"apns-id")}
NO_TABLE = b"\x20"  # the first block of a client that has no table: then all strings are literals
WRITTEN = b"\x10\x07apns-id"
ANSWER = b"\x88\x00\x07apns-id"
"""88: ":status: 200"; 00 07: a header that no table keeps, with a name of 7 bytes."""
HEAD = Struct(">IBI")


def huffman(raw: bytes) -> bytes:
    """Return a written id in Huffman's code."""
    if raw[0] & 0x80:
        return raw
    bits = length = 0
    for letter in raw[1:].decode("ascii"):
        code, size = CODES[letter]
        bits = bits << size | code
        length += size
    padding = -length % 8
    coded = (bits << padding | (1 << padding) - 1).to_bytes((length + padding) // 8)
    return bytes([0x80 | len(coded)]) + coded


class Blocks:
    """A reader of header blocks that leaves strings as they were written."""

    def __init__(self) -> None:
        self._names: list[bytes] = []  # of the dynamic table, newest first; it may be longer than needed
        self._values: list[bytes] = []

    def apns_id(self, block: bytes) -> bytes:
        """Return the id as it was written."""
        at, found = 0, b""
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = number(block, at, 0x7F)
                name, value = self._entry(index)
            elif first & 0xE0 == 0x20:
                _, at = number(block, at, 0x1F)
                continue
            else:
                indexed = first & 0x40
                index, at = number(block, at, 0x3F if indexed else 0x0F)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = string(block, at)
                value, at = string(block, at)
                if indexed:
                    self._names.insert(0, name)
                    self._values.insert(0, value)
                    del self._names[256:], self._values[256:]
            if name in NAMES:
                found = value
        return found

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        place = index - STATIC - 1
        return (b"", b"") if place < 0 else (self._names[place], self._values[place])


def number(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """Read an integer [RFC 7541 5.1]."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def string(block: bytes, at: int) -> tuple[bytes, int]:
    """Return a string with its length, as it was written."""
    length, start = number(block, at, 0x7F)
    return block[at : start + length], start + length


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


class Server(asyncio.Protocol):
    """Serve one client until it closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._rest = b""
        self._preface = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._blocks = Blocks()
        self._plain = False
        self._ids: dict[int, bytes] = {}
        transport.write(frame(SETTINGS, 0, 0, b"\0\x03" + STREAMS.to_bytes(4)))  # type: ignore[attr-defined]  # as above

    def data_received(self, data: bytes) -> None:  # noqa: C901 -- one loop, for its speed
        data = self._rest + data
        at = 0
        if self._preface:
            if len(data) < self._preface:
                self._rest = data
                return
            at, self._preface = self._preface, 0
        room, out, size, ids = 0, [], len(data), self._ids
        while size - at >= 9:
            length, flags, stream = HEAD.unpack_from(data, at)
            kind, end = length & 0xFF, at + 9 + (length >> 8)
            if size < end:
                break
            if kind == HEADERS:
                ids[stream] = self._apns_id(data[at + 9 : end])
            elif kind == DATA:
                room += length >> 8
                if flags & END_STREAM:
                    block = ANSWER + ids.pop(stream)
                    out.append(HEAD.pack(len(block) << 8 | HEADERS, 0x5, stream) + block)
            elif kind in {SETTINGS, PING} and not flags & ACK:
                out.append(frame(kind, ACK, 0, data[at + 9 : end] if kind == PING else b""))
            at = end
        self._rest = data[at:]
        if room:
            out.append(frame(WINDOW_UPDATE, 0, 0, room.to_bytes(4)))
        if out:
            self._transport.write(b"".join(out))

    def _apns_id(self, block: bytes) -> bytes:
        if block.startswith(NO_TABLE):
            self._plain = True
        if self._plain:
            start = block.index(WRITTEN) + len(WRITTEN)
            return block[start : start + 1 + block[start]]
        return huffman(self._blocks.apns_id(block))


async def serve(certificate: str) -> None:
    """Serve until ended."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    tls.set_alpn_protocols(["h2"])
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 -- the answer
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
