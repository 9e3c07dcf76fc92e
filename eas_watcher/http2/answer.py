"""One answer on its way: header by header and piece by piece, and what makes it malformed [RFC 9113 8.1, 8.3.2]."""

from typing import Final

from eas_watcher.http2.header_block import Header
from eas_watcher.http2.violations import ErrorCode, Violation

INTERIM: Final = 200  # an answer below this status is followed by another one [RFC 9110 15.2]
SWITCHING: Final = 101
"""Not in HTTP/2 [RFC 9113 8.6]."""
NO_BODY: Final = frozenset({204, 304})

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}  # [RFC 9113 8.2.2]
)
_FORBIDDEN: Final = b"\0\r\n"


class PartialAnswer:
    """An answer that has begun."""

    __slots__ = ("expected", "headers", "pieces", "size", "status")

    def __init__(self, status: int, headers: list[Header]) -> None:
        self.status = status
        self.headers = headers
        self.pieces: list[bytes] = []
        self.size = 0
        self.expected = expected_size(headers)
        """Octets that the body should have; None: unknown."""

    def body(self) -> bytes:
        """Return the body; raises Violation when its length is another one than announced."""
        check_size(self.size, self.expected, self.status)
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)


def read_head(headers: list[Header]) -> int:
    """Return the status of an answer, and remove it from its headers; raises Violation when they are malformed."""
    if not headers or headers[0][0] != b":status":
        raise malformed("an answer that does not begin with its status")
    status = headers.pop(0)[1]
    if len(status) != 3 or not status.isdigit() or not b"100" <= status < b"600":  # noqa: PLR2004 -- digits
        raise malformed("an answer with a status that is none")
    check_fields(headers)
    return int(status)


def check_fields(headers: list[Header]) -> None:
    """Raise Violation for headers that HTTP/2 forbids; for trailers too."""
    for name, _ in headers:
        if not name or name[:1] == b":" or name != name.lower() or name in HOP_BY_HOP:
            raise malformed("a header that an answer may not have")
    whole = b"".join([part for header in headers for part in header])
    for octet in _FORBIDDEN:
        if octet in whole:
            raise malformed("a header with a line's end in it")


def expected_size(headers: list[Header]) -> int | None:
    """Return the length of the body as a header gives it; None: none does. Raises Violation."""
    found = {value for name, value in headers if name == b"content-length"}
    if not found:
        return None
    length = found.pop()
    if found or not length.isdigit() or len(length) > 18:  # noqa: PLR2004 -- digits of 2**63
        raise malformed("an answer with a length that is none")
    return int(length)


def check_size(size: int, expected: int | None, status: int) -> None:
    """Raise Violation when a body is not as long as announced."""
    if expected is not None and size != expected and (size or status not in NO_BODY):
        raise malformed(f"a body of {size} octets where {expected} were announced")


def malformed(text: str) -> Violation:
    """Return the error of one stream with a malformed answer [RFC 9113 8.1.1]."""
    return Violation(ErrorCode.PROTOCOL_ERROR, text)
