"""What the push role reads and writes: claims of marks (`claims`), their release, and how their pushes ended.

Rows are locked in the order mailbox, registration, outbox, which is part of the order in `commits.py`, and by key
within each; claims skip locked rows.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from relay.domain.model import DuePush, Lane, Mark, Platform, RegistrationId, RegistrationState
from relay.domain.outcome import LastOutcome
from relay.domain.pacing import LASTING, Pacing
from relay.domain.ports.outbox import Claims, Settlement
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.unreadable import UnreadableRows
from relay.push.settlement import (
    MarkKey,
    PendingMark,
    Recipient,
    Settled,
    may_end_registrations,
    settle,
)
from relay.store.bulk import Among, in_order
from relay.store.challenges import SqlChallengeStore
from relay.store.claims import (
    FAR,
    FORMS,
    READABLE,
    aside,
    claim_marks,
    free_or_run_out,
    next_due,
)
from relay.store.deliveries import (
    RECORD_DELIVERIES,
    are_deliveries,
    by_mark,
    deliver,
    deliveries,
    read_deliveries,
)
from relay.store.engine import Database
from relay.store.lanes import Lanes
from relay.store.marks import OnMarks, outbox_topics
from relay.store.prepared import Prepared
from relay.store.push_tests import note_results
from relay.store.reading import WRONG, Bad, faults
from relay.store.rows import (
    FREE,
    PENDING,
    RECIPIENT,
    DueMark,
    read_pending,
    read_recipient,
    write_mark_update,
    write_registration_update,
)
from relay.store.tables import Moment, mailbox, outbox, registration
from relay.store.updates import Updates

log = logging.getLogger(__name__)

AT_ONCE: Final = Pacing()
BATCH: Final = 500
"""Marks per transaction that drops expired ones."""

_DELETE_MARKS: Final = OnMarks(sa.delete(outbox))
_TOKEN_GONE: Final = (
    sa.update(registration).where(Among("ids", registration.c.id)).values(state=RegistrationState.TOKEN_GONE.value)
)
_MARK_DIRTY: Final = sa.update(mailbox).where(mailbox.c.id == sa.bindparam("_mailbox")).values(dirty=True)
_OWNERS: Final = sa.select(registration.c.mailbox_id).where(Among("ids", registration.c.id)).distinct()
_LOCK_RECIPIENTS: Final = Prepared(
    sa.select(*RECIPIENT)
    .where(Among("ids", registration.c.id))
    .order_by(*in_order(registration.c.id))
    .with_for_update(key_share=True)
)
_LOCK_PENDING: Final = Prepared(
    sa.select(*PENDING)
    .where(Among("ids", outbox.c.registration_id))
    .order_by(*in_order(outbox.c.registration_id, outbox.c.mark))
    .with_for_update(key_share=True)
)
_SERVER: Final = (
    sa.select(mailbox.c.server).join_from(registration, mailbox).where(registration.c.id == sa.bindparam("id"))
)
_FORGET_MARKS: Final = sa.delete(outbox).where(Among("ids", outbox.c.registration_id))


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
        self.pacing = pacing
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
        claims, parked = await self._database.join(claim_marks, lanes, limit, owner, until, now, self.pacing)
        for each in parked:
            log.error(
                "push set aside", extra={"registration": each.key[0], "mark": each.key[1], "reason": aside(each.fault)}
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

    async def server_of(self, registration_id: RegistrationId) -> str | None:
        """Return the name of the mail server that a registration's mailbox is on; None: it was deleted."""
        return await self._database.run(_find_server, registration_id)

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record outcomes; a mark that was settled by another process stays as it is."""
        left = await self._left(settlements, now)
        if not left:
            return
        wake, dirty = await self._database.join(settle_marks, left, now, self.pacing)
        for topic in outbox_topics(wake):
            self._wakeups.wake(topic)
        if dirty:
            self._wakeups.wake(Topic.MAILBOXES)

    async def _left(self, settlements: Sequence[Settlement], now: datetime) -> Sequence[Settlement]:
        """Record plain deliveries in one statement for each mark, where the database has it; return what is left."""
        if self._database.dialect.name != "postgresql" or not are_deliveries(settlements):
            return settlements
        left: list[Settlement] = []
        for group in by_mark(settlements):
            done = read_deliveries(await self._database.rows(RECORD_DELIVERIES, deliveries(group, now)))
            left += [each for each in group if each.push.registration_id not in done]
        return left

    async def park(self, push: DuePush, reason: str, until: datetime) -> None:
        """End the claim of a mark whose outcome cannot be recorded; it is not claimed before `until`."""
        key = {"_registration_id": push.registration_id, "_mark": push.mark.value}
        values = {"due_at": until, "attempts": push.attempts + 1, "aside": reason}
        await self._database.run(update_marks, [{**key, **FREE, **values}])

    async def expire(self, platform: Platform, now: datetime) -> int:
        """Drop the unclaimed marks whose newest change is too old for a push; return how many."""
        await SqlChallengeStore(self._database).sweep(now)
        total = 0
        while True:
            dropped = await self._database.run(_expire, platform, now, self.pacing)
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
            return await self._database.run(next_due, Lanes(platform, without=without))
        except WRONG:
            return None  # a moment that cannot be read is claimed with the next look, and set aside


# --- marks that are set aside, or released


def _look_again(
    connection: sa.Connection, registration_id: str, mark: str, now: datetime
) -> tuple[list[DueMark], list[Bad]]:
    """Read a mark that was set aside; it is due at once if that works."""
    mine = (outbox.c.registration_id == registration_id) & (outbox.c.mark == mark)
    found, bad = READABLE.all(connection, READABLE.query.where(mine))
    if found:
        update_marks(connection, [{"_registration_id": registration_id, "_mark": mark, "due_at": now, "aside": ""}])
    return found, bad


def _release(connection: sa.Connection, owner: str | None) -> set[str]:
    """End the claims of an owner, or all; return the platforms of their marks."""
    held = outbox.c.claimed_by.is_not(None) if owner is None else outbox.c.claimed_by == owner
    keys = sa.select(outbox.c.registration_id, outbox.c.mark, outbox.c.platform).where(held)
    keys = keys.order_by(*in_order(outbox.c.registration_id, outbox.c.mark)).with_for_update(key_share=True)
    rows = connection.execute(keys).all()
    update_marks(connection, [{**FREE, "_registration_id": row.registration_id, "_mark": row.mark} for row in rows])
    return {row.platform for row in rows}


# --- how pushes ended


def settle_marks(
    connection: sa.Connection, settlements: Sequence[Settlement], now: datetime, pacing: Pacing
) -> tuple[frozenset[Platform], bool]:
    """Record outcomes; return the platforms to wake, and whether a mailbox was marked dirty."""
    if connection.dialect.name == "sqlite" and are_deliveries(settlements):
        settlements = [each for group in by_mark(settlements) if not deliver(connection, group, now) for each in group]
        if not settlements:
            return frozenset(), False
    ids = sorted({settlement.push.registration_id for settlement in settlements})
    dirty = _mark_mailboxes_dirty(connection, may_end_registrations(settlements))
    recipients = _lock_recipients(connection, ids)
    marks = _lock_pending(connection, settlements, ids)
    settled = settle(settlements, recipients, marks, now, pacing)
    _write(connection, settled, recipients)
    note_results(connection, settled.tests, now)
    return settled.wake, dirty


def update_marks(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Set columns of marks; all rows set the same ones."""
    if rows:
        _mark_updates(tuple(name for name in rows[0] if not name.startswith("_"))).run(connection, rows)


