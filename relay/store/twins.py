"""One app on one device has one registration of a mailbox, whatever way it came: the others would ring it twice.

The mailbox's row must be locked: so of two transactions that make twins, the later one sees the other. A phone with two
accounts has one device token and a registration of each mailbox.
"""

from typing import Final, NamedTuple

import sqlalchemy as sa

from eas_watcher.names import MailboxId
from relay.domain.devices import fingerprint, normalise_token
from relay.domain.model import Platform, Registration, RegistrationId, RegistrationState
from relay.store.bulk import in_order
from relay.store.prepared import Prepared
from relay.store.tables import candidate, registration

UNPROVED: Final = (RegistrationState.VERIFYING.value, RegistrationState.REFUSED.value)
"""States of registrations that are never pushed to."""


class Device(NamedTuple):
    """One app on one device, as the registrations of one mailbox name it; the fields are columns."""

    mailbox_id: MailboxId
    platform: str
    app: str
    environment: str
    token_hash: str

    @classmethod
    def of(cls, named: Registration) -> "Device":
        """Return the device of a registration."""
        token_hash = fingerprint(named.platform, named.device_token)
        return cls(named.mailbox_id, named.platform.value, named.app, named.environment.value, token_hash)


SAME: Final = (
    *(getattr(registration.c, name) == sa.bindparam(name) for name in Device._fields[:-1]),
    sa.func.coalesce(registration.c.token_hash, "") == sa.bindparam("token_hash"),
)
"""The condition that a registration is of the device whose fields are given."""


def mend(connection: sa.Connection, mailbox_id: MailboxId, platform: Platform, token: str) -> None:
    """Write the hash of a device token where an older version wrote the token without it, or in another spelling."""
    values = {"_token": normalise_token(platform, token), "_hash": fingerprint(platform, token)}
    _MEND.execute(connection, {"_mailbox": mailbox_id, "_platform": platform.value, **values})


def delete_twins(connection: sa.Connection, own: RegistrationId, device: Device) -> int:
    """Delete all other registrations of a device but one that waits for its own verdict; return how many there were.

    A wiped one stays until its last push. One that waits is never pushed to before it is accepted, and deletes the
    others then.
    """
    ids = lock_twins(connection, own, device)
    if ids:
        connection.execute(sa.delete(registration).where(registration.c.id.in_(ids)))
    return len(ids)


def lock_twins(connection: sa.Connection, own: RegistrationId, device: Device) -> list[str]:
    """Lock a registration with its twins, if there are any, in the order of their ids; return those of the twins."""
    ids = [row.id for row in _TWINS.rows(connection, {**device._asdict(), "_own": own})]
    if ids:
        locked = sa.select(registration.c.id).where(registration.c.id.in_([own, *ids]))
        connection.execute(locked.order_by(*in_order(registration.c.id)).with_for_update())
    return ids


def delete_twins_of(connection: sa.Connection, own: RegistrationId) -> int:
    """Delete the twins of a registration that has just shown a credential; return how many there were.

    One whose app is gone from the device, or must prove first that it is there, gets no pushes, so it deletes nothing.
    """
    rows = _DEVICE.rows(connection, {"_own": own})
    return sum(delete_twins(connection, own, Device(*row)) for row in rows)


def _twins() -> sa.Select[tuple[str]]:
    waits = sa.exists(candidate.c.registration_id).where(candidate.c.registration_id == registration.c.id)
    unproved = sa.or_(*(registration.c.state == state for state in UNPROVED))
    return sa.select(registration.c.id).where(
        *SAME,
        registration.c.id != sa.bindparam("_own"),
        registration.c.state != RegistrationState.WIPED.value,
        ~sa.and_(unproved, waits),
    )


_TWINS: Final = Prepared(_twins())
_DEVICE: Final = Prepared(
    sa.select(*(registration.c[name] for name in Device._fields)).where(
        registration.c.id == sa.bindparam("_own"),
        registration.c.token_hash.is_not(None),
        registration.c.state != RegistrationState.TOKEN_GONE.value,
        ~registration.c.must_prove,
    )
)
_MEND: Final = Prepared(
    sa.update(registration)
    .where(
        registration.c.mailbox_id == sa.bindparam("_mailbox"),
        registration.c.platform == sa.bindparam("_platform"),
        sa.case(
            (registration.c.platform == Platform.APNS.value, sa.func.lower(registration.c.device_token)),
            else_=registration.c.device_token,
        )
        == sa.bindparam("_token"),
        sa.or_(registration.c.token_hash.is_(None), registration.c.token_hash != sa.bindparam("_hash")),
    )
    .values(token_hash=sa.bindparam("_hash")),
    (),
)
