"""HTTP/1.1 answers, read from bytes as they come: strict where two readers could differ, and bounded everywhere.

What is refused where a lenient reader goes on: two framings, or one that is no plain number or `chunked`
[RFC 9112 6.3]; folded lines [RFC 9112 5.2]; blanks in or behind a header's name; control characters; a switch of
protocols. A line of a head may end with LF alone [RFC 9112 2.2], one of the chunks' framing must end with CRLF.
"""

from collections.abc import Mapping
from enum import Enum, auto
from re import compile as pattern
from typing import Final, NamedTuple

from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import ProtocolViolation
from eas_watcher.transport.content_coding import decoded

HEADS: Final = 65_536  # octets of the head of an answer and of all interim ones; Exchange's have about 1,500
LINES: Final = 128  # of one head
INTERIM: Final = 100
"""Interim answers to one request; a gateway may send one every few seconds (102) while it waits for the answer."""
FRAMING: Final = 2
"""A body may take so many times its limit on the wire: chunks of a few bytes each are as long as their framing."""
PIECES: Final = 2000
PIECE: Final = 64
"""An answer may come in so many pieces, and one more for so many octets: each wakes the loop, 50 us. TCP and TLS make
pieces of 1,400 to 16,000 octets; a server that sends one octet at a time would take a tenth of the loop for hours."""
CHUNKS: Final = 65_536  # of one body; each costs about 2 us
CHUNK_LINE: Final = 1024  # octets; a size has 16 at most, and nobody uses extensions [RFC 9112 7.1.1]
OK: Final = 200
SWITCHING: Final = 101
REPEATED: Final = ("ms-asprotocolcommands", "ms-asprotocolversions", "www-authenticate")
"""Headers that may come in several lines, which commas join [RFC 9110 5.3]: Exchange Online sends its versions and
commands twice, and each authentication scheme in a line of its own."""
HEADS_KEPT: Final = 64
"""Heads that are remembered for all connections: answers of one second to the same command are mostly alike."""
SHORT_HEAD: Final = 1024  # octets; a longer head is not remembered
PRIVATE: Final = frozenset({"authentication-info", "authorization", "cookie", "set-cookie", "www-authenticate"})
"""Headers of one mailbox: a head with one of them is not remembered."""

_BEGIN: Final = b"HTTP/1."
_ENDS: Final = (b"\n\r\n", b"\n\n")
_LONGEST_END: Final = 3
_TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*"
_STATUS: Final = pattern(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: " + _TEXT + rb")?")
_HEADER: Final = pattern(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):(" + _TEXT + rb")")
_LENGTH: Final = pattern(r"[0-9]{1,18}")
_CHUNK: Final = pattern(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;" + _TEXT + rb")?")
_NO_HTTP: Final = "the answer is not HTTP"
_BODILESS: Final = frozenset({204, 304})


class Part(Enum):
    """What comes next."""

    HEAD = auto()
    LENGTH = auto()
    """Octets that were counted before."""
    SIZE = auto()
    """The line before a chunk."""
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    REST = auto()
    """Octets until the server ends the connection."""
    OVER = auto()


class Head(NamedTuple):
    """What precedes the body of an answer."""

    status: int
    headers: Mapping[str, str]
    cookies: tuple[str, ...]
    chunked: bool = False
    length: int | None = None
    """Octets of the body; None: unknown."""
    keeps: bool = False
    """True if the connection may carry another request after the body."""


_known: Final[dict[bytes, Head]] = {}
"""The heads that came lately."""


