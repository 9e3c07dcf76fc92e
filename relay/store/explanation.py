"""How `relay explain` finds a mailbox, and reads it with everything that explains its state."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from relay.domain.clock import Clock
from relay.domain.explanation import KnownRegistration, MailboxExplanation, WaitingMark
from relay.domain.model import Mark
from relay.store.engine import transaction
from relay.store.rows import MAILBOX, REGISTRATION, AnyRow, read_mailbox, read_registration
from relay.store.tables import candidate, mailbox, outbox, registration, shard

MOST: Final = 20
"""Mailboxes of one user; there is one per server."""


class SqlExplanationStore:
    """Finds mailboxes to explain; the api role's database user may read all that it reads."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        """Read from a database; the clock says which claims have run out."""
        self._engine = engine
        self._clock = clock

    async def find(self, name: str) -> list[MailboxExplanation]:
        """Find a mailbox by its id, the id of one of its registrations, or its user."""
        owner = sa.select(registration.c.mailbox_id).where(registration.c.id == name)
        wanted = (mailbox.c.id == name) | mailbox.c.id.in_(owner) | (sa.func.lower(mailbox.c.user) == name.lower())
        query = (
            sa.select(*MAILBOX, shard.c.owner, shard.c.lease_until)
            .outerjoin_from(mailbox, shard, shard.c.number == mailbox.c.shard)
            .where(wanted)
            .order_by(mailbox.c.server, mailbox.c.user)
            .limit(MOST)
        )
        async with transaction(self._engine) as connection:
            rows = (await connection.execute(query)).all()
            return [
                MailboxExplanation(
                    read_mailbox(row),
                    row.owner,
                    row.lease_until,
                    await _registrations(connection, row.id, self._clock()),
                )
                for row in rows
            ]


async def _registrations(connection: AsyncConnection, owner: str, now: datetime) -> tuple[KnownRegistration, ...]:
    query = (
        sa.select(
            *REGISTRATION,
            registration.c.candidate_refused,
            candidate.c.registration_id.is_not(None).label("candidate_pending"),
        )
        .outerjoin_from(registration, candidate)
        .where(registration.c.mailbox_id == owner)
        .order_by(registration.c.created_at, registration.c.id)
    )
    rows = (await connection.execute(query)).all()
    of_outbox = sa.select(outbox.c.count.label("changes"), *(c for c in outbox.c if c.name != "count"))
    of_outbox = of_outbox.where(outbox.c.registration_id.in_([row.registration_id for row in rows]))
    marks = (await connection.execute(of_outbox.order_by(outbox.c.first_at, outbox.c.mark))).all()
    return tuple(
        KnownRegistration(
            read_registration(row),
            candidate_pending=bool(row.candidate_pending),
            candidate_refused=row.candidate_refused,
            marks=tuple(_mark(mark, now) for mark in marks if mark.registration_id == row.registration_id),
        )
        for row in rows
    )


def _mark(row: AnyRow, now: datetime) -> WaitingMark:
    return WaitingMark(
        mark=Mark(row.mark),
        count=row.changes,
        first_at=row.first_at,
        due_at=row.due_at,
        attempts=row.attempts,
        claimed=row.claimed_until is not None and row.claimed_until > now,
        parked=row.aside,
    )
