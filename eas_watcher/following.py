"""Own how a watch follows the folders of its mailbox: what it remembers of them, and what a FolderSync changes."""

from dataclasses import replace

from eas_watcher.commands.folder_sync import FolderSyncReply
from eas_watcher.hierarchy import follow
from eas_watcher.names import NO_SYNC_KEY, CollectionId
from eas_watcher.progress import Collection, Memory, Progress
from eas_watcher.states import Action, Policy, Record, Watch
from eas_watcher.subfolders import INBOX, Hierarchy, Since, grow, keep, newest_mail


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
