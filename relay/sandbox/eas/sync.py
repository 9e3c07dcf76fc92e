"""The Sync of the simulated server: the changes since the sync key of the client."""

from collections.abc import Collection
from typing import Final

from eas_watcher.names import NO_SYNC_KEY, CollectionClass, ProtocolVersion, ServerId
from eas_watcher.wbxml.element import Element
from relay.sandbox.eas.devices import Checkpoint, KeyHistory, SyncedCollection
from relay.sandbox.eas.mailboxes import SimulatedFolder, SimulatedItem
from relay.sandbox.eas.refusals import RefusedByStatus
from relay.sandbox.eas.rules import Session
from relay.sandbox.eas.sync_answer import OK, CollectionAnswer, write_sync
from relay.sandbox.eas.sync_request import AGES, CollectionQuery, check_filter, read_sync

# Status of a collection [MS-ASCMD 2.2.3.177.17]
STALE_KEY, NOT_FOUND, HIERARCHY_CHANGED = 3, 8, 12
REQUEST_MISSING: Final = 13
SINGLE_FROM, WITHHELD_FROM = 3, 5  # times that a client sends one key


def answer_sync(root: Element | None, session: Session) -> bytes:
    """Return the changes in WBXML; an empty body, if there are none [MS-ASCMD 2.2.1.21]."""
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
    answers = [answer for query in queries if (answer := _answer(query, session)) is not None]
    if session.version < ProtocolVersion.V14_0:
        answers = [_name_class(answer, session.mailbox.folders.get(answer.id)) for answer in answers]
    return write_sync(answers, session.mailbox.user, session.version)


def has_changes(folder: SimulatedFolder, synced: SyncedCollection, session: Session) -> bool:
    """Return whether a folder changed since the newest sync key, which the client may not have received.

    New items are changes; other changes count only where the rules say so [MS-ASCMD 2.2.1.13].
    """
    if synced.sync_due:
        return True
    known = synced.keys.newest.known
    visible = visible_items(folder, synced.filter_type, session)
    if session.rules.any_change_wakes:
        return known != {item.id: item.revision for item in visible}
    return any(item.id not in known for item in visible)


def visible_items(folder: SimulatedFolder, filter_type: int, session: Session) -> Collection[SimulatedItem]:
    """Return the items within a filter, in order of arrival; none for a quarantined device."""
    if session.device.quarantined:
        return ()
    items, age = session.mailbox.items(folder.id), AGES.get(filter_type)
    if age is None:
        return items
    oldest = session.now() - age
    return [item for item in items if item.received >= oldest]


def _answer(query: CollectionQuery, session: Session) -> CollectionAnswer | None:
    """Return the answer for one collection; None if it has no changes."""
    folder = session.mailbox.folders.get(query.id)
    device = session.device
    if query.id in session.mailbox.folders and query.id not in session.mailbox.reachable_folders:
        return None  # the same as for a folder without changes [observed: SOGo 5.8, 2026-11]
    if folder is None or folder.cls is None or folder.id in session.mailbox.broken:
        gone = query.id in session.mailbox.removed
        if not gone and folder is None:
            session.complain("Sync of a collection that never was")
        return CollectionAnswer(query.id, query.key, HIERARCHY_CHANGED if gone else NOT_FOUND)
    if device.hierarchy is None:
        session.complain("Sync before FolderSync")
        return CollectionAnswer(query.id, query.key, HIERARCHY_CHANGED)
    if query.key == NO_SYNC_KEY:
        first: Checkpoint[ServerId, int] = Checkpoint(session.mint.sync_key(), {})
        device.collections[query.id] = SyncedCollection(KeyHistory(first))
        return CollectionAnswer(query.id, first.key, OK)
    synced = device.collections.get(query.id)
    base = None if synced is None else synced.accept(query.key)
    if synced is None or base is None:
        if not device.lost:
            session.complain("Sync with a key that is not valid")
        return CollectionAnswer(query.id, NO_SYNC_KEY, STALE_KEY)
    synced.filter_type = query.filter_type
    return _changes(query, folder, synced, session) if query.changes else None


def _changes(
    query: CollectionQuery, folder: SimulatedFolder, synced: SyncedCollection, session: Session
) -> CollectionAnswer | None:
    """Return the changes, at most as many as the window allows, with a new key."""
    known = dict(synced.keys.newest.known)
    visible = {item.id: item for item in visible_items(folder, query.filter_type, session)}
    commands = [("Add", id_) for id_ in visible if id_ not in known]
    commands += [("Change", id_) for id_, item in visible.items() if known.get(id_, item.revision) != item.revision]
    if not known.keys() <= visible.keys():
        present = {item.id for item in session.mailbox.items(folder.id)}
        commands += [("SoftDelete" if id_ in present else "Delete", id_) for id_ in known if id_ not in visible]
    was_due, synced.sync_due = synced.sync_due, False
    if not commands:
        synced.last_key = "", 0  # a client that repeats a key without changes is in no loop
        if not was_due:
            return None
        key = session.mint.sync_key()
        synced.keys.advance(key, known)
        return CollectionAnswer(query.id, key, OK)
    window, withheld = _suspect(query, synced, session)
    written: list[tuple[str, ServerId, SimulatedItem | None]] = []
    for tag, id_ in commands[:window]:
        item = visible.get(id_)
        if item is None:
            del known[id_]
            written.append((tag, id_, None))
        else:
            known[id_] = item.revision
            written.append(("Delete", id_, None) if withheld else (tag, id_, item))
    key = session.mint.sync_key()
    synced.keys.advance(key, known)
    added = any(tag == "Add" for tag, _ in commands[:window])
    synced.sync_due = added and folder.cls is CollectionClass.EMAIL and session.rules.personality.sync_after_adds
    return CollectionAnswer(query.id, key, OK, written, more=len(commands) > window)


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


def _name_class(answer: CollectionAnswer, folder: SimulatedFolder | None) -> CollectionAnswer:
    """Add the Class, for versions before 14.0 [MS-ASCMD 2.2.3.27.5]."""
    return answer if folder is None or folder.cls is None else answer._replace(cls=folder.cls.wire)
