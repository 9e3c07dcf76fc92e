"""What the api role reads and writes: registrations, their candidates, and marks of test pushes.

It never reads a credential. Every transaction that changes something locks the mailbox's row first, as those of the
watch role do: so none waits for another in a circle, and no mailbox is forgotten that just got a registration.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from eas_watcher.machine.memory import WatchState
from relay.domain.devices import fingerprint
from relay.domain.errors import MailboxExists, MailboxFull, RegistrationExists, RowUnreadable
from relay.domain.model import (
    MOST_REGISTRATIONS,
    Ending,
    Mailbox,
    Mark,
    NewMailbox,
    Platform,
    PushTest,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
    RegistrationView,
    Tombstone,
)
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.retention import Retention
from relay.domain.tries import Load, account_key
from relay.domain.unreadable import UnreadableRows
from relay.store import timeline, tombstones, tries
from relay.store.bulk import Among, in_order
from relay.store.challenges import prove
from relay.store.engine import Database, scrub
from relay.store.marks import NewMark, challenge_mark, outbox_topics, set_marks
from relay.store.prepared import Prepared
from relay.store.push_tests import ONE, TESTS, note_asked
from relay.store.reading import WRONG, Bad, Reader, faults
from relay.store.rows import (
    MAILBOX,
    REGISTRATION,
    SHOWN,
    AnyRow,
    read_mailbox,
    read_registration,
    read_shown,
    write_classes,
    write_quarantine,
)
from relay.store.tables import Moment, candidate, mailbox, outbox, registration
from relay.store.twins import SAME, UNPROVED, Device, lock_twins, mend

T = TypeVar("T")
P = ParamSpec("P")

WRITES: Final = 2
"""Transactions of phones that write or wait to write at once: a push never stands behind more of them."""

RETENTION: Final = Retention()

_SLICE: Final = 500  # mailboxes that one transaction locks


class SqlRegistrationStore:
    """The RegistrationStore of the api role."""

    def __init__(
        self,
        database: Database,
        wakeups: Wakeups,
        reads: Database | None = None,
        unreadable: UnreadableRows | None = None,
        retention: Retention = RETENTION,
    ) -> None:
        """Keep registrations in a database, wake the roles that wait for what changed, note what cannot be read.

        With a database for `reads` no question of a phone waits for a writer, and none makes a writer wait. `retention`
        says how long what has ended is kept.
        """
        self.retention = retention
        self._database = database
        self._reads = database if reads is None else reads
        self._turn = asyncio.Semaphore(WRITES)
        self._wakeups = wakeups
        self._unreadable = unreadable or UnreadableRows()

    async def _write(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one transaction that may write, when it is this store's turn; raises StoreUnavailable."""
        async with self._turn:
            return await self._database.run(work, *args, **kwargs)

    async def _join(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what `_write` does, for work that takes little time."""
        async with self._turn:
            return await self._database.join(work, *args, **kwargs)

    async def mailbox_of(self, server: str, user: str, keys: Collection[str] = ()) -> Mailbox | None:
        """Find a mailbox by its exact server name and user, else one that has any of some keys of the user."""
        found, bad = await self._reads.run(_mailbox_of, server, user, keys)
        self._refuse(bad)
        return found[0] if found else None

    async def load_of(self, server: str, account: str) -> Load:
        """Return the tries of an account that are spent, and how many candidates wait for theirs, in all spellings."""
        return await self._reads.run(_load, server, account)

    async def create(self, mailbox: NewMailbox, registration: Registration, sealed_candidate: bytes) -> None:
        """Insert the mailbox if its id is new, the registration and its candidate; mark the mailbox dirty.

        It replaces an earlier registration of the same app on the same device whose credential was never checked.
        Raises MailboxExists when (server, user) has another id already, RegistrationExists when its id is taken,
        MailboxFull when there is no room.
        """
        ended = await self._join(_create, mailbox, registration, sealed_candidate, self.retention)
        self._wakeups.wake(Topic.MAILBOXES)
        if ended > 0:
            await scrub(self._database)

    async def view(self, registration_id: RegistrationId) -> RegistrationView | None:
        """Read one registration with its mailbox."""
        found, bad = await self._reads.run(VIEWS.all, _VIEWS_OF, {"ids": [registration_id]})
        self._unreadable.looked("registration", registration_id, faults(bad))
        self._refuse(bad)
        return found[0] if found else None

    async def look_at(
        self, ids: Collection[RegistrationId], seen: Collection[RegistrationId]
    ) -> Mapping[RegistrationId, RegistrationView | None]:
        """Read some registrations; None for one that was `seen` and whose candidate still waits.

        Those that are gone or cannot be read are not among them.
        """
        return await self._reads.run(_look_at, ids, seen)

    async def look_again(self, _now: datetime) -> None:
        """Look at the rows set aside; those that are readable are served again."""
        for owner in self._unreadable.owners("registration"):
            with suppress(RowUnreadable):
                await self.view(RegistrationId(owner))

    @staticmethod
    def _refuse(bad: Sequence[Bad]) -> None:
        for each in bad:
            raise RowUnreadable(each.name, each.fault)

    async def change(self, registration_id: RegistrationId, change: RegistrationChange, now: datetime) -> None:
        """Apply a change and mark the mailbox dirty.

        A new device token counts from `now` and revives a `token-gone` registration. A new device token or environment
        ends the quarantine, and its marks are due at once. A new sealed candidate replaces one that still waits, and
        turns a `credential-refused` registration into a `verifying` one. A wiped registration stays as it is. If the
        registration is active then, the mailbox's other ones of the same app on the same device are deleted.
        """
        changed = await self._join(_change, registration_id, change, now, self.retention)
        if changed is None:
            return
        platforms, twins = changed
        self._wakeups.wake(Topic.MAILBOXES)
        if _revives(change):
            # Even if there was no mark: one that another transaction is setting is invisible to this one.
            for topic in outbox_topics(platforms):
                self._wakeups.wake(topic)
        if change.sealed_candidate is not None or twins > 0:
            await scrub(self._database)

    async def remove(self, registration_id: RegistrationId, now: datetime) -> None:
        """Delete the registration, its marks and its candidate, and leave a tombstone; mark the mailbox dirty."""
        await self._delete(registration_id, now)

    async def withdraw(self, registration_id: RegistrationId) -> None:
        """Delete a registration whose secret nobody was given, unless a credential waits for its try meanwhile."""
        await self._delete(registration_id, None)

    async def _delete(self, registration_id: RegistrationId, buried_at: datetime | None) -> None:
        if not await self._join(_remove, registration_id, buried_at, self.retention):
            return
        self._wakeups.wake(Topic.MAILBOXES)
        await scrub(self._database)

    async def tombstone(self, registration_id: RegistrationId) -> Tombstone | None:
        """Return what is left of a registration that ended; None: nothing, or it did not end."""
        return await self._reads.run(tombstones.find, registration_id)

    async def saw(self, registration_id: RegistrationId, now: datetime) -> None:
        """Note that the app of a registration showed its secret."""
        await self._join(_saw, registration_id, now)

    async def may_test(self, registration_id: RegistrationId, now: datetime, pause: timedelta) -> bool:
        """Note a test push and return True, unless one was noted within `pause`."""
        return await self._database.run(_may_test, registration_id, now, pause)

    async def sweep(self, now: datetime, at_once: int = _SLICE) -> Mapping[Ending, int]:
        """End what is kept no longer, slice by slice; return how many registrations ended, and how.

        Mailboxes without any registration are marked dirty, so that the watch role forgets them.
        """
        await self._write(tombstones.clear, now, self.retention)
        while await self._write(_note_idle, now, at_once):
            pass
        ended: Counter[Ending] = Counter()
        while True:
            looked, some = await self._write(_sweep, now, self.retention, at_once)
            ended.update(some)
            if looked:
                self._wakeups.wake(Topic.MAILBOXES)
                await scrub(self._database)
            if looked < at_once or not some.total():  # mailboxes alone wait for the watch role
                break
        await timeline.shorten(self._database, self._reads, now, self.retention)
        return ended

    async def mark(self, registration_id: RegistrationId, mark: Mark, now: datetime, test: str = "") -> None:
        """Set a dirty mark for a test push, and note the test; does nothing for a registration that is gone."""
        for topic in await self._join(_mark, registration_id, mark, now, test):
            self._wakeups.wake(topic)

    async def prove(self, registration_id: RegistrationId, nonce: str, now: datetime) -> bool:
        """Make a proving registration active if the nonce is that of its challenge; return whether it is."""
        twins = await self._join(_prove, registration_id, nonce, now, self.retention)
        if twins is None:
            return False
        self._wakeups.wake(Topic.MAILBOXES)
        if twins > 0:
            await scrub(self._database)
        return True

    async def push_test(self, registration_id: RegistrationId, test: str) -> PushTest | None:
        """Read a test push of a registration; the last few of each are kept."""
        found, bad = await self._reads.run(TESTS.all, ONE, {"_registration": registration_id, "_id": test})
        self._refuse(bad)
        return found[0] if found else None


def _read_view(row: AnyRow) -> RegistrationView:
    return RegistrationView(
        registration=read_registration(row),
        mailbox=read_shown(row),
        candidate_pending=bool(row.candidate_pending),
        candidate_refused=row.candidate_refused,
        seen_at=row.seen_at,
    )


_MAILBOXES: Final = Reader(sa.select(*MAILBOX), [mailbox.c.id], read_mailbox)
VIEWS: Final = Reader(
    sa.select(
        *REGISTRATION,
        *SHOWN,
        registration.c.candidate_refused,
        registration.c.seen_at,
        candidate.c.registration_id.is_not(None).label("candidate_pending"),
    )
    .join_from(registration, mailbox)
    .outerjoin(candidate),
    [registration.c.id],
    _read_view,
)


_MAILBOX_OF: Final = Prepared(
    _MAILBOXES.query.where(mailbox.c.server == sa.bindparam("server"), mailbox.c.user == sa.bindparam("user"))
)
_ALIKE: Final = Prepared(
    _MAILBOXES.query.where(mailbox.c.server == sa.bindparam("server"), Among("keys", mailbox.c.user_key)).order_by(
        mailbox.c.user_key, mailbox.c.id
    )
)
_VIEWS_OF: Final = Prepared(VIEWS.query.where(Among("ids", registration.c.id)))
_CANDIDATES_OF: Final = Prepared(
    sa.select(candidate.c.registration_id).where(Among("ids", candidate.c.registration_id))
)
_WAITING: Final = Prepared(
    sa.select(sa.func.count().label("number"))
    .select_from(candidate)
    .where(candidate.c.account == sa.bindparam("account"))
)


def _mailbox_of(
    connection: sa.Connection, server: str, user: str, keys: Collection[str]
) -> tuple[list[Mailbox], list[Bad]]:
    found, bad = _MAILBOXES.all(connection, _MAILBOX_OF, {"server": server, "user": user})
    if keys and not found and not bad:
        return _MAILBOXES.all(connection, _ALIKE, {"server": server, "keys": list(keys)})
    return found, bad


def _load(connection: sa.Connection, server: str, account: str) -> Load:
    ((number,),) = _WAITING.rows(connection, {"account": account})
    try:
        return Load(tries.read(connection, server, account), number)
    except WRONG:  # the watch role mends them before it shows a credential
        return Load(waiting=number)


def _look_at(
    connection: sa.Connection, ids: Collection[RegistrationId], seen: Collection[RegistrationId]
) -> Mapping[RegistrationId, RegistrationView | None]:
    looked: dict[RegistrationId, RegistrationView | None] = {}
    if seen:
        rows = _CANDIDATES_OF.rows(connection, {"ids": list(seen)})
        looked = {RegistrationId(row.registration_id): None for row in rows}
    if left := [id_ for id_ in ids if id_ not in looked]:
        found, _ = VIEWS.all(connection, _VIEWS_OF, {"ids": left})
        looked |= {view.registration.id: view for view in found}
    return looked


def _create(
    connection: sa.Connection, owner: NewMailbox, new: Registration, sealed: bytes, retention: Retention
) -> int:
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


def _change(
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
    if _revives(change):
        twins = _supersede(connection, own, change, now, retention)
    if values:
        update = (
            sa.update(registration).where(registration.c.id == registration_id).values(values | {"idle_since": None})
        )
        platforms.update(connection.scalars(update.returning(registration.c.platform)))
    if _revives(change):
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


def _revives(change: RegistrationChange) -> bool:
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


def _remove(
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


def _may_test(connection: sa.Connection, registration_id: RegistrationId, now: datetime, pause: timedelta) -> bool:
    last = registration.c.tested_at
    # One noted in the future was noted by a clock that was wrong.
    free = sa.or_(last.is_(None), last <= now - pause, last > now + pause)
    update = sa.update(registration).where(registration.c.id == registration_id, free).values(tested_at=now)
    return connection.scalar(update.returning(registration.c.id)) is not None


def _sweep(connection: sa.Connection, now: datetime, retention: Retention, at_once: int) -> tuple[int, Counter[Ending]]:
    """End one slice of what is kept no longer; return how many mailboxes were looked at, and what ended."""
    over = _over(now, retention)
    before = now - retention.unproved
    owners = sa.select(registration.c.mailbox_id).where(sa.or_(*over.values())).distinct()
    named = sa.exists().where(registration.c.mailbox_id == mailbox.c.id)
    ghosts = sa.select(mailbox.c.id).where(mailbox.c.since < before, ~named)
    ids = sorted({*connection.scalars(owners.limit(at_once)), *connection.scalars(ghosts.limit(at_once))})
    for id_ in ids:  # in the order of their ids, as all that lock several mailboxes do
        connection.execute(sa.update(mailbox).where(mailbox.c.id == id_).values(dirty=True))
    # The push role may be using some: those that are over when it has done are over.
    locked = sa.select(registration.c.id).where(registration.c.mailbox_id.in_(ids), sa.or_(*over.values()))
    connection.execute(locked.order_by(*in_order(registration.c.id)).with_for_update(of=registration))
    ended: Counter[Ending] = Counter()
    for ending, condition in over.items():
        mine = sa.select(registration.c.id).where(registration.c.mailbox_id.in_(ids), condition)
        going = list(connection.scalars(mine))
        tombstones.end(connection, going, ending, now, retention)
        if going:
            ended[ending] = len(going)
    return len(ids), ended


def _over(now: datetime, retention: Retention) -> Mapping[Ending, sa.ColumnElement[bool]]:
    """Return which registrations end, and how: wiped ones once their phone was told, or cannot be."""
    farewell = sa.exists().where(outbox.c.registration_id == registration.c.id, outbox.c.mark == Mark.ATTENTION.value)
    state = registration.c.state
    wiped = state == RegistrationState.WIPED.value
    # An app that sent another device token since may be on a phone that is off for days.
    unproved = sa.and_(registration.c.must_prove, registration.c.token_since == registration.c.created_at)
    stranger = registration.c.proved_at.is_(None) | unproved
    useless: list[sa.ColumnElement[bool]] = [stranger & (registration.c.created_at < now - retention.unproved)]
    if retention.token_gone is not None:
        gone = state == RegistrationState.TOKEN_GONE.value
        useless.append(gone & (registration.c.idle_since < now - retention.token_gone))
    if retention.refused is not None:
        before = now - retention.refused
        refused = mailbox.c.state == WatchState.CREDENTIAL_REFUSED.value
        # A new credential may be what the mailbox waits for, while its server is away.
        asks = sa.exists(candidate.c.registration_id).where(candidate.c.registration_id == registration.c.id)
        waits = state.in_((*UNPROVED, RegistrationState.PROVING.value))
        useless.append(waits & (registration.c.idle_since < before))
        mine = mailbox.c.id == registration.c.mailbox_id
        useless.append(~asks & sa.exists(mailbox.c.id).where(mine, refused, mailbox.c.since < before))
    if retention.untouched is not None:
        moments = (registration.c.seen_at, registration.c.last_push_at, registration.c.created_at)
        before = now - retention.untouched
        useless.append(sa.and_(*(sa.or_(moment.is_(None), moment < before) for moment in moments)))
    return {Ending.WIPED: wiped & ~farewell, Ending.EXPIRED: ~wiped & sa.or_(*useless)}


def _note_idle(connection: sa.Connection, now: datetime, at_once: int) -> bool:
    """Note since when registrations are of no use, or that they are of use again; return whether some may be left.

    The column follows the state within one look, whoever changed the state. Rows that are in use wait for the next one.
    """
    idle = registration.c.state.not_in((RegistrationState.ACTIVE.value, RegistrationState.WIPED.value))
    since = registration.c.idle_since
    found: list[str] = []
    for stale, value in ((idle & since.is_(None), now), (~idle & since.is_not(None), None)):
        some = sa.select(registration.c.id).where(stale).order_by(*in_order(registration.c.id)).limit(at_once)
        ids = list(connection.scalars(some.with_for_update(key_share=True, skip_locked=True)))
        connection.execute(sa.update(registration).where(registration.c.id.in_(ids)).values(idle_since=value))
        found += ids
    return len(found) >= at_once


def _saw(connection: sa.Connection, registration_id: RegistrationId, now: datetime) -> None:
    connection.execute(sa.update(registration).where(registration.c.id == registration_id).values(seen_at=now))


def _mark(
    connection: sa.Connection, registration_id: RegistrationId, mark: Mark, now: datetime, test: str
) -> list[Topic]:
    query = sa.select(registration.c.platform).where(registration.c.id == registration_id)
    platform = connection.scalar(query.with_for_update(read=True, key_share=True))
    if platform is None:
        return []
    topics = set_marks(connection, [NewMark(registration_id, mark.value, platform, 1, certain=True)], now)
    if test:
        note_asked(connection, registration_id, test, now)
    return topics


def _prove(
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
_REGISTRATION: Final = Prepared(sa.select(*REGISTRATION).where(registration.c.id == sa.bindparam("_id")))
_BESIDE: Final = Prepared(
    sa.select(registration.c.id).where(
        sa.or_(registration.c.id == sa.bindparam("_id"), registration.c.mailbox_id == sa.bindparam("_mailbox"))
    )
)
_INSERT_CANDIDATE: Final = Prepared(sa.insert(candidate), ("registration_id", "sealed", "created_at", "account"))


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


def _values(change: RegistrationChange, platform: Platform, now: datetime) -> dict[str, Any]:
    """Return the columns that a change sets."""
    values: dict[str, Any] = {}
    state = registration.c.state
    revivals: list[Any] = []
    if change.device_token is not None:
        values |= {"device_token": change.device_token, "token_since": now}
        values["token_hash"] = fingerprint(platform, change.device_token)
        # The same token was proved already, unless it is still to be proved.
        moved = registration.c.device_token != change.device_token
        unproved = sa.or_(moved, registration.c.must_prove) if change.proves else sa.false()
        revived = sa.case((unproved, RegistrationState.PROVING.value), else_=RegistrationState.ACTIVE.value)
        ready = (RegistrationState.TOKEN_GONE, RegistrationState.ACTIVE, RegistrationState.PROVING)
        revivals.append((state.in_([each.value for each in ready]), revived))
        values |= {
            "must_prove": sa.case((unproved, sa.true()), else_=sa.false()),
            "challenge_hash": sa.case((moved, sa.null()), else_=registration.c.challenge_hash),
        }
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
