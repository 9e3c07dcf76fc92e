"""The files of the egress log: one writer per chain, appended before anything is sent, rotated by size and age."""

import asyncio
import fcntl
import logging
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from tempfile import mkstemp
from typing import Final, Protocol

from relay.domain.clock import Clock
from relay.domain.model import Environment, Lane, Platform
from relay.domain.ports.outbox import Capacity
from relay.push.egress.keeping import (
    FOLDER,
    KEY_FILE,
    PRIVATE,
    Anchor,
    Incident,
    anchor_file,
    open_keys,
    removal_file,
    write_removal,
)
from relay.push.egress.leaving import Leaving, Unwritable
from relay.push.egress.record import (
    ChainKey,
    Entry,
    Position,
    Removal,
    device_hash,
    read_position,
    without_token,
    write_lines,
)
from relay.push.payload import WebPushMessage

log = logging.getLogger(__name__)

SYNC: Final = 1.0  # seconds between two fsyncs; kill -9 loses nothing, a power cut the lines of this time
TAIL: Final = 16_384  # bytes at the end that hold the whole last line; a line has about 500
CHAINS: Final = 64  # push processes on one folder, at most
PROBE: Final = bytes(65_536)
"""What must fit on the disk before pushes go on after it could not be written: room for some 100 lines."""
DEVICES: Final = 4_096
"""Devices whose names are remembered, which takes 1 MB."""
DAY: Final = timedelta(days=1)
PRUNE: Final = 3600.0  # seconds between two looks for files that are too old
MEASURE: Final = 10.0  # seconds between two looks at the room on the disk while nothing is written


class EgressState(Protocol):
    """What health and metrics read of an egress log."""

    trouble: str
    """Why it cannot be written; empty: it can."""
    free: int | None
    """Bytes that are free on its disk; None: not known yet."""
    incidents: int
    """Changes by somebody else that were noticed since the start."""
    incident: Incident | None
    """The last change by somebody else that was noticed, at this start or before."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the log is kept."""

    largest: int
    """Bytes at which a file is full."""
    keep: timedelta | None = None
    """Age at which a file is removed, and then a new file begins each day; None: never."""
    most: int | None = None
    """Bytes of all files of a chain from which on the oldest is removed; None: no limit."""


