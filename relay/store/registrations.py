"""What the api role reads and writes: registrations, their candidates, and marks of test pushes.

It never reads a credential. Every transaction that changes something locks the mailbox's row first, as those of the
watch role do: so none waits for another in a circle, and no mailbox is forgotten that just got a registration.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eas_watcher.machine.memory import WatchState
from relay.domain.errors import MailboxExists, MailboxFull, RowUnreadable
from relay.domain.model import (
    MOST_REGISTRATIONS,
    Mailbox,
    Mark,
    NewMailbox,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
    RegistrationView,
)
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.tries import Load, account_key
from relay.domain.unreadable import UnreadableRows
from relay.store import tries
from relay.store.engine import scrub, transaction
from relay.store.marks import NewMark, outbox_topics, set_marks
from relay.store.reading import WRONG, Bad, Reader, faults
from relay.store.rows import (
    MAILBOX,
    REGISTRATION,
    AnyRow,
    read_mailbox,
    read_registration,
    write_classes,
    write_quarantine,
)
from relay.store.tables import Moment, candidate, mailbox, outbox, registration

WRITES: Final = 2
"""Transactions of phones that write or wait to write at once: a push never stands behind more of them."""

_UNPROVED: Final = (RegistrationState.VERIFYING.value, RegistrationState.REFUSED.value)
_SLICE: Final = 500  # mailboxes that one transaction locks
_DEVICE: Final = ("mailbox_id", "platform", "app", "environment", "device_token")


class SqlRegistrationStore:
    """The RegistrationStore of the api role."""

    def __init__(
        self,
        engine: AsyncEngine,
        wakeups: Wakeups,
        reads: AsyncEngine | None = None,
        unreadable: UnreadableRows | None = None,
    ) -> None:
        """Keep registrations in a database, wake the roles that wait for what changed, note what cannot be read.

        With an engine for `reads` no question of a phone waits for a writer, and none makes a writer wait.
        """
        self._engine = engine
        self._reads = engine if reads is None else reads
        self._turn = asyncio.Semaphore(WRITES)
        self._wakeups = wakeups
        self._unreadable = unreadable or UnreadableRows()

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        """Run one transaction that may write, when it is this store's turn; raises StoreUnavailable."""
        async with self._turn, transaction(self._engine) as connection:
            yield connection

    async def mailbox_of(self, server: str, user: str) -> Mailbox | None:
        """Find a mailbox by its exact server name and user."""
        query = _MAILBOXES.query.where(mailbox.c.server == server, mailbox.c.user == user)
        async with transaction(self._reads) as connection:
            found, bad = await _MAILBOXES.all(connection, query)
        self._refuse(bad)
        return found[0] if found else None

    async def load_of(self, server: str, account: str) -> Load:
        """Return the tries of an account that are spent, and how many candidates wait for theirs, in all spellings."""
        waiting = sa.select(sa.func.count()).select_from(candidate).where(candidate.c.account == account)
        async with transaction(self._reads) as connection:
            number = await connection.scalar(waiting) or 0
            try:
                return Load(await tries.read(connection, server, account), number)
            except WRONG:  # the watch role mends them before it shows a credential
                return Load(waiting=number)

    async def create(self, mailbox: NewMailbox, registration: Registration, sealed_candidate: bytes) -> None:
        """Insert the mailbox if its id is new, the registration and its candidate; mark the mailbox dirty.

        It replaces an earlier registration of the same app on the same device whose credential was never checked.
        Raises MailboxExists when (server, user) has another id already, MailboxFull when there is no room.
        """
        async with self._writing() as connection:
            await _insert_mailbox(connection, mailbox, registration.created_at)
            await _delete_unchecked(connection, registration)
            await _make_room(connection, registration)
            await _insert_registration(connection, registration)
            await connection.execute(
                sa.insert(candidate).values(
                    registration_id=registration.id,
                    sealed=sealed_candidate,
                    created_at=registration.created_at,
                    account=account_key(mailbox.user),
                )
            )
        self._wakeups.wake(Topic.MAILBOXES)

    async def view(self, registration_id: RegistrationId) -> RegistrationView | None:
        """Read one registration with its mailbox."""
        async with transaction(self._reads) as connection:
            found, bad = await _VIEWS.all(connection, _VIEWS.query.where(registration.c.id == registration_id))
        self._unreadable.looked("registration", registration_id, faults(bad))
        self._refuse(bad)
        return found[0] if found else None

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
        turns a `credential-refused` registration into a `verifying` one. A wiped registration stays as it is.
        """
        revives = change.device_token is not None or change.environment is not None
        platforms: set[str] = set()
        async with self._writing() as connection:
            user = await _mark_dirty(connection, registration_id)
            if user is None or await _wiped(connection, registration_id):
                return
            values = _values(change, now)
            if values:
                update = sa.update(registration).where(registration.c.id == registration_id).values(values)
                platforms.update(await connection.scalars(update.returning(registration.c.platform)))
            if revives:
                # Whatever made the marks wait concerned the old token.
                await connection.execute(
                    sa.update(outbox).where(outbox.c.registration_id == registration_id).values(due_at=now, aside="")
                )
            if change.sealed_candidate is not None:
                # Not an upsert: that needs the right to read sealed credentials, which this role does not have.
                await connection.execute(sa.delete(candidate).where(candidate.c.registration_id == registration_id))
                # From the registration's row, which the transaction that held the mailbox before may have deleted.
                sealed = sa.literal(change.sealed_candidate, sa.LargeBinary)
                given = (sealed, sa.literal(now, Moment), sa.literal(account_key(user), sa.Text))
                waits = sa.select(registration.c.id, *given).where(registration.c.id == registration_id)
                columns = ["registration_id", "sealed", "created_at", "account"]
                await connection.execute(sa.insert(candidate).from_select(columns, waits))
        self._wakeups.wake(Topic.MAILBOXES)
        if revives:
            # Even if there was no mark: one that another transaction is setting is invisible to this one.
            for topic in outbox_topics(platforms):
                self._wakeups.wake(topic)
        if change.sealed_candidate is not None:
            await scrub(self._engine)

    async def remove(self, registration_id: RegistrationId) -> None:
        """Delete the registration, its marks and its candidate; mark the mailbox dirty."""
        async with self._writing() as connection:
            if await _mark_dirty(connection, registration_id) is None:
                return
            await connection.execute(sa.delete(registration).where(registration.c.id == registration_id))
        self._wakeups.wake(Topic.MAILBOXES)
        await scrub(self._engine)

    async def supersede(self, registration_id: RegistrationId) -> int:
        """Delete the mailbox's other registrations of the same app on the same device; return how many there were."""
        mine = registration.alias("mine")
        same = sa.and_(*(getattr(registration.c, name) == getattr(mine.c, name) for name in _DEVICE))
        others = sa.select(registration.c.id).join_from(registration, mine, same & (registration.c.id != mine.c.id))
        async with self._writing() as connection:
            if await _mark_dirty(connection, registration_id) is None:
                return 0
            ids = list(await connection.scalars(others.where(mine.c.id == registration_id)))
            if ids:
                await connection.execute(sa.delete(registration).where(registration.c.id.in_(ids)))
        if ids:
            self._wakeups.wake(Topic.MAILBOXES)
            await scrub(self._engine)
        return len(ids)

    async def may_test(self, registration_id: RegistrationId, now: datetime, pause: timedelta) -> bool:
        """Note a test push and return True, unless one was noted within `pause`."""
        last = registration.c.tested_at
        # One noted in the future was noted by a clock that was wrong.
        free = sa.or_(last.is_(None), last <= now - pause, last > now + pause)
        update = sa.update(registration).where(registration.c.id == registration_id, free).values(tested_at=now)
        async with transaction(self._engine) as connection:
            return await connection.scalar(update.returning(registration.c.id)) is not None

    async def expire(self, before: datetime) -> int:
        """Delete registrations made before a moment that no mail server ever accepted; return how many.

        Mailboxes without any registration are marked dirty, so that the watch role forgets them.
        """
        old = (registration.c.proved_at.is_(None), registration.c.created_at < before)
        owners = sa.select(registration.c.mailbox_id).where(*old).distinct()
        named = sa.exists().where(registration.c.mailbox_id == mailbox.c.id)
        ghosts = sa.select(mailbox.c.id).where(mailbox.c.since < before, ~named)
        async with transaction(self._engine) as connection:
            ids = sorted(
                {*await connection.scalars(owners.limit(_SLICE)), *await connection.scalars(ghosts.limit(_SLICE))}
            )
            gone = 0
            for id_ in ids:  # mailboxes in the order of their ids, as all that lock several do
                await connection.execute(sa.update(mailbox).where(mailbox.c.id == id_).values(dirty=True))
                deleted = sa.delete(registration).where(registration.c.mailbox_id == id_, *old)
                gone += len(list(await connection.scalars(deleted.returning(registration.c.id))))
        if ids:
            self._wakeups.wake(Topic.MAILBOXES)
            await scrub(self._engine)
        return gone

    async def mark(self, registration_id: RegistrationId, mark: Mark, now: datetime) -> None:
        """Set a dirty mark for a test push; does nothing for a registration that is gone."""
        query = sa.select(registration.c.platform).where(registration.c.id == registration_id)
        async with self._writing() as connection:
            platform = await connection.scalar(query.with_for_update(read=True, key_share=True))
            if platform is None:
                return
            new = NewMark(registration_id, mark.value, platform, 1, certain=True)
            topics = await set_marks(connection, [new], now)
        for topic in topics:
            self._wakeups.wake(topic)


