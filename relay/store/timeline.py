"""The timeline in the database: written in groups by every role, read, shortened and deleted by the api role."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from relay.domain.errors import StoreUnavailable
from relay.domain.model import Ending
from relay.domain.retention import Retention
from relay.domain.timeline import Event, EventKind, Happening, Timeline
from relay.store.bulk import Among
from relay.store.engine import Database
from relay.store.prepared import Prepared
from relay.store.reading import Reader
from relay.store.rows import AnyRow
from relay.store.tables import Moment, event, mailbox, registration

log = logging.getLogger(__name__)

PERIOD: Final = 5.0  # seconds between two writes, if there is anything to write: a mail alone shares its transaction
PATIENCE: Final = 2.0  # seconds that the last write may take when the process ends
SLICE: Final = 1_000  # rows that one transaction deletes
PAGE: Final = 500  # mailboxes whose events one statement counts
MOST: Final = 1_000_000_000  # of a count; its column holds little more

_COLUMNS: Final = (
    "at",
    "mailbox_id",
    "registration_id",
    "account",
    "kind",
    "what",
    "through",
    "result",
    "code",
    "count",
)
_INSERT: Final = Prepared(sa.insert(event).inline(), _COLUMNS)  # asks for no id back, which only the api role may read
_OWNERS: Final = Prepared(
    sa.select(registration.c.id, registration.c.mailbox_id).where(Among("ids", registration.c.id))
)
_KNOWN: Final = Prepared(sa.select(mailbox.c.id).where(Among("ids", mailbox.c.id)))
_ENDED: Final = sa.insert(event).from_select(
    ["at", "mailbox_id", "registration_id", "kind", "result"],
    sa.select(
        sa.bindparam("now", type_=Moment),
        registration.c.mailbox_id,
        registration.c.id,
        sa.literal(EventKind.ENDED.value),
        sa.bindparam("ending", type_=sa.Text),
    ).where(Among("ids", registration.c.id)),
)


class TimelineWriter:
    """Writes what the roles of this process note: every few seconds, and at once when many events wait."""

    def __init__(self, database: Database, timeline: Timeline, *, period: float = PERIOD) -> None:
        """Write the events of `timeline` while `run` runs; `period` is the time between two writes in seconds."""
        self._period = period
        self._database = database
        self._timeline = timeline
        self._many = asyncio.Event()
        """Set when many events wait."""
        timeline.on_many = self._many.set
        self._dropped = 0
        self._refused = ""
        """Why the database refused the last events; empty: it did not."""

    async def run(self) -> None:
        """Write until cancelled; `close` writes the rest."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._many.wait()
            self._many.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted; drop it if the database is away, which the others log."""
        happenings = self._timeline.take()
        if happenings:
            try:
                await self._database.run(write, happenings)
            except StoreUnavailable:
                log.debug("events not noted: the database is away", extra={"events": len(happenings)})
            except DBAPIError as error:
                # No push depends on events: a right that is missing after an upgrade must not stop the process.
                self._refuse(str(error.orig))
            else:
                self._refused = ""
        if self._timeline.dropped != self._dropped:
            more, self._dropped = self._timeline.dropped - self._dropped, self._timeline.dropped
            log.warning("events of the timeline dropped: too many came at once", extra={"events": more})

    def _refuse(self, detail: str) -> None:
        """Log once why the database refuses events."""
        if detail != self._refused:
            self._refused = detail
            log.warning("events not noted: the database refuses them", extra={"detail": detail})

    async def close(self) -> None:
        """Write the last events, if that is quick."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self.flush()
        except TimeoutError:
            log.debug("the last events are not noted: the database is slow")


def write(connection: sa.Connection, happenings: Sequence[Happening]) -> None:
    """Insert events; those of mailboxes and registrations that are gone meanwhile are left out.

    So nothing comes back of a mailbox that was deleted with its events. An event of an account needs no mailbox.
    """
    orphans = {each.event.registration_id for each in happenings if not _names_owner(each.event)}
    owners: dict[str, str] = {}
    if orphans:
        owners = {row.id: row.mailbox_id for row in _OWNERS.rows(connection, {"ids": sorted(orphans)})}
    named = {each.event.mailbox_id for each in happenings if each.event.mailbox_id and not each.event.account}
    known = set(owners.values())
    if named:
        known |= {row.id for row in _KNOWN.rows(connection, {"ids": sorted(named)})}
    rows = []
    for each in happenings:
        own = each.event
        owner = own.mailbox_id or owners.get(own.registration_id, "")
        if own.account or owner in known:
            kept = {"kind": str(own.kind), "mailbox_id": owner, "at": each.at, "count": min(each.count, MOST)}
            rows.append(own._asdict() | kept)
    if rows:
        _INSERT.many(connection, rows)


