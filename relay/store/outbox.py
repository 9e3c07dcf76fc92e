"""Own what the push role reads and writes: claims of due marks, and how their pushes ended.

Rows are locked in the order registration, outbox, and by key within each; claims take only what nobody has locked.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from relay.domain.model import DuePush, Lane, Platform, RegistrationId, RegistrationState
from relay.domain.pacing import LASTING, Pacing
from relay.domain.ports.outbox import Claims, Settlement
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.push.settlement import (
    MarkKey,
    PendingMark,
    Recipient,
    describe_expiry,
    may_end_registrations,
    settle,
)
from relay.store import claims
from relay.store.bulk import Among, in_order
from relay.store.claims import FAR, MARKS, UPDATE, Lanes, key
from relay.store.engine import scrub, transaction
from relay.store.marks import outbox_topics
from relay.store.rows import (
    FREE,
    PENDING,
    RECIPIENT,
    read_pending,
    read_recipient,
    write_mark_update,
    write_registration_update,
)
from relay.store.tables import mailbox, outbox, registration

log = logging.getLogger(__name__)

AT_ONCE: Final = Pacing()
BATCH: Final = 500
"""Marks per transaction that drops expired ones."""

_DELETE: Final = sa.delete(outbox).where(MARKS)
_NOTE: Final = sa.update(registration).where(registration.c.id == sa.bindparam("_registration"))


_TOKEN_GONE: Final = (
    sa.update(registration)
    .where(registration.c.id == sa.bindparam("_registration"))
    .values(state=RegistrationState.TOKEN_GONE.value)
)
_LOCK_RECIPIENTS: Final = (
    sa.select(*RECIPIENT)
    .where(Among("ids", registration.c.id))
    .order_by(*in_order(registration.c.id))
    .with_for_update(key_share=True)
)
_LOCK_PENDING: Final = (
    sa.select(*PENDING)
    .where(Among("ids", outbox.c.registration_id))
    .order_by(*in_order(outbox.c.registration_id, outbox.c.mark))
    .with_for_update(key_share=True)
)
_MARK_DIRTY: Final = sa.update(mailbox).where(mailbox.c.id == sa.bindparam("_mailbox")).values(dirty=True)


class SqlOutboxStore:
    """Be the OutboxStore of the push role."""

    def __init__(self, engine: AsyncEngine, wakeups: Wakeups, pacing: Pacing = AT_ONCE) -> None:
        """Take the database, whom to tell that marks are free again, and the pace of pushes."""
        self._engine = engine
        self._wakeups = wakeups
        self._pacing = pacing

    async def claim(
        self,
        platform: Platform,
        limit: int,
        owner: str,
        until: datetime,
        now: datetime,
        *,
        only: Lane | None = None,
        without: Collection[Lane] = (),
    ) -> Claims:
        """Claim due marks of one platform's active registrations, longest due first, for `owner` until `until`."""
        lanes = Lanes(platform, only, without)
        async with transaction(self._engine) as connection:
            claimed, aside = await claims.claim(connection, lanes, limit, owner, until, now, self._pacing)
        for place in aside:
            fields = {"registration": place["_registration"], "mark": place["_mark"], "reason": place["aside"]}
            log.error("push set aside", extra=fields)
        return claimed

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record outcomes in one transaction; a mark that ended otherwise meanwhile stays as it is."""
        if not settlements:
            return
        ids = sorted({settlement.push.registration_id for settlement in settlements})
        async with transaction(self._engine) as connection:
            left = await _mark_left_mailboxes(connection, settlements)
            recipients = await _lock_recipients(connection, ids)
            marks = await _lock_pending(connection, settlements, ids)
            settled = settle(settlements, recipients, marks, now, self._pacing)
            updates = [write_registration_update(each, recipients[each.recipient.id]) for each in settled.updated]
            for rows in _by_columns(updates):
                await connection.execute(_NOTE, rows)
            if settled.gone:
                await connection.execute(_TOKEN_GONE, [{"_registration": id_} for id_ in settled.gone])
                await connection.execute(sa.delete(outbox).where(outbox.c.registration_id.in_(settled.gone)))
            if settled.forgotten:
                # With what is left of its marks.
                await connection.execute(sa.delete(registration).where(registration.c.id.in_(settled.forgotten)))
            if settled.done:
                await connection.execute(_DELETE, {"marks": settled.done})
            if settled.kept:
                await connection.execute(UPDATE, [write_mark_update(each) for each in settled.kept])
        if settled.forgotten:
            await scrub(self._engine)
        for topic in outbox_topics(settled.wake):
            self._wakeups.wake(topic)
        if left:
            self._wakeups.wake(Topic.MAILBOXES)

    async def park(self, push: DuePush, reason: str, until: datetime) -> None:
        """End the claim of a mark whose outcome cannot be recorded; it rests until `until`."""
        rest = {"due_at": until, "attempts": push.attempts + 1, "aside": reason}
        async with transaction(self._engine) as connection:
            await connection.execute(UPDATE, [{**key(push), **FREE, **rest}])

    async def expire(self, platform: Platform, now: datetime) -> int:
        """Drop the unclaimed marks whose newest change is too old for a push; return how many."""
        total = 0
        while True:
            async with transaction(self._engine) as connection:
                dropped = await _expire(connection, platform, now, self._pacing)
            if not dropped:
                return total
            total += dropped

    async def release(self, owner: str | None) -> None:
        """End all claims of one owner, or every claim when None (the other owners are known to be dead)."""
        held = outbox.c.claimed_by.is_not(None) if owner is None else outbox.c.claimed_by == owner
        keys = sa.select(outbox.c.registration_id, outbox.c.mark, outbox.c.platform).where(held)
        async with transaction(self._engine) as connection:
            found = await connection.execute(
                keys.order_by(*in_order(outbox.c.registration_id, outbox.c.mark)).with_for_update(key_share=True)
            )
            rows = found.all()
            freed = [{**FREE, "_registration": row.registration_id, "_mark": row.mark} for row in rows]
            if freed:
                await connection.execute(UPDATE, freed)
        for topic in outbox_topics({row.platform for row in rows}):
            self._wakeups.wake(topic)

    async def next_due(self, platform: Platform, without: Collection[Lane] = ()) -> datetime | None:
        """Tell when the next mark of a platform falls due, claims running out included; None when there is none."""
        async with transaction(self._engine) as connection:
            found: datetime | None = await connection.scalar(claims.next_due(Lanes(platform, without=without)))
        return found


async def _mark_left_mailboxes(connection: AsyncConnection, settlements: Sequence[Settlement]) -> bool:
    """Mark the mailboxes dirty that may lose a registration, for the watch to see whom it still serves.

    Before the registrations are locked, as everybody locks mailboxes first. One that loses none is read once more, no
    harm is done.
    """
    ids = may_end_registrations(settlements)
    if not ids:
        return False
    query = sa.select(registration.c.mailbox_id).where(registration.c.id.in_(ids))
    owners = sorted(set(await connection.scalars(query)))
    if owners:
        await connection.execute(_MARK_DIRTY, [{"_mailbox": owner} for owner in owners])
    return bool(owners)


def _by_columns(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Group rows that set the same columns, for one statement each; the order of the keys stays."""
    names = [(tuple(sorted(row)), row) for row in rows]
    return [[row for _, row in group] for _, group in groupby(sorted(names, key=lambda n: n[0]), lambda n: n[0])]


