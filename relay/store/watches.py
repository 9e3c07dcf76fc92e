"""What the watch role reads and writes: mailboxes with all that belongs to them, and candidates.

Progress, the hot path, is committed in `commits`. Each method is one transaction; wake-ups follow its commit.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection as Several
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eas_watcher.commands.folder_sync import Folder
from eas_watcher.machine.memory import Collection, Memory, WatchState
from eas_watcher.names import CollectionClass, CollectionId, MailboxId, SyncKey
from eas_watcher.reasons import Reason
from relay.domain.errors import StoreUnavailable
from relay.domain.handover import NOBODY, Offer
from relay.domain.model import (
    Candidate,
    CommitEntry,
    DuePush,
    Mailbox,
    Platform,
    RegistrationId,
    RegistrationState,
    WatchRecord,
)
from relay.domain.ports.outbox import Handover
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.tries import DEFAULT, TryLimits, Wait
from relay.domain.unreadable import UnreadableRows
from relay.store import tries, wipes
from relay.store.bulk import Among, count_up, in_order
from relay.store.commits import Committed, commit, still_leased
from relay.store.engine import Database, scrub
from relay.store.marks import challenge_mark, outbox_topics, set_marks
from relay.store.news import COMMIT_NEWS, are_news, news, read_news
from relay.store.prepared import Prepared
from relay.store.reading import SHOWN, WRONG, Bad, Reader
from relay.store.rows import (
    COLLECTION,
    MAILBOX,
    PARTNERSHIP,
    AnyRow,
    read_classes,
    read_collection,
    read_hierarchy,
    read_mailbox,
    read_memory,
    rest_of_wait,
    strange_classes,
)
from relay.store.tables import Moment, candidate, collection, hierarchy, mailbox, outbox, registration, sealed_anew
from relay.store.twins import delete_twins_of

log = logging.getLogger(__name__)

AT_ONCE: Final = 500  # mailboxes per statement; far below both databases' limit of parameters

_MAILBOXES: Final = sa.select(*MAILBOX, *PARTNERSHIP, mailbox.c.sealed_credential)
_TABLES: Final = ("mailbox", "collection", "hierarchy", "registration")
"""The tables whose rows belong to a mailbox, as `UnreadableRows` names them."""
_NOTE_PINGS: Final = (
    sa.update(mailbox)
    .where(mailbox.c.id == sa.bindparam("_id"))
    .values(last_ping_at=sa.bindparam("_at"), heartbeat=sa.bindparam("_heartbeat"))
)
_HAS_ITS_TRY: Final = Prepared(
    sa.update(candidate).where(candidate.c.registration_id == sa.bindparam("_registration")).values(account=sa.null())
)
_THIS: Final = mailbox.c.id == sa.bindparam("_id")
_HAS_CREDENTIAL: Final = Prepared(sa.select(mailbox.c.sealed_credential.is_not(None).label("has")).where(_THIS))
_LOGIN: Final = Prepared(sa.select(mailbox.c.server, mailbox.c.user).where(_THIS).with_for_update(key_share=True))
_LOCK: Final = Prepared(sa.select(mailbox.c.id).where(_THIS).with_for_update(key_share=True))
_STATE: Final = Prepared(sa.select(registration.c.state).where(registration.c.id == sa.bindparam("_registration")))
_DROP: Final = Prepared(
    sa.delete(candidate)
    .where(candidate.c.registration_id == sa.bindparam("_registration"), candidate.c.sealed == sa.bindparam("_sealed"))
    .returning(candidate.c.registration_id)
)
_REFUSED: Final = mailbox.alias("refused")
_ACCEPTED_BESIDE: Final = (
    sa.select(sa.func.max(mailbox.c.last_ping_at))
    .join_from(_REFUSED, mailbox, mailbox.c.server == _REFUSED.c.server)
    .where(
        _REFUSED.c.id == sa.bindparam("_id"),
        mailbox.c.id != _REFUSED.c.id,
        sa.func.coalesce(mailbox.c.url, "") == sa.func.coalesce(_REFUSED.c.url, ""),
        mailbox.c.state == WatchState.WATCHING.value,
    )
)
_ACCEPTED: Final = tuple(
    state.value for state in (RegistrationState.PROVING, RegistrationState.ACTIVE, RegistrationState.TOKEN_GONE)
)
"""States of registrations whose credential was accepted, and may be doubted again."""
_WAITS_FOR_CREDENTIAL: Final = (
    WatchState.VERIFYING.value,
    WatchState.CREDENTIAL_REFUSED.value,
    WatchState.WIPED.value,
)


class SqlWatchStore:
    """The WatchStore of the watch role."""

    def __init__(
        self,
        database: Database,
        wakeups: Wakeups,
        limits: Mapping[str, TryLimits] = MappingProxyType({}),
        unreadable: UnreadableRows | None = None,
        handover: Handover = NOBODY,
        *,
        guards_wipes: bool = True,
    ) -> None:
        """Keep watches in a database, wake the roles that wait for what changed, note what cannot be read.

        `limits` has what the directory of each server bears; other servers have the default. `handover` takes over
        marks that are set. `guards_wipes`: nobody registers for a wiped account before an administrator allows it.
        """
        self._guards_wipes = guards_wipes
        self._database = database
        self._wakeups = wakeups
        self._limits = limits
        self._unreadable = unreadable or UnreadableRows()
        self._handover = handover

    async def records(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        """Read all mailboxes of some shards, clear their dirty flags, count a try on their collections' keys.

        Shards that have another epoch by now are left to their owner.
        """
        return await self._database.run(take_records, leases, now, self._unreadable, only_dirty=False)

    async def take_dirty(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        """Read the dirty mailboxes of some shards and clear their flags, in one transaction.

        Shards that have another epoch by now are left to their owner, who must not miss a flag.

        Records that were read are returned even if it is unknown whether the transaction was committed: the flags may
        be cleared, and then no process would ever look at these mailboxes. Mailboxes whose flags stay are read again.
        """
        taken: list[WatchRecord] = []

        def take(connection: sa.Connection) -> None:
            taken.extend(take_records(connection, leases, now, self._unreadable, only_dirty=True))

        try:
            await self._database.run(take)
        except StoreUnavailable:
            if not taken:
                raise
        return taken

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        """Read one mailbox as it is now, whether dirty or not."""
        return await self._database.run(_read_record, mailbox_id, now, self._unreadable)

    async def look_again(self, now: datetime) -> None:
        """Look at the rows set aside; mark their mailboxes dirty once they are readable, so that they are taken up."""
        owners = sorted({MailboxId(owner) for table in _TABLES for owner in self._unreadable.owners(table)})
        for owner in owners:
            if await self._database.run(_look_again, owner, now, self._unreadable):
                self._wakeups.wake(Topic.MAILBOXES)

    async def commit(self, batch: Sequence[CommitEntry], now: datetime) -> frozenset[MailboxId]:
        """Commit progress of many mailboxes in one transaction; return those whose lease is no longer ours.

        A mailbox that is gone counts among these: no process may watch it any more.
        """
        if not batch:
            return frozenset()
        offers = self._handover.offer()
        born: Sequence[DuePush] = ()
        try:
            committed = await self._commit(batch, now, offers)
            born = committed.born
        finally:
            self._handover.take(offers, born)
        for topic in committed.topics:
            self._wakeups.wake(topic)
        if committed.wiped:
            self._wakeups.wake(Topic.VERDICTS)  # of candidates that waited
            await scrub(self._database)
        return committed.fenced

    async def _commit(self, batch: Sequence[CommitEntry], now: datetime, offers: Mapping[Platform, Offer]) -> Committed:
        """Commit progress: news that no dispatcher here takes over in one statement, where the database has it."""
        if offers or self._database.dialect.name != "postgresql" or not are_news(batch):
            return await self._database.run(commit, batch, now, self._limits, offers)
        kept, platforms = read_news(await self._database.rows(COMMIT_NEWS, news(batch, now)))
        topics, fenced = outbox_topics(platforms), frozenset[MailboxId]()
        if left := [entry for entry in batch if entry.mailbox_id not in kept]:
            rest = await self._database.run(commit, left, now, self._limits)
            topics, fenced = [*topics, *rest.topics], rest.fenced
        return Committed(fenced, topics, wiped=False, born=[])

    async def note_pings(self, pings: Mapping[MailboxId, tuple[datetime, float]]) -> None:
        """Note when each mailbox's last Ping began and its heartbeat in seconds."""
        if not pings:
            return
        rows = [{"_id": id_, "_at": pings[id_][0], "_heartbeat": pings[id_][1]} for id_ in sorted(pings)]
        await self._database.run(lambda connection: connection.execute(_NOTE_PINGS, rows))

    async def accepted_beside(self, mailbox_id: MailboxId) -> datetime | None:
        """Return when the server of a mailbox accepted another one last, which any process watches; None: never."""
        try:
            return await self._database.run(_accepted_beside, mailbox_id)
        except WRONG:  # of a moment; the reader of mailboxes names the row
            return None

    async def forget(self, mailbox_id: MailboxId) -> bool:
        """Delete a mailbox that no registration names any more; return whether it is gone."""
        gone = await self._database.run(_forget, mailbox_id)
        if gone:
            await scrub(self._database)
        return gone

    # --- candidates

    async def accept(
        self,
        candidate: Candidate,
        now: datetime,
        url: str | None = None,
        *,
        replaces: bool = False,
        succeeded: bool = False,
    ) -> None:
        """Make an accepted candidate the mailbox's credential, its registration active, the mailbox dirty.

        A registration whose app must prove that it is on the device becomes proving, and gets a challenge.
        The mailbox's other registrations of the same app on the same device are deleted.

        A wipe destroys the candidates that wait: one that is still there came afterwards, with a new registration, and
        the mailbox starts from nothing with it, once an administrator has allowed that. Until then the registration
        becomes `wiped`.
        """
        accepted = await self._database.run(
            _accept,
            candidate,
            now,
            url,
            self._limits,
            replaces=replaces,
            succeeded=succeeded,
            guards_wipes=self._guards_wipes,
        )
        if accepted is None:
            return
        end, topics = accepted
        for topic in topics:
            self._wakeups.wake(topic)
        if end is Acceptance.FORBIDDEN:
            ids = {"mailbox": candidate.mailbox_id, "registration": candidate.registration_id}
            log.warning("registration refused: an administrator wiped the mailbox", extra=ids)
        self._wakeups.wake(Topic.MAILBOXES)
        self._wakeups.wake(Topic.VERDICTS)
        if end is not Acceptance.FIRST:  # that of a mailbox without a credential is the candidate itself
            await scrub(self._database)

    async def refuse(self, candidate: Candidate, now: datetime) -> None:
        """Drop a refused candidate; nothing happens if it was replaced meanwhile."""
        await self._database.run(_refuse, candidate, now)
        self._wakeups.wake(Topic.VERDICTS)
        await scrub(self._database)

    async def expire(self, candidate: Candidate) -> None:
        """Drop a candidate that nobody could check in time; its registration waits for another one."""
        if not await self._database.run(_expire, candidate):
            return
        self._wakeups.wake(Topic.VERDICTS)
        await scrub(self._database)

    # --- tries

    async def spend(self, mailbox_id: MailboxId, now: datetime, candidate: Candidate | None = None) -> Wait | None:
        """Count a try of a mailbox's account before its credential, or a candidate, is shown; return a wait instead."""
        return await self._database.run(_spend, mailbox_id, now, candidate, self._limits)

    async def succeeded(self, mailbox_id: MailboxId) -> None:
        """Forget the tries of a mailbox's user: its server has accepted a credential that was shown."""
        await self._database.run(_succeeded, mailbox_id, self._limits)

    async def reseal(self, mailbox_id: MailboxId, before: bytes, after: bytes) -> None:
        """Replace one sealed credential by another where the mailbox has it: as its credential, or as a candidate."""
        await self._database.run(_reseal, mailbox_id, {before: after})
        await scrub(self._database)

    async def sealed_anew(self, shards: Several[int]) -> frozenset[int]:
        """Return those of some shards from which no seals of the old form are taken any more."""
        return await self._database.run(_sealed_anew) & frozenset(shards)

    async def seal_anew(self, seals: Mapping[MailboxId, Mapping[bytes, bytes]], shards: Several[int]) -> None:
        """Replace many seals, and note for good that no seals of the old form are taken from `shards`."""
        await self._database.run(_seal_anew, seals, shards)
        await scrub(self._database)