def _read_view(row: AnyRow) -> RegistrationView:
    return RegistrationView(
        registration=read_registration(row),
        mailbox=read_mailbox(row),
        candidate_pending=bool(row.candidate_pending),
        candidate_refused=row.candidate_refused,
    )


_MAILBOXES: Final = Reader(sa.select(*MAILBOX), [mailbox.c.id], read_mailbox)
_VIEWS: Final = Reader(
    sa.select(
        *REGISTRATION,
        *MAILBOX,
        registration.c.candidate_refused,
        candidate.c.registration_id.is_not(None).label("candidate_pending"),
    )
    .join_from(registration, mailbox)
    .outerjoin(candidate),
    [registration.c.id],
    _read_view,
)


async def _insert_mailbox(connection: AsyncConnection, new: NewMailbox, now: datetime) -> None:
    """Insert a mailbox, or mark the one that has its id; raise MailboxExists."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(mailbox).on_conflict_do_update(index_elements=["id"], set_={"dirty": sa.true()})
    values = {
        "id": new.id,
        "server": new.server,
        "user": new.user,
        "device_id": new.device_id,
        "shard": new.shard,
        "state": WatchState.VERIFYING.value,
        "since": now,
        "dirty": True,
    }
    try:
        await connection.execute(statement, values)
    except IntegrityError as error:
        raise MailboxExists(f"{new.user} at {new.server}") from error


async def _delete_unchecked(connection: AsyncConnection, new: Registration) -> None:
    """Delete registrations of the same app on the same device whose credential the mail server has not checked yet."""
    unchecked = registration.c.state == RegistrationState.VERIFYING.value
    same = (getattr(registration.c, name) == getattr(new, name) for name in _DEVICE)
    await connection.execute(sa.delete(registration).where(unchecked, *same))


async def _make_room(connection: AsyncConnection, new: Registration) -> None:
    """Raise MailboxFull if the mailbox, which must be locked, has no room for a registration.

    Those whose credential was refused, or whose check came to nothing, make room, the oldest first. A device that
    registers again takes no room.
    """
    state, waits = (
        registration.c.state,
        sa.exists(candidate.c.registration_id).where(candidate.c.registration_id == registration.c.id),
    )
    useless = sa.and_(state.in_(_UNPROVED), ~waits)
    same = sa.and_(*(getattr(registration.c, name) == getattr(new, name) for name in _DEVICE))
    query = (
        sa.select(registration.c.id, useless.label("useless"))
        .where(registration.c.mailbox_id == new.mailbox_id, ~same)
        .order_by(registration.c.created_at, registration.c.id)
    )
    rows = (await connection.execute(query)).all()
    surplus = len(rows) - MOST_REGISTRATIONS + 1
    going = [row.id for row in rows if row.useless][: max(0, surplus)]
    if len(going) < surplus:
        raise MailboxFull(f"a mailbox has {MOST_REGISTRATIONS} registrations at most: remove one first")
    if going:
        await connection.execute(sa.delete(registration).where(registration.c.id.in_(going)))


async def _insert_registration(connection: AsyncConnection, new: Registration) -> None:
    values: dict[str, Any] = {
        "id": new.id,
        "mailbox_id": new.mailbox_id,
        "secret_hash": new.secret_hash,
        "app": new.app,
        "platform": new.platform.value,
        "environment": new.environment.value,
        "device_token": new.device_token,
        "token_since": new.token_since,
        "classes": write_classes(new.classes),
        "subfolders": write_classes(new.subfolders),
        "mode": new.mode.value,
        "locale": new.locale,
        "state": new.state.value,
        "created_at": new.created_at,
    }
    await connection.execute(sa.insert(registration).values(values))


async def _wiped(connection: AsyncConnection, registration_id: RegistrationId) -> bool:
    """Return True if the registration is `wiped`; its mailbox must be locked."""
    state = await connection.scalar(sa.select(registration.c.state).where(registration.c.id == registration_id))
    return state == RegistrationState.WIPED.value


async def _mark_dirty(connection: AsyncConnection, registration_id: RegistrationId) -> str | None:
    """Mark and lock a registration's mailbox; return its user, or None when there is no such registration."""
    owner = sa.select(registration.c.mailbox_id).where(registration.c.id == registration_id).scalar_subquery()
    statement = sa.update(mailbox).where(mailbox.c.id == owner).values(dirty=True).returning(mailbox.c.user)
    user: str | None = await connection.scalar(statement)
    return user


def _values(change: RegistrationChange, now: datetime) -> dict[str, Any]:
    """Return the columns that a change sets."""
    values: dict[str, Any] = {}
    state = registration.c.state
    revivals: list[Any] = []
    if change.device_token is not None:
        values |= {"device_token": change.device_token, "token_since": now}
        revivals.append((state == RegistrationState.TOKEN_GONE.value, RegistrationState.ACTIVE.value))
    if change.sealed_candidate is not None:
        values["candidate_refused"] = False
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
