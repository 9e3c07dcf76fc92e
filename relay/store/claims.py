"""Own which dirty marks may be claimed now: due, free, in an open lane, in their pace, worth a push, and readable."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.domain.model import DuePush, Lane, Mark, Platform, RegistrationState
from relay.domain.pacing import LASTING, Pacing
from relay.domain.ports.outbox import Claims
from relay.domain.subscription import naming
from relay.store.bulk import Among
from relay.store.rows import DUE, FREE, AnyRow, read_due
from relay.store.tables import outbox, registration

FAR: Final = timedelta(minutes=90)
"""Nothing waits for so long: a moment beyond was written while the clock was wrong, and counts as past."""
FAR_RECHECK: Final = timedelta(hours=36)
"""The same for tokens in quarantine: they are tried again once a day at least."""
ASIDE: Final = timedelta(hours=1)
"""How long a mark rests that cannot be read; an upgrade may mend it."""
ROUNDS: Final = 10
"""How often one claim asks again because marks were put off."""

UPDATE: Final = sa.update(outbox).where(
    outbox.c.registration_id == sa.bindparam("_registration"), outbox.c.mark == sa.bindparam("_mark")
)
MARKS: Final = Among("marks", outbox.c.registration_id, outbox.c.mark)
"""Be true for the marks whose keys, registration and mark, are in the list of that name."""
_CLAIM: Final = (
    sa.update(outbox).where(MARKS).values(claimed_by=sa.bindparam("owner"), claimed_until=sa.bindparam("until"))
)

_SENDABLE: Final = (registration.c.state == RegistrationState.ACTIVE.value) | (
    (registration.c.state == RegistrationState.WIPED.value) & (outbox.c.mark == Mark.ATTENTION.value)
)


@dataclass(frozen=True, slots=True)
class Lanes:
    """Choose lanes of a platform."""

    platform: Platform
    only: Lane | None = None
    without: Collection[Lane] = ()

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Write the choice as conditions on outbox and registration."""
        shut = [sa.not_(_in_lane(lane)) for lane in self.without]
        chosen = [] if self.only is None else [_in_lane(self.only)]
        return [outbox.c.platform == self.platform.value, *chosen, *shut]


@dataclass(slots=True)
class _Sorted:
    """Hold what becomes of due marks; each row as the statement UPDATE takes it."""

    claimed: list[DuePush] = field(default_factory=list)
    delayed: list[dict[str, Any]] = field(default_factory=list)
    aside: list[dict[str, Any]] = field(default_factory=list)


async def claim(
    connection: AsyncConnection, lanes: Lanes, limit: int, owner: str, until: datetime, now: datetime, pacing: Pacing
) -> tuple[Claims, list[dict[str, Any]]]:
    """Claim up to `limit` marks; return them, and the keys of those that had to be set aside."""
    pushes: list[DuePush] = []
    aside: list[dict[str, Any]] = []
    delayed: list[datetime] = []
    for _ in range(ROUNDS):
        missing = limit - len(pushes)
        rows = (await connection.execute(_query(lanes, now, pacing, missing))).all()
        trials = await _hold({row.registration_id for row in rows if row.recheck_at is not None}, connection, now)
        found = _sort(rows, trials, now, pacing)
        if found.claimed:
            marks = [(push.registration_id, push.mark) for push in found.claimed]
            await connection.execute(_CLAIM, {"marks": marks, "owner": owner, "until": until})
        for changed in (found.delayed, found.aside):
            if changed:
                await connection.execute(UPDATE, changed)
        pushes += found.claimed
        aside += found.aside
        delayed += [row["due_at"] for row in found.delayed]
        if len(rows) < missing or len(pushes) == limit:
            unfinished = False
            break
    else:
        unfinished = bool(delayed)
    return Claims(tuple(pushes), min(delayed, default=None), unfinished), aside


def next_due(lanes: Lanes) -> sa.Select[tuple[datetime | None]]:
    """Ask when the next mark falls due: not before its claim runs out, nor before its registration's re-check."""
    due = _later(_later(outbox.c.due_at, outbox.c.claimed_until), registration.c.recheck_at)
    return sa.select(sa.func.min(due)).join_from(outbox, registration).where(_SENDABLE, *lanes.conditions())


