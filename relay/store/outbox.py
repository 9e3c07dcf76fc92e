"""What the push role reads and writes: claims of due marks, and how their pushes ended.

Rows are locked in the order mailbox, registration, outbox, which is part of the order in `commits.py`, and by key
within each; claims skip locked rows.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

import sqlalchemy as sa

from relay.domain.model import DuePush, Lane, Mark, Platform, RegistrationId, RegistrationState
from relay.domain.outcome import LastOutcome
from relay.domain.pacing import LASTING, Pacing
from relay.domain.ports.outbox import Claims, Settlement
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.subscription import naming
from relay.domain.unreadable import UnreadableRows
from relay.push.settlement import (
    MarkKey,
    PendingMark,
    Recipient,
    Settled,
    may_end_registrations,
    settle,
)
from relay.store.bulk import Among, count_up, in_order
from relay.store.engine import Database, scrub
from relay.store.marks import outbox_topics
from relay.store.reading import WRONG, Bad, Reader, faults
from relay.store.rows import (
    DUE,
    FREE,
    PENDING,
    RECIPIENT,
    DueMark,
    read_due,
    read_pending,
    read_recipient,
    write_mark_update,
    write_registration_update,
)
from relay.store.tables import mailbox, outbox, registration

log = logging.getLogger(__name__)

AT_ONCE: Final = Pacing()
FAR: Final = timedelta(minutes=90)
"""Longer than any mark waits: a later moment was written while the clock was wrong, and counts as past."""
FAR_RECHECK: Final = timedelta(hours=36)
"""The same for registrations in quarantine: they are tried again once a day at least."""
PARKED: Final = timedelta(hours=1)
"""How long a mark is parked that cannot be read; an upgrade may mend it."""
ROUNDS: Final = 10
"""How often one claim asks again because marks were put off."""
BATCH: Final = 500
"""Marks per transaction that drops expired ones."""

_MARKS: Final = Among("marks", outbox.c.registration_id, outbox.c.mark)
_UPDATE_MARK: Final = sa.update(outbox).where(
    outbox.c.registration_id == sa.bindparam("_registration"), outbox.c.mark == sa.bindparam("_mark")
)
_CLAIM: Final = (
    sa.update(outbox).where(_MARKS).values(claimed_by=sa.bindparam("owner"), claimed_until=sa.bindparam("until"))
)
_PARK: Final = _UPDATE_MARK.values(attempts=count_up(outbox.c.attempts))
_DELETE_MARKS: Final = sa.delete(outbox).where(_MARKS)
_UPDATE_REGISTRATION: Final = sa.update(registration).where(registration.c.id == sa.bindparam("_registration"))
_TOKEN_GONE: Final = _UPDATE_REGISTRATION.values(state=RegistrationState.TOKEN_GONE.value)
_MARK_DIRTY: Final = sa.update(mailbox).where(mailbox.c.id == sa.bindparam("_mailbox")).values(dirty=True)
_LOCK_RECIPIENTS: Final = (
    sa.select(*RECIPIENT)
    .where(Among("ids", registration.c.id))
    .order_by(*in_order(registration.c.id))
    .with_for_update(key_share=True)
)
_LOCK_PENDING: Final = (
    sa.select(*PENDING)
    .where(Among("ids", outbox.c.registration_id))
    .order_by(*in_order(outbox.c.registration_id, outbox.c.mark))
    .with_for_update(key_share=True)
)
_DUE: Final = Reader(
    sa.select(*DUE).join_from(outbox, registration), [outbox.c.registration_id, outbox.c.mark], read_due
)
_SENDABLE: Final = (registration.c.state == RegistrationState.ACTIVE.value) | (
    (registration.c.state == RegistrationState.WIPED.value) & (outbox.c.mark == Mark.ATTENTION.value)
)


class SqlOutboxStore:
    """The OutboxStore of the push role."""

    def __init__(
        self,
        database: Database,
        wakeups: Wakeups,
        pacing: Pacing = AT_ONCE,
        unreadable: UnreadableRows | None = None,
    ) -> None:
        """Keep marks in a database, let them leave at a pace, and wake the dispatchers of those that are free again.

        What cannot be read is noted in `unreadable`.
        """
        self._database = database
        self._wakeups = wakeups
        self._pacing = pacing
        self._unreadable = unreadable or UnreadableRows()

    async def claim(
        self,
        platform: Platform,
        limit: int,
        owner: str,
        until: datetime,
        now: datetime,
        *,
        only: Lane | None = None,
        without: Collection[Lane] = (),
    ) -> Claims:
        """Claim due marks of one platform's active registrations, longest due first, for `owner` until `until`."""
        lanes = Lanes(platform, only, without)
        claims, parked = await self._database.run(claim_marks, lanes, limit, owner, until, now, self._pacing)
        for each in parked:
            log.error(
                "push set aside", extra={"registration": each.key[0], "mark": each.key[1], "reason": _aside(each.fault)}
            )
            self._unreadable.looked("outbox", each.name, {each.name: each.fault})
        return claims

    async def look_again(self, now: datetime) -> None:
        """Look at the marks set aside; those that are readable are due at once."""
        for name in self._unreadable.owners("outbox"):
            registration_id, _, mark = name.rpartition("/")
            found, bad = await self._database.run(_look_again, registration_id, mark, now)
            self._unreadable.looked("outbox", name, faults(bad))
            for topic in outbox_topics({each.push.platform.value for each in found}):
                self._wakeups.wake(topic)

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record outcomes in one transaction; a mark that was settled by another process stays as it is."""
        if not settlements:
            return
        settled, dirty = await self._database.run(settle_marks, settlements, now, self._pacing)
        if settled.forgotten:
            await scrub(self._database)
        for topic in outbox_topics(settled.wake):
            self._wakeups.wake(topic)
        if dirty:
            self._wakeups.wake(Topic.MAILBOXES)

    async def park(self, push: DuePush, reason: str, until: datetime) -> None:
        """End the claim of a mark whose outcome cannot be recorded; it is not claimed before `until`."""
        key = {"_registration": push.registration_id, "_mark": push.mark.value}
        values = {"due_at": until, "attempts": push.attempts + 1, "aside": reason}
        await self._database.run(_update_marks, [{**key, **FREE, **values}])

    async def expire(self, platform: Platform, now: datetime) -> int:
        """Drop the unclaimed marks whose newest change is too old for a push; return how many."""
        total = 0
        while True:
            dropped = await self._database.run(_expire, platform, now, self._pacing)
            if not dropped:
                return total
            total += dropped

    async def release(self, owner: str | None) -> None:
        """End all claims of one owner, or every claim when None (the other owners are known to be dead)."""
        for topic in outbox_topics(await self._database.run(_release, owner)):
            self._wakeups.wake(topic)

    async def next_due(self, platform: Platform, without: Collection[Lane] = ()) -> datetime | None:
        """Return when the next mark of a platform falls due, claims running out included; None when there is none.

        A mark does not fall due before its claim runs out, nor before its registration's re-check.
        """
        try:
            return await self._database.run(_next_due, Lanes(platform, without=without))
        except WRONG:
            return None  # a moment that cannot be read is claimed with the next look, and set aside


# --- which marks may be claimed now: due, free, in an open lane, in their pace, worth a push, and readable


@dataclass(frozen=True, slots=True)
class Lanes:
    """Chosen lanes of a platform."""

    platform: Platform
    only: Lane | None = None
    without: Collection[Lane] = ()

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return the choice as conditions on outbox and registration."""
        shut = [sa.not_(_in_lane(lane)) for lane in self.without]
        chosen = [] if self.only is None else [_in_lane(self.only)]
        return [outbox.c.platform == self.platform.value, *chosen, *shut]


