"""Credentials: those of mailboxes, the candidates that wait for their try, and how all of them are sealed.

What changes a mailbox locks its row first.
"""

from collections.abc import Collection as Several
from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from relay.domain.model import Candidate, RegistrationState
from relay.domain.ports.wakeups import Topic
from relay.domain.tries import DEFAULT, TryLimits, Wait, Withdrawn
from relay.store import tries, wipes
from relay.store.marks import challenge_mark, set_marks
from relay.store.prepared import Prepared
from relay.store.tables import Moment, candidate, mailbox, outbox, registration, sealed_anew
from relay.store.twins import delete_twins_of

_THIS: Final = mailbox.c.id == sa.bindparam("_id")
_HAS_ITS_TRY: Final = Prepared(
    sa.update(candidate).where(candidate.c.registration_id == sa.bindparam("_registration")).values(account=sa.null())
)
_LOCK: Final = Prepared(
    sa.select(mailbox.c.server, mailbox.c.user, mailbox.c.sealed_credential.is_not(None).label("has_credential"))
    .where(_THIS)
    .with_for_update(key_share=True)
)
_WAITS: Final = Prepared(
    sa.select(registration.c.state)
    .join_from(candidate, registration)
    .where(candidate.c.registration_id == sa.bindparam("_registration"), candidate.c.sealed == sa.bindparam("_sealed"))
)
_DROP: Final = Prepared(
    sa.delete(candidate)
    .where(candidate.c.registration_id == sa.bindparam("_registration"), candidate.c.sealed == sa.bindparam("_sealed"))
    .returning(candidate.c.registration_id)
)
_ACCEPTED: Final = tuple(
    state.value for state in (RegistrationState.PROVING, RegistrationState.ACTIVE, RegistrationState.TOKEN_GONE)
)
"""States of registrations whose credential was accepted, and may be doubted again."""
_WAITS_FOR_CREDENTIAL: Final = (
    WatchState.VERIFYING.value,
    WatchState.CREDENTIAL_REFUSED.value,
    WatchState.WIPED.value,
)


def sealed_anew_shards(connection: sa.Connection) -> frozenset[int]:
    """Return the shards from which no seals of the old form are taken any more."""
    return frozenset(connection.scalars(sa.select(sealed_anew.c.shard)))


def seal_anew(
    connection: sa.Connection, seals: Mapping[MailboxId, Mapping[bytes, bytes]], shards: Several[int]
) -> None:
    """Replace many seals, before -> after by mailbox, and note the shards whose old seals are all replaced."""
    for mailbox_id in sorted(seals):
        reseal(connection, mailbox_id, seals[mailbox_id])
    if shards:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        statement = insert(sealed_anew).on_conflict_do_nothing()
        connection.execute(statement, [{"shard": number} for number in sorted(shards)])


