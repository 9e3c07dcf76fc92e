"""What the watch role reads and writes: leases of shards, mailboxes with all that belongs to them, and candidates.

Progress, the hot path, is committed in `commits`. Each method is one transaction; wake-ups follow its commit.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Candidate, CommitEntry, RegistrationId, RegistrationState, WatchRecord
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.tries import DEFAULT, TryLimits, Wait
from relay.store import tries
from relay.store.bulk import in_order
from relay.store.commits import commit
from relay.store.engine import scrub, transaction
from relay.store.rows import (
    COLLECTION,
    MAILBOX,
    PARTNERSHIP,
    AnyRow,
    read_classes,
    read_collection,
    read_mailbox,
    read_memory,
)
from relay.store.tables import candidate, collection, hierarchy, mailbox, registration, sealed_anew, shard

AT_ONCE: Final = 500  # mailboxes per statement; far below both databases' limit of parameters

_MAILBOXES: Final = sa.select(*MAILBOX, *PARTNERSHIP, mailbox.c.sealed_credential).outerjoin_from(mailbox, hierarchy)
_NOTE_PINGS: Final = (
    sa.update(mailbox)
    .where(mailbox.c.id == sa.bindparam("_id"))
    .values(last_ping_at=sa.bindparam("_at"), heartbeat=sa.bindparam("_heartbeat"))
)
_HAS_ITS_TRY: Final = (
    sa.update(candidate).where(candidate.c.registration_id == sa.bindparam("_registration")).values(account=None)
)
_WAITS_FOR_CREDENTIAL: Final = (
    WatchState.VERIFYING.value,
    WatchState.CREDENTIAL_REFUSED.value,
    WatchState.WIPED.value,
)


class SqlWatchStore:
    """The WatchStore of the watch role."""

    def __init__(
        self, engine: AsyncEngine, wakeups: Wakeups, limits: Mapping[str, TryLimits] = MappingProxyType({})
    ) -> None:
        """Keep watches in a database, and wake the roles that wait for what changed.

        `limits` has what the directory of each server bears; other servers have the default.
        """
        self._engine = engine
        self._wakeups = wakeups
        self._limits = limits

    # --- leases

    async def lease_shards(self, node: str, until: datetime, now: datetime, take_over: bool) -> Mapping[int, int]:
        """Renew the node's shards and take free or expired ones; return shard -> epoch of all it owns now."""
        mine = shard.c.owner == node
        free = shard.c.owner.is_(None) | (shard.c.lease_until <= now)
        query = sa.select(shard.c.number, shard.c.owner, shard.c.epoch).order_by(shard.c.number).with_for_update()
        async with transaction(self._engine) as connection:
            rows = (await connection.execute(query if take_over else query.where(mine | free))).all()
            kept = {row.number: row.epoch for row in rows if row.owner == node and not take_over}
            taken = {row.number: row.epoch + 1 for row in rows if row.number not in kept}
            if kept:
                await connection.execute(sa.update(shard).where(shard.c.number.in_(kept)).values(lease_until=until))
            if taken:
                values = {"owner": node, "epoch": shard.c.epoch + 1, "lease_until": until}
                await connection.execute(sa.update(shard).where(shard.c.number.in_(taken)).values(values))
        return kept | taken

    async def release_shards(self, node: str) -> None:
        """Give up all leases of a node that stops; others may take its shards at once.

        The epochs stay: the node that takes a shard raises its epoch.
        """
        async with transaction(self._engine) as connection:
            await connection.execute(sa.update(shard).where(shard.c.owner == node).values(owner=None, lease_until=None))

    # --- mailboxes

    async def records(self, shards: Sequence[int], now: datetime) -> list[WatchRecord]:
        """Read all mailboxes of some shards, clear their dirty flags, count a try on their collections' keys."""
        async with transaction(self._engine) as connection:
            return await take_records(connection, shards, now, only_dirty=False)

    async def take_dirty(self, shards: Sequence[int], now: datetime) -> list[WatchRecord]:
        """Read the dirty mailboxes of some shards and clear their flags, in one transaction.

        Records that were read are returned even if it is unknown whether the transaction was committed: the flags may
        be cleared, and then no process would ever look at these mailboxes. Mailboxes whose flags stay are read again.
        """
        taken: list[WatchRecord] = []
        try:
            async with transaction(self._engine) as connection:
                taken = await take_records(connection, shards, now, only_dirty=True)
        except StoreUnavailable:
            if not taken:
                raise
        return taken

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        """Read one mailbox as it is now, whether dirty or not."""
        async with transaction(self._engine) as connection:
            rows = (await connection.execute(_MAILBOXES.where(mailbox.c.id == mailbox_id))).all()
            found = await _complete(connection, rows, now)
        return found[0] if found else None

    async def commit(self, batch: Sequence[CommitEntry], now: datetime) -> frozenset[MailboxId]:
        """Commit progress of many mailboxes in one transaction; return those whose lease is no longer ours.

        A mailbox that is gone counts among these: no process may watch it any more.
        """
        if not batch:
            return frozenset()
        async with transaction(self._engine) as connection:
            committed = await commit(connection, batch, now, self._limits)
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
            await connection.execute(_NOTE_PINGS, rows)

    async def forget(self, mailbox_id: MailboxId) -> bool:
        """Delete a mailbox that no registration names any more; return whether it is gone."""
        lock = sa.select(mailbox.c.id).where(mailbox.c.id == mailbox_id).with_for_update()
        named = sa.select(registration.c.id).where(registration.c.mailbox_id == mailbox_id).limit(1)
        async with transaction(self._engine) as connection:
            # Two statements: the transaction that held the row before may have added a registration, which only a
            # statement that begins afterwards sees.
            await connection.execute(lock)
            if await connection.scalar(named) is not None:
                return False
            await connection.execute(sa.delete(mailbox).where(mailbox.c.id == mailbox_id))
        await scrub(self._engine)
        return True

    # --- candidates

    async def accept(self, candidate: Candidate, now: datetime, url: str | None = None) -> None:
        """Make an accepted candidate the mailbox's credential, its registration active, the mailbox dirty.

        A wipe destroys the candidates that wait: one that is still there came afterwards, with a new registration, and
        the mailbox starts from nothing with it. The server says whether the device may come back.
        """
        async with transaction(self._engine) as connection:
            if not await _lock(connection, candidate.mailbox_id) or not await _drop(connection, candidate):
                return
            await _set_credential(connection, candidate, now, url)
            # A registration whose app is gone from the device waits for a new token, whatever its credential.
            gone = registration.c.state == RegistrationState.TOKEN_GONE.value
            state = sa.case((gone, registration.c.state), else_=RegistrationState.ACTIVE.value)
            await connection.execute(
                sa.update(registration)
                .where(registration.c.id == candidate.registration_id)
                .values(state=state, candidate_refused=False)
            )
        self._wakeups.wake(Topic.MAILBOXES)
        self._wakeups.wake(Topic.VERDICTS)
        await scrub(self._engine)

    async def refuse(self, candidate: Candidate, now: datetime) -> None:
        """Drop a refused candidate; nothing happens if it was replaced meanwhile."""
        async with transaction(self._engine) as connection:
            if await _lock(connection, candidate.mailbox_id) and await _drop(connection, candidate):
                await _set_refused(connection, candidate, now)
        self._wakeups.wake(Topic.VERDICTS)
        await scrub(self._engine)

    async def expire(self, candidate: Candidate) -> None:
        """Drop a candidate that nobody could check in time; its registration waits for another one."""
        async with transaction(self._engine) as connection:
            if not await _lock(connection, candidate.mailbox_id) or not await _drop(connection, candidate):
                return
            # For an active registration the older credential stays in use; a verifying one stays so.
            unproved = registration.c.state == RegistrationState.VERIFYING.value
            await connection.execute(
                sa.update(registration)
                .where(registration.c.id == candidate.registration_id)
                .values(candidate_refused=~unproved)
            )
        self._wakeups.wake(Topic.VERDICTS)
        await scrub(self._engine)

    # --- tries

    async def spend(self, mailbox_id: MailboxId, now: datetime, candidate: Candidate | None = None) -> Wait | None:
        """Count a try of a mailbox's account before its credential, or a candidate, is shown; return a wait instead."""
        async with transaction(self._engine) as connection:
            login = await _login(connection, mailbox_id)
            if login is None:
                return None
            owner = candidate is not None and await _active(connection, candidate)
            limits = self._limits.get(login.server, DEFAULT)
            wait = await tries.spend(connection, login, limits, now, candidate=candidate is not None, owner=owner)
            if wait is None and candidate is not None:
                await connection.execute(_HAS_ITS_TRY, {"_registration": candidate.registration_id})
            return wait

    async def succeeded(self, mailbox_id: MailboxId) -> None:
        """Forget the tries of a mailbox's user: its server has accepted a credential that was shown."""
        async with transaction(self._engine) as connection:
            login = await _login(connection, mailbox_id)
            if login is not None:
                await tries.clear(connection, login)

    async def reseal(self, mailbox_id: MailboxId, before: bytes, after: bytes) -> None:
        """Replace one sealed credential by another where the mailbox has it: as its credential, or as a candidate."""
        async with transaction(self._engine) as connection:
            await _reseal(connection, mailbox_id, {before: after})
        await scrub(self._engine)

    async def sealed_anew(self, shards: Collection[int]) -> frozenset[int]:
        """Return those of some shards from which no seals of the old form are taken any more."""
        async with transaction(self._engine) as connection:
            return frozenset((await connection.scalars(sa.select(sealed_anew.c.shard))).all()) & frozenset(shards)

    async def seal_anew(self, seals: Mapping[MailboxId, Mapping[bytes, bytes]], shards: Collection[int]) -> None:
        """Replace many seals, and note for good that no seals of the old form are taken from `shards`."""
        async with transaction(self._engine) as connection:
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            for mailbox_id in sorted(seals):
                await _reseal(connection, mailbox_id, seals[mailbox_id])
            if shards:
                statement = insert(sealed_anew).on_conflict_do_nothing()
                await connection.execute(statement, [{"shard": number} for number in sorted(shards)])
        await scrub(self._engine)