@dataclass(slots=True)
class _Sorted:
    """What becomes of due marks that can be read; rows are in the form that `_UPDATE_MARK` takes."""

    claimed: list[DuePush] = field(default_factory=list)
    delayed: list[dict[str, Any]] = field(default_factory=list)


def claim_marks(
    connection: sa.Connection, lanes: Lanes, limit: int, owner: str, until: datetime, now: datetime, pacing: Pacing
) -> tuple[Claims, list[Bad]]:
    """Claim up to `limit` marks; return them, and those that cannot be read and so are parked."""
    pushes: list[DuePush] = []
    parked: list[Bad] = []
    delayed: list[datetime] = []
    for _ in range(ROUNDS):
        missing = limit - len(pushes)
        marks, bad = _DUE.all(connection, _due(lanes, now, pacing, missing))
        trials = _hold({mark.push.registration_id for mark in marks if mark.quarantined}, connection, now)
        found = _sort(marks, trials, now, pacing)
        if found.claimed:
            keys = [(push.registration_id, push.mark) for push in found.claimed]
            connection.execute(_CLAIM, {"marks": keys, "owner": owner, "until": until})
        _update_marks(connection, found.delayed)
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


def _next_due(connection: sa.Connection, lanes: Lanes) -> datetime | None:
    due = _later(_later(outbox.c.due_at, outbox.c.claimed_until), registration.c.recheck_at)
    query = sa.select(sa.func.min(due)).join_from(outbox, registration).where(_SENDABLE, *lanes.conditions())
    found: datetime | None = connection.scalar(query)
    return found


def _look_again(
    connection: sa.Connection, registration_id: str, mark: str, now: datetime
) -> tuple[list[DueMark], list[Bad]]:
    """Read a mark that was set aside; it is due at once if that works."""
    mine = (outbox.c.registration_id == registration_id) & (outbox.c.mark == mark)
    found, bad = _DUE.all(connection, _DUE.query.where(mine))
    if found:
        _update_marks(connection, [{"_registration": registration_id, "_mark": mark, "due_at": now, "aside": ""}])
    return found, bad