class AnswerReader:
    """What has come of the answer to one request."""

    __slots__ = (
        "_body",
        "_came",
        "_chunks",
        "_cookies",
        "_head_only",
        "_headers",
        "_heads",
        "_interim",
        "_largest",
        "_left",
        "_part",
        "_pieces_left",
        "_searched",
        "_size",
        "_status",
        "_wire_left",
        "keep",
    )

    def __init__(self, method: str, largest: int) -> None:
        """Read the answer to a request, whose body has `largest` octets at most."""
        self._head_only = method == "HEAD"
        self._largest = largest
        self._part = Part.HEAD
        self._came = bytearray()
        """What came and is not used yet."""
        self._searched = 0
        """So much of it holds no end of a head."""
        self._heads = HEADS
        self._interim = 0
        self._pieces_left = PIECES * PIECE
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._cookies: tuple[str, ...] = ()
        self._body: list[bytes] = []
        self._size = 0
        self._left = 0
        """Octets until the end of the body or chunk."""
        self._chunks = 0
        self._wire_left = FRAMING * largest + HEADS
        self.keep = False
        """True if the connection may carry another request; only once the answer is whole."""

    def feed(self, data: bytes) -> HttpReply | None:
        """Take what came; return the answer once it is whole.

        Raises ProtocolViolation; then the connection is of no use. The body of an error that is too large, or not what
        its coding says, is left out.
        """
        self._pieces_left += len(data) - PIECE
        if self._pieces_left < 0:
            raise ProtocolViolation("the answer comes in too many pieces")
        self._came += data
        while self._advance():
            pass
        if self._part is not Part.OVER:
            return None
        if self._came:
            self.keep = False  # nobody asked for more
        return self._reply()

    def end(self) -> HttpReply | None:
        """Return the answer, if the end of the connection is its end; None: it is not whole."""
        return self._reply() if self._part is Part.REST else None

    def _advance(self) -> bool:
        """Use some of what came; return True if that may go on."""
        match self._part:
            case Part.HEAD:
                going = self._take_head()
            case Part.LENGTH | Part.CHUNK:
                going = self._take_counted()
            case Part.SIZE:
                going = self._take_size()
            case Part.CHUNK_END:
                going = self._take_chunk_end()
            case Part.TRAILERS:
                going = self._take_trailers()
            case Part.REST:
                self._take(len(self._came))
                going = False
            case _:  # over
                going = False
        return going

    def _take_head(self) -> bool:
        block = self._next_head()
        if block is None:
            return False
        head = _head(block)
        if head.status < OK:
            self._interim += 1
            if self._interim > INTERIM:
                raise ProtocolViolation(f"more than {INTERIM} interim answers (1xx) came, and no answer")
            return True
        self._status, self._headers, self._cookies = head.status, head.headers, head.cookies
        self._choose_framing(head)
        return True

    def _next_head(self) -> bytes | None:
        """Take a head with the empty line behind it; None: it is not whole."""
        came = self._came
        if came[: len(_BEGIN)] != _BEGIN[: len(came)]:
            raise ProtocolViolation(_NO_HTTP)
        return self._next_block()

    def _next_block(self) -> bytes | None:
        """Take lines up to an empty one; None: it has not come."""
        came = self._came
        ends = [at + len(end) for end in _ENDS if (at := came.find(end, self._searched)) >= 0]
        length = min(ends, default=len(came))
        if length > self._heads:
            raise ProtocolViolation(f"the head of the answer is larger than {HEADS // 1024} KiB")
        if not ends:
            self._searched = max(0, len(came) - _LONGEST_END)
            return None
        block = bytes(came[:length])
        del came[:length]
        self._heads, self._searched = self._heads - length, 0
        return block

    def _choose_framing(self, head: Head) -> None:
        """Find out where the body ends [RFC 9112 6.3]."""
        self.keep = head.keeps
        if self._head_only or head.status in _BODILESS:
            self._part = Part.OVER
        elif head.chunked:
            self._part = Part.SIZE
        elif head.length is not None:
            self._expect(Part.LENGTH, head.length)
            if not self._left:
                self._part = Part.OVER
        else:
            self._part, self.keep = Part.REST, False

    def _expect(self, part: Part, length: int) -> None:
        """Expect octets of the body, or refuse to."""
        self._part, self._left = part, length
        if self._size + length > self._largest:
            self._leave_out()

    def _take_counted(self) -> bool:
        taken = min(len(self._came), self._left)
        self._left -= taken
        self._take(taken)
        if self._left or self._part is Part.OVER:
            return False
        self._part = Part.OVER if self._part is Part.LENGTH else Part.CHUNK_END
        return True

    def _take(self, length: int) -> None:
        """Take octets of the body."""
        if not length:
            return
        self._count(length)
        self._size += length
        if self._size > self._largest:
            self._leave_out()
            return
        self._body.append(bytes(self._came[:length]))
        del self._came[:length]

    def _count(self, length: int) -> None:
        self._wire_left -= length
        if self._wire_left < 0:
            raise ProtocolViolation("the answer is too large")

    def _take_size(self) -> bool:
        at = self._came.find(b"\r\n", 0, CHUNK_LINE)
        if at < 0:
            if len(self._came) >= CHUNK_LINE:
                raise ProtocolViolation(_NO_HTTP)
            return False
        found = _CHUNK.fullmatch(bytes(self._came[:at]))
        if found is None:
            raise ProtocolViolation(_NO_HTTP)
        length = int(found[1], 16)
        del self._came[: at + 2]
        self._count(at + 2)
        self._chunks += 1
        if self._chunks > CHUNKS:
            raise ProtocolViolation("the answer comes in too many chunks")
        if length:
            self._expect(Part.CHUNK, length)
        else:
            self._part = Part.TRAILERS
        return True

    def _take_chunk_end(self) -> bool:
        if len(self._came) < 2:  # noqa: PLR2004 -- CR and LF
            if self._came and self._came != b"\r":
                raise ProtocolViolation(_NO_HTTP)
            return False
        if not self._came.startswith(b"\r\n"):
            raise ProtocolViolation(_NO_HTTP)
        del self._came[:2]
        self._count(2)
        self._part = Part.SIZE
        return True

    def _take_trailers(self) -> bool:
        """Read headers behind the last chunk, which say nothing that a watch needs."""
        if self._came.startswith(b"\r\n"):
            del self._came[:2]
        elif len(self._came) < 2:  # noqa: PLR2004 -- CR and LF
            return False
        else:
            block = self._next_block()
            if block is None:
                return False
            _read_headers(_lines(block))
        self._part = Part.OVER
        return True

    def _leave_out(self) -> None:
        """Stop at a body that is too large: an error says enough without it."""
        if self._status == OK:
            raise ProtocolViolation(f"the answer is larger than {self._largest // 1024} KiB")
        self._part, self.keep, self._body = Part.OVER, False, []

    def _reply(self) -> HttpReply:
        body, coding = b"".join(self._body), self._headers.get("content-encoding")
        if body and coding is not None:
            body = self._decoded(body, coding)
        return HttpReply(self._status, self._headers, body, self._cookies)

    def _decoded(self, body: bytes, coding: str) -> bytes:
        try:
            content = decoded(body, coding, self._largest)
        except ProtocolViolation:
            if self._status == OK:
                raise
            return b""
        if content is None:
            self._leave_out()
            return b""
        return content


