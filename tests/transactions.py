"""Transactions of tests: those that a database commits, recorded, and one that a test holds open."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from queue import SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.util import await_only

from relay.store.engine import Database

T = TypeVar("T")

QUIET: Final = 0.5  # seconds; far more than passes between two transactions of one mail
LIMIT: Final = 30.0  # seconds; a limit, never a wait

Transaction: TypeAlias = tuple[str, ...]
"""The statements of one transaction, in order, without its BEGIN and COMMIT."""


@contextmanager
def recorded(database: Database) -> Iterator[list[Transaction]]:
    """Record each transaction that is committed while the block runs, in the order of their commits."""
    committed: list[Transaction] = []
    running: dict[sa.Connection, list[str]] = {}

    def execute(connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(("BEGIN", "COMMIT", "ROLLBACK")):
            return
        if not connection.in_transaction():
            committed.append((statement,))
        else:
            running.setdefault(connection, []).append(statement)

    def commit(connection: sa.Connection) -> None:
        committed.append(tuple(running.pop(connection, ())))

    def roll_back(connection: sa.Connection) -> None:
        running.pop(connection, None)

    listeners = (("before_cursor_execute", execute), ("commit", commit), ("rollback", roll_back))
    for name, listener in listeners:
        event.listen(database.engine, name, listener)
    try:
        yield committed
    finally:
        for name, listener in listeners:
            event.remove(database.engine, name, listener)


def touching(transactions: list[Transaction], table: str) -> list[Transaction]:
    """Return the transactions of which a statement names a table."""
    return [each for each in transactions if any(table in statement for statement in each)]


async def quiet(transactions: list[Transaction], seconds: float = QUIET) -> None:
    """Wait until no transaction was recorded for so long; raise TimeoutError if that never happens."""
    async with asyncio.timeout(LIMIT):
        known = -1
        while known != len(transactions):
            known = len(transactions)
            await asyncio.sleep(seconds)


class OpenTransaction:
    """A transaction that a test holds open, and whose statements it awaits one by one."""

    def __init__(self, database: Database) -> None:
        self.dialect = database.dialect
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[Callable[[sa.Connection], object]] | asyncio.Queue[Callable[[sa.Connection], object]]
        self._calls = SimpleQueue() if database.dialect.name == "sqlite" else asyncio.Queue()
        self._began: asyncio.Future[None] = self._loop.create_future()

    async def began(self, whole: asyncio.Task[None]) -> None:
        """Return when the transaction has begun; raise why it did not."""
        await asyncio.wait({whole, self._began}, return_when=asyncio.FIRST_COMPLETED)
        if whole.done():
            await whole

    def serve(self, connection: sa.Connection) -> None:
        """Run what the test asks for, until it asks for the end."""
        self._loop.call_soon_threadsafe(self._began.set_result, None)
        while True:
            calls = self._calls
            call = calls.get() if isinstance(calls, SimpleQueue) else await_only(calls.get())
            try:
                call(connection)
            except _Committed:
                return

    def end(self, error: BaseException | None) -> None:
        """Ask for the end: a commit, or a roll-back because of an error."""

        def end(_: sa.Connection) -> None:
            raise error or _Committed

        self._calls.put_nowait(end)

    async def run_sync(self, work: Callable[..., T], *args: Any) -> T:
        """Run a function over the connection."""
        future: asyncio.Future[T] = self._loop.create_future()

        def call(connection: sa.Connection) -> None:
            try:
                result = work(connection, *args)
            except Exception as error:  # noqa: BLE001  # it is raised where the test asked
                self._loop.call_soon_threadsafe(future.set_exception, error)
            else:
                self._loop.call_soon_threadsafe(future.set_result, result)

        self._calls.put_nowait(call)
        return await future

    async def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.Result[Any]:
        """Execute a statement; return its buffered result."""
        return await self.run_sync(lambda connection: _buffered(connection.execute(statement, parameters)))

    async def scalar(self, statement: sa.Executable, parameters: Any = None) -> Any:
        """Return the first value of the first row."""
        return await self.run_sync(lambda connection: connection.scalar(statement, parameters))

    async def scalars(self, statement: sa.Executable, parameters: Any = None) -> sa.ScalarResult[Any]:
        """Return the first values of all rows."""
        return (await self.execute(statement, parameters)).scalars()

    async def rows(self, statement: sa.Executable) -> list[tuple[Any, ...]]:
        """Return all rows."""
        return [tuple(row) for row in await self.execute(statement)]


class _Committed(Exception):
    """The test wants its transaction committed."""


def _buffered(result: sa.CursorResult[Any]) -> sa.Result[Any]:
    return result.freeze()() if result.returns_rows else result


@asynccontextmanager
async def rolled_back(database: Database) -> AsyncIterator[OpenTransaction]:
    """Hold a transaction open that leaves nothing."""
    with suppress(_RolledBack):
        async with transaction(database) as connection:
            yield connection
            raise _RolledBack


class _RolledBack(Exception):
    """The test wants its transaction rolled back."""


@asynccontextmanager
async def transaction(database: Database) -> AsyncIterator[OpenTransaction]:
    """Hold a transaction open; it is committed at the end, or rolled back on any error."""
    held = OpenTransaction(database)
    whole = asyncio.ensure_future(database.run(held.serve))
    try:
        await held.began(whole)
        yield held
    except BaseException as error:
        held.end(error)
        await whole  # raises the error, as the database translates it
        raise
    held.end(None)
    await whole
