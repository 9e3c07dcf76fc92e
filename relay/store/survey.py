"""What the mailboxes of each server show: the protocol versions that they speak, and how long Pings are held."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from relay.store.engine import Database
from relay.store.tables import mailbox, node


@dataclass(frozen=True, slots=True)
class ServerSurvey:
    """The mailboxes of one server."""

    mailboxes: int
    versions: Mapping[int, int]
    """How many speak each version, e.g. 141; those that speak none yet are left out."""
    heartbeat: float | None
    """The average interval of their Pings, in seconds; None: none was held yet."""


async def watch_processes(database: Database, now: datetime) -> int:
    """Return how many processes share the mailboxes at a moment; raises StoreUnavailable."""
    alive = sa.select(sa.func.count()).select_from(node).where(node.c.alive_until > now, sa.not_(node.c.leaving))
    return await database.run(lambda connection: int(connection.scalar(alive) or 0))


async def survey(database: Database) -> dict[str, ServerSurvey]:
    """Return what is known by the name of the server; raises StoreUnavailable.

    Only the watch role's database user may read versions.
    """
    rows = await database.run(_read)
    return {name: _sum_up([row for row in rows if row.server == name]) for name in {row.server for row in rows}}


def _read(connection: sa.Connection) -> Sequence[Any]:
    return connection.execute(_QUERY).all()


def _sum_up(rows: Sequence[Any]) -> ServerSurvey:
    held = sum(row.held for row in rows)
    versions = {row.version: row.number for row in rows if row.version is not None}
    average = sum(row.seconds or 0.0 for row in rows) / held if held else None
    return ServerSurvey(sum(row.number for row in rows), versions, average)


_QUERY: Final = sa.select(
    mailbox.c.server,
    mailbox.c.version,
    sa.func.count().label("number"),
    sa.func.count(mailbox.c.heartbeat).label("held"),
    sa.func.sum(mailbox.c.heartbeat).label("seconds"),
).group_by(mailbox.c.server, mailbox.c.version)
