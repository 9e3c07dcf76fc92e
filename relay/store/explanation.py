"""How `relay explain` finds a mailbox, and reads it with everything that explains its state."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from eas_watcher.names import MailboxId
from relay.domain.clock import Clock
from relay.domain.explanation import Findings, KnownRegistration, MailboxExplanation, UnreadableMailbox, WaitingMark
from relay.domain.model import Mailbox, Mark
from relay.domain.timeline import Happening
from relay.domain.unreadable import UnreadableRows
from relay.store.engine import Database
from relay.store.reading import Bad, Reader, faults
from relay.store.rows import REGISTRATION, SHOWN, AnyRow, read_registration, read_shown
from relay.store.tables import candidate, mailbox, node, outbox, registration, shard
from relay.store.timeline import events_of, mailboxes_of
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore

FORBIDDEN: Final = "42501"
"""The SQLSTATE of a statement that its user may not run."""
MOST: Final = 20
"""Mailboxes of one user; there is one per server."""
SIMILAR: Final = 50
"""Mailboxes that are listed if a part of a name fits several."""
EVENTS: Final = 100
"""Events of one mailbox that are read."""
AccountOf: TypeAlias = Callable[[str], str]
"""Returns the keyed hash of a user; empty: unknown."""


def _nobody(_user: str) -> str:
    return ""


class SqlExplanationStore:
    """Finds mailboxes to explain; the api role's database user may read all that it must read."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Read from a database; the clock says which claims have run out."""
        self._database = database
        self._clock = clock

    async def find(
        self, name: str, account_of: AccountOf = _nobody, most: int = EVENTS, before: datetime | None = None
    ) -> Findings:
        """Find a mailbox by its id, the id of one of its registrations, its user, or a part of its user.

        `account_of` returns the hash under which the timeline has what users did that have no mailbox. At `most` so
        many events are returned, none that came after `before`.
        """
        unreadable = UnreadableRows()
        found, bad, similar = await self._database.run(_find, name, self._clock(), unreadable)
        if len(similar) > 1:
            return Findings(similar=tuple(similar))
        explained: list[MailboxExplanation | UnreadableMailbox] = []
        for known, owner, until, own in found:
            await self._look_as_the_watch(known.id, unreadable)
            account = account_of(known.user)
            events = await self._database.run(events_of, [known.id], account, most, before)
            rows = tuple(unreadable.of(known.id))
            explained.append(MailboxExplanation(known, owner, until, own, rows, tuple(events)))
        explained += [UnreadableMailbox(each.name, tuple(unreadable.of(each.name))) for each in bad]
        if explained:
            return Findings(tuple(explained))
        return Findings(events=tuple(await self._database.run(_events_of_stranger, account_of(name), most, before)))

    async def _look_as_the_watch(self, id_: MailboxId, unreadable: UnreadableRows) -> None:
        """Note what the watch role cannot read of a mailbox, if our database user may read it."""
        try:
            await SqlWatchStore(self._database, LocalWakeups(), unreadable=unreadable).record(id_, self._clock())
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != FORBIDDEN:
                raise

    async def unknown(self, registrations: Collection[str]) -> set[str]:
        """Return which of some ids no registration has."""
        return set(registrations) - await self._database.run(_registration_ids)


def _read_mark(row: AnyRow) -> tuple[str, WaitingMark]:
    mark = WaitingMark(
        mark=Mark(row.mark),
        count=row.changes,
        first_at=row.first_at,
        due_at=row.due_at,
        attempts=row.attempts,
        claimed=False,
        parked=row.aside,
    )
    return row.registration_id, mark


