"""How a tree is read from WBXML bytes [MS-ASWBXML 2.1.2; WBXML 1.3].

The input is not trusted: every length is checked against the bytes that are left before anything is copied, and size,
depth and number of tokens are bounded. The reader accepts what real servers send beyond the specification (other WBXML
1.x versions, redundant page switches, split strings, unknown tags, trailing bytes), and refuses what ActiveSync never
uses.
"""

from functools import cache
from typing import Final

from eas_watcher.errors import ProtocolViolation
from eas_watcher.wbxml.codepages import FIRST_TOKEN, TOKENS, names_of
from eas_watcher.wbxml.element import Element
from eas_watcher.wbxml.encode import CONTINUES, END, HAS_CONTENT, OPAQUE, STR_I, SWITCH_PAGE

MAX_SIZE: Final = 8 * 1024 * 1024  # bytes; a Sync answer of 100 items without bodies has about 50 KiB
MAX_DEPTH: Final = 64  # nested elements; a Sync answer needs 8
MAX_TOKENS: Final = 200_000  # 14 for each of 14,000 folders; limits time to about 0.3 s and memory to about 15 MiB

VERSIONS: Final = frozenset({0x01, 0x02, 0x03})  # WBXML 1.1 to 1.3
UTF_8: Final = 0x6A  # IANA MIB 106
LITERAL_PUBLIC_ID: Final = 0x00  # an index into the string table follows
HAS_ATTRIBUTES: Final = 0x80
TOKEN: Final = 0x3F
MB_U_INT32_BYTES: Final = 5

APPLICATION_DATA: Final = TOKENS["AirSync", "ApplicationData"]
KEPT_OF_ITEMS: Final = frozenset({TOKENS["Email", "Read"], TOKENS["Email", "DateReceived"]})
SKIPPED: Final = frozenset({TOKENS["FolderHierarchy", "DisplayName"]})


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
    return _read_root(reader, _Tree(sparse))


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
        value = 0
        for _ in range(MB_U_INT32_BYTES):
            group = self.byte()
            value = value << 7 | group & ~CONTINUES
            if group < CONTINUES:
                return value
        raise self.fail("a number is too long")

    def skip(self, length: int) -> slice:
        """Skip `length` bytes and return their place; fails if there are fewer."""
        start = self.at
        if length > len(self.body) - start:
            raise self.fail("a length exceeds the document", 0)
        self.at += length
        return slice(start, self.at)

    def skip_string(self) -> slice:
        """Skip an inline string and its closing 00; return the place of the string."""
        start = self.at
        end = self.body.find(0, start)
        if end < 0:
            raise self.fail("a string does not end", 0)
        self.at = end + 1
        return slice(start, end)


def _read_header(reader: _Reader) -> None:
    """Check and skip version, public id, charset and string table [WBXML 1.3, 5.3]."""
    if reader.byte() not in VERSIONS:
        raise reader.fail("not a WBXML 1.1-1.3 document")
    if reader.mb_u_int32() == LITERAL_PUBLIC_ID:
        reader.mb_u_int32()
    if reader.mb_u_int32() != UTF_8:
        raise reader.fail("the charset is not UTF-8")
    reader.skip(reader.mb_u_int32())


class _Open:
    """An element whose END was not read yet."""

    __slots__ = ("children", "name", "opaque", "text")

    def __init__(self, name: tuple[int, int]) -> None:
        self.name = name
        self.children: list[Element] = []
        self.text: bytearray | None = None
        self.opaque = True

    def close(self) -> Element:
        """Return the element."""
        if not self.children and self.text is None:
            return _empty(self.name)
        page, tag = names_of(*self.name)
        return Element(page, tag, tuple(self.children), self._read_text())

    def _read_text(self) -> str | bytes:
        if self.text is None:
            return ""
        if self.opaque:
            return bytes(self.text)
        try:
            return self.text.decode()
        except UnicodeDecodeError:
            return bytes(self.text)


class _Tree:
    """Builds the tree from the tokens, without the elements that are skipped."""

    __slots__ = ("_open", "_skipped", "_sparse", "root")

    def __init__(self, sparse: bool) -> None:
        self.root: Element | None = None
        self._open: list[_Open] = []
        self._skipped = 0  # how many of the open elements are skipped: the outermost skipped one and those in it
        self._sparse = sparse

    @property
    def depth(self) -> int:
        """How many elements are open."""
        return len(self._open) + self._skipped

    def add_text(self, body: bytes, where: slice, *, opaque: bool) -> None:
        """Append text to the open element; it may come in pieces, split even within a character."""
        if self._skipped:
            return
        element = self._open[-1]
        if self._sparse and element.name == APPLICATION_DATA:
            return
        element.opaque = element.opaque and opaque
        if element.text is None:
            element.text = bytearray()
        element.text += memoryview(body)[where]

    def begin(self, name: tuple[int, int], *, has_content: bool) -> None:
        """Open an element, or add it if it is empty."""
        if self._skipped or self._skips(name):
            self._skipped += has_content
            return
        if has_content:
            self._open.append(_Open(name))
        else:
            self._add(_empty(name))

    def end(self) -> None:
        """Close the element that was opened last."""
        if self._skipped:
            self._skipped -= 1
        else:
            self._add(self._open.pop().close())

    def _add(self, element: Element) -> None:
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element

    def _skips(self, name: tuple[int, int]) -> bool:
        if not self._sparse or not self._open:
            return False
        parent = self._open[-1].name
        if parent == APPLICATION_DATA:
            return name not in KEPT_OF_ITEMS
        return parent in KEPT_OF_ITEMS or name in SKIPPED


def _read_root(reader: _Reader, tree: _Tree) -> Element:
    """Read the root element; bytes after it are ignored."""
    page = 0  # [WBXML 1.3, 5.8.1]
    for _ in range(MAX_TOKENS):
        token = reader.byte()
        if token == SWITCH_PAGE:
            page = reader.byte()
        elif token in {STR_I, OPAQUE, END}:
            if not tree.depth:
                raise reader.fail("text or END outside of the root element")
            if token == END:
                tree.end()
            else:
                where = reader.skip_string() if token == STR_I else reader.skip(reader.mb_u_int32())
                tree.add_text(reader.body, where, opaque=token == OPAQUE)
        else:
            _check_tag(reader, tree, token)
            tree.begin((page, token & TOKEN), has_content=bool(token & HAS_CONTENT))
        if tree.root is not None:
            return tree.root
    raise reader.fail("too many tokens", 0)


def _check_tag(reader: _Reader, tree: _Tree, token: int) -> None:
    if token & TOKEN < FIRST_TOKEN:
        raise reader.fail("a global token that ActiveSync does not use")
    if token & HAS_ATTRIBUTES:
        raise reader.fail("an element has attributes")
    if tree.depth >= MAX_DEPTH:
        raise reader.fail("elements are nested too deep")


@cache
def _empty(name: tuple[int, int]) -> Element:
    """Return the one value for all empty elements of a name, so that one byte of input does not take 100 of memory."""
    return Element(*names_of(*name))