def _sealed_anew(connection: sa.Connection) -> frozenset[int]:
    return frozenset(connection.scalars(sa.select(sealed_anew.c.shard)))


def _seal_anew(
    connection: sa.Connection, seals: Mapping[MailboxId, Mapping[bytes, bytes]], shards: Several[int]
) -> None:
    for mailbox_id in sorted(seals):
        _reseal(connection, mailbox_id, seals[mailbox_id])
    if shards:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        statement = insert(sealed_anew).on_conflict_do_nothing()
        connection.execute(statement, [{"shard": number} for number in sorted(shards)])


def _reseal(connection: sa.Connection, mailbox_id: MailboxId, seals: Mapping[bytes, bytes]) -> None:
    """Replace seals, before -> after, where the mailbox has them."""
    if not _lock(connection, mailbox_id):
        return
    own = sa.select(registration.c.id).where(registration.c.mailbox_id == mailbox_id)
    for before, after in seals.items():
        connection.execute(
            sa.update(mailbox)
            .where(mailbox.c.id == mailbox_id, mailbox.c.sealed_credential == before)
            .values(sealed_credential=after)
        )
        connection.execute(
            sa.update(candidate)
            .where(candidate.c.registration_id.in_(own), candidate.c.sealed == before)
            .values(sealed=after)
        )


