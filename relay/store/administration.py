"""What administrators see and order, in the database. The api role's user may do all of it.

An order is a flag on the mailbox: the watch role, which owns the mailbox's Ping and credential, does the rest. The act
and its entry in the audit log are one transaction.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from eas_watcher.names import MailboxId
from relay.admin.audit import Act, AuditKey, Stamp, Verdict, What
from relay.admin.rules import follows, no_push_retry, no_test, obstacle
from relay.admin.values import (
    BadCursor,
    Done,
    KeptMailbox,
    KeptMark,
    KeptRegistration,
    ListedMailbox,
    MailboxFilter,
    Maintenance,
    NotDone,
    Order,
    Page,
    RegistrationFilter,
    Tries,
    Wiped,
)
from relay.domain.counted import counted
from relay.domain.model import Ending, Mailbox, Mark, Platform, PushTest, RegistrationId, RegistrationView
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.retention import Retention
from relay.domain.tries import TryLimits, account_key
from relay.store import acts, tombstones
from relay.store.bulk import Among, in_order
from relay.store.engine import Database, scrub
from relay.store.marks import NewMark, outbox_topics, set_marks
from relay.store.push_tests import TESTS, note_asked
from relay.store.reading import Bad, Reader
from relay.store.registrations import VIEWS
from relay.store.rows import SHOWN, AnyRow, read_shown, shown_condition
from relay.store.tables import mailbox, maintenance, outbox, push_test, registration, tries, wipe
from relay.store.timeline import delete_events, events_of
from relay.store.wakeups import CHANNEL, LocalWakeups
from relay.store.wipes import forget_user, may_forget

T = TypeVar("T")

BETWEEN_TESTS: Final = timedelta(seconds=10)
"""Test pushes of one registration that administrators send are so far apart."""
MOST_EVENTS: Final = 10_000
"""Events of the timeline in one export; far more than are kept of one mailbox."""
KEPT: Final = "counts of refused tries are kept until they count no more, and a wipe until `relay wipes allow`"
"""What the api role's database user cannot delete."""
RETENTION: Final = Retention()
WHAT: Final = {
    Order.RETRY: What.MAILBOX_RETRY,
    Order.PAUSE: What.MAILBOX_PAUSE,
    Order.RESUME: What.MAILBOX_RESUME,
    Order.FORGET: What.MAILBOX_FORGET,
}


def _nobody(_user: str) -> str:
    return ""


