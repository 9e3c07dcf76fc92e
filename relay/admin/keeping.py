"""The file of the audit log's keys: one a line, 64 hex digits, the newest first; the first act makes it."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from relay.admin.audit import AuditKey
from relay.push.egress.keeping import write_private

SECRET: Final = 32  # bytes of a key


class AuditKeyUnreadable(OSError):
    """The file holds no keys of an audit log."""


def read_keys(path: Path) -> tuple[AuditKey, ...]:
    """Read the keys, the newest first; raises AuditKeyUnreadable, OSError."""
    try:
        found = [bytes.fromhex(line) for line in path.read_text(encoding="ascii").split()]
    except ValueError as error:
        raise AuditKeyUnreadable(_fault(path)) from error
    if not found or any(len(secret) != SECRET for secret in found):
        raise AuditKeyUnreadable(_fault(path))
    return tuple(map(AuditKey, found))


def open_keys(path: Path) -> tuple[AuditKey, ...]:
    """Read the keys, or make the first one; raises AuditKeyUnreadable, OSError."""
    if not path.exists():
        _make_first(path)
    return read_keys(path)


def _make_first(path: Path) -> None:
    """Make the first key; one that another process makes at the same moment stays, since entries may have it."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    write_private(fresh, f"{secrets.token_hex(SECRET)}\n".encode())
    try:
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()


def _fault(path: Path) -> str:
    return f"{path} holds no keys of an audit log: one a line, 64 hex digits. Restore it from your backup"