class Acceptance(Enum):
    """What became of a candidate that its server accepted."""

    FIRST = auto()
    REPLACED = auto()
    """It took the place of an older credential, which was destroyed."""
    FORBIDDEN = auto()
    """It was destroyed: its account was wiped, and nobody may register for it."""


class Owned(NamedTuple):
    """A row of the mailbox table, without what other tables have of the mailbox."""

    mailbox: Mailbox
    memory: Memory
    sealed_credential: bytes | None


class Wish(NamedTuple):
    """What the watch of a mailbox needs of one of its registrations, with the candidate that waits."""

    mailbox_id: MailboxId
    id: RegistrationId
    active: bool
    classes: frozenset[CollectionClass]
    subfolders: frozenset[CollectionClass]
    sealed: bytes | None
    created_at: datetime | None
    strange: str
    """The fault of a registration that asks for classes of a newer version; the others are served."""


def _read_owned(row: AnyRow) -> Owned:
    return Owned(read_mailbox(row), read_memory(row), row.sealed_credential)


def _read_wish(row: AnyRow) -> Wish:
    strange = strange_classes(row.classes)
    classes = read_classes(row.classes)
    return Wish(
        MailboxId(row.mailbox_id),
        RegistrationId(row.id),
        RegistrationState(row.state) is RegistrationState.ACTIVE,
        classes,
        classes & read_classes(row.subfolders),
        row.sealed,
        row.created_at,
        f"classes: {', '.join(strange)}"[:SHOWN] if strange else "",
    )


