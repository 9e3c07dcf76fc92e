"""Own what the watch role reads and writes: one transaction per method, and who is told afterwards."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eas_watcher.names import MailboxId
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Candidate, CommitEntry, WatchRecord
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.store import candidates, commits, records
from relay.store.engine import scrub, transaction
from relay.store.tables import mailbox, registration, shard


async def _lease(
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


async def _release(connection: AsyncConnection, node: str) -> None:
    """Give up all leases of a node; the epochs stay, for whoever takes a shard raises its own."""
    await connection.execute(sa.update(shard).where(shard.c.owner == node).values(owner=None, lease_until=None))


_NOTE = (
    sa.update(mailbox)
    .where(mailbox.c.id == sa.bindparam("_id"))
    .values(last_ping_at=sa.bindparam("_at"), heartbeat=sa.bindparam("_heartbeat"))
)


class SqlWatchStore:
    """Be the WatchStore of the watch role."""

    def __init__(self, engine: AsyncEngine, wakeups: Wakeups) -> None:
        """Take the database, and whom to tell what changed."""
        self._engine = engine
        self._wakeups = wakeups

    async def lease_shards(self, node: str, until: datetime, now: datetime, take_over: bool) -> Mapping[int, int]:
        """Renew the node's shards and take free or expired ones; return shard -> epoch of all it owns now."""
        async with transaction(self._engine) as connection:
            return await _lease(connection, node, until, now, take_over=take_over)

    async def release_shards(self, node: str) -> None:
        """Give up all leases of a node that stops; others may take its shards at once."""
        async with transaction(self._engine) as connection:
            await _release(connection, node)

    async def records(self, shards: Sequence[int], now: datetime) -> list[WatchRecord]:
        """Read all mailboxes of some shards, clear their dirty flags, count a try on their collections' keys."""
        async with transaction(self._engine) as connection:
            await records.count_tries(connection, shards)
            return await records.take(connection, shards, now, only_dirty=False)

    async def take_dirty(self, shards: Sequence[int], now: datetime) -> list[WatchRecord]:
        """Read the dirty mailboxes of some shards and clear their flags, in one transaction.

        What was read is returned even if the end of the transaction is unknown: the flags may be cleared, and nobody
        else would ever look at these mailboxes then. Flags that stay are just read once more.
        """
        taken: list[WatchRecord] = []
        try:
            async with transaction(self._engine) as connection:
                taken = await records.take(connection, shards, now, only_dirty=True)
        except StoreUnavailable:
            if not taken:
                raise
        return taken

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        """Read one mailbox as it is now, whether dirty or not."""
        async with transaction(self._engine) as connection:
            return await records.read(connection, mailbox_id, now)

    async def commit(self, batch: Sequence[CommitEntry], now: datetime) -> frozenset[MailboxId]:
        """Commit progress of many mailboxes in one transaction; return those whose lease is no longer ours.

        A mailbox that is gone counts among these: nobody may watch it any more either.
        """
        if not batch:
            return frozenset()
        async with transaction(self._engine) as connection:
            committed = await commits.commit(connection, batch, now)
        for topic in committed.topics:
            self._wakeups.wake(topic)
        if committed.wiped:
            await scrub(self._engine)
        return committed.fenced

    async def note_pings(self, pings: Mapping[MailboxId, tuple[datetime, float]]) -> None:
        """Note when each mailbox's last Ping began and its heartbeat in seconds."""
        if not pings:
            return
        rows = [{"_id": id_, "_at": pings[id_][0], "_heartbeat": pings[id_][1]} for id_ in sorted(pings)]
        async with transaction(self._engine) as connection:
            await connection.execute(_NOTE, rows)

    async def accept(self, candidate: Candidate, now: datetime, url: str | None = None) -> None:
        """Make a proved candidate the mailbox's credential, its registration active, the mailbox dirty."""
        async with transaction(self._engine) as connection:
            accepted = await candidates.accept(connection, candidate, now, url)
        if accepted:
            self._wakeups.wake(Topic.MAILBOXES)
            self._wakeups.wake(Topic.VERDICTS)
            await scrub(self._engine)

    async def refuse(self, candidate: Candidate, now: datetime) -> None:
        """Drop a refused candidate and count it on the mailbox."""
        async with transaction(self._engine) as connection:
            await candidates.refuse(connection, candidate, now)
        self._wakeups.wake(Topic.VERDICTS)
        await scrub(self._engine)

    async def reseal(self, mailbox_id: MailboxId, before: bytes, after: bytes) -> None:
        """Put one seal in the place of another wherever the mailbox keeps it: as its credential, or as a candidate."""
        async with transaction(self._engine) as connection:
            await candidates.reseal(connection, mailbox_id, before, after)
        await scrub(self._engine)

    async def forget(self, mailbox_id: MailboxId) -> bool:
        """Delete a mailbox that no registration names any more; return whether it is gone."""
        lock = sa.select(mailbox.c.id).where(mailbox.c.id == mailbox_id).with_for_update()
        named = sa.select(registration.c.id).where(registration.c.mailbox_id == mailbox_id).limit(1)
        async with transaction(self._engine) as connection:
            # Two statements: the second must see the registration that whoever held the row before us may have added.
            await connection.execute(lock)
            if await connection.scalar(named) is not None:
                return False
            await connection.execute(sa.delete(mailbox).where(mailbox.c.id == mailbox_id))
        await scrub(self._engine)
        return True
