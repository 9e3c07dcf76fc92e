"""What a watch remembers: `Memory` is what it starts from, `Progress` what one answer adds and the store commits.

All are frozen values. One `Progress` is committed in one transaction, so that a sync key and the changes that it stands
for are stored together or not at all.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from eas_watcher.commands.folder_sync import Folder
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.machine.seen import NONE_SEEN, SeenIds
from eas_watcher.names import (
    NO_SYNC_KEY,
    CollectionClass,
    CollectionId,
    PolicyKey,
    ProtocolVersion,
    ServerId,
    SyncKey,
)
from eas_watcher.reasons import Reason
from eas_watcher.values import by_slots, replace


@dataclass(frozen=True, slots=True)
class Partnership:
    """What server and device agreed on: protocol version, policy and the key of the folder hierarchy."""

    version: ProtocolVersion | None = None
    policy_key: PolicyKey | None = None
    """None: the server has not asked for a policy, or has none for us."""
    hierarchy_key: SyncKey = NO_SYNC_KEY
    informed: bool = False
    """True if the server knows our DeviceInformation."""
    acknowledged: Acknowledgement | None = None
    """What we acknowledged about the server's policy; None: there was no policy."""
    url: str | None = None
    """The URL of the mailbox when it is not the configured one of its server; None: it is."""
    horizon: datetime | None = None
    """Receive time of the newest known mail at the last FolderSync; mail in a folder created since then must be newer.
    None: unknown, or no registration asks for sub-folders."""


@dataclass(frozen=True, slots=True)
class Drain:
    """What is known while a collection is primed: of its backlog, only items that came after the lost state are new."""

    since: datetime | None
    """Items received later are new; None: the collection was never primed before, so none of its items are new."""
    known: frozenset[ServerId] = frozenset()
    """The items seen last before the drain."""
    found: int = 0
    """New items that the drain has found."""


@by_slots
@dataclass(frozen=True, slots=True)
class Collection:
    """The position of the relay in one collection."""

    id: CollectionId
    cls: CollectionClass
    sync_key: SyncKey = NO_SYNC_KEY
    tries: int = 0
    """How often the sync key was sent without a whole answer; at most 3 [observed: Z-Push 2.7.1, 2026-11]."""
    newest: datetime | None = None
    """The newest DateReceived seen, aware UTC; None: never primed. Classes without that property have 1970-01-01."""
    seen: SeenIds = NONE_SEEN
    """The items seen last."""
    drain: Drain | None = None
    """Set while the collection is primed. Never stored: nothing of the collection is committed until the drain ends, so
    that a crash repeats the whole drain."""
    sub: bool = False
    """True for a sub-folder, which only some registrations ask for."""

    @property
    def is_inbox(self) -> bool:
        """True if this is the default folder of mail."""
        return self.cls is CollectionClass.EMAIL and not self.sub


@by_slots
@dataclass(frozen=True, slots=True)
class Change:
    """`count` new items of one class; not `certain` if they are inferred, because the server lost our sync state."""

    cls: CollectionClass
    count: int
    certain: bool = True
    sub: bool = False
    """True if they are in a sub-folder."""


WIPES: Final = {False: Reason.REMOTE_WIPE, True: Reason.ACCOUNT_ONLY_WIPE}
"""True if only the account is wiped -> reason of `wiping` and `wiped`."""


class WatchState(StrEnum):
    """What a watch is doing, as operators see it."""

    VERIFYING = "verifying"
    """No server has accepted the credential yet."""
    STARTING = "starting"
    WATCHING = "watching"
    WAITING = "waiting"
    """Waiting until the next try; the condition has the reason and the time."""
    CREDENTIAL_REFUSED = "credential-refused"
    BLOCKED = "blocked"
    WIPING = "wiping"
    """A wipe is being acknowledged; the watch does nothing else any more, also after a restart."""
    WIPED = "wiped"
    PAUSED = "paused"
    """An administrator paused the mailbox. No watch has this state: the program around the watches shows it."""

    @property
    def ended(self) -> bool:
        """True if the watch has ended for good: only a new credential or registration starts the mailbox again."""
        return self in {WatchState.CREDENTIAL_REFUSED, WatchState.WIPED}


@by_slots
@dataclass(frozen=True, slots=True)
class Condition:
    """The state of a watch as operators see it, with a reason and the time of the next try."""

    state: WatchState
    reason: Reason | None = None
    """None: all is well."""
    retry_in: float | None = None
    """Seconds until the next try; None when nothing is planned."""
    detail: str = ""
    """One line for the operator, without content or credentials."""


@by_slots
@dataclass(frozen=True, slots=True)
class Progress:
    """What must be committed together: new sync keys and the changes they stand for."""

    partnership: Partnership | None = None
    """None: unchanged."""
    collections: tuple[Collection, ...] = ()
    """Collections to insert or replace."""
    dropped: tuple[CollectionId, ...] = ()
    changes: tuple[Change, ...] = ()
    condition: Condition | None = None
    refusals: int | None = None
    """How many times in a row the credential was refused; None: unchanged."""
    attention: bool = False
    """True if the phones get an `attention` push: the watch needs their user."""
    in_doubt: bool = False
    """True if that push says that the mail server may be at fault, not the user."""
    hierarchy: tuple[Folder, ...] | None = None
    """All folders, kept to find sub-folders; None: unchanged, empty: not kept any more."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Everything that a watch starts from."""

    partnership: Partnership = field(default_factory=Partnership)
    collections: tuple[Collection, ...] = ()
    classes: frozenset[CollectionClass] = frozenset({CollectionClass.EMAIL})
    """The classes that registrations ask for."""
    refusals: int = 0
    retry_in: float = 0.0
    """Seconds to wait before the first request: the rest of a wait that a restart cut short."""
    subfolders: frozenset[CollectionClass] = frozenset()
    """The classes for which registrations ask for sub-folders too."""
    hierarchy: tuple[Folder, ...] | None = None
    """All folders as they were at the hierarchy key; None: not kept."""
    wipe: bool | None = None
    """True if a wipe of the account was begun, False if one of the device was; None: no wipe was begun."""


def restart(collection: Collection) -> Collection:
    """Return a collection that is primed again from key 0, and remembers since when items are new.

    A drain that was interrupted starts again with nothing found. The ids seen before say nothing about the ids to come:
    with a new sync state some servers give the same ids to other items, and a new mail must not count as a known one.
    """
    drain = collection.drain or Drain(collection.newest, frozenset(collection.seen))
    return replace(collection, sync_key=NO_SYNC_KEY, tries=0, seen=NONE_SEEN, drain=replace(drain, found=0))