@lru_cache(FORMS)
def _mark_updates(columns: tuple[str, ...]) -> Updates:
    return Updates(outbox, ("registration_id", "mark"), columns)


@lru_cache(FORMS)
def _registration_updates(columns: tuple[str, ...]) -> Updates:
    return Updates(registration, ("id",), columns)


def _mark_mailboxes_dirty(connection: sa.Connection, ids: Sequence[RegistrationId]) -> bool:
    """Mark the mailboxes dirty that may lose these registrations: the watch role reads whom it still serves.

    This comes before the registrations are locked, as every transaction locks mailboxes first.
    """
    if not ids:
        return False
    owners = sorted(connection.scalars(_OWNERS, {"ids": ids}))
    if owners:
        connection.execute(_MARK_DIRTY, [{"_mailbox": owner} for owner in owners])
    return bool(owners)


def _lock_recipients(connection: sa.Connection, ids: Sequence[RegistrationId]) -> Mapping[RegistrationId, Recipient]:
    return {row.id: read_recipient(row) for row in _LOCK_RECIPIENTS.rows(connection, {"ids": ids})}


def _lock_pending(
    connection: sa.Connection, settlements: Sequence[Settlement], ids: Sequence[RegistrationId]
) -> Mapping[MarkKey, PendingMark]:
    """Lock all marks of some registrations; return those that are settled."""
    marks: dict[tuple[str, str], Mark]
    marks = {(each.push.registration_id, each.push.mark): each.push.mark for each in settlements}
    rows = _LOCK_PENDING.rows(connection, {"ids": ids})
    found = [(marks.get((row.registration_id, row.mark)), row) for row in rows]
    return {(row.registration_id, mark): read_pending(row) for mark, row in found if mark is not None}