_MAILBOXES: Final = Reader(
    sa.select(*SHOWN, shard.c.owner, sa.func.coalesce(node.c.alive_until, shard.c.lease_until).label("owned_until"))
    .outerjoin_from(mailbox, shard, shard.c.number == mailbox.c.shard)
    .outerjoin(node, node.c.id == shard.c.owner),
    [mailbox.c.id],
    lambda row: (read_shown(row), row.owner, row.owned_until),
)
_REGISTRATIONS: Final = Reader(
    sa.select(
        *REGISTRATION,
        registration.c.candidate_refused,
        candidate.c.registration_id.is_not(None).label("candidate_pending"),
    ).outerjoin_from(registration, candidate),
    [registration.c.id],
    lambda row: (read_registration(row), bool(row.candidate_pending), row.candidate_refused),
)
_MARKS: Final = Reader(
    sa.select(outbox.c.count.label("changes"), *(c for c in outbox.c if c.name != "count")),
    [outbox.c.registration_id, outbox.c.mark],
    lambda row: (_read_mark(row), row.claimed_until),
)


_Found: TypeAlias = "tuple[Mailbox, str | None, datetime | None, tuple[KnownRegistration, ...]]"


def _find(
    connection: sa.Connection, name: str, now: datetime, unreadable: UnreadableRows
) -> tuple[list[_Found], list[Bad], list[Mailbox]]:
    """Return mailboxes, each with its shard's owner, until when that has it, and the mailbox's registrations.

    If no name is the whole one, the mailboxes with that part of a name; several of them come last, unexplained.
    """
    owner = sa.select(registration.c.mailbox_id).where(registration.c.id == name)
    wanted = (mailbox.c.id == name) | mailbox.c.id.in_(owner) | (sa.func.lower(mailbox.c.user) == name.lower())
    found, bad = _some(connection, wanted, MOST, unreadable)
    if not found and not bad and name:
        part = sa.func.lower(mailbox.c.user).contains(name.lower(), autoescape=True)
        found, bad = _some(connection, part, SIMILAR, unreadable)
        if len(found) > 1:
            return [], [], [known for known, _, _ in found]
    return [(*one, _registrations(connection, one[0].id, now, unreadable)) for one in found], bad, []


def _some(
    connection: sa.Connection, wanted: sa.ColumnElement[bool], most: int, unreadable: UnreadableRows
) -> tuple[list[tuple[Mailbox, str | None, datetime | None]], list[Bad]]:
    query = _MAILBOXES.query.where(wanted).order_by(mailbox.c.server, mailbox.c.user).limit(most)
    found, bad = _MAILBOXES.all(connection, query)
    for each in bad:
        unreadable.looked("mailbox", each.name, {each.name: each.fault})
    return found, bad


def _events_of_stranger(connection: sa.Connection, account: str, most: int, before: datetime | None) -> list[Happening]:
    """Return the events of an account, and of mailboxes for which it once registered."""
    if not account:
        return []
    return events_of(connection, mailboxes_of(connection, account), account, most, before)


def _registration_ids(connection: sa.Connection) -> set[str]:
    return set(connection.scalars(sa.select(registration.c.id)))


def _registrations(
    connection: sa.Connection, owner: MailboxId, now: datetime, unreadable: UnreadableRows
) -> tuple[KnownRegistration, ...]:
    query = _REGISTRATIONS.query.where(registration.c.mailbox_id == owner)
    known, bad = _REGISTRATIONS.all(connection, query.order_by(registration.c.created_at, registration.c.id))
    unreadable.looked("registration", owner, faults(bad))
    of_registrations = outbox.c.registration_id.in_([own.id for own, _, _ in known])
    query = _MARKS.query.where(of_registrations).order_by(outbox.c.first_at, outbox.c.mark)
    marks, bad = _MARKS.all(connection, query)
    unreadable.looked("outbox", owner, faults(bad))
    waiting = [
        (id_, replace(mark, claimed=claimed_until is not None and claimed_until > now))
        for (id_, mark), claimed_until in marks
    ]
    return tuple(
        KnownRegistration(
            own,
            candidate_pending=pending,
            candidate_refused=refused,
            marks=tuple(mark for id_, mark in waiting if id_ == own.id),
        )
        for own, pending, refused in known
    )
