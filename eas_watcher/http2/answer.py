"""One answer on its way: header by header and piece by piece, and what makes it malformed [RFC 9113 8.1, 8.3.2]."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from eas_watcher.http2.header_block import Header, HeaderReader
from eas_watcher.http2.violations import Malformed

INTERIM: Final = 200  # an answer below this status is followed by another one [RFC 9110 15.2]
SWITCHING: Final = 101
"""Not in HTTP/2 [RFC 9113 8.6]."""
NO_BODY: Final = frozenset({204, 304})

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}  # [RFC 9113 8.2.2]
)
_FORBIDDEN: Final = b"\0\r\n"

BLOCKS_KEPT: Final = 64
"""Heads that are remembered for all connections: answers of one second to the same command are mostly alike."""
STATUSES_KEPT: Final = 64
"""Heads without headers that are remembered; they are all that is left of most answers where few headers are wanted."""
SHORT_BLOCK: Final = 512  # octets; the head of a longer block is not remembered
PRIVATE: Final = frozenset({b"authentication-info", b"authorization", b"cookie", b"set-cookie", b"www-authenticate"})
"""Headers of one mailbox: a head with one of them is not remembered."""


class Head(NamedTuple):
    """What precedes the body of an answer."""

    status: int
    headers: tuple[Header, ...]
    """Without the status, in the server's order."""
    expected: int | None
    """Octets that the body should have; None: unknown."""


_heads: Final[dict[tuple[bytes, int], Head]] = {}
"""The heads of blocks that came lately, by block and largest size of a list."""


class HeadReader:
    """Reads the heads of the answers of one server."""

    __slots__ = ("_headers", "_largest", "_remembers")

    def __init__(self, largest: int, wanted: frozenset[bytes] | None = None) -> None:
        """Allow lists of headers that are so large, and return those of the `wanted` names, as a HeaderReader does."""
        self._headers = HeaderReader(largest, wanted)
        self._largest = largest
        self._remembers = wanted is None

    def read(self, block: bytes) -> Head:
        """Return the head in a header block; raises Malformed for a fault of this answer, other Violations."""
        if not self._remembers or len(block) > SHORT_BLOCK:
            headers = self._headers.read(block)
            return _bare_head(headers[0]) if len(headers) == 1 else read_head(headers)
        head = _heads.get((block, self._largest))
        if head is None:
            head = read_head(self._headers.read(block))
            if not any(name in PRIVATE for name, _ in head.headers):
                if len(_heads) >= BLOCKS_KEPT:
                    _heads.clear()
                _heads[block, self._largest] = head
        return head

    def check_trailers(self, block: bytes, *, ends: bool) -> None:
        """Read a header block behind a body; raises what `read` raises."""
        headers = self._headers.read(block)
        if not ends:
            raise Malformed("trailers that do not end the answer")
        check_fields(headers)


class PartialAnswer:
    """An answer that has begun."""

    __slots__ = ("head", "pieces", "size")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.pieces: list[bytes] = []
        self.size = 0

    def body(self) -> bytes:
        """Return the body; raises Malformed when its length is another one than announced."""
        check_size(self.size, self.head)
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)


def read_head(headers: Sequence[Header]) -> Head:
    """Return the head of an answer; raises Malformed."""
    if not headers or headers[0][0] != b":status":
        raise Malformed("an answer that does not begin with its status")
    status = headers[0][1]
    if len(status) != 3 or not status.isdigit() or not b"100" <= status < b"600":  # noqa: PLR2004 -- digits
        raise Malformed("an answer whose status is no number from 100 to 599")
    fields = tuple(headers[1:])
    check_fields(fields)
    return Head(int(status), fields, expected_size(fields))


@lru_cache(STATUSES_KEPT)
def _bare_head(status: Header) -> Head:
    """Return the head of an answer of which only the status is wanted; raises Malformed."""
    return read_head([status])


def check_fields(headers: Sequence[Header]) -> None:
    """Raise Malformed for headers that HTTP/2 forbids; for trailers too."""
    for name, _ in headers:
        if not name or name[:1] == b":" or name != name.lower() or name in HOP_BY_HOP:
            raise Malformed("a header that an answer may not have")
    whole = b"".join([part for header in headers for part in header])
    for octet in _FORBIDDEN:
        if octet in whole:
            raise Malformed("a header with a line's end in it")


def check_interim(head: Head, *, ends: bool) -> None:
    """Raise Malformed for a head below INTERIM that no other one can follow."""
    if ends or head.status == SWITCHING:
        raise Malformed("an interim answer that ends the stream")


def expected_size(headers: Sequence[Header]) -> int | None:
    """Return the length of the body as a header gives it; None: none does. Raises Malformed."""
    found = {value for name, value in headers if name == b"content-length"}
    if not found:
        return None
    length = found.pop()
    if found or not length.isdigit() or len(length) > 18:  # noqa: PLR2004 -- digits of 2**63
        raise Malformed("an answer whose content-length is no number")
    return int(length)


def check_size(size: int, head: Head) -> None:
    """Raise Malformed when a body is not as long as announced."""
    expected = head.expected
    if expected is not None and size != expected and (size or head.status not in NO_BODY):
        raise Malformed(f"a body of {size} octets where {expected} were announced")
