"""The shards in the database: which process watches the mailboxes of each, under which epoch, and until when."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from relay.domain.unreadable import UnreadableRows
from relay.store.reading import Bad, Reader
from relay.store.tables import shard

_SHARDS: Final = Reader(sa.select(shard.c.number, shard.c.owner, shard.c.epoch), [shard.c.number], lambda row: row)


def lease_shards(
    connection: sa.Connection, node: str, until: datetime, now: datetime, unreadable: UnreadableRows, *, take_over: bool
) -> Mapping[int, int]:
    """Renew the node's shards and take free or expired ones; return shard -> epoch of all it owns now."""
    query = _SHARDS.query.order_by(shard.c.number).with_for_update()
    if not take_over:
        query = query.where((shard.c.owner == node) | shard.c.owner.is_(None) | (shard.c.lease_until <= now))
    kept: dict[int, int] = {}
    taken: dict[int, int] = {}
    for row in connection.execute(query):
        value = _SHARDS.value(row)
        if isinstance(value, Bad):
            unreadable.looked("shard", value.name, {value.name: value.fault})
            continue
        unreadable.looked("shard", str(row.number))
        if row.owner == node and not take_over:
            kept[row.number] = row.epoch
        else:
            taken[row.number] = row.epoch + 1
    if kept:
        connection.execute(sa.update(shard).where(shard.c.number.in_(kept)).values(lease_until=until))
    if taken:
        values = {"owner": node, "epoch": shard.c.epoch + 1, "lease_until": until}
        connection.execute(sa.update(shard).where(shard.c.number.in_(taken)).values(values))
    return kept | taken


def release_shards(connection: sa.Connection, node: str) -> None:
    """Give up all leases of a node that stops; others may take its shards at once.

    The epochs stay: the node that takes a shard raises its epoch.
    """
    connection.execute(sa.update(shard).where(shard.c.owner == node).values(owner=None, lease_until=None))
