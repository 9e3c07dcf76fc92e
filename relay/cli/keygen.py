"""Writes new keys into files, never over an existing one, and puts one in the place of another.

A file has its whole content, its owner and its rights from the moment on at which it has its name: the relay reads what
is beside its key within seconds, and a part of a key, which a full disk or kill -9 leaves, would keep it from starting.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os.path import lexists
from pathlib import Path
from tempfile import mkstemp
from typing import Final

from relay.push.webpush.vapid import make_key
from relay.security.sealing import SealingPublicKey, generate
from relay.settings.sealing import name_beside

SEALED: Final = 'stored credentials open with it alone. To replace it, see docs/operate.md, "Sealing keys".'


class KeysExist(Exception):
    """A key file exists already, or a link, whose disk may be away; the text says what a new key would make useless."""


def write_sealing_keys(private: Path, public: Path) -> None:
    """Make the sealing keys; raises as `write_key_pair` does."""
    write_key_pair(private, public, generate, SEALED)


def refuse_existing(*files: Path) -> None:
    """Raise KeysExist if a file of the sealing keys exists."""
    for path in files:
        if lexists(path):
            raise KeysExist(f"{path} exists: {SEALED}")


def write_beside(
    private_file: Path, public_file: Path, folder: Path | None, noting: Callable[[str], None] | None = None
) -> tuple[str, Path, Path]:
    """Make a key pair beside the present one, or in a folder; return its id and the two files.

    `noting` is called with the id before a file is written: what it raises leaves none. The files belong to whom the
    present private key belongs, so that the relay can read them when root made them. Raises KeysExist, OSError.
    """
    pems = generate()
    name = SealingPublicKey.read(pems[1]).name
    if noting is not None:
        noting(name)
    private, public = name_beside(private_file, name), name_beside(public_file, name)
    if folder is not None:
        private, public = folder / private.name, folder / public.name
    write_key_pair(private, public, lambda: pems, SEALED, _like(private_file))
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
    with _whole(present, pem, 0o644, _like(present)) as fresh:
        fresh.replace(present)


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


def write_key_pair(
    private: Path,
    public: Path,
    make: Callable[[], tuple[bytes, bytes]],
    warning: str,
    like: os.stat_result | None = None,
) -> None:
    """Make a key pair; only the owner can read the private file. Both belong to the owner of `like`.

    If the group of that file can read it, the group of the private file can, too. Raises KeysExist with `warning` if
    one of the files exists, OSError if one cannot be written.
    """
    for path in (private, public):
        if lexists(path):
            raise KeysExist(f"{path} exists: {warning}")
    private_pem, public_pem = make()
    closed = 0o600 if like is None else 0o600 | like.st_mode & 0o040
    for path, content, mode in ((private, private_pem, closed), (public, public_pem, 0o644)):
        _write(path, content, mode, like)


def write_vapid_key(path: Path) -> None:
    """Make a VAPID key; only the owner can read its file.

    Raises KeysExist if the file exists, OSError if it cannot be written.
    """
    if lexists(path):
        raise KeysExist(f"{path} exists: apps subscribed for it. Move it away only if all shall subscribe again.")
    _write(path, make_key(), 0o600)


def _like(file: Path) -> os.stat_result | None:
    """Return whose a new file shall be that root makes beside another one; None: it is the caller's."""
    return file.stat() if os.geteuid() == 0 and file.exists() else None


def _write(path: Path, content: bytes, mode: int, like: os.stat_result | None = None) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _whole(path, content, mode, like) as fresh:
        os.link(fresh, path)  # unlike a rename, it replaces no key that another process made meanwhile


@contextmanager
def _whole(path: Path, content: bytes, mode: int, like: os.stat_result | None) -> Iterator[Path]:
    """Yield a file that is whole and safe on the disk, to be given the name `path`; what is left of it is removed."""
    descriptor, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if like is not None:
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path)
