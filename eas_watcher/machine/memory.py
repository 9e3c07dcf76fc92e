"""Own what a watch keeps between two answers, and what one answer adds to it.

Everything here is a frozen value without I/O; whoever stores it commits one `Progress` in one transaction.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from eas_watcher.commands.folder_sync import Folder
from eas_watcher.commands.provision import Acknowledgement
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


@dataclass(frozen=True, slots=True)
class Partnership:
    """Keep what server and device agreed on: version, policy and the key of the folder hierarchy."""

    version: ProtocolVersion | None = None
    policy_key: PolicyKey | None = None
    """None: the server asked for no policy so far, or has none for us."""
    hierarchy_key: SyncKey = NO_SYNC_KEY
    informed: bool = False
    """Whether the server knows our DeviceInformation."""
    acknowledged: Acknowledgement | None = None
    """What we said that we did with the server's policy; None: nothing, there was none."""
    url: str | None = None
    """Where the mailbox is instead of its server's configured URL; None: there."""
    horizon: datetime | None = None
    """When the newest mail came that was known as the hierarchy was read last: a folder that was born since got all
    mail of its own later. None: not known, or nobody asked for sub-folders."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Hold what is known while a collection is primed: its backlog is not new, unless it came while we were deaf."""

    since: datetime | None
    """Items received later are new; None: the collection was never primed before, nothing of it is new."""
    known: frozenset[ServerId] = frozenset()
    """The items seen last before the drain."""
    found: int = 0
    """New items so far."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Keep where the relay stands in one collection."""

    id: CollectionId
    cls: CollectionClass
    sync_key: SyncKey = NO_SYNC_KEY
    tries: int = 0
    """How often the present key was sent without a whole answer; at most 3 [observed: Z-Push 2.7.1, 2026-11]."""
    newest: datetime | None = None
    """The newest DateReceived seen, aware UTC; None: never primed. Classes without that property keep the epoch."""
    seen: tuple[ServerId, ...] = ()
    """The last items seen, oldest first, bounded."""
    drain: Drain | None = None
    """Set while the collection is primed. Never stored: until the drain ends nothing of the collection is committed,
    so that a crash repeats the whole drain."""
    sub: bool = False
    """Whether it is a sub-folder: of interest only to those who asked for them."""


@dataclass(frozen=True, slots=True)
class Change:
    """Say that `count` new items of one class arrived; not `certain` when the server lost count and we infer it."""

    cls: CollectionClass
    count: int
    certain: bool = True
    sub: bool = False
    """Whether they are in a sub-folder."""


WIPES: Final = {False: Reason.REMOTE_WIPE, True: Reason.ACCOUNT_ONLY_WIPE}
"""Whether only the account is meant -> reason of `wiping` and `wiped`."""


class WatchState(StrEnum):
    """Name what a watch is doing, as operators see it."""

    VERIFYING = "verifying"
    """The credential was never accepted so far."""
    STARTING = "starting"
    WATCHING = "watching"
    WAITING = "waiting"
    """Backing off; `reason` says why, `retry_in` until when."""
    CREDENTIAL_REFUSED = "credential-refused"
    BLOCKED = "blocked"
    WIPING = "wiping"
    """A wipe is being acknowledged; nothing else is done any more, also after a restart."""
    WIPED = "wiped"

    @property
    def ended(self) -> bool:
        """True if the watch has ended for good: only a new credential or registration starts the mailbox again."""
        return self in {WatchState.CREDENTIAL_REFUSED, WatchState.WIPED}


@dataclass(frozen=True, slots=True)
class Condition:
    """Tell how a watch is: its state, a reason for operators, and when it will try again."""

    state: WatchState
    reason: Reason | None = None
    """None: all is well."""
    retry_in: float | None = None
    """Seconds until the next try; None when nothing is planned."""
    detail: str = ""
    """One line for the operator; never content, never a credential."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Hold what must be committed together: advanced keys and the changes they stand for."""

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
    """Whether the phones must be told that the watch needs their user."""
    hierarchy: tuple[Folder, ...] | None = None
    """All folders, kept for the sake of sub-folders; None: unchanged, empty: kept no more."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Hold everything a watch starts from."""

    partnership: Partnership = field(default_factory=Partnership)
    collections: tuple[Collection, ...] = ()
    classes: frozenset[CollectionClass] = frozenset({CollectionClass.EMAIL})
    """The classes that some registration asked for."""
    accepted: bool = False
    """Whether the server ever accepted the present credential."""
    refusals: int = 0
    retry_in: float = 0.0
    """Seconds to wait before the first request; carries a wait over a restart."""
    subfolders: frozenset[CollectionClass] = frozenset()
    """The classes of whose sub-folders some registration asked to hear too."""
    hierarchy: tuple[Folder, ...] | None = None
    """All folders as they were at the hierarchy key; None: not kept."""
    wipe: bool | None = None
    """Whether a wipe was begun and only the account is meant; None: none was."""


def restart(collection: Collection) -> Collection:
    """Give up a sync key: prime again, and remember from when on items are new.

    A drain that breaks off begins anew with nothing found. What was seen so far says nothing about the ids to come:
    with a new state some servers give out the same ids for other items, and a new mail must not pass for a known one.
    """
    drain = collection.drain or Drain(collection.newest, frozenset(collection.seen))
    return replace(collection, sync_key=NO_SYNC_KEY, tries=0, seen=(), drain=replace(drain, found=0))
