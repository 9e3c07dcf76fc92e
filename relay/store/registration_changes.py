"""How one registration changes: by its app, by the proof of its device, by a test push, and by its removal."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from relay.domain.devices import fingerprint
from relay.domain.model import (
    Ending,
    Mark,
    Platform,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
)
from relay.domain.ports.wakeups import Topic
from relay.domain.retention import Retention
from relay.domain.tries import account_key
from relay.store import tombstones
from relay.store.challenges import prove
from relay.store.marks import NewMark, challenge_mark, set_marks
from relay.store.prepared import Prepared
from relay.store.push_tests import note_asked
from relay.store.rows import REGISTRATION, read_registration, write_classes, write_quarantine
from relay.store.tables import Moment, candidate, mailbox, outbox, registration
from relay.store.twins import Device, lock_twins, mend

_REGISTRATION: Final = Prepared(sa.select(*REGISTRATION).where(registration.c.id == sa.bindparam("_id")))


def change(
    connection: sa.Connection,
    registration_id: RegistrationId,
    change: RegistrationChange,
    now: datetime,
    retention: Retention,
) -> tuple[set[str], int] | None:
    """Apply a change; return the platform whose marks may be due, if any, and how many twins ended.

    None: there is nothing to change.
    """
    user = _mark_dirty(connection, registration_id)
    own = None if user is None else _own(connection, registration_id)
    if user is None or own is None or own.state is RegistrationState.WIPED:
        return None
    platforms: set[str] = set()
    twins = 0
    values = _values(change, own.platform, now)
    if revives(change):
        twins = _supersede(connection, own, change, now, retention)
    if values:
        update = (
            sa.update(registration).where(registration.c.id == registration_id).values(values | {"idle_since": None})
        )
        platforms.update(connection.scalars(update.returning(registration.c.platform)))
    if revives(change):
        # Whatever made the marks wait concerned the old token.
        connection.execute(
            sa.update(outbox).where(outbox.c.registration_id == registration_id).values(due_at=now, aside="")
        )
        changed = _own(connection, registration_id)
        if changed is not None and changed.state is RegistrationState.PROVING:
            set_marks(connection, [challenge_mark(registration_id, own.platform.value)], now)
    if change.sealed_candidate is not None:
        # Not an upsert: that needs the right to read sealed credentials, which this role does not have.
        connection.execute(sa.delete(candidate).where(candidate.c.registration_id == registration_id))
        # From the registration's row, which the transaction that held the mailbox before may have deleted.
        sealed = sa.literal(change.sealed_candidate, sa.LargeBinary)
        given = (sealed, sa.literal(now, Moment), sa.literal(account_key(user), sa.Text))
        waits = sa.select(registration.c.id, *given).where(registration.c.id == registration_id)
        columns = ["registration_id", "sealed", "created_at", "account"]
        connection.execute(sa.insert(candidate).from_select(columns, waits))
    return platforms, twins


def revives(change: RegistrationChange) -> bool:
    """Return whether a change ends what kept a registration's marks back."""
    return change.device_token is not None or change.environment is not None


def _supersede(
    connection: sa.Connection, own: Registration, change: RegistrationChange, now: datetime, retention: Retention
) -> int:
    """End the twins that a registration gets by a change, if it is active then; return how many there were."""
    token = change.device_token
    if token is not None and change.proves and (own.must_prove or token != own.device_token):
        return 0  # it ends them when its device is proved
    revived = own.state in {RegistrationState.TOKEN_GONE, RegistrationState.PROVING} and token is not None
    if own.state is not RegistrationState.ACTIVE and not revived:
        return 0
    changed = replace(
        own,
        device_token=change.device_token or own.device_token,
        environment=change.environment or own.environment,
    )
    mend(connection, own.mailbox_id, own.platform, changed.device_token)
    twins = lock_twins(connection, own.id, Device.of(changed))
    tombstones.end(connection, twins, Ending.REPLACED, now, retention)
    return len(twins)


def _values(change: RegistrationChange, platform: Platform, now: datetime) -> dict[str, Any]:
    """Return the columns that a change sets."""
    values: dict[str, Any] = {}
    state = registration.c.state
    revivals: list[Any] = []
    if change.device_token is not None:
        token_values, unproved = _token_values(change.device_token, platform, now, proves=change.proves)
        values |= token_values
        revived = sa.case((unproved, RegistrationState.PROVING.value), else_=RegistrationState.ACTIVE.value)
        ready = (RegistrationState.TOKEN_GONE, RegistrationState.ACTIVE, RegistrationState.PROVING)
        revivals.append((state.in_([each.value for each in ready]), revived))
    if change.sealed_candidate is not None:
        values |= {"candidate_refused": False, "credential_proof": change.credential_proof}
        revivals.append((state == RegistrationState.REFUSED.value, RegistrationState.VERIFYING.value))
    if revivals:
        values["state"] = sa.case(*revivals, else_=state)
    if change.environment is not None:
        values["environment"] = change.environment.value
    if change.device_token is not None or change.environment is not None:
        values |= write_quarantine(None)
    if change.classes is not None:
        values["classes"] = write_classes(change.classes)
    if change.subfolders is not None:
        values["subfolders"] = write_classes(change.subfolders)
    if change.mode is not None:
        values["mode"] = change.mode.value
    if change.locale is not None:
        values["locale"] = change.locale
    return values


