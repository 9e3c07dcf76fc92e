"""Claims: which marks may be claimed now, and when the next one may be.

A mark must be due, free, in an open lane, in its pace, worth a push, and readable. The statements are made once for
each form of the lanes.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from relay.domain.model import FAR_RECHECK, LEAP, DuePush, Mark, RegistrationState
from relay.domain.pacing import LASTING, Pacing
from relay.domain.ports.outbox import Claims
from relay.store.bulk import Among, count_up
from relay.store.lanes import Lanes, LanesForm, conditions
from relay.store.marks import OnMarks
from relay.store.prepared import Prepared, execute_text
from relay.store.reading import Bad, Reader
from relay.store.rows import DUE, FREE, UNPAUSED, DueMark, read_due
from relay.store.tables import Moment, outbox, registration
from relay.store.updates import Updates

FAR: Final = timedelta(minutes=90)
"""Longer than any mark waits: a later moment was written while the clock was wrong, and counts as past."""
PARKED: Final = timedelta(hours=1)
"""How long a mark is parked that cannot be read; an upgrade may mend it."""
ROUNDS: Final = 10
"""How often one claim asks again because marks were put off."""
FORMS: Final = 64
"""Forms of lanes whose statements are kept; more than a dispatcher meets."""

READABLE: Final = Reader(
    sa.select(*DUE).join_from(outbox, registration), [outbox.c.registration_id, outbox.c.mark], read_due
)
"""Reads marks with their registrations."""

_NOW: Final = sa.bindparam("now", type_=Moment)
_FAR: Final = sa.bindparam("far", type_=Moment)
_CLAIM: Final = OnMarks(sa.update(outbox).values(claimed_by=sa.bindparam("owner"), claimed_until=sa.bindparam("until")))
_DELAY: Final = Updates(outbox, ("registration_id", "mark"), ("due_at", "paced"))
_PARK: Final = (
    sa.update(outbox)
    .where(outbox.c.registration_id == sa.bindparam("_registration_id"), outbox.c.mark == sa.bindparam("_mark"))
    .values(attempts=count_up(outbox.c.attempts))
)
_SETTINGS: Final = "SELECT set_config('enable_sort', 'off', true), set_config('synchronous_commit', 'off', true)"
"""Settings of PostgreSQL for one claim.

Without sorts it reads marks in the order of their index until there are enough. When it last counted the outbox, that
was nearly empty; so after an outage it would read and sort all marks for each hundred.

Nor does a claim wait for the disk: if the database loses it in a crash, its marks are claimed again."""
_RECHECK: Final = registration.c.recheck_at
_ASKED: Final = sa.or_(outbox.c.mark == Mark.TEST.value, outbox.c.mark == Mark.CHALLENGE.value)
"""Marks that an app asks for, to learn whether its token and environment are right."""
# As `Quarantine.due_at` says.
_RIPE: Final = sa.or_(
    _RECHECK <= _NOW,
    sa.bindparam("far_recheck", type_=Moment) < _RECHECK,
    sa.bindparam("leap", type_=Moment) < registration.c.refused_at,
)
_IS_CHALLENGE: Final = outbox.c.mark == Mark.CHALLENGE.value
_WIPED: Final = registration.c.state == RegistrationState.WIPED.value
_SENDABLE: Final = sa.and_(
    # What a wipe has to say leaves, also while an administrator paused the mailbox; nothing else does.
    _WIPED | UNPAUSED,
    sa.or_(
        (registration.c.state == RegistrationState.ACTIVE.value) & ~_IS_CHALLENGE,
        _WIPED & (outbox.c.mark == Mark.ATTENTION.value),
        # Until the app has shown that it is on the device, somebody else may have the phone.
        (registration.c.state == RegistrationState.PROVING.value) & _IS_CHALLENGE,
    ),
)


def claim_marks(
    connection: sa.Connection, lanes: Lanes, limit: int, owner: str, until: datetime, now: datetime, pacing: Pacing
) -> tuple[Claims, list[Bad]]:
    """Claim up to `limit` marks; return them, and those that cannot be read and so are parked."""
    if connection.dialect.name == "postgresql":
        execute_text(connection, _SETTINGS)
    due = _due(lanes.form)
    values = lanes.values | _moments(now) | {"fresh": pacing.expires_before(now)}
    pushes: list[DuePush] = []
    parked: list[Bad] = []
    delayed: list[datetime] = []
    for _ in range(ROUNDS):
        missing = limit - len(pushes)
        marks, bad = READABLE.all(connection, due, values | {"limit": missing})
        trials = _hold({mark.push.registration_id for mark in marks if _is_trial(mark)}, connection, now)
        found = _sort(marks, trials, now, pacing)
        if found.claimed:
            keys = [(push.registration_id, push.mark.value) for push in found.claimed]
            _CLAIM.run(connection, keys, {"owner": owner, "until": until})
        if found.delayed:
            _DELAY.run(connection, found.delayed)
        if bad:
            connection.execute(_PARK, [_parked(each, now) for each in bad])
        pushes += found.claimed
        parked += bad
        delayed += [row["due_at"] for row in found.delayed]
        if len(marks) + len(bad) < missing or len(pushes) == limit:
            unfinished = False
            break
    else:
        unfinished = bool(delayed)
    return Claims(tuple(pushes), min(delayed, default=None), unfinished), parked


def next_due(connection: sa.Connection, lanes: Lanes) -> datetime | None:
    """Return when the next mark falls due, claims running out included; None when there is none."""
    [(found,)] = _next_due(lanes.form).rows(connection, lanes.values)
    moment: datetime | None = found
    return moment


def free_or_run_out() -> sa.ColumnElement[bool]:
    """Return the condition that no process has a claim now, with the parameters `now` and `far`."""
    until = outbox.c.claimed_until
    return until.is_(None) | (until <= _NOW) | (until > _FAR)


def aside(fault: str) -> str:
    """Return why a mark that cannot be read is set aside."""
    return f"cannot be read: {fault}"


@dataclass(slots=True)
class _Sorted:
    """What becomes of due marks that can be read; rows are in the form that `_DELAY` takes."""

    claimed: list[DuePush] = field(default_factory=list)
    delayed: list[dict[str, Any]] = field(default_factory=list)


def _moments(now: datetime) -> dict[str, object]:
    return {"now": now, "far": now + FAR, "far_recheck": now + FAR_RECHECK, "leap": now + LEAP}


@lru_cache(FORMS)
def _due(form: LanesForm) -> Prepared:
    due = (outbox.c.due_at <= _NOW) | (outbox.c.due_at > _FAR)
    # Such a lane takes one push, which shows whether its party is back: of a phone that has had one, if there is any.
    probes = form[0] is not None and form[0].retried is False
    first = [sa.case((registration.c.last_push_at.is_(None), 1), else_=0)] if probes else []
    lasting = sa.or_(*(outbox.c.mark == mark.value for mark in sorted(LASTING)))
    fresh = (outbox.c.last_at >= sa.bindparam("fresh", type_=Moment)) | lasting
    sibling = outbox.alias("sibling")
    tried = sa.exists().where(sibling.c.registration_id == registration.c.id, _claimed(sibling))
    # Registrations in quarantine are left out, but for what their app asks for, and one trial at a time once their
    # re-check is due.
    trusted = _RECHECK.is_(None) | _ASKED | (_RIPE & sa.not_(tried))
    return Prepared(
        READABLE.query.where(*conditions(form), due, free_or_run_out(), fresh, _SENDABLE, trusted)
        .order_by(*first, outbox.c.due_at)
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .with_for_update(of=outbox, skip_locked=True)
    )


@lru_cache(FORMS)
def _next_due(form: LanesForm) -> Prepared:
    due = _later(_later(outbox.c.due_at, outbox.c.claimed_until), sa.case((_ASKED, sa.null()), else_=_RECHECK))
    return Prepared(sa.select(sa.func.min(due)).join_from(outbox, registration).where(_SENDABLE, *conditions(form)))


def _later(one: sa.ColumnElement[Any], other: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the later of two moments, of which the second may be missing."""
    return sa.case((other > one, other), else_=one)


