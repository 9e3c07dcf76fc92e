"""The way to the database: SQLite and PostgreSQL, transactions, and the one translation of outages.

A transaction is a function over a connection, and runs as a whole: no other code of the process runs between its
statements. SQLite's run in threads, one for all that write; PostgreSQL's await their answers on the event loop.
"""

import asyncio
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from eas_watcher.transport.tls import client_context
from relay.domain.errors import DatabaseInUse, DatabaseRefuses, StoreUnavailable
from relay.store.postgresql import ANSWER, CONNECT, READERS, OnLoop
from relay.store.prepared import Prepared, execute_text
from relay.store.workers import Job, Jobs, Workers

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

BUSY_MS: Final = 5_000  # how long SQLite waits for another process, e.g. a command line tool that writes
LOG_PAGES: Final = 4_000
"""Pages of SQLite's log, 16 MB, after which it is moved into the database. A page that changes often is copied
once for all of its changes, and the disk is synced less often for copies than with the 1,000 pages of SQLite."""
SCRUB: Final = 1.0  # seconds a clean-up waits for other users of the file; the next one catches up
_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",  # a commit outlives a power cut [promise 3]
    "foreign_keys=ON",
    "temp_store=MEMORY",  # no copy of a row gets into a file besides the database
    "secure_delete=ON",  # a destroyed credential does not stay in free pages [promise 2]
    f"busy_timeout={BUSY_MS}",
    f"wal_autocheckpoint={LOG_PAGES}",
)
# Primary result codes about the file or its locks, not about our SQL: BUSY, LOCKED, NOMEM, READONLY, INTERRUPT,
# IOERR, FULL, CANTOPEN, PROTOCOL [SQLite: Result and Error Codes].
_SQLITE_AWAY: Final = frozenset({5, 6, 7, 8, 9, 10, 13, 14, 15})
# Classes of SQLSTATE: connection, transaction rolled back (deadlock), resources, operator intervention (shutdown,
# timeout), system error; and single ones: read-only transaction (a standby), lock not available [PostgreSQL: A].
_POSTGRES_AWAY: Final = ("08", "40", "53", "57", "58", "25006", "55P03")


