"""Records: mailboxes with all that belongs to them, as the watch role starts its watches from them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

import sqlalchemy as sa

from eas_watcher.commands.folder_sync import Folder
from eas_watcher.machine.memory import Collection, Condition, Memory
from eas_watcher.names import CollectionClass, CollectionId, MailboxId, SyncKey
from relay.domain.model import Candidate, Mailbox, RegistrationId, RegistrationState, WatchRecord
from relay.domain.unreadable import UnreadableRows
from relay.store.bulk import Among, count_up, in_order
from relay.store.commits import still_leased
from relay.store.prepared import Prepared
from relay.store.reading import SHOWN, Bad, Reader
from relay.store.rows import (
    CHANGED,
    COLLECTION,
    OF_MAILBOX,
    PARTNERSHIP,
    STEERING,
    AnyRow,
    read_classes,
    read_collection,
    read_halt,
    read_hierarchy,
    read_mailbox,
    read_memory,
    rest_of_wait,
    strange_classes,
)
from relay.store.tables import candidate, collection, hierarchy, mailbox, registration

_THIS: Final = mailbox.c.id == sa.bindparam("_id")
AT_ONCE: Final = 500  # mailboxes per statement; far below both databases' limit of parameters
_NO_CHANGE: Final = sa.null().label(CHANGED.name)
"""Stands for the last change, which no watch needs: a collection in whose row it cannot be read is watched."""
_MAILBOXES: Final = sa.select(*OF_MAILBOX, _NO_CHANGE, *PARTNERSHIP, *STEERING, mailbox.c.sealed_credential)
TABLES: Final = ("mailbox", "collection", "hierarchy", "registration")
"""The tables whose rows belong to a mailbox, as `UnreadableRows` names them."""


class Owned(NamedTuple):
    """A row of the mailbox table, without what other tables have of the mailbox."""

    mailbox: Mailbox
    memory: Memory
    sealed_credential: bytes | None
    halted: Condition | None
    retry: bool
    forgotten: bool


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
    mailbox, memory = read_mailbox(row), read_memory(row)
    return Owned(mailbox, memory, row.sealed_credential, read_halt(row), row.retry, row.forgotten)


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
_LEASED: Final = (
    _OWNED.query.where(Among("shards", mailbox.c.shard))
    .order_by(*in_order(mailbox.c.id))
    .with_for_update(of=mailbox, key_share=True)
)
_ALL_OWNED: Final = Prepared(_LEASED)
_DIRTY_OWNED: Final = Prepared(_LEASED.where(mailbox.c.dirty))
_DIRTY_SHARDS: Final = Prepared(sa.select(mailbox.c.shard).where(mailbox.c.dirty).distinct())
_CLEAR_DIRTY: Final = Prepared(
    sa.update(mailbox).where(Among("ids", mailbox.c.id)).values(dirty=sa.false(), retry=sa.false())
)
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


def read_record(
    connection: sa.Connection, mailbox_id: MailboxId, now: datetime, unreadable: UnreadableRows
) -> WatchRecord | None:
    """Read one mailbox, whether dirty or not; None: it is not there, or cannot be read."""
    owned, bad = _OWNED.all(connection, _ONE, {"_id": mailbox_id})
    if not owned and not bad:
        for table in TABLES:
            unreadable.looked(table, mailbox_id)
        return None
    _note_mailboxes(unreadable, owned, bad)
    found = _complete(connection, owned, now, unreadable)
    return found[0] if found else None


def look_again(connection: sa.Connection, owner: MailboxId, now: datetime, unreadable: UnreadableRows) -> bool:
    """Read a mailbox of which rows were set aside; mark it dirty, and return True, if others are now, or none."""
    before = unreadable.of(owner)
    read_record(connection, owner, now, unreadable)
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
    """Lock and read mailboxes of shards that are still leased, clear their dirty and retry flags.

    Without `only_dirty` a try is counted on their keys.

    Those that cannot be read stay as they are, dirty or not.
    """
    if only_dirty:
        # One that becomes dirty after this look wakes this process again.
        leases = {row.shard: leases[row.shard] for row in _DIRTY_SHARDS.rows(connection) if row.shard in leases}
        if not leases:
            return []
    shards = still_leased(connection, leases)
    owned, bad = _OWNED.all(connection, _DIRTY_OWNED if only_dirty else _ALL_OWNED, {"shards": shards})
    _note_mailboxes(unreadable, owned, bad)
    records: list[WatchRecord] = []
    for some in _slices(owned, at_once):
        ids = [each.mailbox.id for each in some]
        # By id: a mailbox that became dirty since the statement above keeps its flag.
        _CLEAR_DIRTY.execute(connection, {"ids": ids})
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
        halted=owned.halted,
        retry=owned.retry,
        forgotten=owned.forgotten,
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
