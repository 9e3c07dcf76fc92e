"""The WatchStore on a database: what the watch role reads and writes.

Progress, the hot path, is committed in `commits` and `news`, mailboxes are read in `records`, credentials change in
`credentials`. Each method is one transaction; wake-ups follow its commit.
"""

import logging
from collections.abc import Collection as Several
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

import sqlalchemy as sa

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from relay.domain.errors import StoreUnavailable
from relay.domain.handover import NOBODY, Offer
from relay.domain.model import Candidate, CommitEntry, DuePush, Platform, SealedMailbox, WatchRecord
from relay.domain.ports.outbox import Handover
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.tries import TryLimits, Wait, Withdrawn
from relay.domain.unreadable import UnreadableRows
from relay.store import credentials, records
from relay.store.commits import Committed, commit
from relay.store.engine import Database, scrub
from relay.store.marks import outbox_topics
from relay.store.news import COMMIT_NEWS, are_news, news, read_news
from relay.store.reading import WRONG
from relay.store.seals import count_sealed_otherwise, look_again, sealed_otherwise
from relay.store.tables import mailbox, registration
from relay.store.wipes import forget_user

log = logging.getLogger(__name__)

_NOTE_PINGS: Final = (
    sa.update(mailbox)
    .where(mailbox.c.id == sa.bindparam("_id"))
    .values(last_ping_at=sa.bindparam("_at"), heartbeat=sa.bindparam("_heartbeat"))
)
_REFUSED: Final = mailbox.alias("refused")
_ACCEPTED_BESIDE: Final = (
    sa.select(sa.func.max(mailbox.c.last_ping_at))
    .join_from(_REFUSED, mailbox, mailbox.c.server == _REFUSED.c.server)
    .where(
        _REFUSED.c.id == sa.bindparam("_id"),
        mailbox.c.id != _REFUSED.c.id,
        sa.func.coalesce(mailbox.c.url, "") == sa.func.coalesce(_REFUSED.c.url, ""),
        mailbox.c.state == WatchState.WATCHING.value,
    )
)


_FORGOTTEN: Final = (
    sa.select(mailbox.c.forgotten, mailbox.c.server, mailbox.c.user)
    .where(mailbox.c.id == sa.bindparam("_id"))
    .with_for_update()
)