class SqlAdminStore:
    """The AdminStore on a database."""

    def __init__(
        self,
        database: Database,
        wakeups: Wakeups | None = None,
        reads: Database | None = None,
        retention: Retention = RETENTION,
        account_of: Callable[[str], str] = _nobody,
        limits: Mapping[str, TryLimits] = MappingProxyType({}),
    ) -> None:
        """Act in a database, and wake the roles of this process; through PostgreSQL those of all processes are woken.

        With a database for `reads`, lists make no writer wait. `account_of` returns the hash under which the timeline
        has a user, `limits` name the directories of servers.
        """
        self._limits = limits
        self._account_of = account_of
        self._database = database
        self._wakeups = wakeups or LocalWakeups()
        self._reads = reads or database
        self._retention = retention

    async def mailboxes(self, wanted: MailboxFilter, limit: int, cursor: str | None) -> Page[ListedMailbox]:
        """Return a page of mailboxes by server and user; raises BadCursor."""
        return await self._reads.run(_mailboxes, wanted, limit, cursor)

    async def registrations(self, wanted: RegistrationFilter, limit: int, cursor: str | None) -> Page[RegistrationView]:
        """Return a page of registrations by server, user and id; raises BadCursor."""
        return await self._reads.run(_registrations, wanted, limit, cursor)

    async def named(self, name: str) -> Sequence[MailboxId]:
        """Return the mailboxes of a name: the id of one, of one of its registrations, or the whole user."""
        return await self._reads.run(_named, name)

    async def known(self, mailboxes: Collection[MailboxId]) -> frozenset[MailboxId]:
        """Return which of some mailboxes are there."""
        return await self._reads.run(_known, mailboxes)

    async def view(self, registration: RegistrationId) -> RegistrationView | None:
        """Read one registration with its mailbox."""
        return await self._reads.run(_view, registration)

    async def order(self, mailbox: MailboxId, order: Order, stamp: Stamp) -> Done | NotDone | None:
        """Do what is ordered about a mailbox, if it makes sense; None: there is no such mailbox."""
        topics = [Topic.MAILBOXES, *(Topic.outbox(each) for each in Platform if order is Order.RESUME)]
        done = await self._act(topics, _order, mailbox, order, stamp, self._account_of, self._limits)
        if order is Order.FORGET and done is not None:
            await scrub(self._database)
        return done

    async def kept(self, mailbox: MailboxId, stamp: Stamp) -> KeptMailbox | None:
        """Return all that is kept of a mailbox and its user, and note that it was exported; None: it is not there."""
        return await self._database.run(_kept, mailbox, stamp, self._account_of)

    async def tests(self, registration: RegistrationId) -> Sequence[PushTest]:
        """Return the last test pushes of a registration, the newest first."""
        return await self._reads.run(_tests, registration)

    async def retry_pushes(self, registration: RegistrationId, stamp: Stamp) -> Done | NotDone | None:
        """Make what waits for a registration due now, and end the wait of its quarantine; None: it is not there."""
        return await self._act(outbox_topics(set(Platform)), _retry_pushes, registration, stamp)

    async def test_push(self, registration: RegistrationId, test: str, stamp: Stamp) -> Done | NotDone | None:
        """Set the mark of a test push with an id; None: there is no such registration."""
        return await self._act(outbox_topics(set(Platform)), _test_push, registration, test, stamp)

    async def forget_registration(self, registration: RegistrationId, stamp: Stamp) -> Done | None:
        """End a registration; None: there is none."""
        done = await self._act([Topic.MAILBOXES], _forget_registration, registration, stamp, self._retention)
        if done is not None:
            await scrub(self._database)
        return done

    async def maintained(self) -> Sequence[Maintenance]:
        """Return the servers in maintenance, by name."""
        return await self._reads.run(_maintained)

    async def maintain(self, server: str, stamp: Stamp, *, on: bool) -> Done | NotDone:
        """Put a server into maintenance, or end that; all its mailboxes are marked dirty."""
        return await self._act([Topic.MAILBOXES], _maintain, server, stamp, on)

    async def acts(self, most: int, before: int | None) -> Sequence[Act]:
        """Return the last entries of the audit log, the newest first; `before`: of those with smaller numbers."""
        return await acts.latest(self._reads, most, before)

    async def verify_acts(self, keys: Mapping[str, AuditKey]) -> Verdict:
        """Check the whole audit log; `keys` by their ids."""
        return await acts.verify_all(self._reads, keys)

    async def _act(self, topics: Sequence[Topic], work: Callable[..., T], *arguments: object) -> T:
        """Run one transaction; if it did something, wake those who must read it."""

        def acting(connection: sa.Connection) -> T:
            result = work(connection, *arguments)
            if isinstance(result, Done) and connection.dialect.name == "postgresql":
                for topic in topics:
                    connection.execute(_NOTIFY, {"channel": CHANNEL, "topic": topic.value})
            return result

        result = await self._database.run(acting)
        if isinstance(result, Done):
            for topic in topics:
                self._wakeups.wake(topic)
        return result


_NOTIFY: Final = sa.text("SELECT pg_catalog.pg_notify(:channel, :topic)")
_COUNT: Final = (
    sa.select(sa.func.count())
    .select_from(registration)
    .where(registration.c.mailbox_id == mailbox.c.id)
    .correlate(mailbox)
    .scalar_subquery()
    .label("registrations")
)
_LISTED: Final = Reader(
    sa.select(*SHOWN, _COUNT),
    [mailbox.c.id],
    lambda row: ListedMailbox(read_shown(row), row.registrations),
)
_ONE: Final = Reader(sa.select(*SHOWN), [mailbox.c.id], read_shown)
_LOCKED: Final = _ONE.query.where(mailbox.c.id == sa.bindparam("_id")).with_for_update(of=mailbox, key_share=True)


