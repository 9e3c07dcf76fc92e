"""How a tree is written as WBXML bytes [MS-ASWBXML 2.1.2; WBXML 1.3]."""

from collections.abc import Sequence
from typing import Final

from eas_watcher.wbxml.codepages import TOKENS
from eas_watcher.wbxml.element import Element

HEADER: Final = b"\x03\x01\x6a\x00"  # 03 01 6A 00: WBXML 1.3, public id unknown, UTF-8, no string table
SWITCH_PAGE: Final = 0x00
END: Final = 0x01
STR_I: Final = 0x03
OPAQUE: Final = 0xC3
HAS_CONTENT: Final = 0x40
CONTINUES: Final = 0x80  # set in every byte of an mb_u_int32 but the last
PLACE: Final = "\ue000"  # for private use [Unicode 23.5]: no element, number or option of ours has it

_PLACE: Final = PLACE.encode()


def encode(root: Element) -> bytes:
    """Return a document with the header that every server accepts.

    Raises ValueError for what WBXML cannot express: an unknown name, a NUL or a lone surrogate in a string.
    """
    out = bytearray(HEADER)
    _write(out, root, 0)
    return bytes(out)


class Template:
    """A document whose texts change: all but those is written once."""

    __slots__ = ("_pieces",)

    def __init__(self, root: Element) -> None:
        """Take a document with PLACE where a text comes; raises ValueError as `encode` does."""
        self._pieces = encode(root).split(_PLACE)

    def fill(self, texts: Sequence[str]) -> bytes:
        """Return the document with these texts, in the order of their places.

        Raises ValueError for an empty text, and for those of which `encode` raises it.
        """
        written = [self._pieces[0]]
        for text, piece in zip(texts, self._pieces[1:], strict=True):
            if not text or "\0" in text:
                raise ValueError("a text that is empty or holds a NUL")
            written += (text.encode(), piece)
        return b"".join(written)


def _write(out: bytearray, element: Element, page: int) -> int:
    """Append one element; return the current page after it."""
    try:
        own_page, token = TOKENS[element.page, element.tag]
    except KeyError:
        raise ValueError(f"{element.page}:{element.tag} has no token") from None
    if own_page != page:
        out += bytes((SWITCH_PAGE, own_page))
        page = own_page
    empty = element.text == "" and not element.children
    out.append(token if empty else token | HAS_CONTENT)
    if empty:
        return page
    _write_text(out, element)
    for child in element.children:
        page = _write(out, child, page)
    out.append(END)
    return page


def _write_text(out: bytearray, element: Element) -> None:
    if isinstance(element.text, bytes):
        out.append(OPAQUE)
        out += _mb_u_int32(len(element.text))
        out += element.text
    elif element.text:
        if "\0" in element.text:
            raise ValueError(f"{element.page}:{element.tag} holds a NUL")
        out.append(STR_I)
        out += element.text.encode()
        out.append(0)


def _mb_u_int32(value: int) -> bytes:
    """Return a number in groups of seven bits, the highest first [WBXML 1.3, 5.1]."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | CONTINUES)
    return bytes(reversed(groups))
