"""Backups of the database, and how a database takes the content of a backup or of another database.

Everything goes through the one format of `format.py`, from and to both databases.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final, Protocol, TypeVar

from relay.admin.audit import Stamp, What
from relay.backup.files import lines, packing, place, writing
from relay.backup.format import Header, Reader, Writer
from relay.domain.errors import (
    BackupInvalid,
    DatabaseFilled,
    DatabaseMoved,
    DatabaseNewer,
    SchemaNewer,
    StoreUnavailable,
)
from relay.settings.values import DatabaseSettings
from relay.store import restoring
from relay.store.acts import digests, note, numbers_of
from relay.store.copying import LeftOut, read_lines, shapes
from relay.store.engine import (
    Database,
    connect_arguments,
    embedded_in_use,
    embedded_lock,
    open_database,
    refusals,
    scrub,
)
from relay.store.migrate import Leaving, revision_of, revisions
from relay.store.restoring import Content, Filled
from relay.store.sessions import check_sessions

T = TypeVar("T")

OFTEN: Final = 1000  # rows between two looks whether the command was stopped
AUDITED: Final = "0025"
"""The revision of the schema that has the audit log."""


class Tell(Protocol):
    """Hears of progress."""

    def __call__(self, doing: str, rows: int, *, whole: bool) -> None:
        """Hear how many rows of a table are read or written, e.g. "read mailbox", and whether that is all of it."""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made."""

    path: Path
    header: Header
    rows: int
    left_out: tuple[str, ...]
    """The rows that could not be read, as table, key and fault."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did."""

    header: Header
    filled: Filled


class _Stopped(Exception):
    """A signal has ended the command, while a thread works for it."""


class _FileFails(Exception):
    """A transaction cannot write or read its file; an OSError would say that the database does not answer."""

    def __init__(self, fault: OSError) -> None:
        self.fault = fault


async def back_up(
    settings: DatabaseSettings, target: Path, stamp: Stamp, version: str, *, replace: bool, leave_out: bool, tell: Tell
) -> Made:
    """Write one state of a database into a file, while the relay runs or not.

    Raises RowsUnreadable, SchemaNewer, DatabaseRefuses, StoreUnavailable, OSError.
    """
    path = place(target, stamp.at)
    left_out = LeftOut(leave_out)
    with refusals(), writing(path, replace=replace) as write:
        async with open_database(settings.dsn, settings.ca_file) as database:
            busy = await database.run(_note_backup, stamp, path.name)
        running = busy or (settings.file is not None and embedded_in_use(settings.file))
        async with open_database(settings.dsn, settings.ca_file, reads=True) as database:
            header, rows = await _stoppable(database, _Dump(write, stamp, version, tell, running, left_out))
    return Made(path, header, rows, tuple(left_out.names))


def _note_backup(connection: Any, stamp: Stamp, name: str) -> bool:
    """Note the act in the audit log, if the schema has one; return whether processes use PostgreSQL now."""
    revision, _ = revision_of(connection)
    if revision is None:
        raise BackupInvalid("there is nothing to back up: the database has no tables")
    if revision >= AUDITED:
        note(connection, stamp, What.BACKED_UP, detail=name)
    return bool(restoring.users_of(connection))


@dataclass(frozen=True, slots=True)
class _Dump:
    """The transaction that writes all tables of a database."""

    write: Callable[[bytes], object]
    stamp: Stamp
    version: str
    tell: Tell
    running: bool = False
    left_out: LeftOut = field(default_factory=LeftOut)

    def __call__(self, connection: Any, check: Callable[[], None]) -> tuple[Header, int]:
        """Return what the backup says of itself, and the number of rows."""
        restoring.snapshot(connection)
        revision, _ = revision_of(connection)
        header = Header(self.version, revision or "", self.stamp.at, connection.dialect.name, self.running)
        writer, total = Writer(self._write, header), 0
        for shape in shapes(connection):
            rows = _watched(read_lines(connection, shape, self.left_out), f"read {shape.table}", check, self.tell)
            total += writer.table(shape, rows).rows
        writer.end()
        return header, total

    def _write(self, data: bytes) -> object:
        try:
            return self.write(data)
        except OSError as error:
            raise _FileFails(error) from error


async def restore(
    settings: DatabaseSettings, source: Path, stamp: Stamp, *, replace: bool, keep: bool, tell: Tell
) -> Restored:
    """Put a backup into a database that is empty, or whose content it may `replace`; all of it or nothing.

    Registrations do not ring before their apps have sent their device tokens, unless they `keep` ringing because the
    relay has not run since the backup. Raises BackupInvalid, DatabaseFilled, DatabaseBusy, DatabaseInUse,
    DatabaseRefuses, RowsForbidden, DatabaseNewer, StoreUnavailable, OSError.
    """
    with source.open("rb") as file:
        try:
            header = await asyncio.to_thread(verify, file, keep=keep)
            async with _taking(settings) as database:
                origin = f"a backup of {header.made_at:%Y-%m-%dT%H:%M:%SZ}"
                fill = _Fill(file, origin, stamp, What.RESTORED, tell, replace, keep)
                filled = await _stoppable(database, fill)
                await scrub(database)
        except BackupInvalid as error:
            raise BackupInvalid(f"{source}: {error}") from error
    return Restored(header, filled)