def _claimed(marks: sa.FromClause) -> sa.ColumnElement[bool]:
    return (marks.c.claimed_until > _NOW) & (marks.c.claimed_until <= _FAR)


_FREE_TRIALS: Final = (
    sa.select(registration.c.id)
    .where(Among("ids", registration.c.id), _RECHECK.is_(None) | _RIPE)
    .with_for_update(key_share=True, skip_locked=True)
)
_TRIED: Final = sa.select(outbox.c.registration_id).where(Among("ids", outbox.c.registration_id), _claimed(outbox))


def _hold(quarantined: Collection[str], connection: sa.Connection, now: datetime) -> frozenset[str]:
    """Lock registrations in quarantine until the claim is committed; return those that no process tries now.

    Two processes that see two marks of one registration see no claim of each other's before it is committed. So the
    registration is locked, and only then are its marks looked at again: the process that had the lock has committed.
    """
    if not quarantined:
        return frozenset()
    held = set(connection.scalars(_FREE_TRIALS, {"ids": sorted(quarantined), **_moments(now)}))
    return frozenset(held.difference(connection.scalars(_TRIED, {"ids": sorted(held), **_moments(now)})))


def _sort(marks: Iterable[DueMark], trials: Collection[str], now: datetime, pacing: Pacing) -> _Sorted:
    """Choose which marks are claimed, and which are put off for their pace."""
    found = _Sorted()
    tried: set[str] = set()
    for due in marks:
        push = due.push
        if _is_trial(due):
            if push.registration_id in tried or push.registration_id not in trials:
                continue
            tried.add(push.registration_id)
        seconds = 0.0 if due.paced else pacing.wait(push.mark, due.pushed_at, now)
        if seconds > 0.0:
            key = {"_registration_id": push.registration_id, "_mark": push.mark}
            found.delayed.append({**key, "due_at": now + timedelta(seconds=seconds), "paced": True})
        else:
            found.claimed.append(push)
    return found


def _is_trial(due: DueMark) -> bool:
    """Return True if a mark is claimed as the one trial of a registration in quarantine.

    A test push or a challenge is sent all the same: it shows whether token and environment are right now.
    """
    return due.quarantined and due.push.mark not in {Mark.TEST, Mark.CHALLENGE}


def _parked(bad: Bad, now: datetime) -> dict[str, Any]:
    """Return the new values of a mark that cannot be read."""
    registration_id, mark = bad.key
    key = {"_registration_id": registration_id, "_mark": mark}
    return {**key, **FREE, "due_at": now + PARKED, "aside": aside(bad.fault)}
