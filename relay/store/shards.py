"""The shards and the watch processes that share them: who has which shard, under which epoch, and until when.

The lease belongs to the process, not to its shards: renewing it writes one row. Nothing here waits for long, so that a
process that stands still with a lock in its hand keeps no other one from renewing its lease: a renewal touches its own
row only, and shards in which a commit is under way are left for the next time.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy as sa

from relay.domain.clock import Clock
from relay.domain.ports.shards import Division, Seat
from relay.domain.ports.wakeups import Topic
from relay.domain.unreadable import UnreadableRows
from relay.store.engine import Database
from relay.store.reading import Reader
from relay.store.tables import Moment, key_holder, node, shard
from relay.store.wakeups import CHANNEL

P = ParamSpec("P")
T = TypeVar("T")

_SHARDS: Final = Reader(sa.select(shard.c.number, shard.c.owner, shard.c.epoch), [shard.c.number], lambda row: row)
_NODES: Final = sa.select(node.c.id, node.c.alive_until, node.c.leaving).order_by(node.c.id)
_JOIN: Final = sa.insert(node)
_RENEW: Final = (
    sa.update(node)
    .where(node.c.id == sa.bindparam("_node"))
    .values(beat_at=sa.bindparam("_now"), alive_until=sa.bindparam("_until"), leaving=sa.bindparam("_leaving"))
)
_ALIVE: Final = (
    sa.select(node.c.id)
    .where(node.c.id == sa.bindparam("_node"), node.c.alive_until > sa.bindparam("_now"))
    .with_for_update(read=True)
)
_DEAD: Final = (
    sa.select(node.c.id)
    .where(node.c.alive_until <= sa.bindparam("_now"))
    .order_by(node.c.id)
    .with_for_update(skip_locked=True)
)
_REMOVE: Final = sa.delete(node).where(node.c.id.in_(sa.bindparam("_nodes", expanding=True)))
_NOT_LEASED: Final = shard.c.lease_until.is_(None) | (shard.c.lease_until <= sa.bindparam("_now"))
"""A shard whose owner is a process of the version before is leased by itself."""
_GONE: Final = sa.select(shard.c.owner).distinct().where(shard.c.owner.not_in(sa.select(node.c.id)), _NOT_LEASED)
_ORPHANS: Final = (
    sa.select(shard.c.number)
    .where(shard.c.owner.in_(sa.bindparam("_nodes", expanding=True)), _NOT_LEASED)
    .order_by(shard.c.number)
    .with_for_update(skip_locked=True)
)
_FREE_ALL: Final = sa.update(shard).values(owner=None, lease_until=None)
_FREE: Final = _FREE_ALL.where(shard.c.number.in_(sa.bindparam("_numbers", expanding=True)))
_RELEASE: Final = _FREE.where(shard.c.owner == sa.bindparam("_node"))
_RELEASE_ALL: Final = _FREE_ALL.where(shard.c.owner == sa.bindparam("_node"))
_WANTED: Final = (
    _SHARDS.query.where(shard.c.number.in_(sa.bindparam("_numbers", expanding=True)), shard.c.owner.is_(None))
    .order_by(shard.c.number)
    .with_for_update(skip_locked=True)
)
_TAKE: Final = (
    sa.update(shard)
    .where(shard.c.number.in_(sa.bindparam("_numbers", expanding=True)))
    .values(owner=sa.bindparam("_node"), epoch=shard.c.epoch + 1, lease_until=None)
)


class SqlShardStore:
    """The ShardStore of the watch role."""

    def __init__(
        self, database: Database, version: str, clock: Clock, unreadable: UnreadableRows | None = None
    ) -> None:
        """Share shards through a database; `version` is that of this process, for people who look.

        `clock` is that of an embedded database, which has none of its own. Rows that cannot be read are noted.
        """
        self._database = database
        self._version = version
        self._clock = clock
        self._unreadable = unreadable or UnreadableRows()

    async def join(self, node: str, lease: float, *, take_over: bool) -> None:
        """Register a process for `lease` seconds; `take_over` removes all others and frees their shards."""
        await self._run(_join, node, lease, self._version, self._clock, take_over)

    async def beat(self, node: str, lease: float, *, leaving: bool) -> Division | None:
        """Renew the lease of a process; return how the shards are divided, None if it is registered no more."""
        return await self._run(_beat, node, lease, leaving, self._clock, self._unreadable)

    async def bury(self) -> int:
        """Remove the processes whose leases have ended; free their shards, and return how many became free."""
        await self._run(_bury, self._clock)
        # Nobody comes back under these names: from now on their shards are without a living owner, no matter who looks.
        return await self._run(_free_orphans, self._clock)

    async def take(self, node: str, shards: Collection[int]) -> Mapping[int, int]:
        """Give a registered process those of some shards that are free; return them with their epochs."""
        return await self._run(_take, node, sorted(shards), self._clock)

    async def release(self, node: str, shards: Collection[int]) -> None:
        """Free shards of a process."""
        await self._run(_release, node, sorted(shards))

    async def leave(self, node: str) -> None:
        """Free all shards of a process and remove it."""
        await self._run(_leave, node)

    async def _run(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        return await self._database.run(work, *args, **named)


_NOTIFY: Final = sa.select(sa.func.pg_catalog.pg_notify(CHANNEL, Topic.SHARDS.value))


def _tell(connection: sa.Connection) -> None:
    """Wake the other watch processes with the commit; an embedded database has none."""
    if connection.dialect.name == "postgresql":
        connection.execute(_NOTIFY)


def _now(connection: sa.Connection, clock: Clock) -> datetime:
    """Return the time of the database's clock; SQLite's is that of this process."""
    if connection.dialect.name == "sqlite":
        return clock()
    return connection.execute(_CLOCK).scalar_one()


_CLOCK: Final = sa.select(sa.func.clock_timestamp(type_=Moment))


def _join(connection: sa.Connection, name: str, lease: float, version: str, clock: Clock, take_over: bool) -> None:
    if take_over:
        connection.execute(sa.delete(node))
        connection.execute(sa.delete(key_holder).where(key_holder.c.node != name))
        connection.execute(_FREE_ALL)
    now = _now(connection, clock)
    until = now + timedelta(seconds=lease)
    connection.execute(_JOIN, {"id": name, "version": version, "joined_at": now, "beat_at": now, "alive_until": until})
    _tell(connection)


def _beat(
    connection: sa.Connection, name: str, lease: float, leaving: bool, clock: Clock, unreadable: UnreadableRows
) -> Division | None:
    now = _now(connection, clock)
    until = now + timedelta(seconds=lease)
    renewed = connection.execute(_RENEW, {"_node": name, "_now": now, "_until": until, "_leaving": leaving})
    if not renewed.rowcount:
        return None
    seats = tuple(
        Seat(row.id, (row.alive_until - now).total_seconds(), row.leaving) for row in connection.execute(_NODES)
    )
    owners: dict[int, str | None] = {}
    epochs: dict[int, int] = {}
    rows, bad = _SHARDS.all(connection, _SHARDS.query)
    for each in bad:
        unreadable.looked("shard", each.name, {each.name: each.fault})
    for row in rows:
        unreadable.looked("shard", str(row.number))
        owners[row.number], epochs[row.number] = row.owner, row.epoch
    return Division(seats, owners, epochs, now.timestamp())


def _bury(connection: sa.Connection, clock: Clock) -> None:
    dead = connection.scalars(_DEAD, {"_now": _now(connection, clock)}).all()
    if dead:
        connection.execute(_REMOVE, {"_nodes": dead})


def _free_orphans(connection: sa.Connection, clock: Clock) -> int:
    now = _now(connection, clock)
    gone = connection.scalars(_GONE, {"_now": now}).all()
    # By their names, which nobody bears again: a shard that another process took since then stays with it.
    orphans = connection.scalars(_ORPHANS, {"_nodes": gone, "_now": now}).all() if gone else []
    if orphans:
        connection.execute(_FREE, {"_numbers": orphans})
        _tell(connection)
    return len(orphans)


def _take(connection: sa.Connection, name: str, wanted: Sequence[int], clock: Clock) -> Mapping[int, int]:
    # The lock on its own row keeps others from removing the process while it takes shards.
    if connection.scalar(_ALIVE, {"_node": name, "_now": _now(connection, clock)}) is None:
        return {}
    free = {row.number: row.epoch + 1 for row in connection.execute(_WANTED, {"_numbers": wanted})}
    if free:
        connection.execute(_TAKE, {"_node": name, "_numbers": list(free)})
        _tell(connection)
    return free


def _release(connection: sa.Connection, name: str, numbers: Sequence[int]) -> None:
    connection.execute(_RELEASE, {"_node": name, "_numbers": numbers})
    _tell(connection)


def _leave(connection: sa.Connection, name: str) -> None:
    connection.execute(_RELEASE_ALL, {"_node": name})
    connection.execute(_REMOVE, {"_nodes": [name]})
    _tell(connection)