def key(push: DuePush) -> dict[str, Any]:
    """Name a mark's row as the statements on the outbox do."""
    return {"_registration": push.registration_id, "_mark": push.mark.value}


def _query(lanes: Lanes, now: datetime, pacing: Pacing, limit: int) -> sa.Select[Any]:
    far = now + FAR
    free = outbox.c.claimed_until.is_(None) | (outbox.c.claimed_until <= now) | (outbox.c.claimed_until > far)
    due = (outbox.c.due_at <= now) | (outbox.c.due_at > far)
    fresh = (outbox.c.last_at >= pacing.expires_before(now)) | outbox.c.mark.in_([mark.value for mark in LASTING])
    return (
        sa.select(*DUE)
        .join_from(outbox, registration)
        .where(*lanes.conditions(), due, free, fresh, _SENDABLE, _trusted(now))
        .order_by(outbox.c.due_at, outbox.c.registration_id, outbox.c.mark)
        .limit(limit)
        .with_for_update(of=outbox, skip_locked=True)
    )


def _trusted(now: datetime) -> sa.ColumnElement[bool]:
    """Leave out registrations in quarantine, but for one trial at a time once their re-check is due."""
    sibling = outbox.alias("sibling")
    tried = sa.exists().where(sibling.c.registration_id == registration.c.id, _claimed(sibling, now))
    return registration.c.recheck_at.is_(None) | (_ripe(now) & sa.not_(tried))


def _ripe(now: datetime) -> sa.ColumnElement[bool]:
    recheck = registration.c.recheck_at
    return (recheck <= now) | (recheck > now + FAR_RECHECK)


def _claimed(marks: sa.FromClause, now: datetime) -> sa.ColumnElement[bool]:
    return (marks.c.claimed_until > now) & (marks.c.claimed_until <= now + FAR)


async def _hold(quarantined: Collection[str], connection: AsyncConnection, now: datetime) -> frozenset[str]:
    """Lock registrations in quarantine until the claim is committed; return those that nobody tries now.

    Two processes that see two marks of one registration see no claim of each other's before it is committed. So the
    registration is locked, and only then are its marks looked at again: whoever had the lock before has committed.
    """
    if not quarantined:
        return frozenset()
    free = sa.select(registration.c.id).where(registration.c.id.in_(quarantined))
    free = free.where(registration.c.recheck_at.is_(None) | _ripe(now))
    held = set(await connection.scalars(free.with_for_update(key_share=True, skip_locked=True)))
    tried = sa.select(outbox.c.registration_id).where(outbox.c.registration_id.in_(held), _claimed(outbox, now))
    return frozenset(held.difference(await connection.scalars(tried)))


def _sort(rows: Iterable[AnyRow], trials: Collection[str], now: datetime, pacing: Pacing) -> _Sorted:
    found = _Sorted()
    tried: set[str] = set()
    for row in rows:
        place = {"_registration": row.registration_id, "_mark": row.mark}
        try:
            due = read_due(row)
        except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
            # Written by another version, or by hand; the others must not wait for it.
            rest = {
                "due_at": now + ASIDE,
                "attempts": row.attempts + 1,
                "aside": f"cannot be read: {type(error).__name__}",
            }
            found.aside.append({**place, **FREE, **rest})
            continue
        push = due.push
        if due.quarantined:
            if push.registration_id in tried or push.registration_id not in trials:
                continue
            tried.add(push.registration_id)
        seconds = 0.0 if due.paced else pacing.wait(push.mark, due.pushed_at, now)
        if seconds > 0.0:
            found.delayed.append(place | {"due_at": now + timedelta(seconds=seconds), "paced": True})
        else:
            found.claimed.append(push)
    return found


def _in_lane(lane: Lane) -> sa.ColumnElement[bool]:
    found = registration.c.environment == lane.environment.value
    if lane.app is not None:
        found &= registration.c.app == lane.app
    if lane.service is not None:
        found &= registration.c.device_token.contains(naming(lane.service), autoescape=True)
    return found


def _later(one: sa.ColumnElement[Any], other: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Give the later of two moments, of which the second may be missing."""
    return sa.case((other > one, other), else_=one)