# --- lists


def _mailboxes(connection: sa.Connection, wanted: MailboxFilter, limit: int, cursor: str | None) -> Page[ListedMailbox]:
    query = _LISTED.query.where(*_where(wanted.server, wanted.user))
    if wanted.state is not None:
        query = query.where(shown_condition()[0].element == wanted.state.value)
    key = (mailbox.c.server, mailbox.c.user)
    if cursor is not None:
        after = connection.execute(sa.select(*key).where(mailbox.c.id == cursor)).one_or_none()
        query = query.where(_later(key, after))
    found, bad = _LISTED.all(connection, query.order_by(*key).limit(limit + 1))
    more = len(found) + len(bad) > limit
    rows = found[:limit]
    return Page(tuple(rows), _next([each.mailbox.id for each in rows], bad) if more else None)


def _registrations(
    connection: sa.Connection, wanted: RegistrationFilter, limit: int, cursor: str | None
) -> Page[RegistrationView]:
    query = VIEWS.query.where(*_where(wanted.server, wanted.user))
    for column, value in (
        (registration.c.state, wanted.state),
        (registration.c.platform, wanted.platform),
        (registration.c.app, wanted.app),
    ):
        if value is not None:
            query = query.where(column == str(value))
    key = (mailbox.c.server, mailbox.c.user, registration.c.id)
    if cursor is not None:
        last = sa.select(*key).join_from(registration, mailbox).where(registration.c.id == cursor)
        query = query.where(_later(key, connection.execute(last).one_or_none()))
    found, bad = VIEWS.all(connection, query.order_by(*key).limit(limit + 1))
    more = len(found) + len(bad) > limit
    rows = found[:limit]
    return Page(tuple(rows), _next([each.registration.id for each in rows], bad) if more else None)


def _next(shown: Sequence[str], bad: Sequence[Bad]) -> str:
    """Return where the next page begins; a page of rows that cannot be read ends with the last of them."""
    return shown[-1] if shown else bad[-1].name


def _later(key: Sequence[sa.Column[Any]], after: AnyRow | None) -> sa.ColumnElement[bool]:
    if after is None:
        raise BadCursor
    return sa.tuple_(*key) > sa.tuple_(*(sa.literal(value, sa.Text) for value in after))


def _where(server: str | None, user: str) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if server is not None:
        found.append(mailbox.c.server == server)
    if user:
        found.append(mailbox.c.user.icontains(user, autoescape=True))
    return found


def _named(connection: sa.Connection, name: str) -> list[MailboxId]:
    owner = sa.select(registration.c.mailbox_id).where(registration.c.id == name)
    wanted = (mailbox.c.id == name) | mailbox.c.id.in_(owner) | (sa.func.lower(mailbox.c.user) == name.lower())
    query = sa.select(mailbox.c.id).where(wanted).order_by(mailbox.c.server, mailbox.c.user)
    return [MailboxId(id_) for id_ in connection.scalars(query)]


def _known(connection: sa.Connection, mailboxes: Collection[MailboxId]) -> frozenset[MailboxId]:
    query = sa.select(mailbox.c.id).where(Among("ids", mailbox.c.id))
    return frozenset(MailboxId(id_) for id_ in connection.scalars(query, {"ids": sorted(mailboxes)}))


def _view(connection: sa.Connection, id_: RegistrationId) -> RegistrationView | None:
    found, _ = VIEWS.all(connection, VIEWS.query.where(registration.c.id == id_))
    return found[0] if found else None


# --- acts


def _lock(connection: sa.Connection, id_: MailboxId) -> Mailbox | None:
    """Lock a mailbox, as all do that change something of it, and return it as people see it."""
    found, _ = _ONE.all(connection, _LOCKED, {"_id": id_})
    return found[0] if found else None


_FLAGS: Final[Mapping[Order, Mapping[str, object]]] = {
    Order.RETRY: {"retry": True},
    Order.RESUME: {"paused_at": None},
    Order.FORGET: {"forgotten": True},
}


