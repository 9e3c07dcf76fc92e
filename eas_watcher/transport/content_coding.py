"""Answers that a server has compressed, though nobody asked it to [RFC 9110 8.4, 12.5.3]."""

import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from eas_watcher.errors import ProtocolViolation

GZIP: Final = 31  # zlib's window of 32 KiB, with the head of gzip
ZLIB: Final = 15
RAW: Final = -15  # some servers send deflate without its head [RFC 9110 8.4.1.2]
_WINDOWS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {"gzip": (GZIP,), "x-gzip": (GZIP,), "deflate": (ZLIB, RAW)}
)


def decoded(body: bytes, coding: str, largest: int) -> bytes | None:
    """Return what a body holds; None: more than `largest` octets.

    Unknown codings are left as they are. Raises ProtocolViolation for a body that is not what its coding says.
    """
    for window in _WINDOWS.get(coding.strip().lower(), ()) if body else ():
        press = zlib.decompressobj(window)
        try:
            content = press.decompress(body, largest + 1)
        except zlib.error:
            continue
        if len(content) > largest:
            return None
        if press.eof:
            return content
    if body and coding.strip().lower() in _WINDOWS:
        raise ProtocolViolation("the answer is not what its Content-Encoding says")
    return body
