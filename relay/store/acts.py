"""The audit log in the database: entries are added in the transaction of the act, and read to verify them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import sqlalchemy as sa

from relay.admin.audit import START, Act, AuditKey, Stamp, Verdict, What, new_act, verify
from relay.store.engine import Database
from relay.store.tables import act

LOCK: Final = 0x41637473
"""The number of PostgreSQL's advisory lock under which entries are added one after the other."""
AT_ONCE: Final = 1000  # entries per statement

_LAST: Final = sa.select(act.c.number, act.c.digest).order_by(act.c.number.desc()).limit(1)
_AFTER: Final = sa.select(act).where(act.c.number > sa.bindparam("_number")).order_by(act.c.number).limit(AT_ONCE)


def note(
    connection: sa.Connection, stamp: Stamp, what: What, *, server: str = "", user: str | None = None, detail: str = ""
) -> Act:
    """Add the entry of an act, as the last statement of the act's transaction; of a user only the hash is kept."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
        connection.execute(sa.text("SELECT pg_catalog.pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    row = connection.execute(_LAST).one_or_none()
    last = (0, START) if row is None else (row.number, row.digest)
    entry = new_act(stamp, what, last, server=server, user=user, detail=detail)
    connection.execute(
        sa.insert(act),
        {
            "number": entry.number,
            "at": entry.at,
            "who": entry.who,
            "via": entry.via,
            "what": entry.what,
            "server": entry.server,
            "subject": entry.subject,
            "detail": entry.detail,
            "key": entry.key,
            "digest": entry.digest,
        },
    )
    return entry


def digests(connection: sa.Connection, numbers: Collection[int]) -> Mapping[int, str]:
    """Return the digests of entries by their numbers, of those that are there; none if the schema has no log."""
    if not sa.inspect(connection).has_table(act.name):
        return {}
    wanted = sa.select(act.c.number, act.c.digest).where(act.c.number.in_(sorted(numbers)))
    return {row.number: row.digest for row in connection.execute(wanted)}


def numbers_of(connection: sa.Connection, what: What) -> Sequence[int]:
    """Return the numbers of the acts of one kind; none if the schema has no log."""
    if not sa.inspect(connection).has_table(act.name):
        return ()
    return connection.scalars(sa.select(act.c.number).where(act.c.what == what.value).order_by(act.c.number)).all()


def about(connection: sa.Connection, subjects: Collection[str]) -> Sequence[Act]:
    """Return the entries about a user, whose hashes are given, the oldest first."""
    mine = sa.select(act).where(act.c.subject.in_(sorted(subjects))).order_by(act.c.number)
    return [Act(*row) for row in connection.execute(mine)]


async def latest(database: Database, most: int, before: int | None = None) -> Sequence[Act]:
    """Return the last entries, the newest first; with `before`, of those with smaller numbers."""
    return await database.run(_latest, most, before)


async def verify_all(database: Database, keys: Mapping[str, AuditKey]) -> Verdict:
    """Check the whole log; `keys` by their ids."""
    return await database.run(lambda connection: verify(_all(connection), keys))


def _latest(connection: sa.Connection, most: int, before: int | None) -> list[Act]:
    query = sa.select(act).order_by(act.c.number.desc()).limit(most)
    if before is not None:
        query = query.where(act.c.number < before)
    return [Act(*row) for row in connection.execute(query)]


def _all(connection: sa.Connection) -> Iterator[Act]:
    number = -1
    while rows := connection.execute(_AFTER, {"_number": number}).all():
        yield from (Act(*row) for row in rows)
        number = rows[-1].number