def _write(connection: sa.Connection, settled: Settled, recipients: Mapping[RegistrationId, Recipient]) -> None:
    updates = [write_registration_update(each, recipients[each.id]) for each in settled.updated]
    for columns, rows in _by_columns(updates):
        _registration_updates(columns).run(connection, rows)
    if settled.gone:
        connection.execute(_TOKEN_GONE, {"ids": settled.gone})
        connection.execute(_FORGET_MARKS, {"ids": settled.gone})
    if settled.forgotten:
        connection.execute(_FORGET_MARKS, {"ids": settled.forgotten})
    if settled.done:
        _DELETE_MARKS.run(connection, settled.done)
    update_marks(connection, [write_mark_update(each) for each in settled.kept])


def _by_columns(rows: Sequence[dict[str, Any]]) -> list[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    """Group rows that set the same columns, for one statement each; the order of the keys stays."""
    grouped: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(tuple(row), []).append(row)
    return [(tuple(name for name in names if name != "_id"), grouped[names]) for names in sorted(grouped)]


_OLD: Final = (
    sa.select(outbox.c.registration_id, outbox.c.mark)
    .where(
        outbox.c.platform == sa.bindparam("platform"),
        outbox.c.last_at < sa.bindparam("old", type_=Moment),
        sa.and_(*(outbox.c.mark != mark.value for mark in sorted(LASTING))),
        free_or_run_out(),
    )
    .order_by(*in_order(outbox.c.registration_id, outbox.c.mark))
)
_OLD_OF: Final = _OLD.where(Among("ids", outbox.c.registration_id)).with_for_update(key_share=True)
_LAST_OUTCOMES: Final = (
    sa.select(registration.c.id, registration.c.last_outcome)
    .where(Among("ids", registration.c.id))
    .order_by(*in_order(registration.c.id))
    .with_for_update(key_share=True)
)


def _find_server(connection: sa.Connection, registration_id: RegistrationId) -> str | None:
    return connection.scalar(_SERVER, {"id": registration_id})


def _expire(connection: sa.Connection, platform: Platform, now: datetime, pacing: Pacing) -> int:
    """Drop one batch of a platform's unclaimed marks without a recent change; return how many."""
    values = {"platform": platform.value, "old": pacing.expires_before(now), "now": now, "far": now + FAR}
    ids = sorted({row.registration_id for row in connection.execute(_OLD.limit(BATCH), values)})
    if not ids:
        return 0
    before = {row.id: LastOutcome.read(row.last_outcome) for row in connection.execute(_LAST_OUTCOMES, {"ids": ids})}
    # Once more, now that no other transaction can add to them.
    marks = [(row.registration_id, row.mark) for row in connection.execute(_OLD_OF, values | {"ids": ids})]
    if marks:
        ids = sorted({id_ for id_, _ in marks})
        lines = [LastOutcome.expired(before[id_], pacing.expire).line for id_ in ids]
        updates = [{"_id": id_, "last_outcome": line} for id_, line in zip(ids, lines, strict=True)]
        _registration_updates(("last_outcome",)).run(connection, updates)
        _DELETE_MARKS.run(connection, marks)
    return len(marks)