class SqlWatchStore:
    """The WatchStore of the watch role."""

    def __init__(
        self,
        database: Database,
        wakeups: Wakeups,
        limits: Mapping[str, TryLimits] = MappingProxyType({}),
        unreadable: UnreadableRows | None = None,
        handover: Handover = NOBODY,
        *,
        guards_wipes: bool = True,
    ) -> None:
        """Keep watches in a database, wake the roles that wait for what changed, note what cannot be read.

        `limits` has what the directory of each server bears; other servers have the default. `handover` takes over
        marks that are set. `guards_wipes`: nobody registers for a wiped account before an administrator allows it.
        """
        self.guards_wipes = guards_wipes
        self._database = database
        self._wakeups = wakeups
        self.limits = limits
        self._unreadable = unreadable or UnreadableRows()
        self._handover = handover

    async def records(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        """Read all mailboxes of some shards, clear their dirty flags, count a try on their collections' keys.

        Shards that have another epoch by now are left to their owner.
        """
        return await self._database.run(records.take_records, leases, now, self._unreadable, only_dirty=False)

    async def take_dirty(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        """Read the dirty mailboxes of some shards and clear their flags, in one transaction.

        Shards that have another epoch by now are left to their owner, who must not miss a flag.

        Records that were read are returned even if it is unknown whether the transaction was committed: the flags may
        be cleared, and then no process would ever look at these mailboxes. Mailboxes whose flags stay are read again.
        """
        taken: list[WatchRecord] = []

        def take(connection: sa.Connection) -> None:
            taken.extend(records.take_records(connection, leases, now, self._unreadable, only_dirty=True))

        try:
            await self._database.join(take)
        except StoreUnavailable:
            if not taken:
                raise
        return taken

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        """Read one mailbox as it is now, whether dirty or not."""
        return await self._database.join(records.read_record, mailbox_id, now, self._unreadable)

    async def look_again(self, now: datetime) -> None:
        """Look at the rows set aside; mark their mailboxes dirty once they are readable, so that they are taken up."""
        owners = sorted({MailboxId(owner) for table in records.TABLES for owner in self._unreadable.owners(table)})
        for owner in owners:
            if await self._database.run(records.look_again, owner, now, self._unreadable):
                self._wakeups.wake(Topic.MAILBOXES)

    async def commit(self, batch: Sequence[CommitEntry], now: datetime) -> frozenset[MailboxId]:
        """Commit progress of many mailboxes in one transaction; return those whose lease is no longer ours.

        A mailbox that is gone counts among these: no process may watch it any more.
        """
        if not batch:
            return frozenset()
        offers = self._handover.offer()
        born: Sequence[DuePush] = ()
        try:
            committed = await self._commit(batch, now, offers)
            born = committed.born
        finally:
            self._handover.take(offers, born)
        for topic in committed.topics:
            self._wakeups.wake(topic)
        if committed.wiped:
            self._wakeups.wake(Topic.VERDICTS)  # of candidates that waited
            await scrub(self._database)
        return committed.fenced

    async def _commit(self, batch: Sequence[CommitEntry], now: datetime, offers: Mapping[Platform, Offer]) -> Committed:
        """Commit progress: news that no dispatcher here takes over in one statement, where the database has it."""
        if offers or self._database.dialect.name != "postgresql" or not are_news(batch):
            return await self._database.join(commit, batch, now, self.limits, offers)
        kept, platforms = read_news(await self._database.rows(COMMIT_NEWS, news(batch, now)))
        topics, fenced = outbox_topics(platforms), frozenset[MailboxId]()
        if left := [entry for entry in batch if entry.mailbox_id not in kept]:
            rest = await self._database.run(commit, left, now, self.limits)
            topics, fenced = [*topics, *rest.topics], rest.fenced
        return Committed(fenced, topics, wiped=False, born=[])

    async def note_pings(self, pings: Mapping[MailboxId, tuple[datetime, float]]) -> None:
        """Note when each mailbox's last Ping began and its heartbeat in seconds."""
        if not pings:
            return
        rows = [{"_id": id_, "_at": pings[id_][0], "_heartbeat": pings[id_][1]} for id_ in sorted(pings)]
        await self._database.run(lambda connection: connection.execute(_NOTE_PINGS, rows))

    async def accepted_beside(self, mailbox_id: MailboxId) -> datetime | None:
        """Return when the server of a mailbox accepted another one last, which any process watches; None: never."""
        try:
            return await self._database.run(_accepted_beside, mailbox_id)
        except WRONG:  # of a moment; the reader of mailboxes names the row
            return None

    async def forget(self, mailbox_id: MailboxId) -> bool:
        """Delete a mailbox that no registration names any more; return whether it is gone.

        One that an administrator has the relay forget goes, no matter who registered meanwhile; on SQLite with all that
        names its user.
        """
        gone = await self._database.run(_forget, mailbox_id, self.limits)
        if gone:
            await scrub(self._database)
        return gone

    # --- candidates

    async def accept(
        self,
        candidate: Candidate,
        now: datetime,
        url: str | None = None,
        *,
        replaces: bool = False,
        succeeded: bool = False,
    ) -> None:
        """Make an accepted candidate the mailbox's credential, its registration active, the mailbox dirty.

        A registration whose app must prove that it is on the device becomes proving, and gets a challenge.
        The mailbox's other registrations of the same app on the same device are deleted.

        A wipe destroys the candidates that wait: one that is still there came afterwards, with a new registration, and
        the mailbox starts from nothing with it, once an administrator has allowed that. Until then the registration
        becomes `wiped`.
        """
        accepted = await self._database.join(
            credentials.accept,
            candidate,
            now,
            url,
            self.limits,
            replaces=replaces,
            succeeded=succeeded,
            guards_wipes=self.guards_wipes,
        )
        if accepted is None:
            return
        end, topics = accepted
        for topic in topics:
            self._wakeups.wake(topic)
        if end is credentials.Acceptance.FORBIDDEN:
            ids = {"mailbox": candidate.mailbox_id, "registration": candidate.registration_id}
            log.warning("registration refused: an administrator wiped the mailbox", extra=ids)
        self._wakeups.wake(Topic.MAILBOXES)
        self._wakeups.wake(Topic.VERDICTS)
        if end is not credentials.Acceptance.FIRST:  # that of a mailbox without a credential is the candidate itself
            await scrub(self._database)

    async def refuse(self, candidate: Candidate, now: datetime) -> None:
        """Drop a refused candidate; nothing happens if it was replaced meanwhile."""
        await self._database.join(credentials.refuse, candidate, now)
        self._wakeups.wake(Topic.VERDICTS)
        await scrub(self._database)

    async def expire(self, candidate: Candidate) -> None:
        """Drop a candidate that nobody could check in time; its registration waits for another one."""
        if not await self._database.run(credentials.expire, candidate):
            return
        self._wakeups.wake(Topic.VERDICTS)
        await scrub(self._database)

    # --- tries

    async def spend(
        self, mailbox_id: MailboxId, now: datetime, candidate: Candidate | None = None
    ) -> Wait | Withdrawn | None:
        """Count a try of an account before its credential, or a candidate, is shown; return why not, instead."""
        return await self._database.join(credentials.spend, mailbox_id, now, candidate, self.limits)

    async def succeeded(self, mailbox_id: MailboxId) -> None:
        """Forget the tries of a mailbox's user: its server has accepted a credential that was shown."""
        await self._database.join(credentials.forget_tries, mailbox_id, self.limits)

    async def reseal(self, mailbox_id: MailboxId, before: bytes, after: bytes) -> bool:
        """Replace one sealed credential by another where the mailbox has it: as its credential, or as a candidate.

        Returns False if the mailbox has it no more.
        """
        found = await self._database.run(credentials.reseal, mailbox_id, {before: after})
        await scrub(self._database)
        return bool(found)

    async def seals(self, mailbox_id: MailboxId) -> list[bytes]:
        """Return every seal of a mailbox: of its credential, and of its candidates."""
        return await self._database.run(credentials.seals_of, mailbox_id)

    async def sealed_otherwise(
        self, shards: Several[int], head: bytes, after: MailboxId | None, most: int
    ) -> list[SealedMailbox]:
        """Return mailboxes of some shards with seals that do not begin with `head`, in the order of their ids.

        At most so many, and those behind `after`; of each only these seals.
        """
        return await self._database.run(sealed_otherwise, sorted(shards), head, after, most)

    async def count_sealed_otherwise(self, shards: Several[int], head: bytes) -> int:
        """Return how many seals of some shards do not begin with `head`."""
        return await self._database.run(count_sealed_otherwise, sorted(shards), head)

    async def turn_over(
        self, seals: Mapping[MailboxId, Mapping[bytes, bytes]]
    ) -> Mapping[MailboxId, Mapping[bytes, bytes]]:
        """Replace many seals as `reseal` does, before -> after; return those that were still there.

        A mailbox whose candidate has a new seal is dirty: a process that has read it before looks again.
        """
        written = await self._database.run(credentials.turn_over, seals)
        await scrub(self._database)
        return written

    async def look_at_seals(self, shards: Several[int], keys: Several[bytes]) -> None:
        """Mark mailboxes of some shards dirty that are blocked since a seal did not open, or wait with a candidate.

        For keys that were added: of candidates those are meant whose seals name one of them.
        """
        await self._database.run(look_again, sorted(shards), sorted(keys))
        self._wakeups.wake(Topic.MAILBOXES)

    async def sealed_anew(self, shards: Several[int]) -> frozenset[int]:
        """Return those of some shards from which no seals of the old form are taken any more."""
        return await self._database.run(credentials.sealed_anew_shards) & frozenset(shards)

    async def seal_anew(self, seals: Mapping[MailboxId, Mapping[bytes, bytes]], shards: Several[int]) -> None:
        """Replace many seals, and note for good that no seals of the old form are taken from `shards`."""
        await self._database.run(credentials.seal_anew, seals, shards)
        await scrub(self._database)


def _accepted_beside(connection: sa.Connection, mailbox_id: MailboxId) -> datetime | None:
    moment: datetime | None = connection.scalar(_ACCEPTED_BESIDE, {"_id": mailbox_id})
    return moment


def _forget(connection: sa.Connection, mailbox_id: MailboxId, limits: Mapping[str, TryLimits]) -> bool:
    # Two statements: the transaction that held the row before may have added a registration, which only a statement
    # that begins afterwards sees.
    row = connection.execute(_FORGOTTEN, {"_id": mailbox_id}).one_or_none()
    if row is None:
        return True
    named = sa.select(registration.c.id).where(registration.c.mailbox_id == mailbox_id).limit(1)
    if not row.forgotten and connection.scalar(named) is not None:
        return False
    connection.execute(sa.delete(mailbox).where(mailbox.c.id == mailbox_id))
    # In one process on SQLite nothing is kept from the api role. Elsewhere its user can set the flag, but must not
    # undo tries or a wipe by it [promise 4].
    if row.forgotten and connection.dialect.name == "sqlite":
        forget_user(connection, row.server, row.user, limits)
    return True
