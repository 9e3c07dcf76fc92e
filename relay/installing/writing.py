"""Writes the files of an installation: all or none, never over a file that is there, for their owner alone."""

import os
import pwd
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from relay.installing.layout import File


class FilesExist(Exception):
    """Some of the files are there already; nothing was written."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(f"nothing is written over: {', '.join(map(str, paths))} exist{'s' if len(paths) == 1 else ''}")


class NoUser(Exception):
    """This host has no such user."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who gets the files; None: who runs the command."""

    uid: int
    gid: int
    name: str
    """Empty: this host has no name for it."""

    @property
    def foreign(self) -> bool:
        """Whether it is another user than the one who runs the command."""
        return self.uid != os.geteuid()


def find_owner(name: str) -> Owner:
    """Return a user by name or number; raises NoUser."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError as error:
        if name.isdecimal():  # a user of a container
            return Owner(int(name), int(name), "")
        raise NoUser(f"this host has no user {name}") from error
    return Owner(entry.pw_uid, entry.pw_gid, entry.pw_name)


def write_files(files: Sequence[File], owner: Owner | None) -> None:
    """Write all files and the folders they need, or none.

    Raises FilesExist, and OSError if one cannot be read or written; then those already written are removed again.
    """
    contents = [file.content.read_bytes() if isinstance(file.content, Path) else file.content for file in files]
    if there := [file.path for file in files if os.path.lexists(file.path)]:
        raise FilesExist(there)
    made: list[Path] = []
    try:
        for file, content in zip(files, contents, strict=True):
            _make_folder(file.path.parent, owner if file.of_relay else None, made)
            _write(file, content, owner if file.of_relay else None, made)
    except OSError:
        for path in reversed(made):
            with suppress(OSError):  # the fault that is raised matters more
                path.rmdir() if path.is_dir() else path.unlink()
        raise


def _make_folder(folder: Path, owner: Owner | None, made: list[Path]) -> None:
    """Make a folder and those above it, for the owner alone; a folder that is there stays as it is."""
    if folder.is_dir():
        return
    _make_folder(folder.parent, owner, made)
    folder.mkdir(mode=0o700)
    made.append(folder)
    if owner is not None:
        # Who owns the folder above could have put a link in its place: that is given away, not what it leads to.
        os.chown(folder, owner.uid, owner.gid, follow_symlinks=False)


def _write(file: File, content: bytes, owner: Owner | None, made: list[Path]) -> None:
    descriptor = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    made.append(file.path)
    with os.fdopen(descriptor, "wb") as opened:
        if owner is not None:
            os.fchown(descriptor, owner.uid, owner.gid)
        opened.write(content)
        opened.flush()
        os.fchmod(descriptor, file.mode)
        os.fsync(descriptor)