def _head(block: bytes) -> Head:
    """Return the head in a block of lines; raises ProtocolViolation."""
    head = _known.get(block)
    if head is None:
        head = _read_head(_lines(block))
        if len(block) <= SHORT_HEAD and PRIVATE.isdisjoint(head.headers):
            if len(_known) >= HEADS_KEPT:
                _known.clear()
            _known[block] = head
    return head


def _lines(block: bytes) -> list[bytes]:
    """Return the lines of a block without their ends, and without the empty one behind them."""
    lines = block.replace(b"\r\n", b"\n").split(b"\n")[:-2]
    if len(lines) > LINES:
        raise ProtocolViolation(f"the head of the answer has more than {LINES} lines")
    return lines


def _read_head(lines: list[bytes]) -> Head:
    found = _STATUS.fullmatch(lines[0])
    if found is None:
        raise ProtocolViolation(_NO_HTTP)
    version, status = int(found[1]), int(found[2])
    if status == SWITCHING:
        raise ProtocolViolation("the server switches to another protocol, which nobody asked for")
    headers = _read_headers(lines[1:])
    values = {name: ",".join(each) if name in REPEATED else each[-1] for name, each in headers.items()}
    cookies = tuple(headers.get("set-cookie", ()))
    if status < OK:
        return Head(status, values, cookies)
    codings, lengths = headers.get("transfer-encoding"), headers.get("content-length")
    if codings is not None and (
        lengths is not None or version == 0 or [each.lower() for each in codings] != ["chunked"]
    ):
        raise ProtocolViolation("the answer's framing is ambiguous")
    if lengths is not None and (len(set(lengths)) > 1 or _LENGTH.fullmatch(lengths[0]) is None):
        raise ProtocolViolation("the answer's framing is ambiguous")
    options = {each.strip().lower() for value in headers.get("connection", ()) for each in value.split(",")}
    length = None if lengths is None else int(lengths[0])
    return Head(status, values, cookies, codings is not None, length, version == 1 and "close" not in options)


def _read_headers(lines: list[bytes]) -> dict[str, list[str]]:
    """Return all values of each header by its name in lower case."""
    headers: dict[str, list[str]] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise ProtocolViolation(_NO_HTTP)
        name, value = found.groups()
        text = value.strip(b" \t").decode("utf-8", "surrogateescape")
        headers.setdefault(name.decode("ascii").lower(), []).append(text)
    return headers
