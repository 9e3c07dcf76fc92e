"""Own how dirty marks are set: one upsert for watch and api, the same on both databases."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.store.tables import outbox

SOON: Final = timedelta(minutes=10)
"""Longer than any mark waits for its pace before its first try."""


@dataclass(frozen=True, slots=True, order=True)
class NewMark:
    """Hold changes of one class for one registration."""

    registration_id: str
    mark: str
    platform: str
    count: int
    certain: bool


async def set_marks(connection: AsyncConnection, marks: Iterable[NewMark], now: datetime) -> None:
    """Insert marks due now, or add to those that wait: these keep when they began and when they are to be tried again.

    One that was never tried is due soon, even if the clock was set back since it began.

    Each (registration, mark) at most once. In the order of the key, so that two transactions never wait for each other.
    """
    rows = [
        {
            "registration_id": mark.registration_id,
            "mark": mark.mark,
            "platform": mark.platform,
            "count": mark.count,
            "certain": mark.certain,
            "generation": 1,
            "first_at": now,
            "last_at": now,
            "due_at": now,
            "attempts": 0,
            "_soon": now + SOON,
        }
        for mark in sorted(marks)
    ]
    if rows:
        await connection.execute(UPSERT[connection.dialect.name], rows)


def _upsert(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    return insert.on_conflict_do_update(
        index_elements=["registration_id", "mark"],
        set_={
            "count": outbox.c.count + insert.excluded.count,
            "generation": outbox.c.generation + 1,
            "certain": outbox.c.certain | insert.excluded.certain,
            "last_at": insert.excluded.last_at,
            "due_at": sa.case(
                (sa.and_(outbox.c.attempts == 0, outbox.c.due_at > sa.bindparam("_soon")), insert.excluded.due_at),
                else_=outbox.c.due_at,
            ),
        },
    )


UPSERT = {"postgresql": _upsert(postgresql.insert(outbox)), "sqlite": _upsert(sqlite.insert(outbox))}
