"""The head of a request over HTTP/2: refused where it breaks a rule, and read as text [RFC 9113 8.2, 8.3]."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from re import compile as pattern
from typing import Final

from eas_watcher.http2.header_block import Header, HeaderReader
from eas_watcher.http2.violations import ErrorCode, Violation

PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path"})
"""The pseudo-headers of a request [8.3.1]; all but the authority must be there."""
NEEDED: Final = PSEUDO - {b":authority"}
HOP_BY_HOP: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
"""Headers that HTTP/2 does not have [8.2.2]."""
ONCE: Final = frozenset({b"host", b"content-length"})
NAME: Final = pattern(rb":?[!-9;-@\[-~]+")
"""Visible ASCII characters without capitals and colons [8.2.1]."""
FORBIDDEN: Final = (b"\0", b"\r", b"\n ", b"\n\t", b" \n", b"\t\n")
"""What values may not have in them, or at their ends, where each ends with LF."""
HEADS_KEPT: Final = 32_768
"""Heads that are remembered, 2 kB each: those of the Pings and Syncs of 10,000 mailboxes."""
NAMES_KEPT: Final = 256  # orders of names: a client has one for each kind of request


def read_head(headers: Sequence[Header]) -> dict[str, str]:
    """Return the headers of a request by name, in lower case, with the pseudo-headers; raises Violation."""
    names = _read_names(tuple([name for name, _ in headers]))
    values = _read_values(headers)
    head = join(names, values)
    if not head[":path"]:
        raise wrong("an empty path")
    if "host" in head and head["host"] != head.get(":authority", head["host"]):
        raise wrong("a host that is not the authority")
    if head.get("te", "trailers").lower() != "trailers":
        raise wrong("a TE of more than trailers")
    return head


@lru_cache(HEADS_KEPT)
def read_head_again(block: bytes, largest: int) -> Mapping[str, str]:
    """Return the headers of a request from a block that refers to no table; those of an earlier one are remembered.

    They may have so many octets. Raises Violation.
    """
    return read_head(HeaderReader(largest).read(block))


def check_trailers(headers: Sequence[Header]) -> None:
    """Raise Violation for headers after the body that no request has."""
    names = [name for name, _ in headers]
    _check_names(names)
    _read_values(headers)
    if any(name[:1] == b":" for name in names):
        raise wrong("a pseudo-header in trailers")


def join(names: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Return headers by name; the values of one that came several times are joined [RFC 9113 8.2.3, RFC 9110 5.3]."""
    head = dict(zip(names, values, strict=True))
    if len(head) < len(names):
        for name in head:
            separator = "; " if name == "cookie" else ", "
            head[name] = separator.join([value for other, value in zip(names, values, strict=True) if other == name])
    return head


def wrong(text: str) -> Violation:
    """Return the violation of a client that breaks a rule of the protocol."""
    return Violation(ErrorCode.PROTOCOL_ERROR, text)


@lru_cache(NAMES_KEPT)
def _read_names(names: tuple[bytes, ...]) -> tuple[str, ...]:
    """Return the names of a request as text; raises Violation."""
    _check_names(names)
    pseudo = [name for name in names if name[:1] == b":"]
    if not NEEDED <= set(pseudo) <= PSEUDO or len(set(pseudo)) != len(pseudo):
        raise wrong("a request without its pseudo-headers, or with others")
    if names[: len(pseudo)] != tuple(pseudo):
        raise wrong("a pseudo-header after others")
    if b":authority" not in names and b"host" not in names:
        raise wrong("a request without authority and host")
    if any(names.count(name) > 1 for name in ONCE):
        raise wrong("two hosts or two lengths")
    return tuple(name.decode() for name in names)


def _check_names(names: Sequence[bytes]) -> None:
    for name in names:
        if NAME.fullmatch(name) is None:
            raise wrong("a name in upper case, or with a character that no name has")
        if name in HOP_BY_HOP:
            raise wrong("a header of HTTP/1.1")


def _read_values(headers: Sequence[Header]) -> list[str]:
    """Return the values; raises Violation."""
    octets = b"\n".join([b"", *(value for _, value in headers), b""])
    if any(map(octets.__contains__, FORBIDDEN)) or octets.count(b"\n") != len(headers) + 1:
        raise wrong("a value with a character that no value has, or with a blank at one of its ends")
    return octets[1:-1].decode("utf-8", "replace").split("\n")