async def _reseal(connection: AsyncConnection, mailbox_id: MailboxId, seals: Mapping[bytes, bytes]) -> None:
    """Replace seals, before -> after, where the mailbox has them."""
    if not await _lock(connection, mailbox_id):
        return
    own = sa.select(registration.c.id).where(registration.c.mailbox_id == mailbox_id)
    for before, after in seals.items():
        await connection.execute(
            sa.update(mailbox)
            .where(mailbox.c.id == mailbox_id, mailbox.c.sealed_credential == before)
            .values(sealed_credential=after)
        )
        await connection.execute(
            sa.update(candidate)
            .where(candidate.c.registration_id.in_(own), candidate.c.sealed == before)
            .values(sealed=after)
        )


async def take_records(
    connection: AsyncConnection, shards: Sequence[int], now: datetime, *, only_dirty: bool, at_once: int = AT_ONCE
) -> list[WatchRecord]:
    """Lock and read mailboxes of some shards, and clear their dirty flags; all of them: count a try on their keys."""
    query = _MAILBOXES.where(mailbox.c.shard.in_(shards)).order_by(*in_order(mailbox.c.id))
    query = query.with_for_update(of=mailbox, key_share=True)
    if only_dirty:
        query = query.where(mailbox.c.dirty)
    records: list[WatchRecord] = []
    for rows in _slices((await connection.execute(query)).all(), at_once):
        ids = [row.id for row in rows]
        # By id: a mailbox that became dirty since the statement above keeps its flag.
        await connection.execute(sa.update(mailbox).where(mailbox.c.id.in_(ids)).values(dirty=False))
        if not only_dirty:
            # After the lock on their mailboxes: `commit` and `forget` take the locks in that order, too.
            tried = sa.update(collection).where(collection.c.mailbox_id.in_(ids))
            await connection.execute(tried.values(tries=collection.c.tries + 1))
        records += await _complete(connection, rows, now)
    return records