def _read_bare_collection(row: AnyRow) -> tuple[MailboxId, Collection]:
    cls = CollectionClass(row._mapping["class"])  # noqa: SLF001 - documented, for a column whose name is a keyword
    return MailboxId(row.mailbox_id), Collection(CollectionId(row.collection_id), cls, SyncKey(row.sync_key))


_OWNED: Final = Reader(_MAILBOXES, [mailbox.c.id], _read_owned)
_ONE: Final = Prepared(_OWNED.query.where(_THIS))
_WISHES: Final = Reader(
    sa.select(
        registration.c.mailbox_id,
        registration.c.id,
        registration.c.classes,
        registration.c.subfolders,
        registration.c.state,
        candidate.c.sealed,
        candidate.c.created_at,
    ).outerjoin_from(registration, candidate),
    [registration.c.mailbox_id, registration.c.id],
    _read_wish,
)
_COLLECTIONS: Final = Reader(
    sa.select(*COLLECTION),
    [collection.c.mailbox_id, collection.c.collection_id],
    lambda row: (MailboxId(row.mailbox_id), read_collection(row)),
)
_BARE_COLLECTIONS: Final = Reader(
    sa.select(collection.c.mailbox_id, collection.c.collection_id, collection.c["class"], collection.c.sync_key),
    [collection.c.mailbox_id, collection.c.collection_id],
    _read_bare_collection,
)
"""A collection whose position is readable loses no mail, whatever else is wrong with its row."""
_HIERARCHIES: Final = Reader(
    sa.select(hierarchy), [hierarchy.c.mailbox_id], lambda row: (MailboxId(row.mailbox_id), read_hierarchy(row))
)
_COLLECTIONS_OF: Final = Prepared(
    _COLLECTIONS.query.where(Among("ids", collection.c.mailbox_id)).order_by(
        collection.c.mailbox_id, collection.c.collection_id
    )
)
_HIERARCHIES_OF: Final = Prepared(_HIERARCHIES.query.where(Among("ids", hierarchy.c.mailbox_id)))
_WISHES_OF: Final = Prepared(_WISHES.query.where(Among("ids", registration.c.mailbox_id)).order_by(registration.c.id))


