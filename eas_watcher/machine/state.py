"""The values that `step` works on: what a watch knows, its states, and the events and actions between them.

All are frozen and compared with ==. A move is the next state and the actions that lead to the next event, in order.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from eas_watcher.commands.folder_sync import Folder, FolderSyncReply
from eas_watcher.commands.options import Capabilities
from eas_watcher.commands.ping import PingReply
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.commands.request import Command
from eas_watcher.commands.sync import SyncReply
from eas_watcher.errors import EasError
from eas_watcher.heartbeat import Heartbeat
from eas_watcher.machine.counters import Counters
from eas_watcher.machine.memory import Collection, Partnership, Progress, WatchState
from eas_watcher.names import CollectionClass, CollectionId, PolicyKey, ProtocolVersion
from eas_watcher.values import by_slots, replace

RATE: Final = 50.0  # mailboxes per second that start at a server or return to it, unless the operator says otherwise
LOCKOUT_WINDOW: Final = 1800.0  # seconds; the directory's "reset account lockout counter after" is as long by default
MOST_COLLECTIONS: Final = 20  # in one Sync, of 25 items each at most
MOST_FOLDERS: Final = 200  # in one Ping; a server that takes fewer says so [MS-ASCMD 2.2.3.107]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decides for all watches of one server."""

    versions: tuple[ProtocolVersion, ...] = tuple(ProtocolVersion)
    acknowledgement: Acknowledgement = Acknowledgement.THIRD_PARTY
    fallbacks: tuple[Acknowledgement, ...] = ()
    """Acknowledgements for a server that does not take `acknowledgement`, in this order."""
    hosts: frozenset[str] = frozenset()
    """Hosts that a server may redirect a mailbox to, lower-case, with their port unless it is 443."""
    discovered: bool = False
    """True if mailboxes have no configured URL to return to, but only the one that Autodiscover found."""
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    poll_interval: float | None = None
    """Seconds between two Syncs that stand in for Pings; None: Pings are held."""
    return_rate: float = RATE
    """Mailboxes per second that may start at the server, or return after an outage."""
    lockout_window: float = LOCKOUT_WINDOW
    """Seconds for which the directory remembers a refused login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """All that a watch knows; the states differ only in what they wait for."""

    # given
    policy: Policy
    classes: frozenset[CollectionClass]
    """The classes that registrations ask for."""
    subfolders: frozenset[CollectionClass] = frozenset()
    """The classes for which registrations ask for sub-folders too."""
    jitter: float = 0.0
    """Share by which this mailbox's Pings last longer than the interval, so that those of a fleet end apart."""

    # agreed on with the server, and stored
    partnership: Partnership
    collections: tuple[Collection, ...]
    hierarchy: tuple[Folder, ...] | None = None
    """All folders; None: not kept, because no registration asks for sub-folders."""

    # learnt about the server, and forgotten when the watch ends
    heartbeat: Heartbeat
    refused_versions: frozenset[ProtocolVersion] = frozenset()
    """Versions that the server offers, but refuses when they are used."""
    max_folders: int = MOST_FOLDERS
    """The most folders that the server takes in one Ping, as far as it has complained."""
    max_collections: int = MOST_COLLECTIONS
    """The most collections that the server takes in one Sync, as far as it has complained."""
    confirms: bool = False
    """True if a Sync with items needs another one, or the next Ping ends at once [observed: SOGo 5.8, 2026-11]."""
    new: bool = False
    """True if the server had no partnership with our device before this watch began."""

    # due
    unsynced: frozenset[CollectionId]
    """Collections that need a Sync before the next Ping."""
    unconfirmed: frozenset[CollectionId] = frozenset()
    """Collections whose last Sync had items; while a Ping that ended at once is looked into, those that it named."""
    provision_due: bool = False
    hierarchy_due: bool = False
    hierarchy_fault: str = ""
    """Why the hierarchy could not be read, while the folders that are known are watched; empty: it could."""

    counters: Counters = field(default_factory=Counters)

    # shown to operators
    capacity: str = ""
    """What the server's capacity means for its mailboxes; empty: all are held."""
    shown: WatchState | None = None
    """The state that was last recorded."""
    shown_detail: str = ""
    """The detail that was last recorded with `watching`."""

    # sub-folders
    announced_until: datetime | None = None
    """Mail received until then that appears in a sub-folder from now on was moved there: its arrival was announced.
    None: unknown."""
    created_after: datetime | None = None
    """Any folder that the next FolderSync adds was created after mail received until then; None: unknown."""
    singly: bool = False
    """True until the next Ping, if a Sync of several folders failed as a whole: each is asked for alone."""
    sync_failures: tuple[CollectionId, ...] = ()
    """Folders but the Inbox that the server did not sync while another one was in step, once for each time in a row, as
    far as these are counted."""
    parked: frozenset[CollectionId] = frozenset()
    """Folders that are left out for a while, because the server repeatedly did not sync them."""

    @property
    def wanted(self) -> tuple[Collection, ...]:
        """The collections that registrations ask for, Inbox first, sub-folders last."""
        classes, subs = self.classes, self.subfolders
        wanted = [c for c in self.collections if c.cls in classes and (not c.sub or c.cls in subs)]
        if len(wanted) > 1:
            wanted.sort(key=_inbox_first)
        return tuple(wanted)

    @property
    def watched(self) -> tuple[Collection, ...]:
        """The wanted collections that are not parked, no more of them than the server takes."""
        wanted = self.wanted
        if self.parked:
            wanted = tuple(c for c in wanted if c.id not in self.parked)
        return wanted[: self.max_folders]

    @property
    def redirected(self) -> bool:
        """True if a server sent the mailbox away from its configured URL."""
        return self.partnership.url is not None and not self.policy.discovered

    def resync_all(self) -> "Watch":
        """Return the watch with all its collections due for a Sync before the next Ping."""
        due = frozenset(collection.id for collection in self.collections)
        return replace(self, unsynced=due, unconfirmed=frozenset())

    def unparked(self) -> "Watch":
        """Return the watch with all folders; a parked one that fails again is parked at once.

        Mail that came to it meanwhile was not announced.
        """
        announced_until = None if self.parked else self.announced_until
        return replace(self, parked=frozenset(), announced_until=announced_until)


