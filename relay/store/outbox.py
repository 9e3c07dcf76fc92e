"""Own what the push role reads and writes: claims of due marks, and how their pushes ended.

Rows are locked in the order registration, outbox, and by key within each; claims take only what nobody has locked.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from relay.model import DuePush, Mark, Platform, RegistrationId, RegistrationState
from relay.ports import Settlement, Topic, Wakeups
from relay.store.engine import scrub, transaction
from relay.store.rows import DUE, AnyRow, read_due
from relay.store.settling import FREE, key, settle
from relay.store.tables import outbox, registration

FAR: Final = timedelta(minutes=90)
"""Nothing waits for so long: a moment beyond was written while the clock was wrong, and counts as past."""

_SENDABLE: Final = (registration.c.state == RegistrationState.ACTIVE.value) | (
    (registration.c.state == RegistrationState.WIPED.value) & (outbox.c.mark == Mark.ATTENTION.value)
)
_BY_KEY: Final = (
    outbox.c.registration_id == sa.bindparam("_registration"),
    outbox.c.mark == sa.bindparam("_mark"),
)
_DELETE: Final = sa.delete(outbox).where(*_BY_KEY)
_UPDATE: Final = sa.update(outbox).where(*_BY_KEY)
_TOKEN_GONE: Final = (
    sa.update(registration)
    .where(registration.c.id == sa.bindparam("_registration"))
    .values(state=RegistrationState.TOKEN_GONE.value)
)
_NOTE: Final = sa.update(registration).where(registration.c.id == sa.bindparam("_registration"))


class SqlOutboxStore:
    """Be the OutboxStore of the push role."""

    def __init__(self, engine: AsyncEngine, wakeups: Wakeups) -> None:
        """Take the database, and whom to tell that marks are free again."""
        self._engine = engine
        self._wakeups = wakeups

    async def claim(self, platform: Platform, limit: int, owner: str, until: datetime, now: datetime) -> list[DuePush]:
        """Claim due marks of one platform's active registrations, oldest first, for `owner` until `until`.

        Of a wiped registration the `attention` mark is claimed too.
        """
        far = now + FAR
        free = outbox.c.claimed_until.is_(None) | (outbox.c.claimed_until <= now) | (outbox.c.claimed_until > far)
        due = (outbox.c.due_at <= now) | (outbox.c.due_at > far)
        query = (
            sa.select(*DUE)
            .join_from(outbox, registration)
            .where(outbox.c.platform == platform.value, due, free, _SENDABLE)
            .order_by(outbox.c.first_at, outbox.c.registration_id, outbox.c.mark)
            .limit(limit)
            .with_for_update(of=outbox, skip_locked=True)
        )
        async with transaction(self._engine) as connection:
            pushes = [read_due(row) for row in await connection.execute(query)]
            if pushes:
                claim = {"claimed_by": owner, "claimed_until": until}
                await connection.execute(_UPDATE, [key(push) | claim for push in pushes])
        return pushes

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record outcomes in one transaction; a mark that ended otherwise meanwhile stays as it is."""
        if not settlements:
            return
        ids = sorted({settlement.push.registration_id for settlement in settlements})
        async with transaction(self._engine) as connection:
            verdict = settle(settlements, await _lock_tokens(connection, ids), await _lock_marks(connection, ids), now)
            for rows in (verdict.pushed, verdict.noted):
                if rows:
                    await connection.execute(_NOTE, rows)
            if verdict.gone:
                await connection.execute(_TOKEN_GONE, [{"_registration": id_} for id_ in verdict.gone])
                await connection.execute(sa.delete(outbox).where(outbox.c.registration_id.in_(verdict.gone)))
            if verdict.over:
                # With what is left of its marks.
                await connection.execute(sa.delete(registration).where(registration.c.id.in_(verdict.over)))
            if verdict.done:
                await connection.execute(_DELETE, verdict.done)
            if verdict.kept:
                await connection.execute(_UPDATE, verdict.kept)
        if verdict.over:
            await scrub(self._engine)
        if verdict.due:
            self._wakeups.tell(Topic.OUTBOX)

    async def release(self, owner: str | None) -> None:
        """End all claims of one owner, or every claim when None (the other owners are known to be dead)."""
        held = outbox.c.claimed_by.is_not(None) if owner is None else outbox.c.claimed_by == owner
        keys = sa.select(outbox.c.registration_id, outbox.c.mark).where(held)
        async with transaction(self._engine) as connection:
            rows = await connection.execute(
                keys.order_by(outbox.c.registration_id, outbox.c.mark).with_for_update(key_share=True)
            )
            freed = [{**FREE, "_registration": row.registration_id, "_mark": row.mark} for row in rows]
            if freed:
                await connection.execute(_UPDATE, freed)
        if freed:
            self._wakeups.tell(Topic.OUTBOX)

    async def next_due(self, platform: Platform) -> datetime | None:
        """Tell when the next mark of a platform falls due, claims running out included; None when there is none."""
        later = outbox.c.claimed_until > outbox.c.due_at  # not so when there is no claim
        due = sa.case((later, outbox.c.claimed_until), else_=outbox.c.due_at)
        query = sa.select(sa.func.min(due)).join_from(outbox, registration)
        async with transaction(self._engine) as connection:
            found: datetime | None = await connection.scalar(
                query.where(outbox.c.platform == platform.value, _SENDABLE)
            )
        return found


async def _lock_tokens(connection: AsyncConnection, ids: Sequence[RegistrationId]) -> Mapping[str, AnyRow]:
    columns = (registration.c.id, registration.c.device_token, registration.c.token_since, registration.c.state)
    query = sa.select(*columns)
    query = query.where(registration.c.id.in_(ids)).order_by(registration.c.id)
    return {row.id: row for row in await connection.execute(query.with_for_update(key_share=True))}


async def _lock_marks(connection: AsyncConnection, ids: Sequence[RegistrationId]) -> Mapping[tuple[str, str], AnyRow]:
    query = sa.select(outbox.c.count.label("changes"), *(c for c in outbox.c if c.name != "count"))
    query = query.where(outbox.c.registration_id.in_(ids)).order_by(outbox.c.registration_id, outbox.c.mark)
    rows = await connection.execute(query.with_for_update(key_share=True))
    return {(row.registration_id, row.mark): row for row in rows}