def _read_record(
    connection: sa.Connection, mailbox_id: MailboxId, now: datetime, unreadable: UnreadableRows
) -> WatchRecord | None:
    owned, bad = _OWNED.all(connection, _ONE, {"_id": mailbox_id})
    if not owned and not bad:
        for table in _TABLES:
            unreadable.looked(table, mailbox_id)
        return None
    _note_mailboxes(unreadable, owned, bad)
    found = _complete(connection, owned, now, unreadable)
    return found[0] if found else None


def _look_again(connection: sa.Connection, owner: MailboxId, now: datetime, unreadable: UnreadableRows) -> bool:
    """Read a mailbox of which rows were set aside; mark it dirty, and return True, if others are now, or none."""
    before = unreadable.of(owner)
    _read_record(connection, owner, now, unreadable)
    if unreadable.of(owner) == before:
        return False
    connection.execute(sa.update(mailbox).where(mailbox.c.id == owner).values(dirty=True))
    return True


def take_records(
    connection: sa.Connection,
    leases: Mapping[int, int],
    now: datetime,
    unreadable: UnreadableRows,
    *,
    only_dirty: bool,
    at_once: int = AT_ONCE,
) -> list[WatchRecord]:
    """Lock and read mailboxes of shards that are still leased, clear their dirty flags; all: count a try on their keys.

    Those that cannot be read stay as they are, dirty or not.
    """
    query = _OWNED.query.where(mailbox.c.shard.in_(still_leased(connection, leases))).order_by(*in_order(mailbox.c.id))
    query = query.with_for_update(of=mailbox, key_share=True)
    if only_dirty:
        query = query.where(mailbox.c.dirty)
    owned, bad = _OWNED.all(connection, query)
    _note_mailboxes(unreadable, owned, bad)
    records: list[WatchRecord] = []
    for some in _slices(owned, at_once):
        ids = [each.mailbox.id for each in some]
        # By id: a mailbox that became dirty since the statement above keeps its flag.
        connection.execute(sa.update(mailbox).where(mailbox.c.id.in_(ids)).values(dirty=False))
        if not only_dirty:
            # After the lock on their mailboxes: `commit` and `forget` take the locks in that order, too.
            tried = sa.update(collection).where(collection.c.mailbox_id.in_(ids))
            connection.execute(tried.values(tries=count_up(collection.c.tries)))
        records += _complete(connection, some, now, unreadable)
    return records


def _note_mailboxes(unreadable: UnreadableRows, owned: Iterable[Owned], bad: Iterable[Bad]) -> None:
    for each in bad:
        unreadable.looked("mailbox", each.name, {each.name: each.fault})
    for one in owned:
        unreadable.looked("mailbox", one.mailbox.id)


def _complete(
    connection: sa.Connection, owned: Sequence[Owned], now: datetime, unreadable: UnreadableRows
) -> list[WatchRecord]:
    """Join mailboxes with the collections, hierarchies, registrations and candidates that belong to them."""
    if not owned:
        return []
    ids = [each.mailbox.id for each in owned]
    collections = _collections(connection, ids, unreadable)
    folders, bad = _HIERARCHIES.all(connection, _HIERARCHIES_OF, {"ids": ids})
    _note(unreadable, "hierarchy", ids, bad)
    hierarchies = dict(folders)
    wishes, bad = _WISHES.all(connection, _WISHES_OF, {"ids": ids})
    strange = [Bad((each.mailbox_id, each.id), each.strange) for each in wishes if each.strange]
    _note(unreadable, "registration", ids, [*bad, *strange])
    wished = _grouped((each.mailbox_id, each) for each in wishes)
    lost = Counter(each.key[0] for each in bad)
    return [
        _record(each, collections[id_], hierarchies.get(id_), wished[id_], lost[id_], now)
        for id_, each in zip(ids, owned, strict=True)
    ]


