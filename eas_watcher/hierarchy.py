"""Own which folders are kept as collections, and how a FolderSync answer changes that.

One collection per class is kept: the mailbox's default folder of that class, found by its type, never by its name
[MS-ASCMD 2.2.3.186.3]. Folders of classes that nobody asked for are kept too, unprimed, so that a later wish needs no
FolderSync from key 0, which wipes every sync key of the device on some servers [observed: SOGo 5.8, 2026-11].
"""

from datetime import datetime
from typing import Final

from eas_watcher.commands.folder_sync import Folder, FolderSyncReply
from eas_watcher.errors import ServerBusy
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, SyncKey
from eas_watcher.progress import Collection

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
