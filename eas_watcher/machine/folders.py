"""Which folders of a mailbox a watch follows: where it starts from, and what a FolderSync answer changes.

A watch follows the default folder of each wanted class and, where an app asked for them, sub-folders. A sub-folder
counts if users make such folders: for mail if it is below the Inbox, because junk mail folders lie beside it; for the
other classes wherever it is; never below drafts, deleted, sent or outgoing items.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TypeAlias

from eas_watcher.commands.folder_sync import INBOX, NEVER_NEW, USER_TYPES, Folder, FolderSyncReply
from eas_watcher.errors import ServerBusy
from eas_watcher.machine.counters import Counters
from eas_watcher.machine.memory import Collection, Memory, Progress
from eas_watcher.machine.state import Action, Policy, Record, Watch
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, SyncKey
from eas_watcher.values import replace

Hierarchy: TypeAlias = tuple[Folder, ...]
"""All folders of a mailbox, sorted by id. A folder that moves takes the folders below it along; the server does not
list those again, so the whole hierarchy is kept."""

NewSince: TypeAlias = Callable[[CollectionId], datetime | None]
"""For a newly watched sub-folder: mail received after this time is new; None: treat all of its mail as old."""


# --- what a watch does with folders


def recall(memory: Memory, policy: Policy, jitter: float = 0.0) -> tuple[Watch, list[Action]]:
    """Return a watch that starts from what was kept, and record what of it no registration asks for any more.

    All folders are read again when the first registration asks for sub-folders, and forgotten with the last one.
    """
    key = memory.partnership.hierarchy_key
    if memory.subfolders and memory.hierarchy is None:
        key = NO_SYNC_KEY
    kept = tuple(c for c in memory.collections if not c.sub)
    kept += keep_subfolders(memory.collections, memory.hierarchy or (), memory.subfolders)
    watch = Watch(
        policy=policy,
        partnership=replace(memory.partnership, hierarchy_key=key),
        collections=kept,
        classes=memory.classes,
        subfolders=memory.subfolders,
        hierarchy=memory.hierarchy if memory.subfolders else None,
        heartbeat=policy.heartbeat,
        jitter=jitter,
        unsynced=frozenset(),
        hierarchy_due=key == NO_SYNC_KEY,
        counters=Counters(refusals=memory.refusals),
        new=memory.partnership.hierarchy_key == NO_SYNC_KEY and not memory.collections,
    )
    forgotten = () if memory.hierarchy and not memory.subfolders else None
    progress = Progress(dropped=_missing(memory.collections, kept), hierarchy=forgotten)
    return watch.resync_all(), [] if progress == Progress() else [Record(progress)]


def read_hierarchy(watch: Watch, reply: FolderSyncReply) -> tuple[Watch, Progress]:
    """Return the watch after a FolderSync answer, and what to record of it.

    Raises ServerBusy for an answer that must not be believed.
    """
    asked_with = watch.partnership.hierarchy_key
    collections = follow_default_folders(tuple(c for c in watch.collections if not c.sub), asked_with, reply)
    partnership = replace(watch.partnership, hierarchy_key=reply.sync_key)
    hierarchy = None
    if watch.subfolders:
        hierarchy = update_hierarchy(watch.hierarchy or (), reply, full=asked_with == NO_SYNC_KEY)
        new_since = _new_since(watch, hierarchy)
        collections += keep_subfolders(watch.collections, hierarchy, watch.subfolders, new_since)
        partnership = replace(partnership, horizon=newest_mail(watch.collections) or partnership.horizon)
    before = {collection.id: collection for collection in watch.collections}
    progress = Progress(
        partnership=partnership,
        collections=tuple(c for c in collections if before.get(c.id) != c and c.drain is None),
        dropped=_missing(watch.collections, collections),
        hierarchy=None if hierarchy == watch.hierarchy else hierarchy,
    )
    watch = replace(
        watch,
        partnership=partnership,
        collections=collections,
        hierarchy=hierarchy,
        hierarchy_due=False,
        hierarchy_fault="",
        created_after=None,
        # Folders that are left out are tried again in their time, however often the hierarchy is read meanwhile.
        counters=watch.counters if watch.parked else watch.counters.listed(),
    )
    # A Ping reports nothing of a folder that went and came back under its id until the next Sync
    # [observed: SOGo 5.8, 2026-11].
    return watch.resync_all(), progress


def note_horizon(watch: Watch) -> tuple[Watch, list[Action]]:
    """Note the newest mail once all collections are primed: mail in a folder created from now on must be newer."""
    if not watch.subfolders or watch.partnership.horizon is not None:
        return watch, []
    partnership = replace(watch.partnership, horizon=newest_mail(watch.collections))
    if partnership == watch.partnership:
        return watch, []
    return replace(watch, partnership=partnership), [Record(Progress(partnership=partnership))]


def newest_mail(collections: Iterable[Collection]) -> datetime | None:
    """Return the receive time of the newest known mail of all folders; None: no mail is known."""
    moments = (_newest(c) for c in collections if c.cls is CollectionClass.EMAIL)
    return max((moment for moment in moments if moment is not None), default=None)


# --- default folders


def follow_default_folders(
    collections: tuple[Collection, ...], asked_with: SyncKey, reply: FolderSyncReply
) -> tuple[Collection, ...]:
    """Return the collections of default folders after a FolderSync answer, given those before it.

    Raises ServerBusy for an answer that must not be believed: when the Inbox is deleted, or missing from a full list,
    the server's mail store is down, and the folders come back with the same ids [observed: SOGo 5.8, 2026-11].
    """
    kept = {collection.id: collection for collection in collections}
    full = asked_with == NO_SYNC_KEY
    listed = {folder.id: cls for folder in (*reply.added, *reply.updated) if (cls := folder.default_class)}
    listed_classes = set(listed.values())
    gone = set(reply.deleted)
    if full:
        # A folder that a full list does not name is gone. One under the same id keeps its sync key, which outlives the
        # hierarchy key.
        gone |= kept.keys() - listed.keys()
    inbox_lost = any(c.id in gone and c.cls is CollectionClass.EMAIL for c in collections)
    if (inbox_lost or full) and CollectionClass.EMAIL not in listed_classes:
        raise ServerBusy("the folder list has no Inbox: the server's mail store may be down")
    # A default folder that appears under a new id replaces the old one.
    gone |= {c.id for c in collections if c.cls in listed_classes and c.id not in listed}
    # A folder deleted and listed in one answer has come back; the server may still know its sync key.
    gone -= listed.keys()
    # What arrived while a folder changed its id is new: the new one is primed against the newest item of the old one.
    newest = {c.cls: _newest(c) for c in collections if c.id in gone}
    for id_ in gone & kept.keys():
        del kept[id_]
    for id_, cls in listed.items():
        if id_ not in kept or kept[id_].cls is not cls:
            kept[id_] = Collection(id_, cls, newest=newest.get(cls))
    return tuple(kept.values())


# --- sub-folders


def update_hierarchy(known: Hierarchy, reply: FolderSyncReply, *, full: bool) -> Hierarchy:
    """Return the hierarchy after a FolderSync answer; a `full` answer lists all folders."""
    folders = {} if full else {folder.id: folder for folder in known}
    for gone in reply.deleted:
        folders.pop(gone, None)
    folders |= {folder.id: folder for folder in (*reply.added, *reply.updated)}
    return tuple(sorted(folders.values(), key=lambda folder: folder.id))


def find_subfolders(hierarchy: Hierarchy, classes: Iterable[CollectionClass]) -> dict[CollectionId, CollectionClass]:
    """Return the sub-folders of some classes: id -> class."""
    wanted = frozenset(classes)
    below: defaultdict[CollectionId, list[CollectionId]] = defaultdict(list)
    for folder in hierarchy:
        below[folder.parent].append(folder.id)
    in_inbox = _inside(below, (folder.id for folder in hierarchy if folder.type == INBOX))
    never = _inside(below, (folder.id for folder in hierarchy if folder.type in NEVER_NEW))
    found: dict[CollectionId, CollectionClass] = {}
    for folder in hierarchy:
        cls = folder.cls
        if cls is None or cls not in wanted or folder.type not in USER_TYPES or folder.id in never:
            continue
        if cls is not CollectionClass.EMAIL or folder.id in in_inbox:
            found[folder.id] = cls
    return found


def keep_subfolders(
    collections: Iterable[Collection],
    hierarchy: Hierarchy,
    classes: Iterable[CollectionClass],
    new_since: NewSince = lambda _: None,
) -> tuple[Collection, ...]:
    """Return the collections of all sub-folders of some classes: those known before as they are, and the others new."""
    known = {collection.id: collection for collection in collections if collection.sub}
    kept = []
    for id_, cls in find_subfolders(hierarchy, classes).items():
        collection = known.get(id_)
        if collection is None or collection.cls is not cls:
            newest = new_since(id_) if cls is CollectionClass.EMAIL else None
            collection = Collection(id_, cls, newest=newest, sub=True)
        kept.append(collection)
    return tuple(kept)


def _new_since(watch: Watch, hierarchy: Hierarchy) -> NewSince:
    """Return from which receive time on mail in newly watched sub-folders is new.

    * When the hierarchy is read for the first time, no mail in sub-folders is new.
    * A folder that was known, but not watched, because it was elsewhere: mail is new that is newer than all known mail.
    * A folder created since the last FolderSync: all its mail is new, even if the Inbox got newer mail meanwhile; only
      mail that the user moved there is older than the folder.
    * When the Inbox itself has another id, all ids are new, and no folder was created.
    """
    if watch.hierarchy is None:
        return lambda _: None
    newest = newest_mail(watch.collections)
    before = {folder.id for folder in watch.hierarchy}
    if any(folder.type == INBOX and folder.id not in before for folder in hierarchy):
        return lambda _: newest
    bounds = [moment for moment in (watch.created_after, watch.partnership.horizon) if moment is not None]
    created = max(bounds, default=newest)
    return lambda id_: newest if id_ in before else created


def _inside(below: Mapping[CollectionId, list[CollectionId]], tops: Iterable[CollectionId]) -> set[CollectionId]:
    """Return all folders below some folders, however deep; folders that a server puts in a circle are visited once."""
    inside: set[CollectionId] = set()
    rest = list(tops)
    while rest:
        for id_ in below.get(rest.pop(), ()):
            if id_ not in inside:
                inside.add(id_)
                rest.append(id_)
    return inside


def _newest(collection: Collection) -> datetime | None:
    """Return the receive time of a collection's newest known item, as it was before a drain."""
    return collection.drain.since if collection.drain else collection.newest


def _missing(before: Iterable[Collection], after: Iterable[Collection]) -> tuple[CollectionId, ...]:
    """Return the collections that are not kept any more."""
    kept = {collection.id for collection in after}
    return tuple(collection.id for collection in before if collection.id not in kept)
