"""FolderSync: the folders of a mailbox, and their changes since a hierarchy key [MS-ASCMD 2.2.1.6]."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

from eas_watcher.commands.reading import read_identifier, read_number, read_root, read_status, require_identifier
from eas_watcher.commands.request import LARGE, Command, HttpReply
from eas_watcher.commands.status import raise_for_status
from eas_watcher.errors import ProtocolViolation, RequestRefused, ServerBusy, StateLost
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ProtocolVersion, SyncKey
from eas_watcher.wbxml.element import FOLDERHIERARCHY, Element
from eas_watcher.wbxml.encode import encode

# Status [MS-ASCMD 2.2.3.177.4]
STALE_KEY: Final = 9
MALFORMED: Final = 10
TRANSIENT: Final = frozenset({6, 8, 11, 12})  # server error, timeout, unknown, unknown backend code
SUSPECT: Final = frozenset({6, 11})  # those of TRANSIENT that a corrupt hierarchy key can cause

ROOT: Final = CollectionId("0")

# Folder types [MS-ASCMD 2.2.3.186.3]
INBOX: Final = 2
DEFAULT_TYPES: Final = frozenset({2, 7, 8, 9, 10})  # Inbox, Tasks, Calendar, Contacts, Notes
USER_TYPES: Final = frozenset({12, 13, 14, 15, 17})  # folders of those classes that users make
NEVER_NEW: Final = frozenset({3, 4, 5, 6})  # Drafts, Deleted Items, Sent Items, Outbox
UNKNOWN_TYPE: Final = 18

CLASSES: Final = MappingProxyType(
    dict.fromkeys((1, 2, 3, 4, 5, 6, 12), CollectionClass.EMAIL)
    | dict.fromkeys((8, 13), CollectionClass.CALENDAR)
    | dict.fromkeys((9, 14), CollectionClass.CONTACTS)
    | dict.fromkeys((7, 15), CollectionClass.TASKS)
    | dict.fromkeys((10, 17), CollectionClass.NOTES)
)
"""Folder type -> class [MS-ASCMD 2.2.3.186.3]; journals, the recipient cache and unknown folders have none."""


def class_of(folder_type: int) -> CollectionClass | None:
    """Return the class of the items in a folder of that type; None when it cannot be synced."""
    return CLASSES.get(folder_type)


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder. Its DisplayName is content and is not read."""

    id: CollectionId
    parent: CollectionId
    type: int

    @property
    def cls(self) -> CollectionClass | None:
        """The class of its items; None when it cannot be synced."""
        return class_of(self.type)

    @property
    def default_class(self) -> CollectionClass | None:
        """The class of its items if this is the default folder of that class, e.g. the Inbox; None for all others."""
        return self.cls if self.type in DEFAULT_TYPES else None


@dataclass(frozen=True, slots=True)
class FolderSyncReply:
    """The new hierarchy key, and the changes since the old one."""

    sync_key: SyncKey
    added: tuple[Folder, ...] = ()
    updated: tuple[Folder, ...] = ()
    deleted: tuple[CollectionId, ...] = ()


@dataclass(frozen=True, slots=True)
class FolderSync(Command[FolderSyncReply]):
    """Ask for the changes of the hierarchy since a key; "0" asks for all folders."""

    name: ClassVar[str] = "FolderSync"
    largest: ClassVar[int] = LARGE
    sync_key: SyncKey

    def encode(self, version: ProtocolVersion) -> bytes:  # noqa: ARG002 -- alike in all versions
        """Write FolderSync with its key."""
        return encode(FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("SyncKey", self.sync_key)))

    def read(self, reply: HttpReply) -> FolderSyncReply:
        """Read the changes; raises what a failing status means, and ProtocolViolation for an unreadable answer."""
        root = read_root(reply, "FolderHierarchy", "FolderSync", sparse=True)
        _raise_for(read_status(root))
        sync_key = SyncKey(require_identifier(root, "SyncKey"))
        if sync_key == NO_SYNC_KEY:
            raise ProtocolViolation("FolderSync was answered with the key 0")
        changes = root.find("Changes")
        if changes is None:
            return FolderSyncReply(sync_key)
        return FolderSyncReply(
            sync_key,
            added=tuple(map(_read_folder, changes.all("Add"))),
            updated=tuple(map(_read_folder, changes.all("Update"))),
            deleted=tuple(CollectionId(require_identifier(gone, "ServerId")) for gone in changes.all("Delete")),
        )


def _raise_for(status: int) -> None:
    if status == STALE_KEY:
        raise StateLost("the hierarchy key is not valid (FolderSync status 9)")
    if status in TRANSIENT:
        raise ServerBusy(f"the server has an error (FolderSync status {status})", suspect=status in SUSPECT)
    if status == MALFORMED:
        raise RequestRefused("the server calls our request malformed (FolderSync status 10)")
    raise_for_status("FolderSync", status)


def _read_folder(element: Element) -> Folder:
    folder_type = read_number(element, "Type")
    return Folder(
        CollectionId(require_identifier(element, "ServerId")),
        CollectionId(read_identifier(element, "ParentId") or ROOT),
        UNKNOWN_TYPE if folder_type is None else folder_type,
    )
