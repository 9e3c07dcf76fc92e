"""Key files that may change while the relay runs: each is checked every few seconds and read whole when it changed.

A file that became bad or is missing changes nothing: the last good value stays in use, and `fault` says why until the
file is good again. This module knows no providers and no formats: the caller passes the function that reads a file.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from relay.security.secret_files import Access, Process

log = logging.getLogger(__name__)

PERIOD: Final = 5.0  # seconds between two checks, so that a corrected file is in use soon

T = TypeVar("T")
Stamp = tuple[int, int, int, int]
"""What shows that a file changed: inode, size in bytes, and when its content and its rights changed, in nanoseconds."""


class KeyFile(Generic[T]):
    """The value of one secret file, and whether the file has changed."""

    def __init__(self, setting: str, path: Path, read: Callable[[Path], T]) -> None:
        """Read the file; raises the ValueError (its text says what is wrong) or OSError that `read` raises.

        `setting` is the file's key in relay.toml. Values are compared: a file that was only touched has no new one.
        """
        self.setting = setting
        self.path = path
        self.fault = ""
        """Why the present file is not in use; empty while it is."""
        self._read = read
        self._stamp: Stamp | None = _stamp(path)
        self._listeners: list[Callable[[T], None]] = []
        self.value = read(path)

    def listen(self, changed: Callable[[T], None]) -> None:
        """Call `changed` with each new value, in the loop, right after it has replaced the old one.

        It raises ValueError or OSError if it cannot use the value.
        """
        self._listeners.append(changed)

    async def look(self) -> None:
        """Read the file, in a thread, if it changed or was bad the last time."""
        found = await asyncio.to_thread(self._find)
        if found is None:
            return
        self._stamp, value, fault = found
        if fault:
            self._refuse(fault)
            return
        if value is not None and value != self.value and not self._replace(value):
            return
        if self.fault:
            log.info("key file is good again", extra={"setting": self.setting})
            self.fault = ""

    def _replace(self, value: T) -> bool:
        """Return whether the new value is in use: every listener must accept it, or the old one stays.

        A listener may fail because the file has changed once more since it was read.
        """
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
        """Return stamp, value and fault of a file that changed or was bad; None: neither."""
        try:
            stamp = _stamp(self.path)
            if stamp == self._stamp and not self.fault:
                return None
            if (fault := Access.of(self.path).fault(Process.present())) is not None:
                return stamp, None, fault
            return stamp, self._read(self.path), ""
        except OSError as error:
            return None, None, f"cannot be read: {error.strerror or error}"
        except ValueError as error:
            return None, None, str(error)


async def watch(files: Sequence[KeyFile[Any]], period: float = PERIOD) -> None:
    """Check the files every `period` seconds until cancelled."""
    while True:
        await asyncio.sleep(period)
        for file in files:
            await file.look()


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
