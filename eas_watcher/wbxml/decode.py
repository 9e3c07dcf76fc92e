"""How a tree is read from WBXML bytes [MS-ASWBXML 2.1.2; WBXML 1.3].

The input is not trusted: every length is checked against the bytes that are left before anything is copied, and size,
depth and number of tokens are bounded. The reader accepts what real servers send beyond the specification (other WBXML
1.x versions, redundant page switches, split strings, unknown tags, trailing bytes), and refuses what ActiveSync never
uses.
"""

import re
from collections.abc import Mapping
from functools import cache, partial
from typing import Final, NamedTuple

from eas_watcher.errors import ProtocolViolation
from eas_watcher.wbxml.codepages import FIRST_TOKEN, TOKENS, names_of
from eas_watcher.wbxml.element import Element
from eas_watcher.wbxml.encode import CONTINUES, END, HAS_CONTENT, HEADER, OPAQUE, STR_I, SWITCH_PAGE

MAX_SIZE: Final = 8 * 1024 * 1024  # bytes; a Sync answer of 100 items without bodies has about 50 KiB
MAX_DEPTH: Final = 64  # nested elements; a Sync answer needs 8
MAX_TOKENS: Final = 150_000  # 14 for each of 10,700 folders; limits time to about 0.2 s and memory to about 12 MiB

VERSIONS: Final = frozenset({0x01, 0x02, 0x03})  # WBXML 1.1 to 1.3
UTF_8: Final = 0x6A  # IANA MIB 106
LITERAL_PUBLIC_ID: Final = 0x00  # an index into the string table follows
HAS_ATTRIBUTES: Final = 0x80
TOKEN: Final = 0x3F
MB_U_INT32_BYTES: Final = 5

PAGE: Final = 6  # bits of a token; a name is one number here, the code page above the token


def _name(page: str, tag: str) -> int:
    number, token = TOKENS[page, tag]
    return number << PAGE | token


APPLICATION_DATA: Final = _name("AirSync", "ApplicationData")
KEPT_OF_ITEMS: Final = frozenset({_name("Email", "Read"), _name("Email", "DateReceived")})
SKIPPED: Final = frozenset({_name("FolderHierarchy", "DisplayName")})


class _Choice(NamedTuple):
    """Which elements are built; all that is in the others is skipped."""

    kept: Mapping[int, frozenset[int]]
    """The names of the children that some elements keep."""
    left_out: frozenset[int]
    """The names that no other element keeps."""
    content: int
    """The name of an element whose own text is skipped."""


_ALL: Final = _Choice({}, frozenset(), -1)
_SPARSE: Final = _Choice(
    {APPLICATION_DATA: KEPT_OF_ITEMS} | dict.fromkeys(KEPT_OF_ITEMS, frozenset[int]()), SKIPPED, APPLICATION_DATA
)


_ELEMENT: Final = partial(tuple.__new__, Element)  # what Element does, with no function in Python
_TAGS: Final = bytes(
    [0 if token & HAS_ATTRIBUTES or token & TOKEN < FIRST_TOKEN else token & TOKEN for token in range(256)]
)
"""Token -> tag; 0: the token begins no element that ActiveSync uses."""
UNREAD: Final = 4096
"""Octets that one match skips at most: it keeps Python's lock, and what it skips is counted when it has ended."""
OCTETS_OF_A_TOKEN: Final = 8  # as a match counts them: an element that it skips has 20 octets in most answers
SHORT: Final = 127  # octets of a text that a match skips; a longer one is three tokens, as an unasked body is


def _unread(kept: frozenset[int] = frozenset(), inside: bytes = b"") -> bytes:
    """Return the pattern of an element that is empty, or has one short text or OPAQUE, or any elements `inside` it.

    The tags of `kept` are no such element, whatever their page. There is only one way to match an element, so a match
    that fails goes back fast. No group is possessive: after one, Python 3.11.0 to 3.11.4 go on at the wrong octet
    [CPython: gh-106052].
    """
    tags = {*range(FIRST_TOKEN, HAS_CONTENT)} - {name & TOKEN for name in kept}
    empty, begun = re.escape(bytes(tags)), re.escape(bytes(HAS_CONTENT | tag for tag in tags))
    opaque = b"|".join(re.escape(bytes([size])) + b".{%d}" % size for size in range(HAS_CONTENT))
    elements = b"(?:%b)*" % inside if inside else b""
    return rb"(?:[%b]|[%b](?:\x03[^\0]{0,%d}+\0|\xC3(?:%b)|%b)\x01)" % (empty, begun, SHORT, opaque, elements)


