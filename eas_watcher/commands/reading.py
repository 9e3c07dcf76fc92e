"""How all commands read the root, the numbers and the identifiers of an answer."""

from typing import Final

from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import ProtocolViolation, ServerBusy
from eas_watcher.wbxml.decode import decode
from eas_watcher.wbxml.element import Element

DIGITS: Final = 10  # the most of a 32-bit number
IDENTIFIER: Final = 1024  # characters; the longest seen have 100, the specification allows 64 [MS-ASCMD 2.2.3.30]
HTTP_OK: Final = 200


def is_empty(reply: HttpReply) -> bool:
    """Return True if an answer has no body.

    Raises ProtocolViolation unless its HTTP status is 200: an answer that broke off may have a sync key that is not
    valid [observed: Z-Push 2.7.1, 2026-11].
    """
    if reply.status != HTTP_OK:
        raise ProtocolViolation(f"an answer with HTTP status {reply.status} is not to be read")
    return not reply.body


def read_root(reply: HttpReply, page: str, tag: str, *, sparse: bool = False) -> Element:
    """Read the body of an answer with HTTP 200 whose root must be that element.

    Raises ServerBusy for an empty body, which some servers send when their backend fails [observed: SOGo 5.8,
    2026-11], WbxmlError, and ProtocolViolation for another HTTP status or another document.
    """
    if is_empty(reply):
        raise ServerBusy(f"the answer to {tag} is empty")
    return read_body(reply.body, page, tag, sparse=sparse)


def read_body(body: bytes, page: str, tag: str, *, sparse: bool = False) -> Element:
    """Read a body whose root must be that element; raises WbxmlError, and ProtocolViolation for another document."""
    root = decode(body, sparse=sparse)
    if root.tag != tag or root.page != page:
        raise ProtocolViolation(f"the answer to {tag} is another document")
    return root


def read_number(parent: Element, tag: str) -> int | None:
    """Read a child that holds a number; None when it is missing. Raises ProtocolViolation for other contents."""
    child = parent.find(tag)
    if child is None:
        return None
    text = child.string.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS):
        raise ProtocolViolation(f"{parent.page}:{tag} is no number")
    return int(text)


def read_status(parent: Element) -> int:
    """Read the Status that an element must have; raises ProtocolViolation when it is missing."""
    status = read_number(parent, "Status")
    if status is None:
        raise ProtocolViolation(f"{parent.page}:{parent.tag} has no Status")
    return status


def read_identifier(parent: Element, tag: str) -> str | None:
    """Read a child that holds a key or an id, unchanged; None when it is missing or empty.

    Raises ProtocolViolation when it has other contents than text, or more than is stored.
    """
    child = parent.find(tag)
    text = "" if child is None else child.string
    if len(text) > IDENTIFIER:
        raise ProtocolViolation(f"{parent.page}:{tag} is too long")
    return text or None


def require_identifier(parent: Element, tag: str) -> str:
    """Read a child that must hold a key or an id; raises ProtocolViolation when it is missing or empty."""
    text = read_identifier(parent, tag)
    if text is None:
        raise ProtocolViolation(f"{parent.page}:{parent.tag} has no {tag}")
    return text