def _inbox_first(collection: Collection) -> tuple[bool, bool, str]:
    return collection.sub, collection.cls is not CollectionClass.EMAIL, collection.id


# --- states: what a watch waits for


@dataclass(frozen=True, slots=True)
class Discovering:
    """OPTIONS was sent."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class Provisioning:
    """The Provision conversation is under way."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class ReadingHierarchy:
    """FolderSync was sent."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class Informing:
    """Settings with our DeviceInformation was sent."""

    watch: Watch


@by_slots
@dataclass(frozen=True, slots=True)
class Syncing:
    """One Sync of the collections `asked` was sent."""

    watch: Watch
    asked: tuple[CollectionId, ...]


@by_slots
@dataclass(frozen=True, slots=True)
class Pinging:
    """A Ping was sent, which the server may hold."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class Pausing:
    """A timer runs."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class Wiping:
    """The acknowledgement of a wipe is under way; the watch ends with it, whether it succeeds or not."""

    watch: Watch
    account_only: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing is awaited: only a new credential or registration starts this mailbox again."""

    watch: Watch


State: TypeAlias = (
    Discovering | Provisioning | ReadingHierarchy | Informing | Syncing | Pinging | Pausing | Wiping | Ended
)


# --- events: what came of it


@by_slots
@dataclass(frozen=True, slots=True)
class Answered:
    """The reply to the command that was sent, when it came (aware UTC), and how many seconds it took."""

    reply: Capabilities | FolderSyncReply | SyncReply | PingReply | None
    at: datetime
    held: float = 0.0
    asked: int | None = None
    """Seconds that a Ping asked for, if that is less than the watch wanted, because others wait for their turn."""
    note: str = ""
    """What the server's capacity means for its mailboxes; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Full:
    """The Ping was not sent: the server holds no more. A Sync is due in `seconds`, or sooner."""

    seconds: float
    note: str = ""
    """What the server's capacity means for its mailboxes."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The final policy key and what was acknowledged for it; both None: the server has no policy for us."""

    policy_key: PolicyKey | None
    acknowledged: Acknowledgement | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """What went wrong instead of an answer."""

    error: EasError
    url: str = ""
    """Where the command was sent."""
    shared: bool = False
    """True if the failure concerns the whole server, not this mailbox alone."""
    note: str = ""
    """What a search for the mailbox elsewhere found; empty: it was not searched for."""
    held: float = 0.0
    """Seconds that it took, of a Ping that was answered; 0 for other commands."""


@dataclass(frozen=True, slots=True)
class Woken:
    """The pause is over; `early`: how many seconds before its time, because a doubtful server gave a sign."""

    early: float = 0.0


@dataclass(frozen=True, slots=True)
class WipeAcknowledged:
    """The acknowledgement of the wipe was sent."""


Event: TypeAlias = Answered | Full | Granted | Failed | Woken | WipeAcknowledged


# --- actions: what to do next


@by_slots
@dataclass(frozen=True, slots=True)
class Send:
    """Send one command; `Answered` or `Failed` is the next event."""

    command: Command[Any]


@dataclass(frozen=True, slots=True)
class NegotiatePolicy:
    """Run the Provision conversation; `Granted` or `Failed` is the next event."""

    acknowledgement: Acknowledgement
    fallbacks: tuple[Acknowledgement, ...] = ()


@dataclass(frozen=True, slots=True)
class AcknowledgeWipe:
    """Run the wipe conversation; `WipeAcknowledged` or `Failed` is the next event."""

    account_only: bool


@by_slots
@dataclass(frozen=True, slots=True)
class Record:
    """Commit this before the next action."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Doubt:
    """What may end a pause early: a sign that the server, which refused the credential, takes credentials again."""

    rest: float
    """Seconds in which the credential is not shown whatever the server does: the user could be locked out."""
    others_accepted: bool = False
    """True if the server accepts others, so that one more of them is no sign."""
    begins: bool = False
    """True if the doubt begins with this pause: the phones hear of it."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Record the condition with the time of the next try, wait, then `Woken` is the next event.

    The wait is `seconds` when the time is decided, else the backoff after `failures` failures in a row.
    """

    progress: Progress
    failures: int
    seconds: float | None = None
    polls: bool = False
    """True if the wait stands in for a Ping."""
    doubt: Doubt | None = None
    """Set if the credential is doubtful; None: only time ends the pause."""
    in_turn: bool = False
    """True if the wait ends as soon as it is the mailbox's turn to hold a Ping."""


Action: TypeAlias = Send | NegotiatePolicy | AcknowledgeWipe | Record | Pause
Move: TypeAlias = tuple[State, list[Action]]