class _Runner(Protocol):
    """How transactions run on one of the two databases."""

    engine: sa.Engine

    async def run(self, transaction: Callable[[sa.Connection], T], *, joins: bool = False) -> T:
        """Run a function over a connection, commit what it did; raises what the driver raises.

        One that `joins` may be committed together with others.
        """
        ...

    async def rows(self, statement: Prepared, values: Mapping[str, Any]) -> list[Any]:
        """As `Database.rows`; raises what the driver raises."""
        ...

    @property
    def longest(self) -> float:
        """As `Database.longest`."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class Database:
    """A database whose transactions are functions."""

    def __init__(self, runner: _Runner) -> None:
        """Run transactions as `runner` does."""
        self._runner = runner

    @property
    def engine(self) -> sa.Engine:
        """The engine, whose dialect, URL and events are of interest; its connections are not."""
        return self._runner.engine

    @property
    def dialect(self) -> sa.Dialect:
        """The dialect of the database."""
        return self.engine.dialect

    @property
    def longest(self) -> float:
        """The seconds for which a transaction has run in a thread of this process; 0.0: none does.

        A transaction on PostgreSQL runs in no thread; the driver ends it if there is no answer.
        """
        return self._runner.longest

    async def run(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` as one transaction; return what it returns.

        Commits at the end, rolls back on any error. Raises StoreUnavailable when the database did not answer; errors of
        our SQL or values are raised unchanged. A caller that is cancelled may leave a transaction that is committed all
        the same, but none half done, and no connection in use.
        """
        with _outages():
            return await self._runner.run(lambda connection: work(connection, *args, **kwargs))

    async def join(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what `run` does, for work that takes little time and often comes at the same time as other such work.

        SQLite commits what waits with one sync of the disk. Each still succeeds or fails by itself, unless the database
        is away.
        """
        with _outages():
            return await self._runner.run(lambda connection: work(connection, *args, **kwargs), joins=True)

    async def rows(self, statement: Prepared, values: Mapping[str, Any]) -> list[Any]:
        """Execute one statement as a transaction of its own, and return its rows; raises what `run` raises.

        On PostgreSQL this takes one answer, where BEGIN and COMMIT would take two more. If the connection is lost, it
        is executed once more, whatever became of it: the server may have cut an idle connection.
        """
        with _outages():
            return await self._runner.rows(statement, values)

    async def close(self) -> None:
        """Close all connections; those in use at the end of their transactions, for which SQLite waits."""
        await self._runner.close()


@contextmanager
def _outages() -> Iterator[None]:
    """Raise StoreUnavailable for errors of a driver that mean an outage."""
    try:
        yield
    except (DBAPIError, PoolTimeout, OSError, sqlite3.OperationalError) as error:
        if away(error):
            raise StoreUnavailable(str(error.orig) if isinstance(error, DBAPIError) else str(error)) from error
        raise


@asynccontextmanager
async def open_database(url: str, ca_file: Path | None = None, *, reads: bool = False) -> AsyncIterator[Database]:
    """Open `sqlite:///path` or `postgresql://...`; connect when first used, close all connections at the end.

    With a file of CAs, the PostgreSQL server must prove by TLS that it is the host of the URL. A database for `reads`
    has a few connections, on which every statement that writes fails; with SQLite they never wait for the writer, nor
    it for them.
    """
    parsed = _with_driver(_parsed(url))
    runner: _Runner
    if parsed.get_backend_name() == "sqlite":
        runner = _InThreads(_sqlite(parsed, reads=reads), READERS if reads else 1)
    else:
        runner = OnLoop(parsed, connect_arguments(parsed, ca_file), reads=reads)
    database = Database(runner)
    try:
        yield database
    finally:
        await database.close()


class _InThreads:
    """SQLite: a thread runs each transaction from its beginning to its end.

    Each thread keeps its connection: to take one from the pool for each transaction would cost more than its BEGIN and
    COMMIT. Transactions that join one another are savepoints of one, whose COMMIT syncs the disk for all of them.
    """

    def __init__(self, engine: sa.Engine, threads: int) -> None:
        self.engine = engine
        self._workers = Workers("sqlite", threads, ANSWER, self._transact)
        self._kept: dict[int, sa.Connection] = {}
        """By thread."""

    async def run(self, transaction: Callable[[sa.Connection], T], *, joins: bool = False) -> T:
        return await self._workers.run(transaction, joins=joins)

    async def rows(self, statement: Prepared, values: Mapping[str, Any]) -> list[Any]:
        return await self.run(lambda connection: statement.rows(connection, values))

    @property
    def longest(self) -> float:
        return self._workers.longest

    def _transact(self, jobs: Jobs) -> list[Job[Any]]:
        """Commit the first job, and those that join it; an error of the first rolls it back before others come."""
        done: list[Job[Any]] = []
        thread = threading.get_ident()
        connection = self._kept.get(thread)
        try:
            if connection is None:
                connection = self._kept[thread] = self.engine.connect()
            with connection.begin():
                for job in jobs:
                    done.append(job)
                    _run_within(connection, job, joined=len(done) > 1)
        except BaseException as error:  # noqa: BLE001  # it is raised where the functions were asked for
            # After an error the next transaction looks whether the connection is of use.
            self._kept.pop(thread, None)
            if connection is not None:
                connection.close()
            done = done or [next(jobs)]
            for job in done:
                job.error = job.error or _with_others(error, alone=len(done) == 1)
        return done

    async def close(self) -> None:
        await self._workers.close()
        await asyncio.to_thread(self._disconnect)

    def _disconnect(self) -> None:
        while self._kept:
            self._kept.popitem()[1].close()
        self.engine.dispose()  # the last connection moves the log into the database


def _run_within(connection: sa.Connection, job: Job[Any], *, joined: bool) -> None:
    """Run a job in a transaction; raise what ends the transaction as a whole.

    A job that joined others is rolled back by itself. If SQLite has rolled all of them back, as it does when the disk
    is full [SQLite: Transaction, "Response To Errors Within A Transaction"], its savepoint is gone, which raises too.
    """
    if joined:
        execute_text(connection, "SAVEPOINT joined")
    job.run(connection)
    if job.error is not None:
        if not joined:
            raise job.error
        execute_text(connection, "ROLLBACK TO joined")
    if joined:
        execute_text(connection, "RELEASE joined")


def _with_others(error: BaseException, *, alone: bool) -> BaseException:
    """Return what a job raises whose transaction failed: for several, each its own error."""
    if alone:
        return error
    cause = error.orig if isinstance(error, DBAPIError) else error
    unavailable = StoreUnavailable(f"not committed, as all that was to be committed with it: {cause}")
    unavailable.__cause__ = error
    return unavailable


async def scrub(database: Database) -> None:
    """Remove rows just deleted from SQLite's log too; never fails, since the deletion is done.

    Deleted bytes are overwritten in the database (secure_delete), but the log would keep older pages for a while.
    For the files of PostgreSQL its administrator is responsible.
    """
    if database.dialect.name != "sqlite":
        return
    try:
        # On a connection of its own, in a thread that runs to its end: a cancelled wait leaves the pool as it is.
        emptied = await asyncio.to_thread(_empty_log, str(database.engine.url.database))
    except sqlite3.Error as error:
        log.warning("deleted rows linger in the database's log for a while", extra={"detail": str(error)})
    else:
        if not emptied:
            log.debug("deleted rows linger in the database's log until the next clean-up: somebody reads them now")


def _empty_log(path: str) -> bool:
    """Move SQLite's log into the database and empty it; return False when others kept it busy."""
    with closing(sqlite3.connect(path, timeout=SCRUB, isolation_level=None)) as connection:
        busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return busy == 0


def away(error: BaseException) -> bool:
    """Return True if an error means that the database did not answer, and not that our SQL or values are wrong."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        cause = error.orig
        return cause is not None and away(cause)
    if isinstance(error, sqlite3.Error):
        return error.sqlite_errorcode & 0xFF in _SQLITE_AWAY if hasattr(error, "sqlite_errorcode") else False
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state is not None:
        return str(state).startswith(_POSTGRES_AWAY)
    return isinstance(error, (OSError, PoolTimeout))


def connect_arguments(url: str | sa.URL, ca_file: Path | None = None) -> dict[str, Any]:
    """Return the arguments of `asyncpg.connect` for a PostgreSQL URL and a file of CAs, as the engine uses them."""
    parsed = _with_driver(sa.make_url(url))
    _, arguments = parsed.get_dialect()().create_connect_args(parsed)
    return {"timeout": CONNECT, **arguments, **_tls(ca_file)}


def _tls(ca_file: Path | None) -> dict[str, Any]:
    """Verify the server and its name, as libpq's `verify-full` does; without a file the URL decides."""
    return {} if ca_file is None else {"ssl": client_context(ca_file)}


@contextmanager
def embedded_lock(path: Path) -> Iterator[None]:
    """Lock an SQLite database for this process while open; raise DatabaseInUse when another process has the lock.

    The lock is on a file beside the database. It ends with the process, however that ends; the file stays. A missing
    folder is made, for its owner only. Raises OSError when the file cannot be opened.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatabaseInUse(path) from error
        yield
    finally:
        os.close(descriptor)


def embedded_in_use(path: Path) -> bool:
    """Return whether a process has the lock of an SQLite database."""
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def refusals() -> Iterator[None]:
    """Raise DatabaseRefuses when the database does not take a statement, e.g. without the right to it.

    Its text is the first line of the answer: PostgreSQL shows the values of a row in the lines behind it.
    """
    try:
        yield
    except DBAPIError as error:
        cause = error.orig and (error.orig.__cause__ or error.orig)
        embedded = isinstance(error.orig, sqlite3.Error)
        raise DatabaseRefuses(str(cause).partition("\n")[0], embedded=embedded) from error


def _parsed(url: str) -> sa.URL:
    """Return the parts of a URL; all behind `sqlite:///` is the path of the file, in which a ? begins no query."""
    kind, separator, file = url.partition(":///")
    return sa.URL.create(kind, database=file) if kind == "sqlite" and separator else sa.make_url(url)


def _with_driver(url: sa.URL) -> sa.URL:
    """Return the URL with our driver, and with libpq's `sslmode` spelled as in asyncpg."""
    driver = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+asyncpg"}.get(url.get_backend_name())
    if driver is None:
        raise ValueError(f"a database of another kind: {url.get_backend_name()}; use sqlite or postgresql")
    if "sslmode" in url.query:
        url = url.update_query_dict({"ssl": url.query["sslmode"]}).difference_update_query(["sslmode"])
    return url.set(drivername=driver)


def _sqlite(url: sa.URL, *, reads: bool) -> sa.Engine:
    """Build the engine of an embedded database.

    One that writes has one connection: the transactions of the process wait in a fair queue, and none finds the file
    locked by another one of ours. Readers see the last commit before they began [SQLite: Write-Ahead Logging].
    """
    if not url.database or url.database == ":memory:":
        raise ValueError("an embedded database needs a file: sqlite:////var/lib/relay/relay.db")
    engine = sa.create_engine(url, hide_parameters=True, pool_size=READERS if reads else 1, max_overflow=0)
    path = url.database

    def connecting(*_: object) -> None:
        # SQLite gives its -wal and -shm files the mode of the database. A file that is there is not opened: to close it
        # would end the locks of all our connections, and another process would take away the log under them.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def connected(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        # The driver must not begin transactions by itself: it begins none before DDL and SELECT.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        if reads:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    def begun(connection: sa.Connection) -> None:
        # A transaction that starts as a reader may fail to become a writer, so one that may write starts as a writer.
        execute_text(connection, "BEGIN DEFERRED" if reads else "BEGIN IMMEDIATE")

    event.listen(engine, "do_connect", connecting)
    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine
