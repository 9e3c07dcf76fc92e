"""Writes new keys into files, never over an existing one, and puts one in the place of another."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from relay.push.webpush.vapid import make_key
from relay.security.sealing import SealingPublicKey, generate
from relay.settings.sealing import name_beside

SEALED: Final = 'stored credentials open with it alone. To replace it, see docs/operate.md, "Sealing keys".'


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


def write_beside(private_file: Path, public_file: Path, folder: Path | None) -> tuple[str, Path, Path]:
    """Make a key pair beside the present one, or in a folder; return its id and the two files.

    They belong to whom the present private key belongs, so that the relay can read them when root made them. Raises
    KeysExist, OSError.
    """
    pems = generate()
    name = SealingPublicKey.read(pems[1]).name
    private, public = name_beside(private_file, name), name_beside(public_file, name)
    if folder is not None:
        private, public = folder / private.name, folder / public.name
    write_key_pair(private, public, lambda: pems, SEALED)
    if os.geteuid() == 0 and private_file.exists():
        like = private_file.stat()
        for path in (private, public):
            os.chown(path, like.st_uid, like.st_gid)
        private.chmod(0o600 | like.st_mode & 0o040)
    return name, private, public


def put_in_place(new: Path, present: Path, former: str) -> Path:
    """Put a new key in the place of the present one, which stays beside it under its id; return where. Raises OSError.

    At every moment both are there, and the present one is whole.
    """
    kept = name_beside(present, former)
    with suppress(FileExistsError):
        os.link(present, kept)
    new.replace(present)
    sync_folder(present)
    return kept


def put_public(pem: bytes, present: Path) -> None:
    """Put a public key in the place of another one; raises OSError."""
    descriptor, fresh = tempfile.mkstemp(prefix=f".{present.name}.", dir=present.parent)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o644)
        file.write(pem)
        file.flush()
        os.fsync(descriptor)
    if os.geteuid() == 0 and present.exists():
        os.chown(fresh, present.stat().st_uid, present.stat().st_gid)
    Path(fresh).replace(present)
    sync_folder(present)


def put_away(file: Path) -> Path:
    """Take a private key out of use, so that no process reads it; return where it is now. Raises OSError."""
    away = file.with_name(f"{file.name}.retired")
    file.replace(away)
    sync_folder(away)
    return away


def sync_folder(file: Path) -> None:
    """Make the names in the folder of a file durable; raises OSError."""
    descriptor = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
