"""How a registration comes in: its mailbox, the room that it needs, what it replaces, and its candidate."""

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from eas_watcher.machine.memory import WatchState
from relay.domain.devices import fingerprint
from relay.domain.errors import MailboxExists, MailboxFull, RegistrationExists
from relay.domain.model import MOST_REGISTRATIONS, Ending, NewMailbox, Registration, RegistrationState
from relay.domain.retention import Retention
from relay.domain.tries import account_key
from relay.store import tombstones
from relay.store.prepared import Prepared
from relay.store.rows import write_classes
from relay.store.tables import candidate, mailbox, registration
from relay.store.twins import SAME, UNPROVED, Device, mend


def insert(connection: sa.Connection, owner: NewMailbox, new: Registration, sealed: bytes, retention: Retention) -> int:
    """Insert a registration; return how many others ended, perhaps with their candidates."""
    _insert_mailbox(connection, owner, new.created_at)
    others = _BESIDE.rows(connection, {"_id": new.id, "_mailbox": new.mailbox_id})
    if any(other.id == new.id for other in others):
        raise RegistrationExists(new.id)
    ended = 0
    if others:
        mend(connection, new.mailbox_id, new.platform, new.device_token)
        ended = _end_unchecked(connection, new, retention)
        _make_room(connection, new, retention)
    _insert_registration(connection, new)
    waits = {"sealed": sealed, "created_at": new.created_at, "account": account_key(owner.user)}
    _INSERT_CANDIDATE.execute(connection, {"registration_id": new.id, **waits})
    return ended


def _insert_mailbox(connection: sa.Connection, new: NewMailbox, now: datetime) -> None:
    """Insert a mailbox, or mark the one that has its id; raise MailboxExists."""
    values = {
        "id": new.id,
        "server": new.server,
        "user": new.user,
        "user_key": new.user_key,
        "device_id": new.device_id,
        "shard": new.shard,
        "state": WatchState.VERIFYING.value,
        "since": now,
        "dirty": True,
    }
    try:
        _INSERT_MAILBOX.execute(connection, values)
    except IntegrityError as error:
        raise MailboxExists(f"{new.user} at {new.server}") from error


def _end_unchecked(connection: sa.Connection, new: Registration, retention: Retention) -> int:
    """End registrations of the same app and device whose credential no mail server has checked; return how many."""
    ids = [row.id for row in _UNCHECKED.rows(connection, Device.of(new)._asdict())]
    tombstones.end(connection, ids, Ending.REPLACED, new.created_at, retention)
    return len(ids)


def _make_room(connection: sa.Connection, new: Registration, retention: Retention) -> None:
    """Raise MailboxFull if the mailbox, which must be locked, has no room for a registration.

    Those whose credential was refused, or whose check came to nothing, make room, the oldest first. A device that
    registers again takes no room.
    """
    rows = _OTHER_DEVICES.rows(connection, Device.of(new)._asdict())
    surplus = len(rows) - MOST_REGISTRATIONS + 1
    going = [row.id for row in rows if row.useless][: max(0, surplus)]
    if len(going) < surplus:
        raise MailboxFull(f"a mailbox has {MOST_REGISTRATIONS} registrations at most: remove one first")
    tombstones.end(connection, going, Ending.EXPIRED, new.created_at, retention)


def _insert_registration(connection: sa.Connection, new: Registration) -> None:
    values: dict[str, Any] = {
        "id": new.id,
        "mailbox_id": new.mailbox_id,
        "secret_hash": new.secret_hash,
        "app": new.app,
        "platform": new.platform.value,
        "environment": new.environment.value,
        "device_token": new.device_token,
        "token_hash": fingerprint(new.platform, new.device_token),
        "token_since": new.token_since,
        "classes": write_classes(new.classes),
        "subfolders": write_classes(new.subfolders),
        "mode": new.mode.value,
        "locale": new.locale,
        "state": new.state.value,
        "created_at": new.created_at,
        "credential_proof": new.credential_proof,
        "must_prove": new.must_prove,
    }
    try:
        _INSERT_REGISTRATION.execute(connection, values)
    except IntegrityError as error:  # of another mailbox, whose lock is another one
        raise RegistrationExists(new.id) from error


def _other_devices() -> sa.Select[Any]:
    """Return the query of a mailbox's registrations of other devices, oldest first, and which of them are useless."""
    unproved = sa.or_(*(registration.c.state == state for state in UNPROVED))
    waits = sa.exists(candidate.c.registration_id).where(candidate.c.registration_id == registration.c.id)
    return (
        sa.select(registration.c.id, sa.and_(unproved, ~waits).label("useless"))
        .where(registration.c.mailbox_id == sa.bindparam("mailbox_id"), ~sa.and_(*SAME))
        .order_by(registration.c.created_at, registration.c.id)
    )


_OTHER_DEVICES: Final = Prepared(_other_devices())
_UNCHECKED: Final = Prepared(
    sa.select(registration.c.id).where(
        registration.c.state == RegistrationState.VERIFYING.value, registration.c.proved_at.is_(None), *SAME
    )
)
_BESIDE: Final = Prepared(
    sa.select(registration.c.id).where(
        sa.or_(registration.c.id == sa.bindparam("_id"), registration.c.mailbox_id == sa.bindparam("_mailbox"))
    )
)
_INSERT_MAILBOX: Final = Prepared(
    {
        dialect: insert(mailbox).on_conflict_do_update(index_elements=["id"], set_={"dirty": sa.true()})
        for dialect, insert in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
    },
    ("id", "server", "user", "user_key", "device_id", "shard", "state", "since", "dirty"),
)
_INSERT_REGISTRATION: Final = Prepared(
    sa.insert(registration),
    (
        "id",
        "mailbox_id",
        "secret_hash",
        "app",
        "platform",
        "environment",
        "device_token",
        "token_hash",
        "token_since",
        "classes",
        "subfolders",
        "mode",
        "locale",
        "state",
        "created_at",
        "credential_proof",
        "must_prove",
    ),
)
_INSERT_CANDIDATE: Final = Prepared(sa.insert(candidate), ("registration_id", "sealed", "created_at", "account"))
