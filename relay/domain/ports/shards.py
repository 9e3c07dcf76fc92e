"""What the watch role needs from the store to share the shards with other watch processes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Seat:
    """A watch process that is registered in the database."""

    node: str
    left: float
    """Seconds until its lease ends, by the clock of the database; not positive: it counts as dead."""
    leaving: bool = False
    """True while it hands over its shards, to end afterwards."""

    @property
    def stays(self) -> bool:
        """True if shards may be given to it."""
        return self.left > 0 and not self.leaving


@dataclass(frozen=True, slots=True)
class Division:
    """Which watch process has which shards, at one moment."""

    seats: tuple[Seat, ...]
    owners: Mapping[int, str | None]
    """Every shard -> the node that has it."""
    epochs: Mapping[int, int]
    """Every shard -> its epoch."""
    now: float = 0.0
    """The moment by the clock of the database, in seconds since some moment."""

    @property
    def orphaned(self) -> bool:
        """True if shards belong to nodes that are not registered or whose lease has ended."""
        alive = {seat.node for seat in self.seats if seat.left > 0}
        return any(owner is not None and owner not in alive for owner in self.owners.values())


class ShardStore(Protocol):
    """The shards, and the watch processes that share them. All moments are those of the database's clock."""

    async def join(self, node: str, lease: float, *, take_over: bool) -> None:
        """Register a process for `lease` seconds; a name is used once.

        `take_over` removes all others and frees their shards: only for a process that knows that they are dead (by
        the lock on an embedded database).
        """

    async def beat(self, node: str, lease: float, *, leaving: bool) -> Division | None:
        """Renew the lease of a process, for `lease` seconds from now; return how the shards are divided.

        None: the process is registered no more, since its lease had ended and another one noticed. It waits for no lock
        that other processes hold for long.
        """

    async def bury(self) -> int:
        """Remove the processes whose leases have ended; free their shards, and return how many became free.

        A shard in which a commit is under way stays for the next time.
        """

    async def take(self, node: str, shards: Collection[int]) -> Mapping[int, int]:
        """Give a registered process those of some shards that are free; return them with their epochs, raised by one.

        Leaves out those in which a commit is under way.
        """

    async def release(self, node: str, shards: Collection[int]) -> None:
        """Free shards of a process. Their epochs stay: the process that takes a shard raises its epoch."""

    async def leave(self, node: str) -> None:
        """Free all shards of a process and remove it."""
