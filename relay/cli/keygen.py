"""Writes new keys into files, and never over an existing one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from relay.push.webpush.vapid import make_key
from relay.security.sealing import generate

SEALED: Final = 'stored credentials open with it alone. To replace it, see docs/operate.md, "Replace the sealing key".'


class KeysExist(Exception):
    """A key file exists already; the text says what a new key would make useless."""


def write_sealing_keys(private: Path, public: Path) -> None:
    """Make the sealing keys; raises as `write_key_pair` does."""
    write_key_pair(private, public, generate, SEALED)


def refuse_existing(*files: Path) -> None:
    """Raise KeysExist if a file of the sealing keys exists."""
    for path in files:
        if path.exists():
            raise KeysExist(f"{path} exists: {SEALED}")


def write_key_pair(private: Path, public: Path, make: Callable[[], tuple[bytes, bytes]], warning: str) -> None:
    """Make a key pair; only the owner can read the private file.

    Raises KeysExist with `warning` if one of the files exists, OSError if one cannot be written.
    """
    for path in (private, public):
        if path.exists():
            raise KeysExist(f"{path} exists: {warning}")
    private_pem, public_pem = make()
    for path, content, mode in ((private, private_pem, 0o600), (public, public_pem, 0o644)):
        _write(path, content, mode)


def write_vapid_key(path: Path) -> None:
    """Make a VAPID key; only the owner can read its file.

    Raises KeysExist if the file exists, OSError if it cannot be written.
    """
    if path.exists():
        raise KeysExist(f"{path} exists: apps subscribed for it. Move it away only if all shall subscribe anew.")
    _write(path, make_key(), 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
