"""The state of a device at a simulated server: its policy keys, its sync keys, its last Ping.

With each sync key the server keeps the items or folders that a client with this key knows. The newest key and the one
before are valid: a client that sends the one before did not get the last answer, so the server withdraws the newest key
[MS-ASCMD 3.1.5.3].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Generic, NamedTuple, TypeVar

from eas_watcher.names import CollectionClass, CollectionId, ServerId, SyncKey
from relay.sandbox.eas.mailboxes import SimulatedFolder

Id = TypeVar("Id", bound=str)
State = TypeVar("State")


class Checkpoint(NamedTuple, Generic[Id, State]):
    """A sync key and what a client with this key knows: the state of each item or folder by id."""

    key: SyncKey
    known: Mapping[Id, State]


@dataclass(slots=True)
class KeyHistory(Generic[Id, State]):
    """The newest checkpoint and the one before."""

    newest: Checkpoint[Id, State]
    previous: Checkpoint[Id, State] | None = None

    def accept(self, key: str) -> Checkpoint[Id, State] | None:
        """Return the checkpoint of a key and withdraw a newer one; None for an invalid key."""
        if self.previous is not None and key == self.previous.key:
            self.newest, self.previous = self.previous, None
        return self.newest if key == self.newest.key else None

    def advance(self, key: SyncKey, known: Mapping[Id, State]) -> None:
        """Add a new key."""
        self.newest, self.previous = Checkpoint(key, known), self.newest


@dataclass(slots=True)
class SyncedCollection:
    """The sync keys of one collection; the state of an item is its revision."""

    keys: KeyHistory[ServerId, int]
    filter_type: int = 0
    """The FilterType of the last Sync."""
    sync_due: bool = False
    """Whether Pings answer 2 until the next Sync."""
    last_key: tuple[str, int] = ("", 0)
    """The key of the last Sync, and how many times in a row the client sent it."""

    def accept(self, key: str) -> Checkpoint[ServerId, int] | None:
        """Return the checkpoint of a key, and count how often the client sends it; None for an invalid key."""
        last, times = self.last_key
        self.last_key = key, times + 1 if key == last else 1
        return self.keys.accept(key)


class PingParameters(NamedTuple):
    """The parameters of a Ping; `heartbeat` in seconds."""

    heartbeat: int
    folders: tuple[tuple[CollectionId, CollectionClass], ...]
    limit: int | None = None
    """The longest hold in seconds, if the heartbeat is longer; the Ping then ends with status 5 and this limit."""


@dataclass(slots=True)
class SimulatedDevice:
    """The partnership of one user and one device id."""

    temporary_key: str | None = None
    """The policy key that the client must acknowledge."""
    policy_key: str | None = None
    refresh_due: bool = False
    """Whether the client must acknowledge the policy again."""
    informed: bool = False
    """Whether the client sent its DeviceInformation."""
    wipe: str | None = None
    """The tag of the wipe that the server demands: RemoteWipe or AccountOnlyRemoteWipe."""
    blocked: bool = False
    quarantined: bool = False
    """Whether healthy answers contain no items [MS-ASCMD does not tell; observed: Exchange 2010]."""
    lost: bool = False
    """Whether the server forgot the sync keys of the device: an invalid key is then no fault of the client."""
    hierarchy: KeyHistory[CollectionId, SimulatedFolder] | None = None
    collections: dict[CollectionId, SyncedCollection] = field(default_factory=dict)
    ping: PingParameters | None = None
    changes_reported: int = 0
    """Pings answered with status 2 since the last Sync."""

    def lose_state(self, mint: "KeyMint") -> None:
        """Forget all sync keys and the parameters of the last Ping; keep the policy key."""
        self.ping, self.lost = None, True
        self.collections.clear()
        if self.hierarchy is not None:
            self.hierarchy = KeyHistory(Checkpoint(mint.sync_key(), self.hierarchy.newest.known))


class KeyMint:
    """Makes keys that are unique and cannot be guessed from each other."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._numbers = count(1)

    def sync_key(self) -> SyncKey:
        """Return a new sync key, opaque and of at most 64 characters [MS-ASCMD 2.2.3.181]."""
        return SyncKey(f"{{{self._random.getrandbits(32):08x}}}{next(self._numbers)}")

    def policy_key(self) -> str:
        """Return a new policy key: an unsigned 32-bit number that is not 0, in decimal [MS-ASPROV 2.2.2.42]."""
        return str(self._random.randrange(1, 1 << 32))