def _names_owner(own: Event) -> bool:
    return bool(own.mailbox_id or own.account or not own.registration_id)


def note_ended(
    connection: sa.Connection, ids: Collection[str], ending: Ending, now: datetime, retention: Retention
) -> None:
    """Note how registrations end that are still there, with the transaction that ends them."""
    if ids and retention.events:
        connection.execute(_ENDED, {"ids": sorted(ids), "ending": ending.value, "now": now})


def delete_events(connection: sa.Connection, mailbox_id: str, accounts: Collection[str] = ()) -> int:
    """Delete all events of a mailbox, its registrations, and the accounts with these hashes; return how many."""
    of_accounts = sa.and_(event.c.account != "", Among("accounts", event.c.account))
    doomed = sa.delete(event).where(sa.or_(event.c.mailbox_id == mailbox_id, of_accounts)).returning(event.c.id)
    return len(list(connection.scalars(doomed, {"accounts": sorted(accounts)})))


# --- keeping it short


async def shorten(database: Database, reads: Database, now: datetime, retention: Retention) -> int:
    """Delete events that are too old, and the oldest ones of mailboxes that have too many; return how many."""
    deleted = 0
    while some := await database.run(_delete_old, now - retention.events):
        deleted += some
    after = ""
    while counted := await reads.run(_count, after):
        for mailbox_id, number in counted:
            if mailbox_id and number > retention.events_of_one:
                deleted += await database.run(_delete_surplus, mailbox_id, retention.events_of_one)
        after = counted[-1][0]
    return deleted


def _delete_old(connection: sa.Connection, before: datetime) -> int:
    """Delete old events among the first ones, inserted nearly in the order of their time; return how many."""
    first = sa.select(event.c.id, event.c.at).order_by(event.c.id).limit(SLICE).subquery()
    ids = list(connection.scalars(sa.select(first.c.id).where(first.c.at < before)))
    if ids:
        connection.execute(sa.delete(event).where(Among("ids", event.c.id)), {"ids": ids})
    return len(ids)


def _count(connection: sa.Connection, after: str) -> list[tuple[str, int]]:
    """Count the events of the next mailboxes after one, in the order of their ids."""
    query = sa.select(event.c.mailbox_id, sa.func.count()).where(event.c.mailbox_id > after)
    query = query.group_by(event.c.mailbox_id).order_by(event.c.mailbox_id).limit(PAGE)
    return [(row[0], row[1]) for row in connection.execute(query)]


def _delete_surplus(connection: sa.Connection, mailbox_id: str, most: int) -> int:
    mine = event.c.mailbox_id == mailbox_id
    last = sa.select(event.c.id).where(mine).order_by(event.c.id.desc()).offset(most).limit(1).scalar_subquery()
    doomed = sa.delete(event).where(mine, event.c.id <= last).returning(event.c.id)
    return len(list(connection.scalars(doomed)))


# --- reading it


def _read(row: AnyRow) -> tuple[int, Happening]:
    what = Event(*(getattr(row, name) for name in Event._fields))
    return row.id, Happening(row.at, what, row.happened)


_EVENTS: Final = Reader(
    sa.select(event.c.count.label("happened"), *(column for column in event.c if column.name != "count")),
    [event.c.id],
    _read,
)


def events_of(
    connection: sa.Connection, mailboxes: Collection[str], account: str, most: int, before: datetime | None = None
) -> list[Happening]:
    """Return the last events of some mailboxes and of an account, the oldest first; rows that are damaged are left out.

    `before` leaves out what came later. Events of an account that belong to another mailbox are those of a namesake.
    """
    found: dict[int, Happening] = {}
    wanted = [(event.c.mailbox_id == each) for each in sorted(mailboxes)]
    if account:
        wanted.append(sa.and_(*_of_stranger(account)))
    for condition in wanted:
        query = _EVENTS.query.where(condition)
        if before is not None:
            query = query.where(event.c.at <= before)
        rows, _ = _EVENTS.all(connection, query.order_by(event.c.id.desc()).limit(most))
        found |= dict(rows)
    return [each for _, each in sorted(found.items(), key=lambda item: (item[1].at, item[0]))][-most:]


def _of_stranger(account: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of an account's events that belong to no mailbox which is there."""
    known = sa.exists(mailbox.c.id).where(mailbox.c.id == event.c.mailbox_id)
    return event.c.account != "", event.c.account == account, ~known


def mailboxes_of(connection: sa.Connection, account: str) -> list[str]:
    """Return the mailboxes that are gone, for which an account registered or tried to."""
    query = sa.select(event.c.mailbox_id).where(*_of_stranger(account)).distinct()
    return sorted(each for each in connection.scalars(query) if each)