async def _complete(connection: AsyncConnection, rows: Sequence[AnyRow], now: datetime) -> list[WatchRecord]:
    """Join rows of the mailbox table with the collections, registrations and candidates that belong to them."""
    if not rows:
        return []
    ids = [row.id for row in rows]
    of_collection = sa.select(*COLLECTION).where(collection.c.mailbox_id.in_(ids))
    collections = _by_mailbox(
        (await connection.execute(of_collection.order_by(collection.c.mailbox_id, collection.c.collection_id))).all()
    )
    of_registration = (
        sa.select(
            registration.c.mailbox_id,
            registration.c.id,
            registration.c.classes,
            registration.c.subfolders,
            registration.c.state,
            candidate.c.sealed,
            candidate.c.created_at,
        )
        .outerjoin_from(registration, candidate)
        .where(registration.c.mailbox_id.in_(ids))
        .order_by(registration.c.id)
    )
    registrations = _by_mailbox((await connection.execute(of_registration)).all())
    return [_record(row, collections[row.id], registrations[row.id], now) for row in rows]


def _record(row: AnyRow, collections: Sequence[AnyRow], registrations: Sequence[AnyRow], now: datetime) -> WatchRecord:
    active = [r for r in registrations if r.state == RegistrationState.ACTIVE.value]
    classes = frozenset(cls for r in active for cls in read_classes(r.classes))
    subfolders = frozenset(cls for r in active for cls in read_classes(r.classes) & read_classes(r.subfolders))
    return WatchRecord(
        mailbox=read_mailbox(row),
        sealed_credential=row.sealed_credential,
        memory=read_memory(row, map(read_collection, collections), classes, subfolders, now),
        candidates=tuple(
            Candidate(RegistrationId(r.id), MailboxId(row.id), r.sealed, r.created_at)
            for r in registrations
            if r.sealed is not None
        ),
        registrations=len(registrations),
    )


