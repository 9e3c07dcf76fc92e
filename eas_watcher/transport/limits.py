"""The limits of an HTTP answer, applied to its bytes before a parser or a queue gets them.

A parser makes objects of kilobytes from a head of 25 bytes, and nothing bounds the number of interim answers (1xx) that
may come before an answer [RFC 9110 15.2]. So heads are held back until they are whole, and counted.
"""

from re import compile as pattern
from typing import Final

from eas_watcher.errors import ProtocolViolation

HEADS: Final = 65_536  # octets of the head of an answer and of all interim ones; Exchange's have about 1,500
LINES: Final = 128  # of one head
INTERIM: Final = 100
"""Interim answers to one request; a gateway may send one every few seconds (102) while it waits for the answer."""
FRAMING: Final = 2
"""A body may take so many times its limit on the wire: chunks of a few bytes each are as long as their framing."""
BODY_LINES: Final = 250_000
"""Line feeds in what a body takes on the wire. Each chunk has two [RFC 9112 7.1] and costs the parser 1 us; 8 MiB of
mail in lines of 76 characters have 110,000, and of random bytes 33,000."""

PIECES: Final = 2000
PIECE: Final = 64
"""An answer may come in so many pieces, and one more for so many octets: each wakes the loop, 50 us. TCP and TLS make
pieces of 1,400 to 16,000 octets; a server that sends one octet at a time would take a tenth of the loop for hours."""

_STATUS: Final = pattern(rb"HTTP/[0-9]\.[0-9] +([0-9]{3})[ \r\n]")
_BEGIN: Final = b"HTTP/"
_ENDS: Final = (b"\n\r\n", b"\n\n")  # a parser takes a bare LF for a line's end too [RFC 9112 2.2]
_LONGEST_END: Final = 3
_SWITCHING: Final = b"101"


class AnswerLimits:
    """What may still come of the answer to one request."""

    __slots__ = ("_head", "_heads", "_interim", "_left", "_lines_left", "_pieces_left", "_searched")

    def __init__(self, largest: int) -> None:
        """Allow a body of `largest` octets."""
        self._head: bytearray | None = bytearray()
        """What came of a head that is not whole yet; None: the last head is over, the body comes."""
        self._searched = 0
        self._heads = 0
        self._interim = 0
        self._left = FRAMING * largest + HEADS
        self._lines_left = BODY_LINES
        self._pieces_left = PIECES * PIECE
        """In octets: what came gives, and each piece takes PIECE of them."""

    def pass_on(self, data: bytes) -> bytes:
        """Return what a parser may have now of all that came; raises ProtocolViolation when a limit is passed."""
        self._pieces_left += len(data) - PIECE
        if self._pieces_left < 0:
            raise ProtocolViolation("the answer comes in too many pieces")
        if self._head is None:
            return self._count(data)
        self._head += data
        heads = b""
        while (head := self._next_head(self._head)) is not None:
            heads += head
            if not self._is_interim(head):
                body, self._head = bytes(self._head), None
                return heads + self._count(body)
        return heads

    def _count(self, body: bytes) -> bytes:
        self._left -= len(body)
        if self._left < 0:
            raise ProtocolViolation("the answer is too large")
        self._lines_left -= body.count(b"\n")
        if self._lines_left < 0:
            raise ProtocolViolation("the answer comes in too many chunks")
        return body

    def _next_head(self, came: bytearray) -> bytes | None:
        """Take one whole head from what came; None if none is whole."""
        if not self._searched:
            blank = len(came) - len(came.lstrip(b"\r\n"))  # a parser skips empty lines before a head
            self._heads += blank
            del came[:blank]
            if came[: len(_BEGIN)] != _BEGIN[: len(came)]:
                raise ProtocolViolation("the answer is not HTTP")
        ends = [at + len(end) for end in _ENDS if (at := came.find(end, self._searched)) >= 0]
        length = min(ends, default=len(came))
        if self._heads + length > HEADS:
            raise ProtocolViolation(f"the head of the answer is larger than {HEADS // 1024} KiB")
        if not ends:
            self._searched = max(0, len(came) - _LONGEST_END)
            return None
        head = bytes(came[:length])
        del came[:length]
        self._heads, self._searched = self._heads + length, 0
        if head.count(b"\n") > LINES:
            raise ProtocolViolation(f"the head of the answer has more than {LINES} lines")
        return head

    def _is_interim(self, head: bytes) -> bool:
        """Return True if another answer follows; raises ProtocolViolation for too many of them."""
        found = _STATUS.match(head)
        if found is None:
            raise ProtocolViolation("the answer is not HTTP")
        if not found[1].startswith(b"1") or found[1] == _SWITCHING:
            return False
        self._interim += 1
        if self._interim > INTERIM:
            raise ProtocolViolation(f"more than {INTERIM} interim answers (1xx) came, and no answer")
        return True
