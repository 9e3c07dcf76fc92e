"""How a Sync answer is compared with what was kept: which items are new, and which collections need another Sync.

An item is new if it is an Add whose ServerId was not seen before; a mail must be unread, too. Change, Delete and
SoftDelete are never new items. While a collection is primed its backlog is not new, but items that arrived between a
lost sync state and the new one are. There the newest DateReceived decides, because a server may give the same ids to
other items in a new state.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from eas_watcher.commands.sync import ITEMS, STALE_KEY, Add, CollectionReply, SyncReply, raise_for_sync
from eas_watcher.errors import EasError, HierarchyChanged, ProtocolViolation, ServerBusy
from eas_watcher.machine.memory import Change, Collection, restart
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ServerId, SyncKey
from eas_watcher.values import by_slots, replace

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FEW: Final = 8  # items that are looked for in the text of SeenIds; for more a set is made, whatever the length of ids


@by_slots
@dataclass(frozen=True, slots=True)
class Digest:
    """What one Sync answer means for the collections that were asked for."""

    collections: tuple[Collection, ...]
    """The collections after the answer, in the order asked."""
    changes: tuple[Change, ...] = ()
    again: frozenset[CollectionId] = frozenset()
    """Collections to sync again before the next Ping."""
    moved: frozenset[CollectionId] = frozenset()
    """Other collections whose answer had items."""
    lost: frozenset[CollectionId] = frozenset()
    """Collections whose sync key the server did not know; they start from key 0."""
    trouble: EasError | None = None
    """The failure of one collection or more, while the others succeeded."""
    troubled: frozenset[CollectionId] = frozenset()
    """The collections that failed."""


def digest(
    asked: Iterable[Collection], reply: SyncReply, at: datetime, announced_until: datetime | None = None
) -> Digest:
    """Read a whole Sync answer that came `at` that moment.

    Mail in sub-folders that was received until `announced_until` was moved there and announced before; None: unknown.
    """
    answers = {answer.id: answer for answer in reply.collections}
    collections: list[Collection] = []
    changes: list[Change] = []
    again: set[CollectionId] = set()
    moved: set[CollectionId] = set()
    lost: set[CollectionId] = set()
    trouble: EasError | None = None
    troubled: set[CollectionId] = set()
    for collection in asked:
        try:
            answer = answers.get(collection.id)
            now, change, more = _read_collection(collection, answer, at, announced_until)
        except EasError as error:
            collections.append(collection)
            trouble = trouble or error
            troubled.add(collection.id)
            continue
        collections.append(now)
        if change is not None:
            changes.append(change)
        if more:
            again.add(now.id)
        elif answer is not None and answer.has_commands and answer.sync_key != collection.sync_key:
            moved.add(now.id)
        if now.sync_key == NO_SYNC_KEY:
            lost.add(now.id)
    return Digest(
        tuple(collections),
        tuple(changes),
        again=frozenset(again),
        moved=frozenset(moved),
        lost=frozenset(lost),
        trouble=trouble,
        troubled=frozenset(troubled),
    )


def _read_collection(
    collection: Collection, answer: CollectionReply | None, at: datetime, announced_until: datetime | None
) -> tuple[Collection, Change | None, bool]:
    """Return the collection after its answer, what is new in it, and whether to Sync it again."""
    priming = collection.sync_key == NO_SYNC_KEY
    if answer is None:
        if priming:
            # A folder that is gone is answered like one without changes [observed: SOGo 5.8, 2026-11].
            raise HierarchyChanged("no answer to the first Sync of a collection")
        return _end_drain(replace(collection, tries=0))
    if answer.status == STALE_KEY:
        if priming:
            raise ServerBusy("the first Sync of a collection was answered with an invalid key")
        return restart(collection), None, True
    if answer.status not in ITEMS or answer.sync_key is None:
        raise_for_sync(answer.status)
    if answer.sync_key is None or answer.sync_key == NO_SYNC_KEY:
        raise ProtocolViolation("a Sync answer with status 1 has no new key")
    if priming:
        return replace(restart(collection), sync_key=answer.sync_key), None, True
    stuck = answer.sync_key == collection.sync_key
    announced_until = announced_until if collection.sub else None
    counted, fresh = _count(collection, answer.sync_key, answer.adds, at, announced_until)
    if counted.drain is not None:
        counted = replace(counted, drain=replace(counted.drain, found=counted.drain.found + fresh))
        more = (answer.has_commands or answer.more_available) and not stuck
        return (counted, None, True) if more else _end_drain(counted)
    change = Change(counted.cls, fresh, sub=counted.sub) if fresh else None
    return counted, change, answer.more_available and not stuck


def _count(
    collection: Collection, sync_key: SyncKey, adds: tuple[Add, ...], at: datetime, announced_until: datetime | None
) -> tuple[Collection, int]:
    """Take the new key, remember the added items, and count the new ones among them."""
    fresh = 0
    unseen: dict[ServerId, None] = {}
    newest = collection.newest
    seen = collection.seen if len(adds) <= FEW else frozenset(collection.seen)
    for add in adds:
        if add.server_id not in unseen and add.server_id not in seen:
            unseen[add.server_id] = None
            fresh += _is_new(collection, add, announced_until)
        if add.received is not None:
            # No later than now: after a mail dated years ahead, all others would look old in the next drain. At worst,
            # items newer than our clock's "now" are announced twice after a lost state.
            received = min(add.received, at)
            newest = received if newest is None else max(newest, received)
    kept = collection.seen.with_newer(tuple(unseen))
    return replace(collection, sync_key=sync_key, tries=0, seen=kept, newest=newest), fresh


def _is_new(collection: Collection, add: Add, announced_until: datetime | None) -> bool:
    if collection.cls is CollectionClass.EMAIL and add.read:
        return False
    if collection.drain is None:
        return announced_until is None or add.received is None or add.received > announced_until
    since = collection.drain.since
    if since is None:
        return False
    if add.received is None or add.received == since:
        # The ids of the lost state decide only where the receive time cannot.
        return add.server_id not in collection.drain.known
    return add.received > since


def _end_drain(collection: Collection) -> tuple[Collection, Change | None, bool]:
    """Return the collection without its drain, and the change that the drain found."""
    drain = collection.drain
    if drain is None:
        return collection, None, False
    primed = replace(collection, drain=None, newest=collection.newest or EPOCH)
    if drain.since is None:
        return primed, None, False
    if collection.cls is CollectionClass.EMAIL:
        return primed, Change(collection.cls, drain.found, sub=collection.sub) if drain.found else None, False
    # Items of other classes have no receive time, so an uncertain change lets the app look [design: lost state].
    return primed, Change(collection.cls, 1, certain=False, sub=collection.sub), False
