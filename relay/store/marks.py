"""Own how dirty marks are set: one upsert for watch and api, the same on both databases."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.store.bulk import ROWS, inserts
from relay.store.tables import Moment, outbox

SOON: Final = timedelta(minutes=10)
"""Longer than any mark waits for its pace before its first try."""


class NewMark(NamedTuple):
    """Hold changes of one class for one registration; in order by key."""

    registration_id: str
    mark: str
    platform: str
    changes: int
    certain: bool


async def set_marks(connection: AsyncConnection, marks: Iterable[NewMark], now: datetime) -> None:
    """Insert marks due now, or add to those that wait: these keep when they began and when they are to be tried again.

    One that was never tried is due soon, even if the clock was set back since it began.

    Each (registration, mark) at most once. In the order of the key, so that two transactions never wait for each other.
    """
    if rows := sorted(marks):
        await connection.execute(_UPSERT[connection.dialect.name], {ROWS: rows, "now": now, "soon": now + SOON})


_NOW: Final = sa.bindparam("now", type_=Moment)
_SOON: Final = sa.bindparam("soon", type_=Moment)
_BEGUN: Final[Mapping[str, sa.ColumnElement[Any]]] = {
    "generation": sa.literal_column("1", sa.BigInteger),
    "first_at": _NOW,
    "last_at": _NOW,
    "due_at": _NOW,
    "attempts": sa.literal_column("0", sa.Integer),
}


def _upsert(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    return insert.on_conflict_do_update(
        index_elements=["registration_id", "mark"],
        set_={
            "count": outbox.c.count + insert.excluded.count,
            "generation": outbox.c.generation + 1,
            "certain": outbox.c.certain | insert.excluded.certain,
            "last_at": insert.excluded.last_at,
            "due_at": sa.case(
                (sa.and_(outbox.c.attempts == 0, outbox.c.due_at > _SOON), insert.excluded.due_at),
                else_=outbox.c.due_at,
            ),
        },
    )


_GIVEN: Final = ("registration_id", "mark", "platform", "count", "certain")
_UPSERT: Final = {dialect: _upsert(insert) for dialect, insert in inserts(outbox, _GIVEN, _BEGUN).items()}