def _token_values(
    token: str, platform: Platform, now: datetime, *, proves: bool
) -> tuple[dict[str, Any], sa.ColumnElement[bool]]:
    """Return the columns that a device token sets, and whether it is still to be proved then."""
    # The same token was proved already, unless it is still to be proved.
    moved = registration.c.device_token != token
    unproved = sa.or_(moved, registration.c.must_prove) if proves else sa.false()
    # A test push was asked for last, if at all; it does not make the app wait for the challenge of another token.
    forgotten = moved if proves else sa.false()
    return {
        "device_token": token,
        "token_since": now,
        "token_hash": fingerprint(platform, token),
        "must_prove": sa.case((unproved, sa.true()), else_=sa.false()),
        "challenge_hash": sa.case((moved, sa.null()), else_=registration.c.challenge_hash),
        "tested_at": sa.case((forgotten, sa.null()), else_=registration.c.tested_at),
    }, unproved


def remove(
    connection: sa.Connection, registration_id: RegistrationId, buried_at: datetime | None, retention: Retention
) -> bool:
    """Delete a registration, perhaps with a tombstone; return False when there was none."""
    if _mark_dirty(connection, registration_id) is None:
        return False
    if buried_at is not None and _wiped(connection, registration_id):
        return False
    if buried_at is None:
        waits = sa.exists().where(candidate.c.registration_id == registration.c.id)
        connection.execute(sa.delete(registration).where(registration.c.id == registration_id, ~waits))
    else:
        tombstones.end(connection, [registration_id], Ending.REMOVED, buried_at, retention)
    return True


def prove_device(
    connection: sa.Connection, registration_id: RegistrationId, nonce: str, now: datetime, retention: Retention
) -> int | None:
    """Prove a device; return how many twins ended, or None if the nonce does not prove it."""
    if _mark_dirty(connection, registration_id) is None:
        return None
    own = _own(connection, registration_id)
    if own is None:
        return None
    device = Device.of(own)
    twins = lock_twins(connection, registration_id, device)  # before the registration itself, in the order of the ids
    if not prove(connection, registration_id, nonce, now):
        return None
    tombstones.end(connection, twins, Ending.REPLACED, now, retention)
    return len(twins)


def saw(connection: sa.Connection, registration_id: RegistrationId, now: datetime) -> None:
    """Note that the app of a registration showed its secret."""
    connection.execute(sa.update(registration).where(registration.c.id == registration_id).values(seen_at=now))


def mark_asked(
    connection: sa.Connection, registration_id: RegistrationId, mark: Mark, now: datetime, test: str
) -> list[Topic]:
    """Set the mark of a push that an app asks for, and note the test; return the topics to wake: none without a row."""
    query = sa.select(registration.c.platform).where(registration.c.id == registration_id)
    platform = connection.scalar(query.with_for_update(read=True, key_share=True))
    if platform is None:
        return []
    topics = set_marks(connection, [NewMark(registration_id, mark.value, platform, 1, certain=True)], now)
    if test:
        note_asked(connection, registration_id, test, now)
    return topics


def may_test(connection: sa.Connection, registration_id: RegistrationId, now: datetime, pause: timedelta) -> bool:
    """Note a test push and return True, unless one was noted within `pause`."""
    last = registration.c.tested_at
    # One noted in the future was noted by a clock that was wrong.
    free = sa.or_(last.is_(None), last <= now - pause, last > now + pause)
    update = sa.update(registration).where(registration.c.id == registration_id, free).values(tested_at=now)
    return connection.scalar(update.returning(registration.c.id)) is not None


def _own(connection: sa.Connection, registration_id: RegistrationId) -> Registration | None:
    """Read a registration; its mailbox must be locked."""
    rows = _REGISTRATION.rows(connection, {"_id": registration_id})
    return read_registration(rows[0]) if rows else None


def _wiped(connection: sa.Connection, registration_id: RegistrationId) -> bool:
    """Return True if the registration is `wiped`; its mailbox must be locked."""
    state = connection.scalar(sa.select(registration.c.state).where(registration.c.id == registration_id))
    return state == RegistrationState.WIPED.value


def _mark_dirty(connection: sa.Connection, registration_id: RegistrationId) -> str | None:
    """Mark and lock a registration's mailbox; return its user, or None when there is no such registration."""
    owner = sa.select(registration.c.mailbox_id).where(registration.c.id == registration_id).scalar_subquery()
    statement = sa.update(mailbox).where(mailbox.c.id == owner).values(dirty=True).returning(mailbox.c.user)
    user: str | None = connection.scalar(statement)
    return user
