"""The contents of simulated mailboxes: folders and items, without the protocol."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from eas_watcher.commands.folder_sync import INBOX, class_of
from eas_watcher.names import CollectionClass, CollectionId, ServerId

DRAFTS, NOTES = 3, 10
USER_MAIL: Final = 12
ROOT: Final = CollectionId("0")
NO_AGE: Final = timedelta.max


@dataclass(frozen=True, slots=True)
class SimulatedFolder:
    """One folder; `type` as in FolderSync [MS-ASCMD 2.2.3.186.3]."""

    id: CollectionId
    name: str
    type: int
    parent: CollectionId = ROOT

    @property
    def cls(self) -> CollectionClass | None:
        """The class of its items; None if it cannot hold items."""
        return class_of(self.type)


@dataclass(frozen=True, slots=True)
class SimulatedItem:
    """One item; each change increments its revision."""

    id: ServerId
    cls: CollectionClass
    subject: str = field(repr=False)
    sender: str = field(repr=False)
    body: str = field(repr=False)
    received: datetime
    """Aware UTC."""
    read: bool = False
    revision: int = 0


DEFAULT_FOLDERS: Final = tuple(
    SimulatedFolder(CollectionId(str(number)), name, folder_type)
    for number, (name, folder_type) in enumerate(
        (
            ("Calendar", 8),
            ("Contacts", 9),
            ("Deleted Items", 4),
            ("Drafts", DRAFTS),
            ("Inbox", INBOX),
            ("Journal", 11),
            ("Notes", NOTES),
            ("Outbox", 6),
            ("Sent Items", 5),
            ("Tasks", 7),
        ),
        start=1,
    )
)
"""The folders of a new mailbox; small numbers as ids [observed: Exchange 2010]."""

DEFAULT_TYPES: Final = MappingProxyType(
    {
        CollectionClass.EMAIL: INBOX,
        CollectionClass.TASKS: 7,
        CollectionClass.CALENDAR: 8,
        CollectionClass.CONTACTS: 9,
        CollectionClass.NOTES: NOTES,
    }
)
"""Class -> type of its default folder."""

KINDS: Final[Mapping[CollectionClass | None, str]] = MappingProxyType(
    {
        CollectionClass.EMAIL: "mail",
        CollectionClass.TASKS: "vtodo",
        CollectionClass.CALENDAR: "vevent",
        CollectionClass.CONTACTS: "vcard",
    }
)
"""Class -> its name in folder ids [observed: SOGo 5.8, 2026-11]."""


class SimulatedMailbox:
    """One mailbox: its user, its folders, and their items in order of arrival."""

    __slots__ = (
        "_folder_id",
        "_items",
        "_next_folder",
        "_next_item",
        "broken",
        "folders",
        "password",
        "removed",
        "store_down",
        "user",
    )

    def __init__(self, user: str, password: str, folder_id: str = "{number}") -> None:
        """`folder_id` is the format of the ids of folders, with the fields `number` and `kind`."""
        self.user = user
        self.password = password
        self.store_down = False
        """Whether the mail store is down, so that mail folders seem to be deleted."""
        self.broken: set[CollectionId] = set()
        """Folders that FolderSync lists and Sync refuses."""
        self._folder_id = folder_id
        defaults = (
            replace(folder, id=self._make_id(number, folder.type))
            for number, folder in enumerate(DEFAULT_FOLDERS, start=1)
        )
        self.folders = {folder.id: folder for folder in defaults}
        self.removed: set[CollectionId] = set()
        self._items: dict[CollectionId, dict[ServerId, SimulatedItem]] = {}
        self._next_folder = len(DEFAULT_FOLDERS) + 1
        self._next_item = 1

    def default_folder(self, cls: CollectionClass) -> CollectionId:
        """Return the folder where items of a class arrive; raises KeyError if it was removed."""
        wanted = DEFAULT_TYPES[cls]
        for folder in self.folders.values():
            if folder.type == wanted:
                return folder.id
        raise KeyError(cls)

    def add_folder(self, name: str, folder_type: int = USER_MAIL, parent: CollectionId = ROOT) -> CollectionId:
        """Add a folder below another one or at the root, and return its id; raises KeyError."""
        self._check_parent(parent)
        folder = SimulatedFolder(self._make_id(self._next_folder, folder_type), name, folder_type, parent)
        self._next_folder += 1
        self.folders[folder.id] = folder
        return folder.id

    def move_folder(self, collection: CollectionId, parent: CollectionId) -> None:
        """Move a folder, with the folders below it, below another one; raises KeyError."""
        self._check_parent(parent)
        self.folders[collection] = replace(self.folders[collection], parent=parent)

    def remove_folder(self, collection: CollectionId) -> None:
        """Remove a folder with all its items and all folders below it; raises KeyError."""
        del self.folders[collection]
        self._items.pop(collection, None)
        self.removed.add(collection)
        for id_ in [folder.id for folder in self.folders.values() if folder.parent == collection]:
            self.remove_folder(id_)

    def renumber_folder(self, collection: CollectionId) -> CollectionId:
        """Give a folder and its items new ids, as if restored from a backup; return the folder's. Raises KeyError."""
        old = self.folders.pop(collection)
        self.removed.add(collection)
        folder = replace(old, id=self._make_id(self._next_folder, old.type))
        self._next_folder += 1
        self.folders[folder.id] = folder
        for id_, below in self.folders.items():
            if below.parent == collection:
                self.folders[id_] = replace(below, parent=folder.id)
        for item in self._items.pop(collection, {}).values():
            self._put(folder.id, item)
        return folder.id

    def add_item(
        self, collection: CollectionId, *, subject: str, sender: str, body: str, received: datetime, read: bool
    ) -> ServerId:
        """Add an item and return its id; raises KeyError if the folder cannot hold items."""
        cls = self.folders[collection].cls
        if cls is None:
            raise KeyError(collection)
        server_id = self._new_id(collection)
        item = SimulatedItem(server_id, cls, subject, sender, body, received, read)
        self._items.setdefault(collection, {})[server_id] = item
        return server_id

    def move_item(self, server_id: ServerId, collection: CollectionId) -> ServerId:
        """Move an item to another folder of its class and return its new id; raises KeyError."""
        item = self._items_with(server_id)[server_id]
        if self.folders[collection].cls is not item.cls:
            raise KeyError(collection)
        del self._items_with(server_id)[server_id]
        return self._put(collection, item)

    def mark_read(self, server_id: ServerId, *, read: bool) -> None:
        """Set the read flag of an item; raises KeyError."""
        items = self._items_with(server_id)
        items[server_id] = replace(items[server_id], read=read, revision=items[server_id].revision + 1)

    def delete(self, server_id: ServerId) -> None:
        """Remove an item; raises KeyError."""
        del self._items_with(server_id)[server_id]

    def items(self, collection: CollectionId) -> Collection[SimulatedItem]:
        """Return the items of a folder in order of arrival."""
        return self._items.get(collection, {}).values()

    @property
    def reachable_folders(self) -> dict[CollectionId, SimulatedFolder]:
        """All folders; without the mail folders if the mail store is down."""
        if not self.store_down:
            return self.folders
        return {id_: folder for id_, folder in self.folders.items() if folder.cls is not CollectionClass.EMAIL}

    def _new_id(self, collection: CollectionId) -> ServerId:
        server_id = ServerId(f"{collection}:{self._next_item}")
        self._next_item += 1
        return server_id

    def _put(self, collection: CollectionId, item: SimulatedItem) -> ServerId:
        server_id = self._new_id(collection)
        self._items.setdefault(collection, {})[server_id] = replace(item, id=server_id)
        return server_id

    def _check_parent(self, parent: CollectionId) -> None:
        if parent != ROOT and parent not in self.folders:
            raise KeyError(parent)

    def _make_id(self, number: int, folder_type: int) -> CollectionId:
        return CollectionId(self._folder_id.format(number=number, kind=KINDS.get(class_of(folder_type), "other")))

    def _items_with(self, server_id: ServerId) -> dict[ServerId, SimulatedItem]:
        items = self._items.get(CollectionId(server_id.partition(":")[0]), {})
        if server_id not in items:
            raise KeyError(server_id)
        return items
