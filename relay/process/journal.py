"""Sends entries with fields to the journal of systemd, as datagrams [systemd: Native Journal Protocol]."""

import contextlib
import errno
import json
import os
import re
import socket
from collections.abc import Mapping
from typing import Final, TextIO

SOCKET: Final = "/run/systemd/journal/socket"
STREAM: Final = "JOURNAL_STREAM"
"""The variable with device and inode of the stream that systemd connected to the journal [systemd.exec(5)]."""
LONGEST_NAME: Final = 64  # characters of a name that the journal takes [systemd: journal-file.c]
LONGEST_VALUE: Final = 16_384  # bytes of a value; a traceback has some thousands
LONGEST_ENTRY: Final = 131_072  # bytes; a datagram bears 212,992, the kernel's default of SO_SNDBUF, less its own part
CUT: Final = b"... (cut)"
_NO_NAME: Final = re.compile(r"[^A-Z0-9_]")


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether systemd connected a stream of this process to the journal; a redirected one is not."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or in memory
        return False
    return environ.get(STREAM) == f"{found.st_dev}:{found.st_ino}"


def encode(fields: Mapping[str, object]) -> bytes:
    """Return an entry; texts stand as they are, cut after LONGEST_VALUE bytes, and all else as JSON.

    Names become capitals, digits and underscores. No value can begin a field of its own: one with a line feed has its
    length before it.
    """
    return b"".join(_field(name, value) for name, value in fields.items())


def _field(name: str, value: object) -> bytes:
    key = _NO_NAME.sub("_", name.upper())[:LONGEST_NAME].encode()
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    data = text.encode(errors="backslashreplace")
    if len(data) > LONGEST_VALUE:
        data = data[: LONGEST_VALUE - len(CUT)].decode(errors="ignore").encode() + CUT
    if b"\n" in data:
        return key + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return key + b"=" + data + b"\n"


def send(entry: bytes, address: str = SOCKET) -> None:
    """Hand an entry to the journal without waiting; raises OSError if it takes none now, or none of this size."""
    if len(entry) > LONGEST_ENTRY:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)) as sock:
        sock.settimeout(0)
        sock.sendto(entry, address)
