"""A ShardStore in memory for processes of one event loop; tests/contract/test_shards_in_memory.py checks it."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from relay.domain.errors import StoreUnavailable
from relay.domain.model import SHARDS
from relay.domain.ports.shards import Division, Seat
from relay.domain.ports.wakeups import Topic
from relay.store.wakeups import LocalWakeups

ANOTHER: Final = "another"


@dataclass
class MemoryShards:
    """What PostgreSQL has of the shards, by the clock of the event loop."""

    wakeups: LocalWakeups = field(default_factory=LocalWakeups)
    count: int = SHARDS
    until: dict[str, float] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    owners: dict[int, str | None] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    jumps: list[float] = field(default_factory=list)
    """Seconds by which the database's clock was put on or back."""

    def __post_init__(self) -> None:
        self.owners.update(dict.fromkeys(range(self.count)))
        self.epochs.update(dict.fromkeys(range(self.count), 0))

    async def join(self, node: str, lease: float, *, take_over: bool) -> None:
        if take_over:
            self.until.clear()
            self.owners.update(dict.fromkeys(self.owners))
        self.until[node] = self._now() + lease
        self._tell()

    async def beat(self, node: str, lease: float, *, leaving: bool) -> Division | None:
        if node not in self.until:
            return None
        self.until[node] = self._now() + lease
        if leaving:
            self.leaving.add(node)
        seats = [Seat(name, until - self._now(), name in self.leaving) for name, until in sorted(self.until.items())]
        return Division(tuple(seats), dict(self.owners), dict(self.epochs), self._now())

    async def bury(self) -> int:
        for dead in [node for node, until in self.until.items() if until <= self._now()]:
            del self.until[dead]
        orphans = [number for number, owner in self.owners.items() if owner is not None and owner not in self.until]
        self.owners.update(dict.fromkeys(orphans))
        if orphans:
            self._tell()
        return len(orphans)

    async def take(self, node: str, shards: Collection[int]) -> Mapping[int, int]:
        if self.until.get(node, 0.0) <= self._now():
            return {}
        taken = {number: self.epochs[number] + 1 for number in shards if self.owners[number] is None}
        self.owners.update(dict.fromkeys(taken, node))
        self.epochs.update(taken)
        if taken:
            self._tell()
        return taken

    async def release(self, node: str, shards: Collection[int]) -> None:
        self.owners.update({number: None for number in shards if self.owners[number] == node})
        self._tell()

    async def leave(self, node: str) -> None:
        await self.release(node, [*self.owners])
        self.until.pop(node, None)

    def steal(self, *shards: int) -> None:
        """Give shards to another process, which takes no more."""
        self.until[ANOTHER] = float("inf")
        self.leaving.add(ANOTHER)
        for number in shards:
            self.owners[number] = ANOTHER
            self.epochs[number] += 1

    def of(self, node: str) -> set[int]:
        """Return the shards of a process."""
        return {number for number, owner in self.owners.items() if owner == node}

    def _now(self) -> float:
        return asyncio.get_running_loop().time() + sum(self.jumps)

    def _tell(self) -> None:
        self.wakeups.wake(Topic.SHARDS)


class SlowShards(MemoryShards):
    """The database as one process sees it: it may be away, or slow."""

    def __init__(self, shared: MemoryShards | None = None, count: int = SHARDS) -> None:
        super().__init__(count=count)
        if shared is not None:
            vars(self).update(vars(shared))  # the same rows
        self.away = False
        self.detail = "no connection"
        self.takes = 0.0
        self.ends_late = 0.0
        """Seconds that a question takes to end when it is cancelled."""
        self.beats: list[float] = []
        self.left: list[str] = []

    async def join(self, node: str, lease: float, *, take_over: bool) -> None:
        await self._reach()
        await super().join(node, lease, take_over=take_over)

    async def beat(self, node: str, lease: float, *, leaving: bool) -> Division | None:
        self.beats.append(asyncio.get_running_loop().time())
        await self._reach()
        return await super().beat(node, lease, leaving=leaving)

    async def take(self, node: str, shards: Collection[int]) -> Mapping[int, int]:
        await self._reach()
        return await super().take(node, shards)

    async def release(self, node: str, shards: Collection[int]) -> None:
        await self._reach()
        await super().release(node, shards)

    async def leave(self, node: str) -> None:
        await self._reach()
        self.left.append(node)
        await super().leave(node)

    async def _reach(self) -> None:
        try:
            await asyncio.sleep(self.takes)
        except asyncio.CancelledError:
            await asyncio.sleep(self.ends_late)
            raise
        if self.away:
            raise StoreUnavailable(self.detail)