_UNREAD: Final = re.compile(rb"(?:%b|\0(.))*" % _unread(KEPT_OF_ITEMS, _unread(inside=_unread())), re.DOTALL)
"""Elements of which none is kept of an item, with elements in them, and in these; and switches of pages, of which the
group has the last."""


class WbxmlError(ProtocolViolation):
    """The bytes are not a WBXML document of ActiveSync; `offset` is the place, in bytes from the start."""

    def __init__(self, detail: str, offset: int) -> None:
        super().__init__(f"WBXML: {detail} at byte {offset}")
        self.offset = offset


def decode(body: bytes, *, sparse: bool = False) -> Element:
    """Read one document; raises WbxmlError.

    With `sparse`, mail content never becomes text: of AirSync:ApplicationData only Email:Read and Email:DateReceived
    are built, and of a folder everything but its DisplayName. The rest is skipped.
    """
    if len(body) > MAX_SIZE:
        raise WbxmlError("the document is too large", MAX_SIZE)
    reader = _Reader(body)
    _read_header(reader)
    return _read_root(reader, _SPARSE if sparse else _ALL)


class _Reader:
    """Reads bytes in order; every step checks that enough bytes are left."""

    __slots__ = ("at", "body")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0  # the offset of the next byte

    def fail(self, detail: str, back: int = 1) -> WbxmlError:
        """Return the error for the byte that was read last, or another place `back`."""
        return WbxmlError(detail, self.at - back)

    def byte(self) -> int:
        """Return the next byte."""
        if self.at >= len(self.body):
            raise self.fail("the document ends too early", 0)
        self.at += 1
        return self.body[self.at - 1]

    def mb_u_int32(self) -> int:
        """Return the next number, in groups of seven bits, the highest first [WBXML 1.3, 5.1]."""
        if self.at < len(self.body) and self.body[self.at] < CONTINUES:
            self.at += 1
            return self.body[self.at - 1]
        groups = self.body[self.at : self.at + MB_U_INT32_BYTES]
        value = 0
        for count, group in enumerate(groups, 1):
            if group < CONTINUES:
                self.at += count
                return value << 7 | group
            value = value << 7 | group - CONTINUES
        self.at += len(groups)
        if len(groups) < MB_U_INT32_BYTES:
            raise self.fail("the document ends too early", 0)
        raise self.fail("a number is too long")

    def skip(self, length: int) -> slice:
        """Skip `length` bytes and return their place; fails if there are fewer."""
        start = self.at
        if length > len(self.body) - start:
            raise self.fail("a length exceeds the document", 0)
        self.at += length
        return slice(start, self.at)


def _read_header(reader: _Reader) -> None:
    """Check and skip version, public id, charset and string table [WBXML 1.3, 5.3]."""
    if reader.body.startswith(HEADER):  # as nearly all servers write it
        reader.at = len(HEADER)
        return
    if reader.byte() not in VERSIONS:
        raise reader.fail("not a WBXML 1.1-1.3 document")
    if reader.mb_u_int32() == LITERAL_PUBLIC_ID:
        reader.mb_u_int32()
    if reader.mb_u_int32() != UTF_8:
        raise reader.fail("the charset is not UTF-8")
    reader.skip(reader.mb_u_int32())


class _Open:
    """An element whose END was not read yet."""

    __slots__ = ("children", "kept", "name", "opaque", "text")

    def __init__(self, name: int, kept: frozenset[int] | None) -> None:
        self.name = name
        self.kept = kept
        """The names of the children that are built; None: all are."""
        self.children: list[Element] = []
        self.text: bytes | bytearray | None = None
        self.opaque = False

    def add_text(self, text: bytes, *, opaque: bool) -> None:
        """Append text; it may come in pieces, split even within a character."""
        if self.text is None:
            self.text, self.opaque = text, opaque
            return
        if isinstance(self.text, bytes):
            self.text = bytearray(self.text)
        self.text += text
        self.opaque = self.opaque and opaque

    def close(self) -> Element:
        """Return the element."""
        if self.text is None:
            return _ELEMENT((*_named(self.name), tuple(self.children), "")) if self.children else _empty(self.name)
        text = bytes(self.text)
        opaque = self.opaque or b"\0" in text  # only OPAQUE can bring a NUL
        return _ELEMENT((*_named(self.name), tuple(self.children), text if opaque else _decoded(text)))


