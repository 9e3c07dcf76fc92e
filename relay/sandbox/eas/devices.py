"""Own what a simulated server keeps of a device: its policy keys, sync keys with what stands behind them, its Ping.

A key stands for what the client knew when it got it. The newest key and the one before it are good: presenting the
latter says that the last answer was lost, and what is newer is taken back [MS-ASCMD 3.1.5.3].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Generic, TypeVar

from eas_watcher.names import CollectionClass, CollectionId, ServerId, SyncKey
from relay.sandbox.eas.mailboxes import SimulatedFolder

Id = TypeVar("Id", bound=str)
State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Checkpoint(Generic[Id, State]):
    """Hold a key and what its owner knows: the state of everything by id."""

    key: SyncKey
    known: Mapping[Id, State]


@dataclass(slots=True)
class KeyHistory(Generic[Id, State]):
    """Hold the newest checkpoint and the one before it."""

    newest: Checkpoint[Id, State]
    previous: Checkpoint[Id, State] | None = None

    def present(self, key: str) -> Checkpoint[Id, State] | None:
        """Return what the presenter of a key knows, taking back what is newer; None for a key that is not valid."""
        if self.previous is not None and key == self.previous.key:
            self.newest, self.previous = self.previous, None
        return self.newest if key == self.newest.key else None

    def advance(self, key: SyncKey, known: Mapping[Id, State]) -> None:
        """Give out a new key."""
        self.newest, self.previous = Checkpoint(key, known), self.newest


@dataclass(slots=True)
class SyncedCollection:
    """Hold the keys of one collection; an item's state is its revision. `filter_type` is the last one asked for."""

    keys: KeyHistory[ServerId, int]
    filter_type: int = 0
    sync_due: bool = False
    """Whether a Ping answers 2 until there was one more Sync."""
    presented: tuple[str, int] = ("", 0)
    """The key that was presented last, and how many times in a row."""

    def present(self, key: str) -> Checkpoint[ServerId, int] | None:
        """Return what the presenter of a key knows, and count how often it comes; None for one that is not valid."""
        last, times = self.presented
        self.presented = key, times + 1 if key == last else 1
        return self.keys.present(key)


@dataclass(frozen=True, slots=True)
class PingParameters:
    """Hold what a Ping asks for; `heartbeat` in seconds."""

    heartbeat: int
    folders: tuple[tuple[CollectionId, CollectionClass], ...]
    limit: int | None = None
    """The longest hold, when that is shorter than the heartbeat: the answer then is that limit."""


@dataclass(slots=True)
class SimulatedDevice:
    """Hold one partnership of a user and a device id."""

    temporary_key: str | None = None
    policy_key: str | None = None
    refresh_due: bool = False
    informed: bool = False
    wipe: str | None = None
    """The tag of the wipe that is due: RemoteWipe or AccountOnlyRemoteWipe."""
    blocked: bool = False
    quarantined: bool = False
    """Everything looks healthy, but no item is ever shown [MS-ASCMD does not tell; observed: Exchange 2010]."""
    lost: bool = False
    """Whether the server forgot the device's keys, which is no fault of the client."""
    hierarchy: KeyHistory[CollectionId, SimulatedFolder] | None = None
    collections: dict[CollectionId, SyncedCollection] = field(default_factory=dict)
    ping: PingParameters | None = None
    changes_told: int = 0
    """Pings answered with status 2 since the last Sync."""

    def lose_state(self, mint: "KeyMint") -> None:
        """Forget every sync key, and the Ping's parameters; the policy key stays."""
        self.ping, self.lost = None, True
        self.collections.clear()
        if self.hierarchy is not None:
            self.hierarchy = KeyHistory(Checkpoint(mint.sync_key(), self.hierarchy.newest.known))


class KeyMint:
    """Make keys that never come twice and cannot be guessed from each other."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._numbers = count(1)

    def sync_key(self) -> SyncKey:
        """Make a sync key; opaque, of at most 64 characters [MS-ASCMD 2.2.3.181]."""
        return SyncKey(f"{{{self._random.getrandbits(32):08x}}}{next(self._numbers)}")

    def policy_key(self) -> str:
        """Make a policy key: an unsigned 32-bit number that is not 0, in decimal [MS-ASPROV 2.2.2.42]."""
        return str(self._random.randrange(1, 1 << 32))