class EgressLog(EgressState):
    """Appends to the newest file of one chain; `run` must run beside it."""

    def __init__(
        self, folder: Path, state: Path, chain: str, keys: list[ChainKey], clock: Clock, limits: Limits
    ) -> None:
        """Continue the chain where the relay left it; `state` has its anchor. Raises OSError, ValueError."""
        self._folder = folder
        self._anchor_file = anchor_file(state, chain)
        self._chain = chain
        self._key = keys[0]
        self._keys = {key.id: key for key in keys}
        self._device = lru_cache(DEVICES)(partial(device_hash, _key(folder / "device.key")))
        """Names devices; OpenSSL takes long for an HMAC, and a phone gets many pushes."""
        self._clock = clock
        self.limits = limits
        self.trouble = ""
        self.free: int | None = None
        self.incidents = 0
        self._dirty = False
        self._syncing = threading.Lock()
        """Held during an fsync, which runs in a thread, but for the one at the end."""
        self._full: deque[int] = deque()
        """Descriptors of files that are full and not synced yet."""
        self.incident: Incident | None = None
        self._number, end = self._resume()
        self.position = self._remember(end)
        self._file, self._size = self._open(self._number)
        self._began = clock()
        if self.position.n != end.n or end.digest not in {"", self.position.digest}:
            self._changed(f"the lines after number {end.n} are gone or others: the relay had written {self.position.n}")

    def apns(self, pushes: Sequence[Leaving]) -> None:
        """Record pushes to APNs that leave together, all or none; raise Unwritable."""
        entries = [(app, self._device(token), message.rendered) for app, token, message in pushes]
        self._append(Platform.APNS, entries)

    def fcm(self, app: str, device_token: str, body: bytes) -> None:
        """Record a push to FCM; raise Unwritable."""
        device = self._device(device_token)
        self._append(Platform.FCM, [(app, device, without_token(body, device_token, device))])

    def webpush(self, app: str, device_token: str, message: WebPushMessage) -> None:
        """Record the plaintext of an encrypted push to a push service; raise Unwritable."""
        device = self._device(device_token)
        self._append(Platform.WEBPUSH, [(app, device, message.content.decode("ascii"))])

    def capacities(self, now: float) -> Sequence[Capacity]:
        """List all lanes while the log cannot be written: no push is claimed then. `now` is `loop.time()`."""
        return [Capacity(Lane(each), 0, now + SYNC) for each in Environment] if self.trouble else ()

    async def run(self) -> None:
        """Look after the log every SYNC seconds until cancelled: its file, the disk, and what is too old.

        While nothing is written the thread that syncs has little to do, so it runs less often.
        """
        prune_at, tend_at, loop = 0.0, 0.0, asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SYNC)
            now = loop.time()
            try:
                self._look()
                if now >= prune_at:
                    prune_at = now + PRUNE
                    await asyncio.to_thread(self._prune)
                if self._dirty or self.trouble or now >= tend_at:
                    tend_at = now + MEASURE
                    await asyncio.to_thread(self._tend)
            except OSError as error:
                self._failed(error)
            else:
                self._works()

    def close(self) -> None:
        """Sync the file to the disk and close it."""
        try:
            self._sync()
        finally:
            for file in (*self._full, self._file):
                os.close(file)

    # --- appending

    def _append(self, provider: Platform, entries: Sequence[Entry]) -> None:
        """Write the lines of a group at once; what does not fit into the file any more goes into the next one."""
        try:
            self._look()
            if self._size and self._old():
                self._rotate()
            lines, digests = write_lines(self.position, self._clock(), provider, entries, self._key)
            while lines:
                fitting = self._fitting(lines)
                if not fitting:
                    self._rotate()
                    continue
                self._write(lines[:fitting], digests[fitting - 1])
                del lines[:fitting], digests[:fitting]
        except OSError as error:
            raise Unwritable(self._failed(error)) from error

    def _fitting(self, lines: Sequence[bytes]) -> int:
        """Return how many of these lines the file still takes; an empty one takes a line in any case."""
        left = self.limits.largest - self._size
        if sum(map(len, lines)) <= left:
            return len(lines)
        fitting = 0
        for line in lines:
            left -= len(line)
            if left < 0:
                break
            fitting += 1
        return fitting or (0 if self._size else 1)

    def _write(self, lines: Sequence[bytes], digest: str) -> None:
        """Write lines whole, or none of them; raise OSError. The digest is that of the last."""
        data = b"".join(lines)
        written = os.write(self._file, data)
        if written < len(data):
            os.ftruncate(self._file, self._size)
            raise OSError(None, "the disk is full")
        self._size += written
        self.position = Position(self.position.n + len(lines), digest)
        self._dirty = True

    def _old(self) -> bool:
        return self.limits.keep is not None and self._clock() - self._began >= DAY

    def _failed(self, error: OSError) -> str:
        """Note that the log cannot be written; return why."""
        reason = error.strerror or type(error).__name__
        if not self.trouble:
            log.error(
                "egress log cannot be written: pushes wait", extra={"reason": reason, "folder": str(self._folder)}
            )
        self.trouble = reason
        return reason

    def _works(self) -> None:
        if self.trouble:
            log.info("egress log can be written again", extra={"folder": str(self._folder)})
        self.trouble = ""

    # --- what others do to the files

    def _look(self) -> None:
        """Notice a file that somebody else removed, replaced, cut or wrote to, and begin a new one; raise OSError."""
        try:
            found = os.stat(self._name)  # noqa: PTH116 -- for each push; Path.stat takes twice as long
        except FileNotFoundError:
            what = "was removed or renamed"
        else:
            if (found.st_ino, found.st_dev) == self._identity and found.st_size == self._size:
                return
            same = (found.st_ino, found.st_dev) == self._identity
            cut = "was cut" if found.st_size < self._size else "was written to by another program"
            what = cut if same else "was replaced by another file"
        name = self._path.name
        self._rotate()
        self._changed(f"{name} {what}: `relay audit verify` names the lines that are missing")

    def _changed(self, what: str) -> None:
        self.incidents += 1
        self.incident = Incident(self._clock().isoformat(timespec="seconds"), what)
        self._dirty = True
        log.error("egress log changed by somebody else", extra={"detail": what, "folder": str(self._folder)})

    # --- files

    def _rotate(self) -> None:
        """Begin a new file. The full one is synced and closed by the next `_sync`, which runs in a thread."""
        self._folder.mkdir(mode=FOLDER, exist_ok=True)
        number = max([*self._numbers(), self._number]) + 1
        fresh, size = self._open(number)
        self._full.append(self._file)  # before the change of files, see `_sync`
        self._number, self._file, self._size = number, fresh, size
        self._began = self._clock()
        self._dirty = True

    def _open(self, number: int) -> tuple[int, int]:
        """Return a file's descriptor and its size in bytes; the chain's lock keeps other writers away."""
        path = self._folder / f"{self._chain}-{number:06}.jsonl"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        found = os.fstat(file)
        if found.st_uid == os.geteuid():
            os.fchmod(file, PRIVATE)
        self._path, self._name, self._identity = path, str(path), (found.st_ino, found.st_dev)
        return file, found.st_size

    def _sync(self) -> None:
        """Sync all files to the disk, then write the end of the chain to its anchor; close those that are full."""
        with self._syncing:
            # In this order: the lines up to the position are in these files whatever the loop does meanwhile.
            anchor = Anchor(self.position, self._keyed_from, self.incident)
            current = self._file
            full = list(self._full)
            for file in {*full, current}:
                os.fsync(file)
            anchor.write(self._anchor_file)
            for file in full:
                self._full.remove(file)
                os.close(file)

    def _tend(self) -> None:
        """Sync what was written, learn how much room is left, and try a disk that had none; raise OSError."""
        found = os.statvfs(self._folder)
        self.free = found.f_bavail * found.f_frsize
        if self._dirty:
            self._dirty = False
            try:
                self._sync()
            except OSError:
                self._dirty = True
                raise
        if self.trouble:
            probe = self._folder / f"{self._chain}.probe"
            try:
                with probe.open("wb") as file:
                    file.write(PROBE)
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                probe.unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        """Return the numbers of the chain's files; other files of a folder, e.g. copies, are none of them."""
        name = re.compile(rf"{self._chain}-([0-9]{{6,12}})\.jsonl")
        found = map(name.fullmatch, os.listdir(self._folder))  # noqa: PTH208 -- names are enough
        return sorted(int(match[1]) for match in found if match is not None)

    def _prune(self) -> None:
        """Remove the oldest files as the limits say, and sign what was removed first; raise OSError."""
        keep, most = self.limits.keep, self.limits.most
        paths = [self._folder / f"{self._chain}-{number:06}.jsonl" for number in self._numbers()]
        paths = [path for path in paths if path != self._path]
        sizes = {path: path.stat().st_size for path in paths}
        total = sum(sizes.values()) + self._size
        now = self._clock()
        for path in paths:
            old = keep is not None and now.timestamp() - path.stat().st_mtime > keep.total_seconds()
            if not old and (most is None or total <= most):
                return
            try:
                _, end = _read_end(path, self._keys)
            except ValueError:
                end = None  # verification names the lines that are missing
            if end is not None and end.digest:
                removal = Removal(end, now.isoformat(timespec="seconds"))
                write_removal(removal_file(self._folder, self._chain), self._chain, removal, self._key)
            path.unlink()
            total -= sizes[path]
            log.info("egress log file removed", extra={"file": path.name, "why": "age" if old else "size"})

    def _resume(self) -> tuple[int, Position]:
        """Return the newest file's number and the chain's end; cut off a torn line, whose push was never sent."""
        numbers = self._numbers()
        newest = numbers[-1] if numbers else 1
        for number in reversed(numbers):
            path = self._folder / f"{self._chain}-{number:06}.jsonl"
            if not path.is_file():
                continue
            try:
                whole, end = _read_end(path, self._keys)
            except ValueError:  # nobody appends to what others wrote into
                newest = numbers[-1] + 1
                self._changed(f"the last line of {path.name} is none of an egress log")
                continue
            if whole < path.stat().st_size:
                os.truncate(path, whole)
            if end is not None:
                return newest, end
        return newest, Position()

    def _remember(self, end: Position) -> Position:
        """Return the position to go on from: the end of the files, or what the relay wrote last if that is gone."""
        head = self._folder / f"{self._chain}.head"  # where version 0.1.0 kept it
        try:
            anchor = Anchor.read(self._anchor_file) or Anchor.read(head) or Anchor(end)
        except ValueError:
            anchor = Anchor(end)
            self._changed(f"{self._anchor_file.name} cannot be read: whether lines are gone is not known")
        head.unlink(missing_ok=True)
        self.incident = self.incident or anchor.incident
        self._keyed_from = anchor.keyed_from or end.n + 1
        if anchor.end.n < end.n:
            return end if end.digest else Position(end.n)  # the key of the last line is gone, and so is its digest
        return anchor.end