def reseal(connection: sa.Connection, mailbox_id: MailboxId, seals: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Replace seals, before -> after, where the mailbox has them; return those that it had."""
    return _reseal(connection, mailbox_id, seals, look_again=False)


def turn_over(
    connection: sa.Connection, seals: Mapping[MailboxId, Mapping[bytes, bytes]]
) -> dict[MailboxId, dict[bytes, bytes]]:
    """Replace seals of many mailboxes; return those that they had. One whose candidate has a new seal is dirty."""
    found = ((id_, _reseal(connection, id_, seals[id_], look_again=True)) for id_ in sorted(seals) if seals[id_])
    return {id_: pairs for id_, pairs in found if pairs}


def _reseal(
    connection: sa.Connection, mailbox_id: MailboxId, seals: Mapping[bytes, bytes], *, look_again: bool
) -> dict[bytes, bytes]:
    if _lock(connection, mailbox_id) is None:
        return {}
    this = sa.update(mailbox).where(mailbox.c.id == mailbox_id)
    found = {}
    for before, after in seals.items():
        own = connection.execute(this.where(mailbox.c.sealed_credential == before).values(sealed_credential=after))
        waiting = connection.execute(
            sa.update(candidate)
            .where(candidate.c.registration_id.in_(_registrations_of(mailbox_id)), candidate.c.sealed == before)
            .values(sealed=after)
        )
        if waiting.rowcount and look_again:
            connection.execute(this.values(dirty=True))
        if own.rowcount or waiting.rowcount:
            found[before] = after
    return found


def seals_of(connection: sa.Connection, mailbox_id: MailboxId) -> list[bytes]:
    """Return every seal of a mailbox: of its credential, and of its candidates."""
    own = sa.select(mailbox.c.sealed_credential).where(mailbox.c.id == mailbox_id)
    waiting = sa.select(candidate.c.sealed).where(candidate.c.registration_id.in_(_registrations_of(mailbox_id)))
    return [bytes(seal) for query in (own, waiting) for seal in connection.scalars(query) if seal is not None]


def _registrations_of(mailbox_id: MailboxId) -> sa.Select[tuple[str]]:
    return sa.select(registration.c.id).where(registration.c.mailbox_id == mailbox_id)


class _Locked(NamedTuple):
    """What is known of a mailbox whose row is locked."""

    server: str
    user: str
    has_credential: bool

    def login(self, by_server: Mapping[str, TryLimits]) -> tuple[TryLimits, tries.Login]:
        """Return its user, whom the mailbox's row names and nothing that a client sent, with the limits."""
        limits = by_server.get(self.server, DEFAULT)
        return limits, tries.Login(limits.place(self.server), self.user)


class Acceptance(Enum):
    """What became of a candidate that its server accepted."""

    FIRST = auto()
    REPLACED = auto()
    """It took the place of an older credential, which was destroyed."""
    FORBIDDEN = auto()
    """It was destroyed: its account was wiped, and nobody may register for it."""


def spend(
    connection: sa.Connection,
    mailbox_id: MailboxId,
    now: datetime,
    candidate: Candidate | None,
    by_server: Mapping[str, TryLimits],
) -> Wait | Withdrawn | None:
    """Count a try of an account before its credential, or a candidate, is shown; return why it may not be, instead."""
    locked = _lock(connection, mailbox_id)
    state = None if candidate is None else _waits(connection, candidate)
    if candidate is not None and state is None:
        return Withdrawn.CANDIDATE
    if locked is None:
        return None
    limits, login = locked.login(by_server)
    # A candidate that came with the secret of an active registration.
    owner = state == RegistrationState.ACTIVE.value
    wait = tries.spend(connection, login, limits, now, candidate=candidate is not None, owner=owner)
    if wait is None and candidate is not None:
        _HAS_ITS_TRY.execute(connection, {"_registration": candidate.registration_id})
    return wait


def forget_tries(connection: sa.Connection, mailbox_id: MailboxId, by_server: Mapping[str, TryLimits]) -> None:
    """Forget the tries of the user of a mailbox."""
    locked = _lock(connection, mailbox_id)
    if locked is not None:
        tries.clear(connection, locked.login(by_server)[1])


def accept(
    connection: sa.Connection,
    accepted: Candidate,
    now: datetime,
    url: str | None,
    limits: Mapping[str, TryLimits],
    *,
    replaces: bool,
    succeeded: bool,
    guards_wipes: bool,
) -> tuple[Acceptance, list[Topic]] | None:
    """Accept a candidate, unless an administrator forbids it; return whom to wake for a challenge, too.

    None: it is not in its place any more.

    `succeeded`: forget the tries of the mailbox's user.
    """
    locked = _lock(connection, accepted.mailbox_id)
    if locked is None or not _drop(connection, accepted):
        return None
    if _forbidden(connection, accepted, locked, limits, guards_wipes=guards_wipes):
        refused = sa.update(registration).where(registration.c.id == accepted.registration_id)
        connection.execute(refused.values(state=RegistrationState.WIPED.value))
        if succeeded:
            tries.clear(connection, locked.login(limits)[1])
        return Acceptance.FORBIDDEN, []
    _set_credential(connection, accepted, now, url)
    if replaces:  # in the order of their ids, as settlements lock them
        mine = sa.select(registration.c.id).where(registration.c.mailbox_id == accepted.mailbox_id)
        connection.execute(mine.order_by(registration.c.id).with_for_update(key_share=True))
    twins = delete_twins_of(connection, accepted.registration_id)
    activated = _ACTIVATE.rows(connection, {"_registration": accepted.registration_id, "_now": now})
    proving = [row for row in activated if row.state == RegistrationState.PROVING.value]
    topics = set_marks(connection, [challenge_mark(row.id, row.platform) for row in proving], now)
    if replaces:
        _doubt_others(connection, accepted)
    if succeeded:
        tries.clear(connection, locked.login(limits)[1])
    return (Acceptance.REPLACED if locked.has_credential or twins > 0 else Acceptance.FIRST), topics


_NEVER_PROVED: Final = Prepared(
    sa.select(registration.c.id).where(registration.c.proved_at.is_(None), registration.c.id == sa.bindparam("id"))
)


def _forbidden(
    connection: sa.Connection,
    accepted: Candidate,
    locked: _Locked,
    limits: Mapping[str, TryLimits],
    *,
    guards_wipes: bool,
) -> bool:
    """Return whether a candidate is that of a new registration for an account that was wiped.

    An active registration of another spelling goes on: its device was not wiped.
    """
    if not wipes.stands(connection, locked.server, locked.user, limits):
        return False
    if not _NEVER_PROVED.rows(connection, {"id": accepted.registration_id}):
        return False
    if not guards_wipes:
        wipes.lift(connection, locked.server, locked.user, limits)
    return guards_wipes


def refuse(connection: sa.Connection, refused: Candidate, now: datetime) -> None:
    """Drop a refused candidate, unless another one is in its place."""
    if _lock(connection, refused.mailbox_id) is not None and _drop(connection, refused):
        _set_refused(connection, refused, now)


def expire(connection: sa.Connection, expired: Candidate) -> bool:
    """Drop a candidate; return False when another one is in its place, or none."""
    if _lock(connection, expired.mailbox_id) is None or not _drop(connection, expired):
        return False
    # For an active registration the older credential stays in use; a verifying one stays so.
    unproved = registration.c.state == RegistrationState.VERIFYING.value
    connection.execute(
        sa.update(registration).where(registration.c.id == expired.registration_id).values(candidate_refused=~unproved)
    )
    return True


def _lock(connection: sa.Connection, mailbox_id: MailboxId) -> _Locked | None:
    """Lock the mailbox's row before anything else of it; return what it is, None if it does not exist."""
    rows = _LOCK.rows(connection, {"_id": mailbox_id})
    return _Locked(rows[0].server, rows[0].user, bool(rows[0].has_credential)) if rows else None


def _waits(connection: sa.Connection, shown: Candidate) -> str | None:
    """Return the state of the registration of a candidate; None: the candidate is not in its place any more."""
    rows = _WAITS.rows(connection, {"_registration": shown.registration_id, "_sealed": shown.sealed})
    return rows[0].state if rows else None


def _drop(connection: sa.Connection, tried: Candidate) -> bool:
    """Delete a candidate; return False when another one is in its place, or none."""
    return bool(_DROP.rows(connection, {"_registration": tried.registration_id, "_sealed": tried.sealed}))


def _doubt_others(connection: sa.Connection, accepted: Candidate) -> None:
    """Make the mailbox's other registrations show the credential that was accepted; until then they get no push.

    One whose app is gone from the device is among them: a new device token would make it active again.
    """
    others = (
        sa.update(registration)
        .where(registration.c.mailbox_id == accepted.mailbox_id, registration.c.id != accepted.registration_id)
        .where(registration.c.state.in_(_ACCEPTED))
        .values(state=RegistrationState.VERIFYING.value, candidate_refused=False)
    )
    ids = list(connection.scalars(others.returning(registration.c.id)))
    if ids:
        connection.execute(sa.delete(outbox).where(outbox.c.registration_id.in_(ids)))


def _set_credential(connection: sa.Connection, accepted: Candidate, now: datetime, url: str | None) -> None:
    values = {"_id": accepted.mailbox_id, "_sealed": accepted.sealed, "_url": url, "_now": now}
    _SET_CREDENTIAL.execute(connection, values)


def _setting_credential() -> sa.Update:
    waiting = sa.or_(*(mailbox.c.state == state for state in _WAITS_FOR_CREDENTIAL))
    # A wait that follows a refused password ends with it; one that the server asked for is kept.
    at_once = waiting | (mailbox.c.refusals > 0)
    return (
        sa.update(mailbox)
        .where(_THIS)
        .values(
            sealed_credential=sa.bindparam("_sealed"),
            url=sa.func.coalesce(sa.bindparam("_url", type_=sa.Text), mailbox.c.url),
            refusals=0,
            dirty=True,
            next_try_at=sa.case((at_once, sa.null()), else_=mailbox.c.next_try_at),
            since=sa.case((waiting, sa.bindparam("_now", type_=Moment)), else_=mailbox.c.since),
            reason=sa.case((waiting, ""), else_=mailbox.c.reason),
            detail=sa.case((waiting, ""), else_=mailbox.c.detail),
            state=sa.case((waiting, WatchState.STARTING.value), else_=mailbox.c.state),
        )
    )


def _activating() -> sa.Update:
    # A registration whose app is gone from the device waits for a new token, whatever its credential.
    gone = registration.c.state == RegistrationState.TOKEN_GONE.value
    return (
        sa.update(registration)
        .where(registration.c.id == sa.bindparam("_registration"))
        .values(
            state=sa.case(
                (gone, registration.c.state),
                (registration.c.must_prove, RegistrationState.PROVING.value),
                else_=RegistrationState.ACTIVE.value,
            ),
            candidate_refused=False,
            proved_at=sa.func.coalesce(registration.c.proved_at, sa.bindparam("_now", type_=Moment)),
        )
        .returning(registration.c.id, registration.c.platform, registration.c.state)
    )


_SET_CREDENTIAL: Final = Prepared(_setting_credential())
_ACTIVATE: Final = Prepared(_activating())


def _set_refused(connection: sa.Connection, refused: Candidate, now: datetime) -> None:
    """Set the state of the registration, and of a mailbox without any credential."""
    state = registration.c.state
    never = state.in_((RegistrationState.VERIFYING.value, RegistrationState.REFUSED.value))
    connection.execute(
        sa.update(registration)
        .where(registration.c.id == refused.registration_id)
        .values(state=sa.case((never, RegistrationState.REFUSED.value), else_=state), candidate_refused=~never)
    )
    connection.execute(
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
