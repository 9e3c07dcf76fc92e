"""Own how dirty marks are set: one upsert for watch and api, the same on both databases."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.store.tables import Moment, outbox

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
    rows = [[mark.registration_id, mark.mark, mark.platform, mark.count, mark.certain] for mark in sorted(marks)]
    if rows:
        await connection.execute(UPSERT[connection.dialect.name], {"_rows": rows, "_now": now, "_soon": now + SOON})


_ROWS: Final = sa.bindparam("_rows", type_=sa.JSON)
"""All marks as one value: binding each column of each row costs more than the database takes to store them."""
_NOW: Final = sa.bindparam("_now", type_=Moment)
_SOON: Final = sa.bindparam("_soon", type_=Moment)
_GIVEN: Final = ("registration_id", "mark", "platform", "count", "certain")
_BEGUN: Final = {
    "generation": sa.literal_column("1", sa.BigInteger),
    "first_at": _NOW,
    "last_at": _NOW,
    "due_at": _NOW,
    "attempts": sa.literal_column("0", sa.Integer),
}


def _on_postgresql() -> postgresql.Insert:
    value = sa.func.json_array_elements(_ROWS).table_valued("value").c.value
    given = [sa.cast(value.op("->>")(place), outbox.c[name].type) for place, name in enumerate(_GIVEN)]
    return postgresql.insert(outbox).from_select([*_GIVEN, *_BEGUN], sa.select(*given, *_BEGUN.values()))


def _on_sqlite() -> sqlite.Insert:
    value = sa.func.json_each(_ROWS).table_valued("value").c.value
    given = [sa.func.json_extract(value, f"$[{place}]") for place in range(len(_GIVEN))]
    # Without a condition SQLite takes ON CONFLICT for the beginning of a join.
    every = sa.select(*given, *_BEGUN.values()).where(sa.literal_column("1") == sa.literal_column("1"))
    return sqlite.insert(outbox).from_select([*_GIVEN, *_BEGUN], every)


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


UPSERT: Final = {"postgresql": _upsert(_on_postgresql()), "sqlite": _upsert(_on_sqlite())}