def _order(
    connection: sa.Connection,
    id_: MailboxId,
    order: Order,
    stamp: Stamp,
    account_of: Callable[[str], str],
    limits: Mapping[str, TryLimits],
) -> Done | NotDone | None:
    known = _lock(connection, id_)
    if known is None:
        return None
    why = obstacle(order, known)
    if why is not None:
        return why
    flag = {"paused_at": stamp.at} if order is Order.PAUSE else _FLAGS[order]
    connection.execute(sa.update(mailbox).where(mailbox.c.id == id_).values(dirty=True, **flag))
    detail, done = "", follows(order)
    if order is Order.FORGET:
        mine = sa.select(registration.c.id).where(registration.c.mailbox_id == id_)
        locked = list(connection.scalars(mine.order_by(*in_order(registration.c.id)).with_for_update()))
        # With their candidates, marks and tests; without tombstones, which would be a trace.
        connection.execute(sa.delete(registration).where(registration.c.mailbox_id == id_))
        account = account_of(known.user)
        delete_events(connection, id_, [account] if account else [])
        detail = counted(len(locked), "registration")
        if may_forget(connection):
            forget_user(connection, known.server, known.user, limits)
        else:
            done = Done(f"{done.text}; {KEPT}")
    acts.note(connection, stamp, WHAT[order], server=known.server, user=known.user, detail=detail)
    return done


def _owner(connection: sa.Connection, id_: RegistrationId) -> RegistrationView | None:
    """Lock the mailbox of a registration; return the registration as it is then."""
    owner = connection.scalar(sa.select(registration.c.mailbox_id).where(registration.c.id == id_))
    if owner is None or _lock(connection, owner) is None:
        return None
    return _view(connection, id_)


def _retry_pushes(connection: sa.Connection, id_: RegistrationId, stamp: Stamp) -> Done | NotDone | None:
    known = _owner(connection, id_)
    if known is None:
        return None
    waiting = connection.scalar(sa.select(sa.func.count()).where(outbox.c.registration_id == id_)) or 0
    why = no_push_retry(known, waiting)
    if why is not None:
        return why
    if known.registration.quarantine is not None:
        connection.execute(sa.update(registration).where(registration.c.id == id_).values(recheck_at=stamp.at))
    connection.execute(sa.update(outbox).where(outbox.c.registration_id == id_).values(due_at=stamp.at, aside=""))
    _note(connection, stamp, What.REGISTRATION_RETRY, known)
    return Done("what waits is tried now" if waiting else "the next change tries its device token again")


def _test_push(connection: sa.Connection, id_: RegistrationId, test: str, stamp: Stamp) -> Done | NotDone | None:
    known = _owner(connection, id_)
    if known is None:
        return None
    why = no_test(known)
    if why is not None:
        return why
    last = registration.c.tested_at
    # One noted in the future was noted by a clock that was wrong.
    free = sa.or_(last.is_(None), last <= stamp.at - BETWEEN_TESTS, last > stamp.at + BETWEEN_TESTS)
    mine = sa.update(registration).where(registration.c.id == id_, free).values(tested_at=stamp.at)
    if connection.scalar(mine.returning(registration.c.id)) is None:
        return NotDone("a test push was sent just now: wait ten seconds")
    note_asked(connection, id_, test, stamp.at)
    set_marks(connection, [NewMark(id_, Mark.TEST.value, known.registration.platform.value, 1, certain=True)], stamp.at)
    _note(connection, stamp, What.REGISTRATION_TEST, known)
    return Done("a test push is on its way; the explanation of its mailbox shows what the provider says")


def _forget_registration(
    connection: sa.Connection, id_: RegistrationId, stamp: Stamp, retention: Retention
) -> Done | None:
    known = _owner(connection, id_)
    if known is None:
        return None
    connection.execute(sa.update(mailbox).where(mailbox.c.id == known.mailbox.id).values(dirty=True))
    tombstones.end(connection, [id_], Ending.REMOVED, stamp.at, retention)
    _note(connection, stamp, What.REGISTRATION_FORGET, known)
    return Done("it is gone; its app learns that it was removed")


def _note(connection: sa.Connection, stamp: Stamp, what: What, known: RegistrationView) -> None:
    acts.note(connection, stamp, what, server=known.mailbox.server, user=known.mailbox.user)


