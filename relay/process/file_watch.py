"""Notices that files have changed, whichever way: written, renamed into place, or reached by another symbolic link.

A look at a few files every some seconds costs less than a millisecond and works on every file system; inotify does not
on network file systems, and would have to follow each link and each folder of a path.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeAlias

Stamp: TypeAlias = tuple[int, int, int, int, int] | None
"""Device, inode, size in bytes, and when content and rights changed, in nanoseconds; None: there is no such file."""


def stamp(path: Path) -> Stamp:
    """Return what shows that a file changed; symbolic links are followed."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def stamps(paths: Collection[Path]) -> Mapping[Path, Stamp]:
    """Return the stamps of some files."""
    return {path: stamp(path) for path in paths}


class FileWatch:
    """Decides when changed files are worth reading: once they have stopped changing.

    Files that belong together, such as a certificate and its key, are replaced one after the other.
    """

    def __init__(self, read: Mapping[Path, Stamp]) -> None:
        """Set up with the stamps of files that have just been read."""
        self._read = self._seen = read

    @property
    def paths(self) -> Collection[Path]:
        """The files to look at."""
        return self._read.keys()

    @property
    def unsettled(self) -> bool:
        """True if files have changed and it is not known yet whether they still do: look again soon."""
        return self._seen != self._read

    def look(self, found: Mapping[Path, Stamp]) -> bool:
        """Return True if files have changed since they were read, and not since the last look."""
        settled, self._seen = found == self._seen, found
        return settled and found != self._read

    def read(self, found: Mapping[Path, Stamp]) -> None:
        """Note the stamps of files that are read now, taken before they are read."""
        self._read = self._seen = found