def _collections(
    connection: sa.Connection, ids: Sequence[MailboxId], unreadable: UnreadableRows
) -> Mapping[MailboxId, list[Collection]]:
    """Read the collections of mailboxes; of one that cannot be read as a whole at least its position, if that can."""
    key = (collection.c.mailbox_id, collection.c.collection_id)
    found, bad = _COLLECTIONS.all(connection, _COLLECTIONS_OF, {"ids": ids})
    _note(unreadable, "collection", ids, bad)
    for each in bad:
        mine = sa.and_(*(column == value for column, value in zip(key, each.key, strict=True)))
        found += (_BARE_COLLECTIONS.all(connection, _BARE_COLLECTIONS.query.where(mine)))[0]
    return _grouped(found)


def _note(unreadable: UnreadableRows, table: str, owners: Iterable[MailboxId], bad: Iterable[Bad]) -> None:
    """Note the end of a look at the rows of a table that belong to mailboxes."""
    found = _grouped((each.key[0], each) for each in bad)
    for owner in owners:
        unreadable.looked(table, owner, {"/".join(each.key[1:]) or owner: each.fault for each in found[owner]})


def _record(
    owned: Owned,
    collections: Sequence[Collection],
    folders: tuple[Folder, ...] | None,
    wishes: Sequence[Wish],
    lost: int,
    now: datetime,
) -> WatchRecord:
    """Build a record; `lost` registrations cannot be read, but the mailbox is theirs too."""
    active = [each for each in wishes if each.active]
    id_ = owned.mailbox.id
    return WatchRecord(
        mailbox=owned.mailbox,
        sealed_credential=owned.sealed_credential,
        memory=replace(
            owned.memory,
            collections=tuple(collections),
            classes=frozenset().union(*(each.classes for each in active)),
            subfolders=frozenset().union(*(each.subfolders for each in active)),
            retry_in=rest_of_wait(owned.mailbox.next_try_at, now),
            hierarchy=folders,
        ),
        candidates=tuple(
            Candidate(each.id, id_, each.sealed, each.created_at) for each in wishes if each.sealed is not None
        ),
        registrations=len(wishes) + lost,
    )


K = TypeVar("K")
V = TypeVar("V")


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    grouped: dict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        grouped[key].append(value)
    return grouped


def _slices(rows: Sequence[Owned], length: int) -> Iterator[Sequence[Owned]]:
    for start in range(0, len(rows), length):
        yield rows[start : start + length]


def _accepted_beside(connection: sa.Connection, mailbox_id: MailboxId) -> datetime | None:
    moment: datetime | None = connection.scalar(_ACCEPTED_BESIDE, {"_id": mailbox_id})
    return moment


def _forget(connection: sa.Connection, mailbox_id: MailboxId) -> bool:
    # Two statements: the transaction that held the row before may have added a registration, which only a statement
    # that begins afterwards sees.
    connection.execute(sa.select(mailbox.c.id).where(mailbox.c.id == mailbox_id).with_for_update())
    named = sa.select(registration.c.id).where(registration.c.mailbox_id == mailbox_id).limit(1)
    if connection.scalar(named) is not None:
        return False
    connection.execute(sa.delete(mailbox).where(mailbox.c.id == mailbox_id))
    return True


def _spend(
    connection: sa.Connection,
    mailbox_id: MailboxId,
    now: datetime,
    candidate: Candidate | None,
    by_server: Mapping[str, TryLimits],
) -> Wait | None:
    limits, login = _login(connection, mailbox_id, by_server)
    if login is None:
        return None
    owner = candidate is not None and _active(connection, candidate)
    wait = tries.spend(connection, login, limits, now, candidate=candidate is not None, owner=owner)
    if wait is None and candidate is not None:
        _HAS_ITS_TRY.execute(connection, {"_registration": candidate.registration_id})
    return wait


def _succeeded(connection: sa.Connection, mailbox_id: MailboxId, by_server: Mapping[str, TryLimits]) -> None:
    _, login = _login(connection, mailbox_id, by_server)
    if login is not None:
        tries.clear(connection, login)


