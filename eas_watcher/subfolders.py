"""Own which folders of a hierarchy are sub-folders that somebody asked to hear of, and which of them are kept.

Mail counts in the user's own mail folders below the Inbox (type 12). Not in those beside it: Junk is one of them, and
only its name, which is content and in the user's language, tells it from the others. Drafts, sent, deleted and outgoing
mail has types of its own, and is never new. Folders of the other classes (types 13, 14, 15, 17) count wherever they
are, for some servers keep them beside the default one [observed: SOGo 5.8, 2026-11]; but not where things are deleted.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, TypeAlias

from eas_watcher.commands.folder_sync import Folder, FolderSyncReply, class_of
from eas_watcher.names import CollectionClass, CollectionId
from eas_watcher.progress import Collection

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
