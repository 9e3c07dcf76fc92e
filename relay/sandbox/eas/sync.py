"""The Sync of the simulated server: the changes since the sync key of the client."""

from collections.abc import Iterator
from typing import Final

from eas_watcher.names import NO_SYNC_KEY, CollectionClass, ProtocolVersion, ServerId, SyncKey
from eas_watcher.wbxml.element import AIRSYNC, Element
from relay.sandbox.eas.devices import Checkpoint, KeyHistory, SyncedCollection
from relay.sandbox.eas.items import write_item
from relay.sandbox.eas.mailboxes import SimulatedFolder, SimulatedItem
from relay.sandbox.eas.refusals import RefusedByStatus
from relay.sandbox.eas.rules import Session
from relay.sandbox.eas.sync_request import AGES, CollectionQuery, check_filter, read_sync

# Status of a collection [MS-ASCMD 2.2.3.177.17]
OK, STALE_KEY, NOT_FOUND, HIERARCHY_CHANGED = 1, 3, 8, 12
REQUEST_MISSING: Final = 13
SINGLE_FROM, WITHHELD_FROM = 3, 5  # times that a client sends one key


def answer_sync(root: Element | None, session: Session) -> Element | None:
    """Return the changes; None, an empty body, if there are none [MS-ASCMD 2.2.1.21]."""
    if root is None:
        raise RefusedByStatus(REQUEST_MISSING, "an empty Sync repeats one that the server never stores")
    queries = read_sync(root, session.version)
    session.device.changes_reported = 0
    if session.rules.personality.unknown_folder_voids_state and any(
        q.id not in session.mailbox.folders for q in queries
    ):
        session.device.lose_state(session.mint)
        raise RefusedByStatus(HIERARCHY_CHANGED, "Sync of a folder that is not there", fault=False)
    for query in queries:
        folder = session.mailbox.folders.get(query.id)
        if folder is not None and folder.cls is not None:
            check_filter(query, folder.cls)
    answers = [
        _name_class(answer, session.mailbox.folders.get(query.id), session)
        for query in queries
        if (answer := _answer(query, session)) is not None
    ]
    return AIRSYNC("Sync", AIRSYNC("Collections", *answers)) if answers else None


def has_changes(folder: SimulatedFolder, synced: SyncedCollection, session: Session) -> bool:
    """Return whether a folder changed since the newest sync key, which the client may not have received.

    New items are changes; other changes count only where the rules say so [MS-ASCMD 2.2.1.13].
    """
    if synced.sync_due:
        return True
    known = synced.keys.newest.known
    visible = {item.id: item.revision for item in visible_items(folder, synced.filter_type, session)}
    if session.rules.any_change_wakes:
        return dict(known) != visible
    return any(id_ not in known for id_ in visible)


def visible_items(folder: SimulatedFolder, filter_type: int, session: Session) -> Iterator[SimulatedItem]:
    """Yield the items within a filter, in order of arrival; none for a quarantined device."""
    if session.device.quarantined:
        return
    age = AGES.get(filter_type)
    oldest = None if age is None else session.now - age
    for item in session.mailbox.items(folder.id):
        if oldest is None or item.received >= oldest:
            yield item


def _answer(query: CollectionQuery, session: Session) -> Element | None:
    """Return the answer for one collection; None if it has no changes."""
    folder = session.mailbox.folders.get(query.id)
    device = session.device
    if query.id in session.mailbox.folders and query.id not in session.mailbox.reachable_folders:
        return None  # the same as for a folder without changes [observed: SOGo 5.8, 2026-11]
    if folder is None or folder.cls is None or folder.id in session.mailbox.broken:
        gone = query.id in session.mailbox.removed
        if not gone and folder is None:
            session.complain("Sync of a collection that never was")
        return _write(query, query.key, HIERARCHY_CHANGED if gone else NOT_FOUND)
    if device.hierarchy is None:
        session.complain("Sync before FolderSync")
        return _write(query, query.key, HIERARCHY_CHANGED)
    if query.key == NO_SYNC_KEY:
        first: Checkpoint[ServerId, int] = Checkpoint(session.mint.sync_key(), {})
        device.collections[query.id] = SyncedCollection(KeyHistory(first))
        return _write(query, first.key, OK)
    synced = device.collections.get(query.id)
    base = None if synced is None else synced.accept(query.key)
    if synced is None or base is None:
        if not device.lost:
            session.complain("Sync with a key that is not valid")
        return _write(query, NO_SYNC_KEY, STALE_KEY)
    synced.filter_type = query.filter_type
    return _changes(query, folder, synced, session) if query.changes else None