def _decoded(text: bytes) -> str | bytes:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


def _read_root(reader: _Reader, choice: _Choice) -> Element:  # noqa: C901, PLR0912, PLR0915 -- one loop: calls cost
    """Read the root element; bytes after it are ignored.

    A hostile answer costs as much time as this loop takes for MAX_TOKENS tokens, so it calls little.
    """
    body, at, size = reader.body, reader.at, len(reader.body)
    kept_of, left_out, content = choice
    page = 0  # [WBXML 1.3, 5.8.1]
    outside = parent = _Open(-1, None)
    elements = [outside]  # those that are built and open, the innermost last, in one that stands for the document
    skipped = 0  # how many of the open elements are skipped: the outermost skipped one and those in it
    left = MAX_TOKENS
    while left > 0:
        left -= 1
        if at >= size:
            raise WbxmlError("the document ends too early", at)
        token = body[at]
        at += 1
        tag = _TAGS[token]
        if tag:
            if len(elements) + skipped > MAX_DEPTH:
                raise WbxmlError("elements are nested too deep", at - 1)
            name = page | tag
            kept = parent.kept
            if kept is None:
                skips = skipped or (name in left_out and parent is not outside)
            else:
                skips = skipped or name not in kept
                if skips and (unread := _UNREAD.match(body, at - 1, at + UNREAD)):
                    # Most properties of an item are not kept. Where none can be skipped at once, that was a token more.
                    left -= 1 + (unread.end() - at + 1) // OCTETS_OF_A_TOKEN
                    if unread.end() >= at:
                        at = unread.end()
                        page = page if unread[1] is None else unread[1][0] << PAGE
                        continue
            if not token & HAS_CONTENT:
                if parent is outside:
                    return _empty(name)
                if not skips:
                    parent.children.append(_empty(name))
                continue
            # Most elements have one text and nothing else: three tokens at once.
            if at < size and body[at] == STR_I and name != content and parent is not outside:
                end = body.find(0, at)
                if 0 < end < size - 1 and body[end + 1] == END:
                    left -= 2
                    if not skips:
                        space, word = _named(name)
                        parent.children.append(_ELEMENT((space, word, (), _decoded(body[at + 1 : end]))))
                    at = end + 2
                    continue
            if skips:
                skipped += 1
            else:
                parent = _Open(name, kept_of.get(name))
                elements.append(parent)
        elif token == END:
            if skipped:
                skipped -= 1
                continue
            if parent is outside:
                raise WbxmlError("text or END outside of the root element", at - 1)
            element = elements.pop().close()
            parent = elements[-1]
            if parent is outside:
                return element
            parent.children.append(element)
        elif token == SWITCH_PAGE:
            if at >= size:
                raise WbxmlError("the document ends too early", at)
            page = body[at] << PAGE
            at += 1
        elif token == STR_I:
            if parent is outside:
                raise WbxmlError("text or END outside of the root element", at - 1)
            start, at = at, body.find(0, at) + 1
            if not at:
                raise WbxmlError("a string does not end", start)
            if not skipped and parent.name != content:
                parent.add_text(body[start : at - 1], opaque=False)
        elif token == OPAQUE:
            if parent is outside:
                raise WbxmlError("text or END outside of the root element", at - 1)
            reader.at = at
            where = reader.skip(reader.mb_u_int32())
            at = reader.at
            if not skipped and parent.name != content:
                parent.add_text(body[where], opaque=True)
        elif token & TOKEN < FIRST_TOKEN:
            raise WbxmlError("a global token that ActiveSync does not use", at - 1)
        else:
            raise WbxmlError("an element has attributes", at - 1)
    raise WbxmlError("too many tokens", at)


@cache
def _named(name: int) -> tuple[str, str]:
    """Return the page and the tag of a name."""
    return names_of(name >> PAGE, name & TOKEN)


@cache
def _empty(name: int) -> Element:
    """Return the one value for all empty elements of a name, so that one byte of input does not take 100 of memory."""
    return Element(*_named(name))