def _login(
    connection: sa.Connection, mailbox_id: MailboxId, by_server: Mapping[str, TryLimits]
) -> tuple[TryLimits, tries.Login | None]:
    """Lock a mailbox and return its user, whom the mailbox's row names and nothing that a client sent."""
    rows = _LOGIN.rows(connection, {"_id": mailbox_id})
    if not rows:
        return DEFAULT, None
    (row,) = rows
    limits = by_server.get(row.server, DEFAULT)
    return limits, tries.Login(limits.place(row.server), row.user)


def _accept(
    connection: sa.Connection,
    accepted: Candidate,
    now: datetime,
    url: str | None,
    limits: Mapping[str, TryLimits],
    *,
    replaces: bool,
    succeeded: bool,
    guards_wipes: bool,
) -> tuple[Acceptance, list[Topic]] | None:
    """Accept a candidate, unless an administrator forbids it; return whom to wake for a challenge, too.

    None: it is not in its place any more.

    `succeeded`: forget the tries of the mailbox's user.
    """
    if not _lock(connection, accepted.mailbox_id):
        return None
    had_one = any(row.has for row in _HAS_CREDENTIAL.rows(connection, {"_id": accepted.mailbox_id}))
    if not _drop(connection, accepted):
        return None
    if _forbidden(connection, accepted, limits, guards_wipes=guards_wipes):
        refused = sa.update(registration).where(registration.c.id == accepted.registration_id)
        connection.execute(refused.values(state=RegistrationState.WIPED.value))
        if succeeded:
            _succeeded(connection, accepted.mailbox_id, limits)
        return Acceptance.FORBIDDEN, []
    _set_credential(connection, accepted, now, url)
    if replaces:  # in the order of their ids, as settlements lock them
        mine = sa.select(registration.c.id).where(registration.c.mailbox_id == accepted.mailbox_id)
        connection.execute(mine.order_by(registration.c.id).with_for_update(key_share=True))
    twins = delete_twins_of(connection, accepted.registration_id)
    activated = _ACTIVATE.rows(connection, {"_registration": accepted.registration_id, "_now": now})
    proving = [row for row in activated if row.state == RegistrationState.PROVING.value]
    topics = set_marks(connection, [challenge_mark(row.id, row.platform) for row in proving], now)
    if replaces:
        _doubt_others(connection, accepted)
    if succeeded:
        _succeeded(connection, accepted.mailbox_id, limits)
    return (Acceptance.REPLACED if had_one or twins > 0 else Acceptance.FIRST), topics


_NEVER_PROVED: Final = Prepared(
    sa.select(registration.c.id).where(registration.c.proved_at.is_(None), registration.c.id == sa.bindparam("id"))
)


def _forbidden(
    connection: sa.Connection, accepted: Candidate, limits: Mapping[str, TryLimits], *, guards_wipes: bool
) -> bool:
    """Return whether a candidate is that of a new registration for an account that was wiped.

    An active registration of another spelling goes on: its device was not wiped.
    """
    if not wipes.stands(connection, accepted.mailbox_id, limits):
        return False
    if not _NEVER_PROVED.rows(connection, {"id": accepted.registration_id}):
        return False
    if not guards_wipes:
        wipes.lift(connection, accepted.mailbox_id, limits)
    return guards_wipes


def _refuse(connection: sa.Connection, refused: Candidate, now: datetime) -> None:
    if _lock(connection, refused.mailbox_id) and _drop(connection, refused):
        _set_refused(connection, refused, now)


def _expire(connection: sa.Connection, expired: Candidate) -> bool:
    """Drop a candidate; return False when another one is in its place, or none."""
    if not _lock(connection, expired.mailbox_id) or not _drop(connection, expired):
        return False
    # For an active registration the older credential stays in use; a verifying one stays so.
    unproved = registration.c.state == RegistrationState.VERIFYING.value
    connection.execute(
        sa.update(registration).where(registration.c.id == expired.registration_id).values(candidate_refused=~unproved)
    )
    return True


def _lock(connection: sa.Connection, mailbox_id: MailboxId) -> bool:
    """Lock the mailbox's row before anything else of it; return whether it exists."""
    return bool(_LOCK.rows(connection, {"_id": mailbox_id}))


def _active(connection: sa.Connection, shown: Candidate) -> bool:
    """Return whether a candidate came with the secret of an active registration."""
    states = _STATE.rows(connection, {"_registration": shown.registration_id})
    return [row.state for row in states] == [RegistrationState.ACTIVE.value]


