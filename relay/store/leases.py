"""Own the leases of shards: who may commit for which mailboxes, and until when."""

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.store.tables import shard


async def lease(
    connection: AsyncConnection, node: str, until: datetime, now: datetime, *, take_over: bool
) -> Mapping[int, int]:
    """Renew the node's shards and take free ones; return shard -> epoch of all it owns now."""
    mine = shard.c.owner == node
    free = shard.c.owner.is_(None) | (shard.c.lease_until <= now)
    query = sa.select(shard.c.number, shard.c.owner, shard.c.epoch).order_by(shard.c.number).with_for_update()
    rows = (await connection.execute(query if take_over else query.where(mine | free))).all()
    kept = {row.number: row.epoch for row in rows if row.owner == node and not take_over}
    taken = {row.number: row.epoch + 1 for row in rows if row.number not in kept}
    if kept:
        await connection.execute(sa.update(shard).where(shard.c.number.in_(kept)).values(lease_until=until))
    if taken:
        values = {"owner": node, "epoch": shard.c.epoch + 1, "lease_until": until}
        await connection.execute(sa.update(shard).where(shard.c.number.in_(taken)).values(values))
    return kept | taken


async def release(connection: AsyncConnection, node: str) -> None:
    """Give up all leases of a node; the epochs stay, for whoever takes a shard raises its own."""
    await connection.execute(sa.update(shard).where(shard.c.owner == node).values(owner=None, lease_until=None))
