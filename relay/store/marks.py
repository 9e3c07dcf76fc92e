"""How the watch and api roles set dirty marks: one upsert, the same on both databases."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relay.domain.model import Platform
from relay.domain.ports.wakeups import Topic
from relay.store.bulk import ROWS, inserts
from relay.store.tables import Moment, outbox

SOON: Final = timedelta(minutes=10)
"""Longer than a mark waits for its pace before its first try."""


class NewMark(NamedTuple):
    """Changes of one class for one registration; sorts by key."""

    registration_id: str
    mark: str
    platform: str
    changes: int
    certain: bool


def outbox_topics(platforms: Collection[str]) -> list[Topic]:
    """Return the topics of the platforms of these names, each once.

    A name that this version does not know has no dispatcher here, so it has no topic.
    """
    return [Topic.outbox(platform) for platform in Platform if platform.value in platforms]


def set_marks(connection: sa.Connection, marks: Iterable[NewMark], now: datetime) -> list[Topic]:
    """Insert marks due now, or add to those that wait; return the topics to wake once the transaction is committed.

    A mark that waits keeps its `first_at` and its next try. One that was never tried is due within SOON, even if the
    clock was set back since it began. Each (registration, mark) may be given once. Rows are written in the order of the
    key, so that two transactions never wait for each other in a circle.
    """
    if rows := sorted(marks):
        connection.execute(_UPSERT[connection.dialect.name], {ROWS: rows, "now": now, "soon": now + SOON})
    return outbox_topics({row.platform for row in rows})


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