def _release(connection: sa.Connection, owner: str | None) -> set[str]:
    """End the claims of an owner, or all; return the platforms of their marks."""
    held = outbox.c.claimed_by.is_not(None) if owner is None else outbox.c.claimed_by == owner
    keys = sa.select(outbox.c.registration_id, outbox.c.mark, outbox.c.platform).where(held)
    keys = keys.order_by(*in_order(outbox.c.registration_id, outbox.c.mark)).with_for_update(key_share=True)
    rows = connection.execute(keys).all()
    _update_marks(connection, [{**FREE, "_registration": row.registration_id, "_mark": row.mark} for row in rows])
    return {row.platform for row in rows}


def _update_marks(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Set columns of marks; all rows set the same ones."""
    if rows:
        connection.execute(_UPDATE_MARK, rows)


def _due(lanes: Lanes, now: datetime, pacing: Pacing, limit: int) -> sa.Select[Any]:
    far = now + FAR
    free = outbox.c.claimed_until.is_(None) | (outbox.c.claimed_until <= now) | (outbox.c.claimed_until > far)
    due = (outbox.c.due_at <= now) | (outbox.c.due_at > far)
    # Such a lane takes one push, which shows whether its party is back: of a phone that has had one, if there is any.
    probes = lanes.only is not None and lanes.only.retried is False
    first = [sa.case((registration.c.last_push_at.is_(None), 1), else_=0)] if probes else []
    fresh = (outbox.c.last_at >= pacing.expires_before(now)) | outbox.c.mark.in_([mark.value for mark in LASTING])
    return (
        _DUE.query.where(*lanes.conditions(), due, free, fresh, _SENDABLE, _trusted(now))
        .order_by(*first, outbox.c.due_at, outbox.c.registration_id, outbox.c.mark)
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


def _hold(quarantined: Collection[str], connection: sa.Connection, now: datetime) -> frozenset[str]:
    """Lock registrations in quarantine until the claim is committed; return those that no process tries now.

    Two processes that see two marks of one registration see no claim of each other's before it is committed. So the
    registration is locked, and only then are its marks looked at again: the process that had the lock has committed.
    """
    if not quarantined:
        return frozenset()
    free = sa.select(registration.c.id).where(registration.c.id.in_(quarantined))
    free = free.where(registration.c.recheck_at.is_(None) | _ripe(now))
    held = set(connection.scalars(free.with_for_update(key_share=True, skip_locked=True)))
    tried = sa.select(outbox.c.registration_id).where(outbox.c.registration_id.in_(held), _claimed(outbox, now))
    return frozenset(held.difference(connection.scalars(tried)))


def _sort(marks: Iterable[DueMark], trials: Collection[str], now: datetime, pacing: Pacing) -> _Sorted:
    """Choose which marks are claimed, and which are put off for their pace."""
    found = _Sorted()
    tried: set[str] = set()
    for due in marks:
        push = due.push
        if due.quarantined:
            if push.registration_id in tried or push.registration_id not in trials:
                continue
            tried.add(push.registration_id)
        seconds = 0.0 if due.paced else pacing.wait(push.mark, due.pushed_at, now)
        if seconds > 0.0:
            key = {"_registration": push.registration_id, "_mark": push.mark.value}
            found.delayed.append({**key, "due_at": now + timedelta(seconds=seconds), "paced": True})
        else:
            found.claimed.append(push)
    return found


def _parked(bad: Bad, now: datetime) -> dict[str, Any]:
    """Return the new values of a mark that cannot be read."""
    registration_id, mark = bad.key
    key = {"_registration": registration_id, "_mark": mark}
    return {**key, **FREE, "due_at": now + PARKED, "aside": _aside(bad.fault)}


def _aside(fault: str) -> str:
    return f"cannot be read: {fault}"


def _in_lane(lane: Lane) -> sa.ColumnElement[bool]:
    found = registration.c.environment == lane.environment.value
    if lane.app is not None:
        found &= registration.c.app == lane.app
    if lane.service is not None:
        found &= registration.c.device_token.contains(naming(lane.service), autoescape=True)
    if lane.retried is not None:
        found &= (outbox.c.attempts > 0) if lane.retried else (outbox.c.attempts == 0)
    return found


def _later(one: sa.ColumnElement[Any], other: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the later of two moments, of which the second may be missing."""
    return sa.case((other > one, other), else_=one)


# --- how pushes ended


def settle_marks(
    connection: sa.Connection, settlements: Sequence[Settlement], now: datetime, pacing: Pacing
) -> tuple[Settled, bool]:
    """Record outcomes; return what became of them, and whether a mailbox was marked dirty."""
    ids = sorted({settlement.push.registration_id for settlement in settlements})
    dirty = _mark_mailboxes_dirty(connection, may_end_registrations(settlements))
    recipients = _lock_recipients(connection, ids)
    marks = _lock_pending(connection, settlements, ids)
    settled = settle(settlements, recipients, marks, now, pacing)
    _write(connection, settled, recipients)
    return settled, dirty


def _mark_mailboxes_dirty(connection: sa.Connection, ids: Sequence[RegistrationId]) -> bool:
    """Mark the mailboxes dirty that may lose these registrations: the watch role reads whom it still serves.

    This comes before the registrations are locked, as every transaction locks mailboxes first.
    """
    if not ids:
        return False
    query = sa.select(registration.c.mailbox_id).where(registration.c.id.in_(ids))
    owners = sorted(set(connection.scalars(query)))
    if owners:
        connection.execute(_MARK_DIRTY, [{"_mailbox": owner} for owner in owners])
    return bool(owners)


def _lock_recipients(connection: sa.Connection, ids: Sequence[RegistrationId]) -> Mapping[RegistrationId, Recipient]:
    rows = connection.execute(_LOCK_RECIPIENTS, {"ids": ids}).all()
    return {RegistrationId(row.id): read_recipient(row) for row in rows}


def _lock_pending(
    connection: sa.Connection, settlements: Sequence[Settlement], ids: Sequence[RegistrationId]
) -> Mapping[MarkKey, PendingMark]:
    """Lock all marks of some registrations; return those that are settled."""
    keys = {(settlement.push.registration_id, settlement.push.mark.value) for settlement in settlements}
    rows = connection.execute(_LOCK_PENDING, {"ids": ids}).all()
    settled = [row for row in rows if (row.registration_id, row.mark) in keys]
    return {(RegistrationId(row.registration_id), Mark(row.mark)): read_pending(row) for row in settled}


def _write(connection: sa.Connection, settled: Settled, recipients: Mapping[RegistrationId, Recipient]) -> None:
    updates = [write_registration_update(each, recipients[each.id]) for each in settled.updated]
    for rows in _by_columns(updates):
        connection.execute(_UPDATE_REGISTRATION, rows)
    if settled.gone:
        connection.execute(_TOKEN_GONE, [{"_registration": id_} for id_ in settled.gone])
        connection.execute(sa.delete(outbox).where(outbox.c.registration_id.in_(settled.gone)))
    if settled.forgotten:
        # Their marks go with them.
        connection.execute(sa.delete(registration).where(registration.c.id.in_(settled.forgotten)))
    if settled.done:
        connection.execute(_DELETE_MARKS, {"marks": settled.done})
    _update_marks(connection, [write_mark_update(each) for each in settled.kept])


def _by_columns(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Group rows that set the same columns, for one statement each; the order of the keys stays."""
    names = [(tuple(sorted(row)), row) for row in rows]
    return [[row for _, row in group] for _, group in groupby(sorted(names, key=lambda n: n[0]), lambda n: n[0])]


def _expire(connection: sa.Connection, platform: Platform, now: datetime, pacing: Pacing) -> int:
    """Drop one batch of a platform's unclaimed marks without a recent change; return how many."""
    free = outbox.c.claimed_until.is_(None) | (outbox.c.claimed_until <= now) | (outbox.c.claimed_until > now + FAR)
    old = (outbox.c.last_at < pacing.expires_before(now)) & outbox.c.mark.not_in([mark.value for mark in LASTING])
    keys = sa.select(outbox.c.registration_id, outbox.c.mark).where(outbox.c.platform == platform.value, old, free)
    keys = keys.order_by(*in_order(outbox.c.registration_id, outbox.c.mark))
    ids = sorted({row.registration_id for row in connection.execute(keys.limit(BATCH))})
    if not ids:
        return 0
    owners = sa.select(registration.c.id, registration.c.last_outcome).where(registration.c.id.in_(ids))
    locked = connection.execute(owners.order_by(*in_order(registration.c.id)).with_for_update(key_share=True))
    before = {row.id: LastOutcome.read(row.last_outcome) for row in locked}
    # Once more, now that no other transaction can add to them.
    old_marks = keys.where(outbox.c.registration_id.in_(ids)).with_for_update(key_share=True)
    marks = [(row.registration_id, row.mark) for row in connection.execute(old_marks)]
    if marks:
        ids = sorted({id_ for id_, _ in marks})
        lines = [LastOutcome.expired(before[id_], pacing.expire).line for id_ in ids]
        updates = [{"_registration": id_, "last_outcome": line} for id_, line in zip(ids, lines, strict=True)]
        connection.execute(_UPDATE_REGISTRATION, updates)
        connection.execute(_DELETE_MARKS, {"marks": marks})
    return len(marks)