def _changes(
    query: CollectionQuery, folder: SimulatedFolder, synced: SyncedCollection, session: Session
) -> Element | None:
    """Return the changes, at most as many as the window allows, with a new key."""
    known = dict(synced.keys.newest.known)
    visible = {item.id: item for item in visible_items(folder, query.filter_type, session)}
    present = {item.id for item in session.mailbox.items(folder.id)}
    commands: list[tuple[str, ServerId]] = [("Add", id_) for id_ in visible if id_ not in known]
    commands += [("Change", id_) for id_, item in visible.items() if known.get(id_, item.revision) != item.revision]
    commands += [("SoftDelete" if id_ in present else "Delete", id_) for id_ in known if id_ not in visible]
    was_due, synced.sync_due = synced.sync_due, False
    if not commands:
        synced.last_key = "", 0  # a client that repeats a key without changes is in no loop
        if not was_due:
            return None
        key = session.mint.sync_key()
        synced.keys.advance(key, known)
        return _write(query, key, OK)
    window, withheld = _suspect(query, synced, session)
    written: list[Element] = []
    for tag, id_ in commands[:window]:
        item = visible.get(id_)
        if item is not None and withheld:
            known[id_] = item.revision
            written.append(AIRSYNC("Delete", AIRSYNC("ServerId", id_)))
        elif item is None:
            del known[id_]
            written.append(AIRSYNC(tag, AIRSYNC("ServerId", id_)))
        else:
            known[id_] = item.revision
            written.append(write_item(tag, item, session.mailbox.user, session.version))
    key = session.mint.sync_key()
    synced.keys.advance(key, known)
    added = any(tag == "Add" for tag, _ in commands[:window])
    synced.sync_due = added and folder.cls is CollectionClass.EMAIL and session.rules.personality.sync_after_adds
    more = (AIRSYNC("MoreAvailable"),) if len(commands) > window else ()
    return _write(query, key, OK, *more, AIRSYNC("Commands", *written))


def _suspect(query: CollectionQuery, synced: SyncedCollection, session: Session) -> tuple[int, bool]:
    """Return the most changes to send, and whether to withhold their items: a repeated key looks like a loop.

    The counts are those of Z-Push [observed: 2.7.1, 2026-11].
    """
    _, times = synced.last_key
    if not session.rules.personality.withholds or times < SINGLE_FROM:
        return query.window, False
    if times >= WITHHELD_FROM:
        session.complain("a key was presented so often that its items are kept back")
    return 1, times >= WITHHELD_FROM


def _name_class(collection: Element, folder: SimulatedFolder | None, session: Session) -> Element:
    """Add the Class as the first child, for versions before 14.0 [MS-ASCMD 2.2.3.27.5]."""
    if folder is None or folder.cls is None or session.version >= ProtocolVersion.V14_0:
        return collection
    return AIRSYNC("Collection", AIRSYNC("Class", folder.cls.wire), *collection.children)


def _write(query: CollectionQuery, key: SyncKey | str, status: int, *more: Element) -> Element:
    return AIRSYNC(
        "Collection",
        AIRSYNC("SyncKey", key),
        AIRSYNC("CollectionId", query.id),
        AIRSYNC("Status", str(status)),
        *more,
    )
