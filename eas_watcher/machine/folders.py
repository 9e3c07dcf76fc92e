"""Own how a watch follows the folders of its mailbox: what it remembers of them, and what a FolderSync changes."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeAlias

from eas_watcher.commands.folder_sync import Folder, FolderSyncReply, class_of
from eas_watcher.errors import ServerBusy
from eas_watcher.machine.counters import Counters
from eas_watcher.machine.memory import Collection, Memory, Progress
from eas_watcher.machine.state import Action, Policy, Record, Watch
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, SyncKey

DEFAULT_FOLDERS: Final = {
    2: CollectionClass.EMAIL,
    7: CollectionClass.TASKS,
    8: CollectionClass.CALENDAR,
    9: CollectionClass.CONTACTS,
    10: CollectionClass.NOTES,
}
"""Folder type -> class, for the default folders only [MS-ASCMD 2.2.3.186.3]."""


def follow(
    collections: tuple[Collection, ...], asked_with: SyncKey, reply: FolderSyncReply
) -> tuple[tuple[Collection, ...], tuple[CollectionId, ...]]:
    """Return the collections to keep after a FolderSync answer, and those to drop; none of them is a sub-folder.

    Raises ServerBusy for an answer that is not to be taken at its word: an Inbox deleted, or a full list without one,
    is a server whose mail store is down; the folders come back with the same ids [observed: SOGo 5.8, 2026-11].
    """
    kept = {collection.id: collection for collection in collections}
    full = asked_with == NO_SYNC_KEY
    listed = {folder.id: cls for folder in (*reply.added, *reply.updated) if (cls := _default_class(folder))}
    replaced = set(listed.values())
    gone = set(reply.deleted)
    if full:
        # Unlisted is gone; a folder of the same id keeps its key, for ids outlive the hierarchy key.
        gone |= {id_ for id_ in kept if id_ not in listed}
    inbox_lost = any(c.id in gone and c.cls is CollectionClass.EMAIL for c in collections)
    inbox_listed = CollectionClass.EMAIL in replaced
    if (inbox_lost or full) and not inbox_listed:
        raise ServerBusy("the folder list has no Inbox: the server's mail store may be down")
    # A default folder that appears under a new id replaces the old one.
    gone |= {c.id for c in collections if c.cls in replaced and c.id not in listed}
    # Deleted and listed in one answer is back again, with whatever key the server still knows.
    gone -= listed.keys()
    dropped = tuple(id_ for id_ in kept if id_ in gone)
    # What came in while the folder changed its id is new: the heir is primed against what the old one had last.
    newest = {kept[id_].cls: _newest(kept[id_]) for id_ in dropped}
    for id_ in dropped:
        del kept[id_]
    for id_, cls in listed.items():
        if id_ not in kept or kept[id_].cls is not cls:
            kept[id_] = Collection(id_, cls, newest=newest.get(cls))
    return tuple(kept.values()), dropped


def _newest(collection: Collection) -> datetime | None:
    return collection.drain.since if collection.drain else collection.newest


def _default_class(folder: Folder) -> CollectionClass | None:
    return DEFAULT_FOLDERS.get(folder.type)


INBOX: Final = 2
USERS: Final = frozenset({12, 13, 14, 15, 17})
"""Types of folders that users make [MS-ASCMD 2.2.3.186.3]."""
NEVER_NEW: Final = frozenset({3, 4, 5, 6})
"""Types of the folders for drafts, deleted items, sent items and outgoing mail."""

Hierarchy: TypeAlias = tuple[Folder, ...]
"""All folders of a mailbox, by id: a folder that moves takes those below it along without a word about them."""

Since: TypeAlias = Callable[[CollectionId], datetime | None]
"""Tells of a folder that was not watched so far from when on its mail is new; None: nothing of it is."""


def grow(known: Hierarchy, reply: FolderSyncReply, *, full: bool) -> Hierarchy:
    """Return the hierarchy after a FolderSync answer; a `full` one tells of all there is."""
    folders = {} if full else {folder.id: folder for folder in known}
    for gone in reply.deleted:
        folders.pop(gone, None)
    folders |= {folder.id: folder for folder in (*reply.added, *reply.updated)}
    return tuple(sorted(folders.values(), key=lambda folder: folder.id))


def find(hierarchy: Hierarchy, classes: Iterable[CollectionClass]) -> dict[CollectionId, CollectionClass]:
    """Return the sub-folders of some classes, by id."""
    wanted = frozenset(classes)
    below: defaultdict[CollectionId, list[CollectionId]] = defaultdict(list)
    for folder in hierarchy:
        below[folder.parent].append(folder.id)
    in_inbox = _inside(below, (folder.id for folder in hierarchy if folder.type == INBOX))
    never = _inside(below, (folder.id for folder in hierarchy if folder.type in NEVER_NEW))
    found: dict[CollectionId, CollectionClass] = {}
    for folder in hierarchy:
        cls = class_of(folder.type)
        if cls is None or cls not in wanted or folder.type not in USERS or folder.id in never:
            continue
        if cls is not CollectionClass.EMAIL or folder.id in in_inbox:
            found[folder.id] = cls
    return found


def keep(
    known: tuple[Collection, ...],
    hierarchy: Hierarchy,
    classes: Iterable[CollectionClass],
    since: Since = lambda _: None,
) -> tuple[Collection, ...]:
    """Return the sub-folders to keep of those known and in the hierarchy."""
    present = {collection.id: collection for collection in known}
    kept = []
    for id_, cls in find(hierarchy, classes).items():
        collection = present.get(id_)
        if collection is None or collection.cls is not cls:
            collection = Collection(id_, cls, newest=since(id_) if cls is CollectionClass.EMAIL else None, sub=True)
        kept.append(collection)
    return tuple(kept)


def newest_mail(collections: Iterable[Collection]) -> datetime | None:
    """Return when the newest mail came that is known in any folder; None while there is none."""
    moments = (c.drain.since if c.drain else c.newest for c in collections if c.cls is CollectionClass.EMAIL)
    return max((moment for moment in moments if moment is not None), default=None)


def _inside(below: Mapping[CollectionId, list[CollectionId]], tops: Iterable[CollectionId]) -> set[CollectionId]:
    """Return everything below some folders, however deep; a server's circle is walked once."""
    inside: set[CollectionId] = set()
    rest = list(tops)
    while rest:
        for id_ in below.get(rest.pop(), ()):
            if id_ not in inside:
                inside.add(id_)
                rest.append(id_)
    return inside