def _by_mailbox(rows: Sequence[AnyRow]) -> dict[str, list[AnyRow]]:
    grouped: dict[str, list[AnyRow]] = defaultdict(list)
    for row in rows:
        grouped[row.mailbox_id].append(row)
    return grouped


def _slices(rows: Sequence[AnyRow], length: int) -> Iterator[Sequence[AnyRow]]:
    for start in range(0, len(rows), length):
        yield rows[start : start + length]


async def _lock(connection: AsyncConnection, mailbox_id: MailboxId) -> bool:
    """Lock the mailbox's row before anything else of it; return whether it exists."""
    query = sa.select(mailbox.c.id).where(mailbox.c.id == mailbox_id).with_for_update(key_share=True)
    return await connection.scalar(query) is not None


async def _login(connection: AsyncConnection, mailbox_id: MailboxId) -> tries.Login | None:
    """Lock a mailbox and return its user, whom the mailbox's row names and nothing that a client sent."""
    query = sa.select(mailbox.c.server, mailbox.c.user).where(mailbox.c.id == mailbox_id)
    row = (await connection.execute(query.with_for_update(key_share=True))).one_or_none()
    return None if row is None else tries.Login(row.server, row.user)


async def _active(connection: AsyncConnection, shown: Candidate) -> bool:
    """Return whether a candidate came with the secret of an active registration."""
    query = sa.select(registration.c.state).where(registration.c.id == shown.registration_id)
    return await connection.scalar(query) == RegistrationState.ACTIVE.value


async def _drop(connection: AsyncConnection, tried: Candidate) -> bool:
    """Delete a candidate; return False when another one is in its place, or none."""
    statement = sa.delete(candidate).where(
        candidate.c.registration_id == tried.registration_id, candidate.c.sealed == tried.sealed
    )
    return await connection.scalar(statement.returning(candidate.c.registration_id)) is not None


async def _set_credential(connection: AsyncConnection, accepted: Candidate, now: datetime, url: str | None) -> None:
    waiting = mailbox.c.state.in_(_WAITS_FOR_CREDENTIAL)
    # A wait that follows a refused password ends with it; one that the server asked for is kept.
    at_once = waiting | (mailbox.c.refusals > 0)
    await connection.execute(
        sa.update(mailbox)
        .where(mailbox.c.id == accepted.mailbox_id)
        .values(
            sealed_credential=accepted.sealed,
            accepted=True,
            url=mailbox.c.url if url is None else url,
            refusals=0,
            dirty=True,
            next_try_at=sa.case((at_once, None), else_=mailbox.c.next_try_at),
            since=sa.case((waiting, now), else_=mailbox.c.since),
            reason=sa.case((waiting, ""), else_=mailbox.c.reason),
            detail=sa.case((waiting, ""), else_=mailbox.c.detail),
            state=sa.case((waiting, WatchState.STARTING.value), else_=mailbox.c.state),
        )
    )


async def _set_refused(connection: AsyncConnection, refused: Candidate, now: datetime) -> None:
    """Set the state of the registration, and of a mailbox without any credential."""
    state = registration.c.state
    never = state.in_((RegistrationState.VERIFYING.value, RegistrationState.REFUSED.value))
    await connection.execute(
        sa.update(registration)
        .where(registration.c.id == refused.registration_id)
        .values(state=sa.case((never, RegistrationState.REFUSED.value), else_=state), candidate_refused=~never)
    )
    await connection.execute(
        sa.update(mailbox)
        .where(mailbox.c.id == refused.mailbox_id, mailbox.c.sealed_credential.is_(None))
        .where(mailbox.c.state != WatchState.WIPED.value)
        .values(
            state=WatchState.CREDENTIAL_REFUSED.value,
            reason=Reason.HTTP_401.value,
            detail="",
            next_try_at=None,
            since=sa.case((mailbox.c.state == WatchState.CREDENTIAL_REFUSED.value, mailbox.c.since), else_=now),
        )
    )
