"""The egress log as the console shows it: its files, a page of lines with what is wrong with each, and a whole audit.

Logs are large and the process has other work: a page reads a bounded piece of one file, and an audit takes half of one
thread and no more than some megabytes.
"""

import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from errno import ELOOP
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, Final

from relay.push.egress.auditing import Audit, audit
from relay.push.egress.keeping import read_keys
from relay.push.egress.record import ChainKey, Position, Removal, verify

PAGE: Final = 24_576  # bytes of a page; a line has about 500
LARGEST: Final = 32_000_000  # bytes of all files that an audit reads here
WORKS: Final = 0.005  # seconds between two pauses of an audit: the interpreter's lock goes round in that time, too
RESTS: Final = 0.005
NAME: Final = re.compile(r"egress[0-9]*-[0-9]{6,12}\.jsonl", re.ASCII)


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of the log."""

    name: str
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line."""

    raw: str
    fields: Mapping[str, str]
    """Those of the line, as texts; empty if it is none of an egress log."""
    data: Mapping[str, str]
    """What the body says of the push: kind, class, count, registration; empty if it is no body of a push."""
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some lines of a file, the newest first."""

    file: str
    entries: tuple[Entry, ...]
    before: int | None
    """Where the page with the lines before begins, for `page`; None: there are none in this file."""
    unverified: int = 0
    """Lines chained with a key that is not here."""


class EgressViewer:
    """Reads the log of this host. Its methods read files: call them in a thread. All raise OSError."""

    def __init__(self, folder: Path, state: Path, key_file: Path) -> None:
        """Take the log's folder, the folder of the anchors, and the file of the keys."""
        self.folder = folder
        self._state = state
        self._key_file = key_file

    def files(self) -> list[LogFile]:
        """Return the files of the log, the newest of each chain first."""
        regular: dict[Path, int] = {}
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # the relay has just removed an old file
                if NAME.fullmatch(path.name) and S_ISREG((found := path.lstat()).st_mode):
                    regular[path] = found.st_size
        return [LogFile(path.name, regular[path]) for path in sorted(regular, key=_order)]

    def page(self, name: str, before: int | None = None) -> LogPage:
        """Return the last lines of a file that end before a byte; raises FileNotFoundError for a file of another name.

        The lines are checked among themselves: each follows the one before, and each body is a template.
        """
        if not NAME.fullmatch(name):
            raise FileNotFoundError(name)
        keys = self._keys()
        with _opened(self.folder / name) as file:
            end = file.seek(0, os.SEEK_END)
            end = end if before is None else max(0, min(before, end))
            start = max(0, end - PAGE)
            file.seek(start)
            piece = file.read(end - start)
        begun = piece.find(b"\n") + 1 if start else 0  # the page begins with a whole line
        if begun < len(piece):
            start, piece = start + begun, piece[begun:]
        lines = piece.splitlines()
        numbered = [(str(number), line) for number, line in enumerate(lines)]
        faults: dict[str, list[str]] = {}
        for fault in verify(numbered, keys=keys, removed=_assumed(lines)):
            faults.setdefault(fault.where, []).append(fault.text)
        entries = [_entry(line, tuple(faults.get(number, ()))) for number, line in numbered]
        unverified = sum(1 for each in entries if each.fields.get("key") not in {None, *keys})
        return LogPage(name, tuple(reversed(entries)), start or None, unverified)

    def whole(self) -> Audit | None:
        """Check the whole log as `relay audit verify` does; None: it is too large for that."""
        files = self.files()
        if sum(file.size for file in files) > LARGEST:
            return None
        key_file = self._key_file if self._key_file.exists() else None
        paths = [self.folder / file.name for file in files]
        return audit(paths, key_file, self._state, pause=_Pauses().take) if paths else Audit.of_nothing()

    def _keys(self) -> dict[str, ChainKey]:
        return {key.id: key for key in read_keys(self._key_file)} if self._key_file.exists() else {}


def _opened(path: Path) -> BinaryIO:
    """Open a file of the log; raises FileNotFoundError for a link, which somebody else may have made to a secret."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == ELOOP:
            raise FileNotFoundError(path.name) from error
        raise
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(path.name)
    return os.fdopen(descriptor, "rb")


class _Pauses:
    """Lets others run: rests as long as it worked."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def take(self) -> None:
        """Rest if it is time to."""
        if time.monotonic() - self._since >= WORKS:
            time.sleep(RESTS)
            self._since = time.monotonic()


def _order(path: Path) -> tuple[str, int]:
    chain, _, number = path.stem.rpartition("-")
    return chain, -int(number)


def _assumed(lines: list[bytes]) -> Removal | None:
    """Return what makes the first line of a page a good beginning: what came before is on the page before."""
    for line in lines:
        first = _parsed(line)
        number, before = first.get("n"), first.get("prev")
        if isinstance(number, int) and isinstance(before, str):
            return Removal(Position(number - 1, before), "")
    return None


def _entry(line: bytes, faults: tuple[str, ...]) -> Entry:
    fields = _parsed(line)
    body = _parsed(str(fields.get("body", "")).encode(errors="replace"))
    message = body.get("message")
    told = message.get("data") if isinstance(message, dict) else body.get("relay", body)
    return Entry(line.decode(errors="replace"), _texts(fields), _texts(told), faults)


def _texts(found: object) -> dict[str, str]:
    """Return the values of an object as texts, whatever somebody wrote there; empty if it is no object."""
    return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _parsed(text: bytes) -> dict[str, Any]:
    """Return a JSON object; empty: it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
