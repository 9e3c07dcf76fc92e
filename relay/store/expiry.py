"""Own how marks expire: those whose newest change is too old for a push go, and their registration says so."""

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.model import Platform
from relay.push.pacing import LASTING, Pacing
from relay.store.claims import FAR, MARKS
from relay.store.order import in_order
from relay.store.tables import outbox, registration

BATCH: Final = 500
"""Marks per transaction."""
PREFIX: Final = "expired: "

_DELETE: Final = sa.delete(outbox).where(MARKS)
_NOTE: Final = sa.update(registration).where(registration.c.id == sa.bindparam("_registration"))


async def expire(connection: AsyncConnection, platform: Platform, now: datetime, pacing: Pacing) -> int:
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
        notes = [{"_registration": id_, "last_outcome": describe(before[id_], pacing.expire)} for id_ in told]
        await connection.execute(_NOTE, notes)
        await connection.execute(_DELETE, {"marks": rows})
    return len(rows)


def describe(before: str, age: timedelta) -> str:
    """Say that marks expired, and what the provider had said last."""
    hours = f"{PREFIX}not delivered for {age.total_seconds() / 3600:g} h"
    if before.startswith(PREFIX):
        return before
    return f"{hours}; before: {before}" if before else f"{hours}; no push process took it"
