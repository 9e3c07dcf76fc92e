"""Own the contents of simulated mailboxes: folders and items, without any protocol."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from eas_watcher.commands.folder_sync import class_of
from eas_watcher.names import CollectionClass, CollectionId, ServerId

INBOX, DRAFTS, NOTES = 2, 3, 10
USER_MAIL: Final = 12
ROOT: Final = CollectionId("0")
NO_AGE: Final = timedelta.max


@dataclass(frozen=True, slots=True)
class SimulatedFolder:
    """Hold one folder; `type` as in FolderSync [MS-ASCMD 2.2.3.186.3]."""

    id: CollectionId
    name: str
    type: int
    parent: CollectionId = ROOT

    @property
    def cls(self) -> CollectionClass | None:
        """The class of its items; None when it holds none."""
        return class_of(self.type)


@dataclass(frozen=True, slots=True)
class SimulatedItem:
    """Hold one item; its revision grows with each change."""

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
"""What every mailbox starts with; small numbers as ids [observed: Exchange 2010]."""

DEFAULT_TYPES: Final = MappingProxyType(
    {
        CollectionClass.EMAIL: INBOX,
        CollectionClass.TASKS: 7,
        CollectionClass.CALENDAR: 8,
        CollectionClass.CONTACTS: 9,
        CollectionClass.NOTES: NOTES,
    }
)
"""Class -> type of the default folder."""

KINDS: Final[Mapping[CollectionClass | None, str]] = MappingProxyType(
    {
        CollectionClass.EMAIL: "mail",
        CollectionClass.TASKS: "vtodo",
        CollectionClass.CALENDAR: "vevent",
        CollectionClass.CONTACTS: "vcard",
    }
)
"""Class -> how folder ids may name it [observed: SOGo 5.8, 2026-11]."""


class SimulatedMailbox:
    """Hold one mailbox: whose it is, its folders, and their items in order of arrival."""

    __slots__ = (
        "_folder_id",
        "_items",
        "_next_folder",
        "_next_item",
        "folders",
        "password",
        "removed",
        "store_down",
        "user",
    )

    def __init__(self, user: str, password: str, folder_id: str = "{number}") -> None:
        """Take whose mailbox it is, and how the ids of its folders are made of `number` and `kind`."""
        self.user = user
        self.password = password
        self.store_down = False
        """Whether the mail store cannot be reached, so that mail folders seem to have gone."""
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
        """Return the folder where items of a class arrive; raises KeyError when it was removed."""
        wanted = DEFAULT_TYPES[cls]
        for folder in self.folders.values():
            if folder.type == wanted:
                return folder.id
        raise KeyError(cls)

    def add_folder(self, name: str, folder_type: int = USER_MAIL) -> CollectionId:
        """Add a folder at the root."""
        folder = SimulatedFolder(self._make_id(self._next_folder, folder_type), name, folder_type)
        self._next_folder += 1
        self.folders[folder.id] = folder
        return folder.id

    def remove_folder(self, collection: CollectionId) -> None:
        """Remove a folder with all its items; raises KeyError."""
        del self.folders[collection]
        self._items.pop(collection, None)
        self.removed.add(collection)

    def add_item(
        self, collection: CollectionId, *, subject: str, sender: str, body: str, received: datetime, read: bool
    ) -> ServerId:
        """Add an item; raises KeyError when the folder holds no items."""
        cls = self.folders[collection].cls
        if cls is None:
            raise KeyError(collection)
        server_id = ServerId(f"{collection}:{self._next_item}")
        self._next_item += 1
        item = SimulatedItem(server_id, cls, subject, sender, body, received, read)
        self._items.setdefault(collection, {})[server_id] = item
        return server_id

    def mark_read(self, server_id: ServerId, *, read: bool) -> None:
        """Set an item's read flag; raises KeyError."""
        items = self._items_with(server_id)
        items[server_id] = replace(items[server_id], read=read, revision=items[server_id].revision + 1)

    def delete(self, server_id: ServerId) -> None:
        """Remove an item; raises KeyError."""
        del self._items_with(server_id)[server_id]

    def items(self, collection: CollectionId) -> Iterable[SimulatedItem]:
        """Return the items of a folder in order of arrival."""
        return self._items.get(collection, {}).values()

    @property
    def present(self) -> dict[CollectionId, SimulatedFolder]:
        """The folders that can be reached now."""
        if not self.store_down:
            return self.folders
        return {id_: folder for id_, folder in self.folders.items() if folder.cls is not CollectionClass.EMAIL}

    def _make_id(self, number: int, folder_type: int) -> CollectionId:
        return CollectionId(self._folder_id.format(number=number, kind=KINDS.get(class_of(folder_type), "other")))

    def _items_with(self, server_id: ServerId) -> dict[ServerId, SimulatedItem]:
        items = self._items.get(CollectionId(server_id.partition(":")[0]), {})
        if server_id not in items:
            raise KeyError(server_id)
        return items
