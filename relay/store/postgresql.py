"""PostgreSQL: how its sessions are set up, which connections stay open, and how transactions run on the event loop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

from relay.domain.errors import StoreUnavailable
from relay.store.prepared import Prepared, execute_text, read_json
from relay.store.sessions import open_session

log = logging.getLogger(__name__)

T = TypeVar("T")

SEARCH_PATH: Final = "public, pg_temp"
"""Where PostgreSQL looks for names after its own schema, whatever is set for the database or its user."""
POOL: Final = 5  # connections kept per process
OVERFLOW: Final = 5  # more of them under load
READERS: Final = 2  # connections that only read, per process
ANSWER: Final = 30  # seconds one statement may take; records of a whole fleet are the longest
IDLE: Final = 5  # seconds a transaction may stand still: a process that was stopped in one would keep its locks
CONNECT: Final = 10  # seconds to connect, or to get a connection
RENEW: Final = 1800  # seconds after which a connection is replaced; firewalls forget idle ones


class _NotBegun(DBAPIError):
    """The connection was lost before its transaction began."""


class OnLoop:
    """PostgreSQL: a transaction awaits its answers on the event loop, where others run meanwhile.

    Connections are kept, the last used one is the next: to take one from SQLAlchemy's pool for each transaction would
    cost more than its BEGIN and COMMIT.
    """

    longest = 0.0

    def __init__(self, url: sa.URL, arguments: Mapping[str, Any], *, reads: bool) -> None:
        """Connect to a URL with arguments of `asyncpg.connect`."""
        self.engine = _engine(url, arguments, reads=reads)
        self._keep = READERS if reads else POOL
        self._most = READERS if reads else POOL + OVERFLOW
        self._places = asyncio.Semaphore(self._most)
        self._kept: list[tuple[sa.Connection, float]] = []
        """Those in no use, and when each is replaced, by the loop's clock."""

    async def run(self, transaction: Callable[[sa.Connection], T], *, joins: bool = False) -> T:  # noqa: ARG002  # others run at the same time here
        """Run a function over a connection, commit what it did; raises what the driver raises."""
        try:
            async with self._lent() as connection:
                return await greenlet_spawn(_transact, connection, transaction)
        except _NotBegun:
            # The server had cut an idle connection. Nothing was done on it, so it is replaced silently.
            async with self._lent() as connection:
                return await greenlet_spawn(_transact, connection, transaction)

    async def rows(self, statement: Prepared, values: Mapping[str, Any]) -> list[Any]:
        """Execute a statement without BEGIN and COMMIT; return its rows."""
        try:
            async with self._lent() as connection:
                return await statement.ask(connection, values)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            log.debug("connection lost in a statement: it is executed again", extra={"detail": str(error.orig)})
        return await self.run(lambda connection: statement.rows(connection, values))

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[sa.Connection]:
        """Lend a connection; close one that is lost afterwards or still in a transaction, or one too many."""
        await self._enter()
        try:
            connection, until = await self._take()
            try:
                yield connection
            finally:
                if len(self._kept) < self._keep and _is_at_rest(connection):
                    self._kept.append((connection, until))
                else:
                    await greenlet_spawn(_end, connection)
        finally:
            self._places.release()

    async def _enter(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(CONNECT):
                await self._places.acquire()
        except TimeoutError as error:
            raise StoreUnavailable(f"all {self._most} connections were in use for {CONNECT} seconds") from error

    async def _take(self) -> tuple[sa.Connection, float]:
        """Return the good connection that was used last, or a new one, and when it is replaced."""
        now = asyncio.get_running_loop().time()
        while self._kept:
            connection, until = self._kept.pop()
            if now < until and _is_at_rest(connection):
                return connection, until
            await greenlet_spawn(_end, connection)
        return await greenlet_spawn(self.engine.connect), now + RENEW

    async def close(self) -> None:
        """Close all connections; those in use as soon as their transactions end."""
        self._keep = 0
        while self._kept:
            await greenlet_spawn(_end, self._kept.pop()[0])


def _transact(connection: sa.Connection, transaction: Callable[[sa.Connection], T]) -> T:
    with connection.begin():
        return transaction(connection)


def _end(connection: sa.Connection) -> None:
    """Close a connection, and wait for no answer: a firewall may have forgotten it."""
    if not connection.invalidated:
        driver: Any = connection.connection.driver_connection
        driver.terminate()
    connection.close()


def _is_at_rest(connection: sa.Connection) -> bool:
    """Return True if a connection is open, and in no transaction."""
    if connection.invalidated:
        return False
    driver: Any = connection.connection.driver_connection
    return not (driver.is_closed() or driver.is_in_transaction())


def _engine(url: sa.URL, arguments: Mapping[str, Any], *, reads: bool) -> sa.Engine:
    settings = {
        "default_transaction_read_only": "on" if reads else "off",
        # Statements that waited for a lock must see what its holder did, whatever is set for the database or its user.
        "default_transaction_isolation": "read committed",
        "application_name": "push-relay",
        "timezone": "UTC",
        "search_path": SEARCH_PATH,
        "statement_timeout": str(ANSWER * 1000),
        "lock_timeout": str(CONNECT * 1000),
        "idle_in_transaction_session_timeout": str(IDLE * 1000),
        "jit": "off",  # our statements are small; compiling them costs more than running them
    }
    # Not as "server_settings": PgBouncer would refuse the connection, or ignore them.
    given = {**arguments, "command_timeout": ANSWER + 5}
    engine = create_async_engine(
        url,
        async_creator=lambda: open_session(given, settings),
        json_deserializer=read_json,
        hide_parameters=True,  # device tokens and sealed credentials stay out of error texts, and so out of logs
        isolation_level="AUTOCOMMIT",  # the driver begins nothing: `begin` below shows whether the connection lives
        poolclass=NullPool,  # `OnLoop` keeps the connections
    ).sync_engine

    def begun(connection: sa.Connection) -> None:
        # A test statement before each transaction (pool_pre_ping) would cost three more answers of the server.
        try:
            execute_text(connection, "BEGIN")
        except DBAPIError as error:
            if error.connection_invalidated:
                raise _NotBegun(error.statement, None, error.orig or error, connection_invalidated=True) from error
            raise

    def committing(connection: sa.Connection) -> None:
        execute_text(connection, "COMMIT")

    def rolling_back(connection: sa.Connection) -> None:
        if not connection.invalidated:
            execute_text(connection, "ROLLBACK")

    event.listen(engine, "begin", begun)
    event.listen(engine, "commit", committing)
    event.listen(engine, "rollback", rolling_back)
    return engine
