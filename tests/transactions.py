"""Recording of the transactions that an engine commits, for tests that count them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

QUIET: Final = 0.5  # seconds; far more than passes between two transactions of one mail
LIMIT: Final = 30.0  # seconds; a limit, never a wait

Transaction: TypeAlias = tuple[str, ...]
"""The statements of one transaction, in order, without SQLite's BEGIN."""


@contextmanager
def recorded(engine: AsyncEngine) -> Iterator[list[Transaction]]:
    """Record each transaction that is committed while the block runs, in the order of their commits."""
    committed: list[Transaction] = []
    running: dict[sa.Connection, list[str]] = {}

    def execute(connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            running.setdefault(connection, []).append(statement)

    def commit(connection: sa.Connection) -> None:
        committed.append(tuple(running.pop(connection, ())))

    def roll_back(connection: sa.Connection) -> None:
        running.pop(connection, None)

    listeners = (("before_cursor_execute", execute), ("commit", commit), ("rollback", roll_back))
    for name, listener in listeners:
        event.listen(engine.sync_engine, name, listener)
    try:
        yield committed
    finally:
        for name, listener in listeners:
            event.remove(engine.sync_engine, name, listener)


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
