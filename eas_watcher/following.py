"""Own how a watch follows the folders of its mailbox: what it remembers of them, and what a FolderSync changes."""

from dataclasses import replace

from eas_watcher.commands.folder_sync import FolderSyncReply
from eas_watcher.hierarchy import follow
from eas_watcher.names import NO_SYNC_KEY, CollectionId
from eas_watcher.progress import Collection, Memory, Progress
from eas_watcher.states import Action, Policy, Record, Watch
from eas_watcher.subfolders import grow, keep, newest_mail


def recall(memory: Memory, policy: Policy, jitter: float = 0.0) -> tuple[Watch, list[Action]]:
    """Make a watch of what was kept; record what of it is to be forgotten, for nobody asks for it any more.

    All folders are read anew for the first who asks for sub-folders, and forgotten with the last one.
    """
    key = memory.partnership.hierarchy_key
    if memory.subfolders and memory.hierarchy is None:
        key = NO_SYNC_KEY
    known = tuple(c for c in memory.collections if c.sub)
    kept = tuple(c for c in memory.collections if not c.sub)
    kept += keep(known, memory.hierarchy or (), memory.subfolders, since=None)
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
        refusals=memory.refusals,
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
        # At the first look all is old; a folder that appears later may have got mail before we saw it.
        since = None if watch.hierarchy is None else newest_mail(watch.collections)
        known = tuple(c for c in watch.collections if c.sub)
        collections += keep(known, hierarchy, watch.subfolders, since)
    partnership = replace(watch.partnership, hierarchy_key=reply.sync_key)
    before = {collection.id: collection for collection in watch.collections}
    progress = Progress(
        partnership=partnership,
        collections=tuple(c for c in collections if before.get(c.id) != c and c.drain is None),
        dropped=_missing(watch.collections, collections),
        hierarchy=None if hierarchy == watch.hierarchy else hierarchy,
    )
    # Folders that went and came back under their ids are deaf until the next Sync [observed: SOGo 5.8, 2026-11].
    watch = replace(
        watch, partnership=partnership, collections=collections, hierarchy=hierarchy, hierarchy_due=False
    ).in_doubt()
    return watch, progress


def _missing(before: tuple[Collection, ...], after: tuple[Collection, ...]) -> tuple[CollectionId, ...]:
    """Return the collections that are kept no more."""
    kept = {collection.id for collection in after}
    return tuple(collection.id for collection in before if collection.id not in kept)