def recall(memory: Memory, policy: Policy, jitter: float = 0.0) -> tuple[Watch, list[Action]]:
    """Make a watch of what was kept; record what of it is to be forgotten, for nobody asks for it any more.

    All folders are read anew for the first who asks for sub-folders, and forgotten with the last one.
    """
    key = memory.partnership.hierarchy_key
    if memory.subfolders and memory.hierarchy is None:
        key = NO_SYNC_KEY
    known = tuple(c for c in memory.collections if c.sub)
    kept = tuple(c for c in memory.collections if not c.sub)
    kept += keep(known, memory.hierarchy or (), memory.subfolders)
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
    dropped = _missing(memory.collections, kept)
    forgotten = () if memory.hierarchy and not memory.subfolders else None
    progress = Progress(dropped=dropped, hierarchy=forgotten)
    return watch.in_doubt(), [] if progress == Progress() else [Record(progress)]


def read_hierarchy(watch: Watch, reply: FolderSyncReply) -> tuple[Watch, Progress]:
    """Return the watch after a FolderSync answer, and what of it is to be kept.

    Raises ServerBusy for an answer that is not to be taken at its word.
    """
    asked_with = watch.partnership.hierarchy_key
    collections, _ = follow(tuple(c for c in watch.collections if not c.sub), asked_with, reply)
    hierarchy = None
    if watch.subfolders:
        hierarchy = grow(watch.hierarchy or (), reply, full=asked_with == NO_SYNC_KEY)
        known = tuple(c for c in watch.collections if c.sub)
        collections += keep(known, hierarchy, watch.subfolders, _since(watch, hierarchy))
    partnership = replace(watch.partnership, hierarchy_key=reply.sync_key)
    if watch.subfolders:
        partnership = replace(partnership, horizon=newest_mail(watch.collections) or partnership.horizon)
    before = {collection.id: collection for collection in watch.collections}
    progress = Progress(
        partnership=partnership,
        collections=tuple(c for c in collections if before.get(c.id) != c and c.drain is None),
        dropped=_missing(watch.collections, collections),
        hierarchy=None if hierarchy == watch.hierarchy else hierarchy,
    )
    # Folders that went and came back under their ids are deaf until the next Sync [observed: SOGo 5.8, 2026-11].
    watch = replace(
        watch, partnership=partnership, collections=collections, hierarchy=hierarchy, hierarchy_due=False, unborn=None
    ).in_doubt()
    return watch, progress


def look_ahead(watch: Watch) -> tuple[Watch, list[Action]]:
    """Note the newest mail once all is primed: older than all mail that a folder born from now on gets of its own."""
    if not watch.subfolders or watch.partnership.horizon is not None:
        return watch, []
    partnership = replace(watch.partnership, horizon=newest_mail(watch.collections))
    if partnership == watch.partnership:
        return watch, []
    return replace(watch, partnership=partnership), [Record(Progress(partnership=partnership))]


def _since(watch: Watch, hierarchy: Hierarchy) -> Since:
    """Tell from when on mail in sub-folders that are not watched so far is new.

    At the first look nothing of it is. A folder that was elsewhere before was told of by nobody, but what comes after
    all that is known is new. In one that was born since the last look all is new, also what is older than a mail that
    the Inbox got meanwhile; only what its user moved there is older than the folder. But when the Inbox itself has
    another id, all ids are new and no folder was born.
    """
    if watch.hierarchy is None:
        return lambda _: None
    newest = newest_mail(watch.collections)
    before = {folder.id for folder in watch.hierarchy}
    if any(folder.type == INBOX and folder.id not in before for folder in hierarchy):
        return lambda _: newest
    bounds = [moment for moment in (watch.unborn, watch.partnership.horizon) if moment is not None]
    birth = max(bounds, default=newest)
    return lambda id_: newest if id_ in before else birth


def _missing(before: tuple[Collection, ...], after: tuple[Collection, ...]) -> tuple[CollectionId, ...]:
    """Return the collections that are kept no more."""
    kept = {collection.id for collection in after}
    return tuple(collection.id for collection in before if collection.id not in kept)
