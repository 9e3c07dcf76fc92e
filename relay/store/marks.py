"""How the watch and api roles set dirty marks: by an upsert that does the same on both databases."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relay.domain.model import Mark, Platform
from relay.domain.ports.wakeups import Topic
from relay.store.bulk import ROWS, Among, inserts
from relay.store.prepared import NOTHING, Prepared
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
    cause: str = ""
    """What an `attention` is about; empty for all other marks."""


def challenge_mark(registration_id: str, platform: str) -> NewMark:
    """Return the mark of a challenge push."""
    return NewMark(registration_id, Mark.CHALLENGE.value, platform, 1, certain=True)


def outbox_topics(platforms: Collection[str]) -> list[Topic]:
    """Return the topics of the platforms of these names, each once.

    A name that this version does not know has no dispatcher here, so it has no topic.
    """
    return [Topic.outbox(platform) for platform in Platform if platform in platforms]


class Claim(NamedTuple):
    """A claim with which a new mark is set."""

    owner: str
    until: datetime


Key: TypeAlias = tuple[str, str]
"""A mark's registration and name."""

_MARK: Final = outbox.c.mark == sa.bindparam("_mark")


class OnMarks:
    """An update or a deletion of marks that are locked: one statement for all of a name.

    PostgreSQL would look the whole list of registrations up once for each mark if it were given pairs.
    """

    def __init__(self, statement: sa.Update | sa.Delete) -> None:
        """Take a statement without a condition."""
        self._of_name = Prepared(statement.where(Among("registrations", outbox.c.registration_id), _MARK))

    def run(self, connection: sa.Connection, keys: Sequence[Key], values: Mapping[str, Any] = NOTHING) -> None:
        """Execute the statement for the marks with some keys, with the values of its own parameters."""
        registrations: dict[str, list[str]] = {}
        for id_, mark in keys:
            registrations.setdefault(mark, []).append(id_)
        for mark, ids in registrations.items():
            self._of_name.execute(connection, {"registrations": ids, "_mark": mark, **values})


def set_marks(connection: sa.Connection, marks: Iterable[NewMark], now: datetime) -> list[Topic]:
    """Insert marks due now, or add to those that wait; return the topics to wake once the transaction is committed.

    A mark that waits keeps its `first_at` and its next try. One that was never tried is due within SOON, even if the
    clock was set back since it began. Each (registration, mark) may be given once. Rows are written in the order of the
    key, so that two transactions never wait for each other in a circle.
    """
    rows = sorted(marks)
    for values in _parameters(connection, rows, now):
        _UPSERT.execute(connection, values)
    return outbox_topics({row.platform for row in rows})


def set_claimed(
    connection: sa.Connection, marks: Iterable[NewMark], now: datetime, claims: Mapping[Key, Claim]
) -> tuple[list[Topic], list[Key]]:
    """Set marks; those that are new and have a claim are born claimed. Return these, too; nobody is woken for them.

    A mark that waits keeps its claim, or has none. Without claims this needs no right to claim.
    """
    if not claims:
        return set_marks(connection, marks, now), []
    rows = sorted(marks)
    found = [row for values in _parameters(connection, rows, now, claims) for row in _CLAIMED.rows(connection, values)]
    born = {(id_, mark): None for id_, mark, generation in found if generation == 1 and (id_, mark) in claims}
    return outbox_topics({platform for id_, mark, platform, *_ in rows if (id_, mark) not in born}), list(born)


def _parameters(
    connection: sa.Connection, marks: Sequence[NewMark], now: datetime, claims: Mapping[Key, Claim] | None = None
) -> list[dict[str, Any]]:
    """Return the parameters of each statement that sets marks: on PostgreSQL there is one for all of them."""
    moments = {"now": now, "soon": now + SOON}
    if connection.dialect.name == "sqlite":
        return [values | moments for values in _alike(marks, claims or {})]
    rows = marks if claims is None else [(*mark, *_values(claims.get(mark[:2]))) for mark in marks]
    return [{ROWS: rows, **moments}] if rows else []


def _values(claim: Claim | None) -> tuple[str | None, str | None]:
    return (None, None) if claim is None else (claim.owner, Moment.text(claim.until))


def _alike(marks: Iterable[NewMark], claims: Mapping[Key, Claim]) -> Iterable[dict[str, Any]]:
    """Return marks in groups that differ in registrations and counts only, as parameters for SQLite."""
    groups: dict[tuple[object, ...], dict[str, int]] = {}
    for id_, name, platform, changes, *others in marks:
        groups.setdefault((claims.get((id_, name)), name, platform, *others), {})[id_] = changes
    for (claim, *values), counts in groups.items():
        owner, until = claim if isinstance(claim, Claim) else (None, None)
        yield {"counts": counts, **dict(zip(_ALIKE, values, strict=True)), "claimed_by": owner, "claimed_until": until}


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
            "cause": insert.excluded.cause,
            "due_at": sa.case(
                (sa.and_(outbox.c.attempts == 0, outbox.c.due_at > _SOON), insert.excluded.due_at),
                else_=outbox.c.due_at,
            ),
        },
    )


_ALIKE: Final = ("mark", "platform", "certain", "cause")
_GIVEN: Final = ("registration_id", "mark", "platform", "count", "certain", "cause")
_CLAIM: Final = ("claimed_by", "claimed_until")


def upserted_marks(chosen: sa.Select[Any]) -> sa.CTE:
    """Return the part of a statement for PostgreSQL that sets the marks a query chooses: their platforms.

    The query has the columns of `NewMark`, in the order of the key. Parameters are `now` and `soon`, as in `set_marks`.
    """
    insert = postgresql.insert(outbox).from_select([*_GIVEN, *_BEGUN], chosen.add_columns(*_BEGUN.values()))
    return _upsert(insert).returning(outbox.c.platform).cte("marked")


def _upserts(*more: str) -> Mapping[str, postgresql.Insert | sqlite.Insert]:
    """Return the upsert of marks, with `more` columns, for each dialect."""
    return {
        "postgresql": _upsert(inserts(outbox, [*_GIVEN, *more], _BEGUN)["postgresql"]),
        "sqlite": _alike_on_sqlite([*_ALIKE, *more]),
    }


def _alike_on_sqlite(alike: Sequence[str]) -> postgresql.Insert | sqlite.Insert:
    """Return the upsert of marks that have some columns alike: a parameter has the count of each registration.

    SQLite takes longer to take the values of each row out of a list of JSON than to write them.
    """
    counts = sa.func.json_each(sa.bindparam("counts", type_=sa.JSON)).table_valued("key", "value").c
    values = [sa.bindparam(name, type_=outbox.c[name].type) for name in alike]
    # Without a condition SQLite reads ON CONFLICT as the beginning of a join.
    condition = sa.literal_column("1") == sa.literal_column("1")
    rows = sa.select(counts.key, counts.value, *values, *_BEGUN.values()).where(condition)
    return _upsert(sqlite.insert(outbox).from_select(["registration_id", "count", *alike, *_BEGUN], rows))


_UPSERT: Final = Prepared(_upserts())
_CLAIMED: Final = Prepared(
    {
        dialect: upsert.returning(outbox.c.registration_id, outbox.c.mark, outbox.c.generation)
        for dialect, upsert in _upserts(*_CLAIM).items()
    }
)
"""The same with claims of new marks."""
