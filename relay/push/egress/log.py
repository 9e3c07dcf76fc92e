"""The files of the egress log: one writer per chain, appended before anything is sent, rotated by size."""

import asyncio
import fcntl
import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Final, Protocol

from relay.domain.clock import Clock
from relay.domain.model import Platform
from relay.push.egress.record import Position, device_hash, read_position, without_token, write_line
from relay.push.payload import ApnsMessage, WebPushMessage

log = logging.getLogger(__name__)

SYNC: Final = 1.0  # seconds between two fsyncs; kill -9 loses nothing, a power cut the lines of this time
TAIL: Final = 16_384  # bytes at the end that hold the whole last line; a line has about 500
CHAINS: Final = 64  # push processes on one folder, at most


class Unwritable(Exception):
    """A push cannot be logged, so it must not be sent."""


class Egress(Protocol):
    """Records what is about to leave the company."""

    def apns(self, app: str, device_token: str, message: ApnsMessage) -> None:
        """Record a push to APNs; raise Unwritable."""

    def fcm(self, app: str, device_token: str, body: bytes) -> None:
        """Record a push to FCM; raise Unwritable."""

    def webpush(self, app: str, device_token: str, message: WebPushMessage) -> None:
        """Record the plaintext of an encrypted push to a push service; raise Unwritable."""


class EgressLog:
    """Appends to the newest file of one chain."""

    def __init__(self, folder: Path, chain: str, key: bytes, clock: Clock, largest: int) -> None:
        """Continue the chain where its files end; `largest` is the size in bytes at which a file is full."""
        self._folder = folder
        self._chain = chain
        self._key = key
        self._clock = clock
        self._largest = largest
        self._number, self.position = _resume(folder, chain)
        self._file, self._size = self._open(self._number)
        self._dirty = False
        self._syncing = threading.Lock()
        """Held during an fsync, which runs in a thread, so that no rotation closes the file meanwhile."""

    def apns(self, app: str, device_token: str, message: ApnsMessage) -> None:
        """Record a push to APNs; raise Unwritable."""
        self._append(Platform.APNS, app, device_hash(self._key, device_token), message.rendered)

    def fcm(self, app: str, device_token: str, body: bytes) -> None:
        """Record a push to FCM; raise Unwritable."""
        device = device_hash(self._key, device_token)
        self._append(Platform.FCM, app, device, without_token(body, device_token, device))

    def webpush(self, app: str, device_token: str, message: WebPushMessage) -> None:
        """Record the plaintext of an encrypted push to a push service; raise Unwritable."""
        device = device_hash(self._key, device_token)
        self._append(Platform.WEBPUSH, app, device, message.content.decode("ascii"))

    async def run(self) -> None:
        """Sync the file to the disk every SYNC seconds until cancelled."""
        while True:
            await asyncio.sleep(SYNC)
            if self._dirty:
                self._dirty = False
                try:
                    await asyncio.to_thread(self._sync)
                except OSError as error:
                    log.error("egress log not on disk", extra={"detail": error.strerror})  # noqa: TRY400

    def close(self) -> None:
        """Sync the file to the disk and close it."""
        self._sync()
        os.close(self._file)

    def _append(self, provider: Platform, app: str, device: str, body: str) -> None:
        line, position = write_line(self.position, self._clock(), provider, app, device, body)
        try:
            if self._size and self._size + len(line) > self._largest:
                self._rotate()
            written = os.write(self._file, line)
            if written < len(line):
                os.ftruncate(self._file, self._size)
                raise Unwritable("the disk is full")
        except OSError as error:
            raise Unwritable(error.strerror or type(error).__name__) from error
        self._size += written
        self.position = position
        self._dirty = True

    def _rotate(self) -> None:
        self._sync()
        # The old file stays open until the new one is: another file may get the descriptor of a closed one.
        fresh, size = self._open(self._number + 1)
        with self._syncing:
            os.close(self._file)
            self._number, self._file, self._size = self._number + 1, fresh, size

    def _open(self, number: int) -> tuple[int, int]:
        """Return a file's descriptor and its size in bytes; the chain's lock keeps other writers away."""
        path = self._folder / f"{self._chain}-{number:06}.jsonl"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return file, os.fstat(file).st_size

    def _sync(self) -> None:
        """Sync the file to the disk, then write its last position to the head."""
        with self._syncing:
            position = self.position
            os.fsync(self._file)
            head = self._folder / f"{self._chain}.head"
            fresh = head.with_suffix(".new")
            fresh.write_text(json.dumps({"n": position.n, "hash": position.digest}), encoding="ascii")
            fresh.replace(head)


@contextmanager
def open_egress_log(folder: Path, clock: Clock, *, largest: int) -> Iterator[EgressLog]:
    """Open the first chain of a folder that no other process writes to; raises OSError."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    key = _key(folder / "device.key")
    for number in range(1, CHAINS + 1):
        chain = "egress" if number == 1 else f"egress{number}"
        descriptor = os.open(folder / f"{chain}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        try:
            opened = EgressLog(folder, chain, key, clock, largest)
            try:
                yield opened
            finally:
                opened.close()
        finally:
            os.close(descriptor)
        return
    raise OSError(f"{CHAINS} processes write to {folder} already")


def read_head(folder: Path, chain: str) -> Position | None:
    """Read the position that the relay last wrote to a chain's head, or None. Raises ValueError, OSError."""
    path = folder / f"{chain}.head"
    if not path.exists():
        return None
    head = json.loads(path.read_text(encoding="ascii"))
    return Position(int(head["n"]), str(head["hash"]))


def _resume(folder: Path, chain: str) -> tuple[int, Position]:
    """Return the newest file's number and the chain's end; cut off a torn line, whose push was never sent."""
    numbers = sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{chain}-[0-9]*.jsonl"))
    for number in reversed(numbers):
        path = folder / f"{chain}-{number:06}.jsonl"
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            if whole < len(tail):
                file.truncate(size - len(tail) + whole)
        lines = tail[:whole].splitlines()
        if lines:
            return numbers[-1], read_position(lines[-1])
    return (numbers[-1] if numbers else 1), Position()


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
