"""Header blocks without a dynamic table: written with literals that no table keeps, read from a server that has none.

The relay announces a table of size 0, so a block depends on no other one [RFC 7541 4.2]. The same holds for what it
writes: values that differ in each request, or must stay secret, enter no table, and a block may be made ahead.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from eas_watcher.http2.huffman import unhuffman
from eas_watcher.http2.violations import ErrorCode, Violation

Header = tuple[bytes, bytes]

_NAMED: Final = (
    "accept-charset accept-encoding=gzip,deflate accept-language accept-ranges accept access-control-allow-origin age "
    "allow authorization cache-control content-disposition content-encoding content-language content-length "
    "content-location content-range content-type cookie date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified link location max-forwards "
    "proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie "
    "strict-transport-security transfer-encoding user-agent vary via www-authenticate"
)
STATIC: Final[tuple[Header, ...]] = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    *((b":status", status) for status in (b"200", b"204", b"206", b"304", b"400", b"404", b"500")),
    *(
        (name, value.replace(b",", b", "))
        for name, _, value in (entry.partition(b"=") for entry in _NAMED.encode().split())
    ),
)
"""The static table, whose first entry has number 1 [RFC 7541 appendix A]."""

NO_TABLE: Final = b"\x20"
"""Announces a dynamic table of size 0: the first octet of the first block of a connection [RFC 7541 6.3]."""

ENTRY: Final = 32  # octets that each header counts beside name and value [RFC 9113 6.5.2]
NAMES_KEPT: Final = 64
"""Names of headers that a reader remembers in Huffman's code; a server sends some 20."""
SHORT_NAME: Final = 64  # octets; a longer one is not remembered
SHORT_VALUE: Final = 48  # octets in Huffman's code; a longer value is not remembered
VALUES_KEPT: Final = 512
"""Values that are remembered for all connections: most headers of a server's answers say the same each time."""

_SHORT: Final = 0x7F  # a length below this takes one octet [RFC 7541 5.1]
_LENGTHS: Final = [bytes((length,)) for length in range(_SHORT)]
_MOST: Final = 28
"""Bits at most of a number after its first octet: longer ones are longer than any block."""
_INDEXED: Final = 0x80  # the first bit of a header that is a reference to the table [RFC 7541 6.1]
_KEPT: Final = 0x40  # first bits of a literal that the reader should add to its table [6.2.1]
_RESIZE: Final = 0x20  # first bits of a change of the table's size [6.3]
_NEVER: Final = 0x10  # first bits of a literal that no table may keep [6.2.3]

_EXACT: Final = {header: number for number, header in reversed([*enumerate(STATIC, 1)])}
_BY_NAME: Final = {name: number for number, (name, _) in reversed([*enumerate(STATIC, 1)])}


def header_block(headers: Iterable[Header]) -> bytes:
    """Write headers. Blocks may be joined: each is a part of a block."""
    return b"".join([header_field(name, value) for name, value in headers])


def header_field(name: bytes, value: bytes) -> bytes:
    """Write one header: a reference to the static table, or a literal that no table may keep."""
    exact = _EXACT.get((name, value))
    if exact is not None:
        return bytes((_INDEXED | exact,))
    return header_name(name) + string(value)


def header_name(name: bytes) -> bytes:
    """Write the name of a header whose value, a `string`, follows."""
    number = _BY_NAME.get(name)
    return integer(0, 4, _NEVER) + string(name) if number is None else integer(number, 4, _NEVER)


def string(text: bytes) -> bytes:
    """Write a string as it is, without Huffman's code."""
    length = len(text)
    return _LENGTHS[length] + text if length < _SHORT else integer(length, 7) + text


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """Write a number in the last `bits` of an octet and the octets after it, behind the bits `first` [RFC 7541 5.1]."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    written = [first | most]
    value -= most
    while value > _SHORT:
        written.append(value & _SHORT | 0x80)
        value >>= 7
    return bytes((*written, value))


_decoded: Final = lru_cache(VALUES_KEPT)(unhuffman)


class HeaderReader:
    """Reads the header blocks of one server."""

    __slots__ = ("_largest", "_names", "_wanted")

    def __init__(self, largest: int, wanted: frozenset[bytes] | None = None) -> None:
        """Allow so many octets in one list, counted as HTTP/2 does.

        Only headers of the `wanted` names are returned, and pseudo-headers; None: all. Values of others are not
        decoded, which costs more than all else.
        """
        self._largest = largest
        self._wanted = wanted
        self._names: dict[bytes, bytes] = {}

    def read(self, block: bytes) -> list[Header]:  # noqa: C901 -- one loop over octets, for its speed
        """Return the headers of a block, in order; raises Violation."""
        headers: list[Header] = []
        wanted = self._wanted
        at, end, size = 0, len(block), 0
        try:
            while at < end:
                first = block[at]
                if first & _INDEXED:
                    number, at = self._number(block, at, 0x7F)
                    name, value = self._entry(number)
                elif first & 0xE0 == _RESIZE:
                    number, at = self._number(block, at, 0x1F)
                    if number or headers or size:
                        raise Violation(ErrorCode.COMPRESSION_ERROR, "a table where none may be")
                    continue
                else:
                    number, at = self._number(block, at, 0x3F if first & _KEPT else 0x0F)
                    if number:
                        name = self._entry(number)[0]
                    else:
                        length, start = self._number(block, at, 0x7F)
                        name, at = self._name(block, at, start, start + length), start + length
                    length, start = self._number(block, at, 0x7F)
                    coded, at = block[at] & 0x80, start + length
                    value = block[start:at]
                    if coded and (wanted is None or name in wanted or name[:1] == b":"):
                        value = _decoded(value) if len(value) <= SHORT_VALUE else unhuffman(value)
                size += len(name) + len(value) + ENTRY
                if size > self._largest:
                    raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "a header list longer than its limit")
                if wanted is None or name in wanted or name[:1] == b":":
                    headers.append((name, value))
        except IndexError as error:
            raise Violation(ErrorCode.COMPRESSION_ERROR, "a header block that ends early") from error
        if at > end:
            raise Violation(ErrorCode.COMPRESSION_ERROR, "a header block that ends early")
        return headers

    def _name(self, block: bytes, at: int, start: int, end: int) -> bytes:
        raw = block[start:end]
        if not block[at] & 0x80:
            return raw
        name = self._names.get(raw)
        if name is None:
            name = unhuffman(raw)
            if len(raw) <= SHORT_NAME and len(self._names) < NAMES_KEPT:
                self._names[raw] = name
        return name

    @staticmethod
    def _entry(number: int) -> Header:
        if not 1 <= number <= len(STATIC):
            raise Violation(ErrorCode.COMPRESSION_ERROR, f"a reference to entry {number} of a table that has none")
        return STATIC[number - 1]

    @staticmethod
    def _number(block: bytes, at: int, mask: int) -> tuple[int, int]:
        """Return a number and where it ends [RFC 7541 5.1]; raises IndexError when the block ends in it."""
        value = block[at] & mask
        at += 1
        if value < mask:
            return value, at
        for shift in range(0, _MOST, 7):
            octet = block[at]
            at += 1
            value += (octet & 0x7F) << shift
            if not octet & 0x80:
                return value, at
        raise Violation(ErrorCode.COMPRESSION_ERROR, "a number without end")
