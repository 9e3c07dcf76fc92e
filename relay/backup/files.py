"""The files of backups: compressed, for their owner only, whole or not there."""

import errno
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkstemp
from typing import IO, Final

from relay.backup.format import CUT
from relay.domain.errors import BackupInvalid

SUFFIX: Final = ".backup.gz"
LEVEL: Final = 6
LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a line; the longest ones are folders of a mailbox, some 100 KB."""


def place(target: Path, now: datetime) -> Path:
    """Return the file that a target means: in a folder, one that bears the time."""
    return target / f"push-relay-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}{SUFFIX}" if target.is_dir() else target


@contextmanager
def writing(path: Path, *, replace: bool) -> Iterator[Callable[[bytes], object]]:
    """Yield what takes the bytes of a backup; at the end the file is there, safe on the disk, or not at all.

    Raises FileExistsError unless it may `replace` a file, OSError. What has the name and is no file itself is never
    replaced, nor is a link: /dev/stdout is one, maybe to a file, and would be gone from the host.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, "it is a link or no file, and a backup needs a file of its own", str(path))
    if not replace and path.exists():
        raise _taken(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    descriptor, fresh = mkstemp(prefix=f".{path.name}.", dir=path.parent)  # for its owner only
    try:
        with os.fdopen(descriptor, "wb") as file:
            with packing(file) as write:
                yield write
            file.flush()
            os.fsync(file.fileno())
        if not replace and path.exists():
            raise _taken(path)
        Path(fresh).replace(path)
    finally:
        with suppress(FileNotFoundError):
            Path(fresh).unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _taken(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "there is such a file: name another one, or add --replace", str(path))


@contextmanager
def packing(file: IO[bytes]) -> Iterator[Callable[[bytes], object]]:
    """Yield what compresses into a file; the file stays open."""
    with gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0) as packed:
        yield packed.write


def lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a compressed file from its beginning; raises BackupInvalid, OSError."""
    file.seek(0)
    with gzip.GzipFile(fileobj=file, mode="rb") as packed:
        try:
            while line := packed.readline(LONGEST):
                if not line.endswith(b"\n"):
                    raise BackupInvalid("changed since it was written: a line has no end")
                yield line
        except EOFError as error:
            raise BackupInvalid(CUT) from error
        except gzip.BadGzipFile as error:
            raise BackupInvalid("no backup of the relay, or changed since it was written") from error
        except zlib.error as error:
            raise BackupInvalid("changed since it was written: it cannot be decompressed") from error