def verify(file: IO[bytes], *, keep: bool = False) -> Header:
    """Read a backup to its end, and return what it says of itself.

    Raises BackupInvalid, also if its registrations may not `keep` ringing; OSError.
    """
    reader = Reader(lines(file))
    if reader.header.schema not in revisions():
        raise BackupInvalid(
            f"made by relay {reader.header.relay}, whose schema {reader.header.schema} is newer than this version: "
            "install that version, or a later one"
        )
    if keep and reader.header.running:
        raise BackupInvalid("made while the relay ran, so registrations may have ended since: leave --unchanged out")
    for _, rows in reader.tables():
        for _ in rows:
            pass
    return reader.header


@dataclass(frozen=True, slots=True)
class _Fill:
    """The transaction that puts the content of a backup into a database."""

    file: IO[bytes]
    origin: str
    stamp: Stamp
    what: What
    tell: Tell
    replace: bool
    keep: bool

    def __call__(self, connection: Any, check: Callable[[], None]) -> Filled:
        """Return what the database took."""
        reader = Reader(self._lines())
        tables = ((shape, _watched(rows, f"write {shape.table}", check, self.tell)) for shape, rows in reader.tables())
        content = Content(reader.header.schema, tables, self.origin)
        return restoring.fill(connection, content, self.stamp, self.what, replace=self.replace, keep=self.keep)

    def _lines(self) -> Iterator[bytes]:
        try:
            yield from lines(self.file)
        except OSError as error:
            raise _FileFails(error) from error


async def move(
    source: DatabaseSettings, target: DatabaseSettings, stamp: Stamp, version: str, *, replace: bool, tell: Tell
) -> Filled:
    """Put the content of a database into another one, and let no process start on the first one any more.

    No role may run. A failure leaves the target as it was and the source in use. After kill -9 the source is not in
    use, and the target has all or nothing: what runs again does the rest. Raises as `back_up` and `restore` do, and
    DatabaseMoved if the content is in the target already.
    """
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(_opened(source))
        second = await stack.enter_async_context(_taking(target))
        leaving = await first.run(_leaving)
        held = await second.run(_look)
        if leaving is Leaving.DONE or (leaving and await _arrived(first, second)):
            raise DatabaseMoved
        if held and not replace:
            raise DatabaseFilled(held)
        file = stack.enter_context(TemporaryFile())  # noqa: SIM115 -- the stack closes it
        try:
            if not leaving:
                await first.run(restoring.leave)
            with packing(file) as write:
                await _stoppable(first, _Dump(write, stamp, version, tell))
            fill = _Fill(file, f"a database of {first.dialect.name}", stamp, What.MOVED, tell, replace, keep=True)
            filled = await _stoppable(second, fill)
        except StoreUnavailable:
            # A commit whose answer was lost may have been done: then the target has it all.
            if not await _arrived(first, second):
                await first.run(restoring.come_back)
            raise
        except BaseException:
            await first.run(restoring.come_back)
            raise
        try:
            await first.run(restoring.have_left)
        except asyncio.CancelledError:  # too late: the content is there
            await first.run(restoring.have_left)
        await scrub(second)
    return filled


async def undo_move(settings: DatabaseSettings) -> bool:
    """Let processes use a database again that was moved; return False if it was not. Raises as `move` does."""
    async with _opened(settings) as database:
        leaving = await database.run(_leaving)
        if leaving:
            await database.run(restoring.come_back)
        return bool(leaving)


def _leaving(connection: Any) -> Leaving:
    revision, leaving = revision_of(connection)
    if revision is None:
        raise BackupInvalid("there is nothing to move: the database has no tables")
    return leaving


async def _arrived(first: Database, second: Database) -> bool:
    """Return whether a move has put the content of a database into another one.

    Then that has the audit log of the first one, and the act of the move behind it. What it held before does not count,
    even if that came from the first one by an earlier move, or the first one's content from it.
    """
    moves = await second.run(numbers_of, What.MOVED)
    numbers = {number - before for number in moves for before in (0, 1)}
    mine, theirs = [await each.run(digests, numbers) for each in (first, second)]
    return any(mine.get(each) != theirs[each] and mine.get(each - 1) == theirs.get(each - 1) for each in moves)


def _look(connection: Any) -> dict[str, int]:
    """Return the rows of a database that nobody uses; raises DatabaseBusy, SchemaNewer."""
    revision_of(connection)
    restoring.refuse_users(connection)
    return restoring.rows_of(connection)


@asynccontextmanager
async def _opened(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Open a database that no process of the relay may use meanwhile."""
    async with AsyncExitStack() as stack:
        if settings.file is not None:
            stack.enter_context(embedded_lock(settings.file))
        else:
            await check_sessions(connect_arguments(settings.dsn, settings.ca_file))
        database = await stack.enter_async_context(open_database(settings.dsn, settings.ca_file))
        with refusals():
            yield database


@asynccontextmanager
async def _taking(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Open a database that shall take the content of another one; raises DatabaseNewer instead of SchemaNewer."""
    async with _opened(settings) as database:
        try:
            await database.run(revision_of)
        except SchemaNewer as error:
            raise DatabaseNewer(settings.file) from error
        yield database


async def _stoppable(database: Database, work: Callable[[Any, Callable[[], None]], T]) -> T:
    """Run a transaction that takes long; a caller that is cancelled ends it soon, and it leaves nothing."""
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise _Stopped

    try:
        return await database.run(work, check)
    except asyncio.CancelledError:
        stopped.set()
        raise
    except _FileFails as error:
        raise error.fault from error


def _watched(rows: Iterator[bytes], doing: str, check: Callable[[], None], tell: Tell) -> Iterator[bytes]:
    """Yield lines, and tell how many there were."""
    number = 0
    for line in rows:
        yield line
        number += 1
        if number % OFTEN == 0:
            check()
            tell(doing, number, whole=False)
    tell(doing, number, whole=True)
