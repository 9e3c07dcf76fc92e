"""Own the states, events and actions of a watch: frozen values, compared with == in tests."""

from dataclasses import dataclass, field, replace
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

RATE: Final = 50.0  # mailboxes per second that start or return, unless the operator says otherwise
MOST_COLLECTIONS: Final = 20  # in one Sync, of 25 items each at most
MOST_FOLDERS: Final = 200  # in one Ping; a server that takes fewer says so [MS-ASCMD 2.2.3.107]


@dataclass(frozen=True, slots=True)
class Policy:
    """Hold what the operator decided for all watches of one server."""

    versions: tuple[ProtocolVersion, ...] = tuple(ProtocolVersion)
    acknowledgement: Acknowledgement = Acknowledgement.THIRD_PARTY
    fallbacks: tuple[Acknowledgement, ...] = ()
    """What else may be said to a server that does not take `acknowledgement`, in this order."""
    hosts: frozenset[str] = frozenset()
    """Hosts that a server may send a mailbox to, lower-case, with their port unless it is 443."""
    discovered: bool = False
    """Whether mailboxes have no configured URL to go back to, but only the one that Autodiscover found."""
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    poll_interval: float | None = None
    """Seconds between two Syncs that stand in for Pings; None: Pings are held."""
    return_rate: float = RATE
    """Mailboxes per second that may start at the server, or return after an outage."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Hold all that a watch knows; the states differ only in what they wait for."""

    policy: Policy
    partnership: Partnership
    collections: tuple[Collection, ...]
    classes: frozenset[CollectionClass]
    heartbeat: Heartbeat
    unsynced: frozenset[CollectionId]
    """Collections that need a Sync before the next Ping."""
    jitter: float = 0.0
    """Share by which this mailbox's Pings last longer than the interval, so that those of a fleet end apart."""
    provision_due: bool = False
    hierarchy_due: bool = False
    counters: Counters = field(default_factory=Counters)
    distrusted: frozenset[ProtocolVersion] = frozenset()
    """Versions that the server offers and then refuses."""
    max_folders: int = MOST_FOLDERS
    """How many folders the server takes in one Ping, as far as it has complained."""
    max_collections: int = MOST_COLLECTIONS
    """How many collections the server takes in one Sync, likewise."""
    shown: WatchState | None = None
    """The state that was last recorded."""
    told: str = ""
    """The detail that was last recorded with `watching`."""
    subfolders: frozenset[CollectionClass] = frozenset()
    """The classes of whose sub-folders somebody asked to hear too."""
    hierarchy: tuple[Folder, ...] | None = None
    """All folders; None: not known, for nobody asked for sub-folders."""
    settled: datetime | None = None
    """Mail that came until then and appears in a sub-folder only now was moved there."""
    unborn: datetime | None = None
    """Mail that came until then is older than all folders that the server is about to tell of; None: nobody knows."""
    doubts: tuple[CollectionId, ...] = ()
    """Sub-folders that the server would not sync, once for each time in a row."""
    new: bool = False
    """Whether the server had no partnership with our device before this watch began."""
    set_aside: frozenset[CollectionId] = frozenset()
    """Sub-folders that the server does not sync again and again."""

    @property
    def wanted(self) -> tuple[Collection, ...]:
        """The collections somebody asked for, Inbox first, sub-folders last."""
        return tuple(sorted(filter(self._is_wanted, self.collections), key=_inbox_first))

    @property
    def watched(self) -> tuple[Collection, ...]:
        """Of the wanted collections, no more than the server takes."""
        return tuple(c for c in self.wanted if c.id not in self.set_aside)[: self.max_folders]

    @property
    def strayed(self) -> bool:
        """Whether a server sent the mailbox away from its configured URL."""
        return self.partnership.url is not None and not self.policy.discovered

    def in_doubt(self) -> "Watch":
        """Return the watch with all its collections due for a Sync before the next Ping."""
        return replace(self, unsynced=frozenset(collection.id for collection in self.collections))

    def reconsidered(self) -> "Watch":
        """Return the watch with the sub-folders that were set aside; what came there meanwhile is not settled."""
        return replace(self, doubts=(), set_aside=frozenset(), settled=None if self.set_aside else self.settled)

    def _is_wanted(self, collection: Collection) -> bool:
        return collection.cls in (self.classes & self.subfolders if collection.sub else self.classes)


@dataclass(frozen=True, slots=True)
class Discovering:
    """Wait for the answer to OPTIONS."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class Provisioning:
    """Wait for the end of the Provision conversation."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class ReadingHierarchy:
    """Wait for the answer to FolderSync."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class Informing:
    """Wait for the answer to Settings with our DeviceInformation."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class Syncing:
    """Wait for the answer to one Sync of `asked`."""

    watch: Watch
    asked: tuple[CollectionId, ...]


@dataclass(frozen=True, slots=True)
class Pinging:
    """Wait for the answer to a held Ping."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class Pausing:
    """Wait for a timer."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class Wiping:
    """Wait for the end of the wipe's acknowledgement, whatever it is."""

    watch: Watch
    account_only: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """Wait for nothing: only a new credential or registration starts this mailbox again."""

    watch: Watch


State: TypeAlias = (
    Discovering | Provisioning | ReadingHierarchy | Informing | Syncing | Pinging | Pausing | Wiping | Ended
)


@dataclass(frozen=True, slots=True)
class Answered:
    """Carry the reply of a sent command, when it came (aware UTC), and how many seconds it took."""

    reply: Capabilities | FolderSyncReply | SyncReply | PingReply | None
    at: datetime
    held: float = 0.0


@dataclass(frozen=True, slots=True)
class Granted:
    """Carry the final policy key and what was acknowledged for it; both None: the server has no policy for us."""

    policy_key: PolicyKey | None
    acknowledged: Acknowledgement | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Carry what went wrong instead of an answer."""

    error: EasError
    url: str = ""
    """Where the command was sent."""
    shared: bool = False
    """Whether the failure concerns the whole server, not this mailbox alone."""
    note: str = ""
    """What a search for the mailbox elsewhere found; empty: it was not searched for."""


@dataclass(frozen=True, slots=True)
class Woken:
    """Tell that the pause is over."""


@dataclass(frozen=True, slots=True)
class WipeAcknowledged:
    """Tell that the acknowledgement was sent."""


Event: TypeAlias = Answered | Granted | Failed | Woken | WipeAcknowledged


@dataclass(frozen=True, slots=True)
class Send:
    """Send one command; its reply or failure is the next event."""

    command: Command[Any]


@dataclass(frozen=True, slots=True)
class Provide:
    """Run the Provision conversation; `Granted` or `Failed` is the next event."""

    acknowledgement: Acknowledgement
    fallbacks: tuple[Acknowledgement, ...] = ()


@dataclass(frozen=True, slots=True)
class AcknowledgeWipe:
    """Run the wipe conversation; `WipeAcknowledged` or `Failed` is the next event."""

    account_only: bool


@dataclass(frozen=True, slots=True)
class Record:
    """Commit this before anything else happens."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Pause:
    """Record the condition with the time of the next try, wait, then `Woken`.

    Wait `seconds` when the time is decided, else the backoff after `failures` failures in a row.
    """

    progress: Progress
    failures: int
    seconds: float | None = None
    polls: bool = False
    """Whether the wait stands in for a Ping."""


Action: TypeAlias = Send | Provide | AcknowledgeWipe | Record | Pause
Move: TypeAlias = tuple[State, list[Action]]


def _inbox_first(collection: Collection) -> tuple[bool, bool, str]:
    return collection.sub, collection.cls is not CollectionClass.EMAIL, collection.id
