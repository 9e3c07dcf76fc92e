"""Own how a changed key file is noticed while the relay runs: looked at now and then, read whole, believed if good.

A bad new file, or none, changes nothing: what was read last stays in use, and the fault can be asked for until it is
mended. Providers and formats are not known here; whoever needs a file says how it is read.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

log = logging.getLogger(__name__)

PERIOD: Final = 5.0  # seconds between two looks: what somebody has just mended should not be waited for
OTHERS: Final = 0o077  # the rights of group and others, as settings/files.py demands them absent at the start

T = TypeVar("T")
Stamp = tuple[int, int, int, int]
"""What changes with a file: inode, size in bytes, and the nanoseconds of its last change of content and of rights."""


class KeyFile(Generic[T]):
    """Hold what one secret file says, and notice when it says something else."""

    def __init__(self, setting: str, path: Path, read: Callable[[Path], T]) -> None:
        """Read the file; `read` raises ValueError (its text tells what is wrong) or OSError, and so does this.

        `setting` is the file's key in relay.toml. Values are compared to tell a new one from a file merely touched.
        """
        self.setting = setting
        self.path = path
        self.fault = ""
        """Why the file as it is now is not used; empty while it is."""
        self._read = read
        self._stamp: Stamp | None = _stamp(path)
        self._listeners: list[Callable[[T], None]] = []
        self.value = read(path)

    def listen(self, changed: Callable[[T], None]) -> None:
        """Call this with each new value, in the loop, right after it has taken the old one's place."""
        self._listeners.append(changed)

    async def look(self) -> None:
        """Read the file if it changed, or was bad last time; disks are waited for in a thread."""
        found = await asyncio.to_thread(self._find)
        if found is None:
            return
        self._stamp, value, fault = found
        if fault:
            self._refuse(fault)
            return
        if value is not None and value != self.value and not self._tell(value):
            return
        if self.fault:
            log.info("key file is good again", extra={"setting": self.setting})
            self.fault = ""

    def _tell(self, value: T) -> bool:
        """Take a new value if all who listen can use it: the file may have changed once more since it was read."""
        old, self.value = self.value, value
        try:
            for changed in self._listeners:
                changed(value)
        except (OSError, ValueError) as error:
            self.value = old
            self._refuse(f"cannot be used: {error}")
            return False
        log.info("changed key file taken", extra={"setting": self.setting})
        return True

    def _refuse(self, fault: str) -> None:
        if fault != self.fault:
            fields = {"setting": self.setting, "reason": fault}
            log.warning("changed key file not taken, the old one stays in use", extra=fields)
            self.fault = fault

    def _find(self) -> tuple[Stamp | None, T | None, str] | None:
        """Return stamp, value and fault of a file that must be looked into; None: it is as it was."""
        try:
            stamp = _stamp(self.path)
            if stamp == self._stamp and not self.fault:
                return None
            mode = self.path.stat().st_mode & 0o777
            if mode & OTHERS:
                return stamp, None, f"is open to others than its owner (mode {mode:04o})"
            return stamp, self._read(self.path), ""
        except OSError as error:
            return None, None, f"cannot be read: {error.strerror or error}"
        except ValueError as error:
            return None, None, str(error)


async def watch(files: Sequence[KeyFile[Any]], period: float = PERIOD) -> None:
    """Look at some files again and again until cancelled."""
    while True:
        await asyncio.sleep(period)
        for file in files:
            await file.look()


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