def _maintained(connection: sa.Connection) -> list[Maintenance]:
    return [Maintenance(*row) for row in connection.execute(sa.select(maintenance).order_by(maintenance.c.server))]


def _maintain(connection: sa.Connection, server: str, stamp: Stamp, on: bool) -> Done | NotDone:
    mine = sa.select(mailbox.c.id).where(mailbox.c.server == server)
    ids = list(connection.scalars(mine.order_by(*in_order(mailbox.c.id)).with_for_update(key_share=True)))
    since = connection.scalar(sa.select(maintenance.c.since).where(maintenance.c.server == server))
    if on is (since is not None):
        return NotDone(
            f"it is in maintenance since {since:%Y-%m-%d %H:%M} UTC" if since else "it is not in maintenance"
        )
    if on:
        connection.execute(sa.insert(maintenance), {"server": server, "since": stamp.at})
    else:
        connection.execute(sa.delete(maintenance).where(maintenance.c.server == server))
    connection.execute(sa.update(mailbox).where(mailbox.c.server == server).values(dirty=True))
    what = What.MAINTENANCE_ON if on else What.MAINTENANCE_OFF
    mailboxes = counted(len(ids), "mailbox")
    acts.note(connection, stamp, what, server=server, detail=mailboxes)
    if on:
        return Done(f"in maintenance: the relay ends the watches of {mailboxes}, and asks the server nothing")
    return Done(f"the maintenance is over for {mailboxes}: watches start again at the server's return_rate")


# --- export


_FACTS: Final = sa.select(
    registration.c.id, registration.c.tested_at, registration.c.proved_at, registration.c.idle_since
)
_MARKS: Final = Reader(
    sa.select(outbox.c.registration_id, outbox.c.mark, outbox.c.count.label("changes"))
    .add_columns(outbox.c.first_at, outbox.c.due_at, outbox.c.attempts)
    .order_by(outbox.c.first_at, outbox.c.mark),
    [outbox.c.registration_id, outbox.c.mark],
    lambda row: KeptMark(Mark(row.mark), row.changes, row.first_at, row.due_at, row.attempts),
)


def _kept(
    connection: sa.Connection, id_: MailboxId, stamp: Stamp, account_of: Callable[[str], str]
) -> KeptMailbox | None:
    known = _lock(connection, id_)
    if known is None:
        return None
    views, _ = VIEWS.all(connection, VIEWS.query.where(registration.c.mailbox_id == id_).order_by(registration.c.id))
    account = account_key(known.user)
    acts.note(connection, stamp, What.MAILBOX_EXPORT, server=known.server, user=known.user)
    return KeptMailbox(
        known,
        tuple(_kept_registration(connection, view) for view in views),
        tuple(
            Tries(*row)
            for row in connection.execute(
                sa.select(tries.c.server, tries.c.user, tries.c.spent, tries.c.last_at).where(
                    tries.c.account == account
                )
            )
        ),
        tuple(
            Wiped(*row)
            for row in connection.execute(
                sa.select(wipe.c.server, wipe.c.user, wipe.c.wiped_at).where(wipe.c.account == account)
            )
        ),
        tuple(acts.about(connection, stamp.subjects(known.user))),
        tuple(events_of(connection, [id_], account_of(known.user), MOST_EVENTS)),
    )


def _tests(connection: sa.Connection, id_: RegistrationId) -> list[PushTest]:
    query = TESTS.query.where(push_test.c.registration_id == id_)
    found, _ = TESTS.all(connection, query.order_by(push_test.c.asked_at.desc(), push_test.c.id))
    return found


def _kept_registration(connection: sa.Connection, view: RegistrationView) -> KeptRegistration:
    id_ = view.registration.id
    facts = connection.execute(_FACTS.where(registration.c.id == id_)).one()
    marks, _ = _MARKS.all(connection, _MARKS.query.where(outbox.c.registration_id == id_))
    tests, _ = TESTS.all(connection, TESTS.query.where(push_test.c.registration_id == id_))
    return KeptRegistration(view, facts.tested_at, facts.proved_at, facts.idle_since, tuple(marks), tuple(tests))