def _drop(connection: sa.Connection, tried: Candidate) -> bool:
    """Delete a candidate; return False when another one is in its place, or none."""
    return bool(_DROP.rows(connection, {"_registration": tried.registration_id, "_sealed": tried.sealed}))


def _doubt_others(connection: sa.Connection, accepted: Candidate) -> None:
    """Make the mailbox's other registrations show the credential that was accepted; until then they get no push.

    One whose app is gone from the device is among them: a new device token would make it active again.
    """
    others = (
        sa.update(registration)
        .where(registration.c.mailbox_id == accepted.mailbox_id, registration.c.id != accepted.registration_id)
        .where(registration.c.state.in_(_ACCEPTED))
        .values(state=RegistrationState.VERIFYING.value, candidate_refused=False)
    )
    ids = list(connection.scalars(others.returning(registration.c.id)))
    if ids:
        connection.execute(sa.delete(outbox).where(outbox.c.registration_id.in_(ids)))


def _set_credential(connection: sa.Connection, accepted: Candidate, now: datetime, url: str | None) -> None:
    values = {"_id": accepted.mailbox_id, "_sealed": accepted.sealed, "_url": url, "_now": now}
    _SET_CREDENTIAL.execute(connection, values)


def _setting_credential() -> sa.Update:
    waiting = sa.or_(*(mailbox.c.state == state for state in _WAITS_FOR_CREDENTIAL))
    # A wait that follows a refused password ends with it; one that the server asked for is kept.
    at_once = waiting | (mailbox.c.refusals > 0)
    return (
        sa.update(mailbox)
        .where(_THIS)
        .values(
            sealed_credential=sa.bindparam("_sealed"),
            url=sa.func.coalesce(sa.bindparam("_url", type_=sa.Text), mailbox.c.url),
            refusals=0,
            dirty=True,
            next_try_at=sa.case((at_once, sa.null()), else_=mailbox.c.next_try_at),
            since=sa.case((waiting, sa.bindparam("_now", type_=Moment)), else_=mailbox.c.since),
            reason=sa.case((waiting, ""), else_=mailbox.c.reason),
            detail=sa.case((waiting, ""), else_=mailbox.c.detail),
            state=sa.case((waiting, WatchState.STARTING.value), else_=mailbox.c.state),
        )
    )


def _activating() -> sa.Update:
    # A registration whose app is gone from the device waits for a new token, whatever its credential.
    gone = registration.c.state == RegistrationState.TOKEN_GONE.value
    return (
        sa.update(registration)
        .where(registration.c.id == sa.bindparam("_registration"))
        .values(
            state=sa.case(
                (gone, registration.c.state),
                (registration.c.must_prove, RegistrationState.PROVING.value),
                else_=RegistrationState.ACTIVE.value,
            ),
            candidate_refused=False,
            proved_at=sa.func.coalesce(registration.c.proved_at, sa.bindparam("_now", type_=Moment)),
        )
        .returning(registration.c.id, registration.c.platform, registration.c.state)
    )


_SET_CREDENTIAL: Final = Prepared(_setting_credential())
_ACTIVATE: Final = Prepared(_activating())


def _set_refused(connection: sa.Connection, refused: Candidate, now: datetime) -> None:
    """Set the state of the registration, and of a mailbox without any credential."""
    state = registration.c.state
    never = state.in_((RegistrationState.VERIFYING.value, RegistrationState.REFUSED.value))
    connection.execute(
        sa.update(registration)
        .where(registration.c.id == refused.registration_id)
        .values(state=sa.case((never, RegistrationState.REFUSED.value), else_=state), candidate_refused=~never)
    )
    connection.execute(
        sa.update(mailbox)
        .where(mailbox.c.id == refused.mailbox_id, mailbox.c.sealed_credential.is_(None))
        .where(mailbox.c.state != WatchState.WIPED.value)
        .values(
            state=WatchState.CREDENTIAL_REFUSED.value,
            reason=Reason.HTTP_401.value,
            detail="",
            next_try_at=None,
            since=sa.case((mailbox.c.state == WatchState.CREDENTIAL_REFUSED.value, mailbox.c.since), else_=now),
        )
    )
