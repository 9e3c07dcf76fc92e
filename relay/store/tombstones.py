"""The end of registrations: a tombstone takes the place of each, until its app has had time to learn how it ended."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from relay.domain.model import LEAP, Ending, RegistrationId, Tombstone
from relay.domain.retention import Retention
from relay.store.bulk import Among
from relay.store.prepared import Prepared
from relay.store.tables import Moment, registration, tombstone
from relay.store.timeline import note_ended

_THESE: Final = Among("ids", registration.c.id)
_CLEAR: Final = sa.delete(tombstone).where(Among("ids", tombstone.c.registration_id))
_BURY: Final = sa.insert(tombstone).from_select(
    ["registration_id", "secret_hash", "ending", "until"],
    sa.select(
        registration.c.id,
        registration.c.secret_hash,
        sa.bindparam("ending", type_=sa.Text),
        sa.case(
            (registration.c.proved_at.is_(None), sa.bindparam("briefly", type_=Moment)),
            else_=sa.bindparam("long", type_=Moment),
        ),
    ).where(_THESE),
)
_END: Final = sa.delete(registration).where(_THESE)
_FIND: Final = Prepared(
    sa.select(tombstone.c.secret_hash, tombstone.c.ending).where(tombstone.c.registration_id == sa.bindparam("_id"))
)


def end(connection: sa.Connection, ids: Collection[str], ending: Ending, now: datetime, retention: Retention) -> None:
    """Delete registrations, whose mailboxes must be locked, and leave tombstones in their place."""
    if not ids:
        return
    these = {"ids": sorted(ids)}
    note_ended(connection, ids, ending, now, retention)
    connection.execute(_CLEAR, these)
    connection.execute(
        _BURY,
        these
        | {
            "ending": ending.value,
            "briefly": now + retention.of_tombstone(proved=False),
            "long": now + retention.of_tombstone(proved=True),
        },
    )
    connection.execute(_END, these)


def find(connection: sa.Connection, registration_id: RegistrationId) -> Tombstone | None:
    """Return the tombstone of a registration; an ending that only a newer version knows counts as expired."""
    rows = _FIND.rows(connection, {"_id": registration_id})
    return Tombstone(rows[0].secret_hash, _ENDINGS.get(rows[0].ending, Ending.EXPIRED)) if rows else None


def clear(connection: sa.Connection, now: datetime, retention: Retention) -> int:
    """Delete the tombstones whose time is over; return how many.

    One that would last longer than any that is left now was left while the clock was ahead: its time begins now.
    """
    longest = now + retention.of_tombstone(proved=True)
    connection.execute(sa.update(tombstone).where(tombstone.c.until > longest + LEAP).values(until=longest))
    over = sa.delete(tombstone).where(tombstone.c.until < now).returning(tombstone.c.registration_id)
    return len(list(connection.scalars(over)))


_ENDINGS: Final = {each.value: each for each in Ending}