async def _lock_recipients(
    connection: AsyncConnection, ids: Sequence[RegistrationId]
) -> Mapping[RegistrationId, Recipient]:
    rows = await connection.execute(_LOCK_RECIPIENTS, {"ids": ids})
    return {RegistrationId(row.id): read_recipient(row) for row in rows.all()}


async def _lock_pending(
    connection: AsyncConnection, settlements: Sequence[Settlement], ids: Sequence[RegistrationId]
) -> Mapping[MarkKey, PendingMark]:
    """Lock all marks of some registrations; return those that are settled."""
    settled: dict[tuple[str, str], MarkKey] = {
        (s.push.registration_id, s.push.mark.value): (s.push.registration_id, s.push.mark) for s in settlements
    }
    rows = (await connection.execute(_LOCK_PENDING, {"ids": ids})).all()
    keys = [(settled.get((row.registration_id, row.mark)), row) for row in rows]
    return {key: read_pending(row) for key, row in keys if key is not None}


async def _expire(connection: AsyncConnection, platform: Platform, now: datetime, pacing: Pacing) -> int:
    """Drop one batch of a platform's unclaimed marks without a recent change; return how many."""
    free = outbox.c.claimed_until.is_(None) | (outbox.c.claimed_until <= now) | (outbox.c.claimed_until > now + FAR)
    old = (outbox.c.last_at < pacing.expires_before(now)) & outbox.c.mark.not_in([mark.value for mark in LASTING])
    keys = sa.select(outbox.c.registration_id, outbox.c.mark).where(outbox.c.platform == platform.value, old, free)
    keys = keys.order_by(*in_order(outbox.c.registration_id, outbox.c.mark))
    ids = sorted({row.registration_id for row in await connection.execute(keys.limit(BATCH))})
    if not ids:
        return 0
    owners = sa.select(registration.c.id, registration.c.last_outcome).where(registration.c.id.in_(ids))
    said = await connection.execute(owners.order_by(*in_order(registration.c.id)).with_for_update(key_share=True))
    before = {row.id: row.last_outcome for row in said}
    # Once more, now that nobody can add to them.
    locked = keys.where(outbox.c.registration_id.in_(ids)).with_for_update(key_share=True)
    rows = [(row.registration_id, row.mark) for row in await connection.execute(locked)]
    if rows:
        told = sorted({id_ for id_, _ in rows})
        notes = [{"_registration": id_, "last_outcome": describe_expiry(before[id_], pacing.expire)} for id_ in told]
        await connection.execute(_NOTE, notes)
        await connection.execute(_DELETE, {"marks": rows})
    return len(rows)