@contextmanager
def open_egress_log(
    folder: Path, clock: Clock, limits: Limits, *, state: Path | None = None, key_file: Path | None = None
) -> Iterator[EgressLog]:
    """Open the first chain of a folder that no other process writes to; raises OSError, KeyUnreadable.

    `state` is the folder of keys and anchors; None: the one above.
    """
    state = folder.parent if state is None else state
    folder.mkdir(mode=FOLDER, parents=True, exist_ok=True)
    if folder.stat().st_uid == os.geteuid():
        folder.chmod(FOLDER)
    keys = open_keys(state / KEY_FILE if key_file is None else key_file)
    for number in range(1, CHAINS + 1):
        chain = "egress" if number == 1 else f"egress{number}"
        descriptor = os.open(folder / f"{chain}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        try:
            opened = EgressLog(folder, state, chain, keys, clock, limits)
            try:
                yield opened
            finally:
                opened.close()
        finally:
            os.close(descriptor)
        return
    raise OSError(f"{CHAINS} processes write to {folder} already")


def _read_end(path: Path, keys: dict[str, ChainKey]) -> tuple[int, Position | None]:
    """Return how many bytes of a file are whole lines, and the position after the last; None: it has none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        tail = file.read()
    whole = tail.rfind(b"\n") + 1
    lines = tail[:whole].splitlines()
    return size - len(tail) + whole, read_position(lines[-1], keys) if lines else None


def _key(path: Path) -> bytes:
    """Read the key that hides device tokens, or make it; the file gets its name when it is complete."""
    if not path.exists():
        descriptor, fresh = mkstemp(prefix=path.name, dir=path.parent)  # for its owner only
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(descriptor)
            with suppress(FileExistsError):  # another process was faster: its key is used
                os.link(fresh, path)
        finally:
            Path(fresh).unlink()
    return path.read_bytes()
