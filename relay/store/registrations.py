"""What the api role reads and writes: registrations, their candidates, and marks of test pushes.

It never reads a credential. What a registration writes as it comes in, changes and ends is in `new_registrations.py`,
`registration_changes.py` and `expiry.py`. Every transaction that changes something locks the mailbox's row first, as
those of the watch role do: so none waits for another in a circle, and no mailbox is forgotten that just got a
registration.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy as sa

from relay.domain.errors import RowUnreadable
from relay.domain.model import (
    Ending,
    Mailbox,
    Mark,
    NewMailbox,
    PushTest,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationView,
    Tombstone,
)
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.retention import Retention
from relay.domain.tries import Load
from relay.domain.unreadable import UnreadableRows
from relay.store import expiry, new_registrations, registration_changes, timeline, tombstones, tries
from relay.store.bulk import Among
from relay.store.engine import Database, scrub
from relay.store.marks import outbox_topics
from relay.store.prepared import Prepared
from relay.store.push_tests import ONE, TESTS
from relay.store.reading import WRONG, Bad, Reader, faults
from relay.store.rows import (
    MAILBOX,
    REGISTRATION,
    SHOWN,
    AnyRow,
    read_mailbox,
    read_registration,
    read_shown,
)
from relay.store.tables import candidate, mailbox, registration

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
        ended = await self._join(new_registrations.insert, mailbox, registration, sealed_candidate, self.retention)
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
        changed = await self._join(registration_changes.change, registration_id, change, now, self.retention)
        if changed is None:
            return
        platforms, twins = changed
        self._wakeups.wake(Topic.MAILBOXES)
        if registration_changes.revives(change):
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
        if not await self._join(registration_changes.remove, registration_id, buried_at, self.retention):
            return
        self._wakeups.wake(Topic.MAILBOXES)
        await scrub(self._database)

    async def tombstone(self, registration_id: RegistrationId) -> Tombstone | None:
        """Return what is left of a registration that ended; None: nothing, or it did not end."""
        return await self._reads.run(tombstones.find, registration_id)

    async def saw(self, registration_id: RegistrationId, now: datetime) -> None:
        """Note that the app of a registration showed its secret."""
        await self._join(registration_changes.saw, registration_id, now)

    async def may_test(self, registration_id: RegistrationId, now: datetime, pause: timedelta) -> bool:
        """Note a test push and return True, unless one was noted within `pause`."""
        return await self._database.run(registration_changes.may_test, registration_id, now, pause)

    async def sweep(self, now: datetime, at_once: int = _SLICE) -> Mapping[Ending, int]:
        """End what is kept no longer, slice by slice; return how many registrations ended, and how.

        Mailboxes without any registration are marked dirty, so that the watch role forgets them.
        """
        await self._write(tombstones.clear, now, self.retention)
        while await self._write(expiry.note_idle, now, at_once):
            pass
        ended: Counter[Ending] = Counter()
        while True:
            looked, some = await self._write(expiry.sweep, now, self.retention, at_once)
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
        for topic in await self._join(registration_changes.mark_asked, registration_id, mark, now, test):
            self._wakeups.wake(topic)

    async def prove(self, registration_id: RegistrationId, nonce: str, now: datetime) -> bool:
        """Make a proving registration active if the nonce is that of its challenge; return whether it is."""
        twins = await self._join(registration_changes.prove_device, registration_id, nonce, now, self.retention)
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
