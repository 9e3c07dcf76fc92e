"""The leases of this process: which shards of mailboxes it may watch now, and under which epoch.

A lease lasts `LEASE` seconds and is renewed every `RENEW` seconds. A process that could not renew its leases in time
stops all its watches: another process may hold the same Pings by then. Nothing it still commits counts, because every
commit is checked against the shard's epoch, which rises when a shard changes its owner.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Final, NamedTuple, Protocol

from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.ports.watch import WatchStore

log = logging.getLogger(__name__)

LEASE: Final = 30.0  # seconds that a shard is ours without renewal
RENEW: Final = 10.0  # seconds between renewals
GOODBYE: Final = 5.0  # seconds that a stopping relay waits for the database to record the release


class Lease(NamedTuple):
    """A shard and the epoch under which its mailboxes may be committed."""

    shard: int
    epoch: int


class LeaseHolder(Protocol):
    """What runs under the leases and stops with them."""

    async def lost(self, shards: Collection[int]) -> None:
        """Stop all watches of shards that another process owns now; return when none holds a request."""

    async def ran_out(self) -> None:
        """Stop all watches; return when none holds a request."""


class Leases:
    """The shards of one process: granted by the store, then watched once their mailboxes were read."""

    def __init__(self, store: WatchStore, clock: Clock, node: str, *, take_over: bool) -> None:
        """Start without leases; `take_over` applies to the first request, as WatchStore.lease_shards says."""
        self._store = store
        self._clock = clock
        self._node = node
        self._take_over = take_over
        self._granted: dict[int, int] = {}
        """Shard -> epoch, as the store said last."""
        self._watched: dict[int, int] = {}
        """Those of the granted shards whose mailboxes were read."""
        self._until = float("-inf")
        self._changed = asyncio.Event()

    @property
    def current(self) -> bool:
        """True while this process may watch its shards."""
        return asyncio.get_running_loop().time() < self._until

    @property
    def watched(self) -> list[int]:
        """The shards whose mailboxes this process watches, sorted."""
        return sorted(self._watched)

    def of_shard(self, shard: int) -> Lease | None:
        """Return the lease under which a shard's mailboxes are watched; None: they are not watched here."""
        epoch = self._watched.get(shard)
        return None if epoch is None else Lease(shard, epoch)

    async def keep(self, holder: LeaseHolder) -> None:
        """Acquire and renew leases until cancelled; stop what runs under those that are lost."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._give_up_when_over(holder)
            try:
                await self._renew(holder)
            except (StoreUnavailable, TimeoutError) as error:
                detail = str(error) or "no answer in time"
                log.warning("leases not renewed: the database is away", extra={"detail": detail})
                await self._give_up_when_over(holder)
            await asyncio.sleep(min(RENEW, self._until - clock()) if self.current else RENEW)

    async def gained(self) -> Mapping[int, int]:
        """Wait for granted shards that are not watched yet; return their epochs."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            gained = {shard: epoch for shard, epoch in self._granted.items() if self._watched.get(shard) != epoch}
            if gained:
                return gained

    def watch(self, gained: Mapping[int, int]) -> None:
        """Count shards as watched: their mailboxes were read; leave out those lost while they were read."""
        self._watched |= {shard: epoch for shard, epoch in gained.items() if self._granted.get(shard) == epoch}

    async def release(self) -> None:
        """Give up all leases, so that other processes can take the shards at once; no watch may run any more."""
        try:
            async with asyncio.timeout(GOODBYE):
                await self._store.release_shards(self._node)
        except (StoreUnavailable, TimeoutError):
            log.warning("leases left to run out: the database is away")

    async def _renew(self, holder: LeaseHolder) -> None:
        asked_at, now = asyncio.get_running_loop().time(), self._clock()
        # An answer after the lease's end is useless: another process may hold the Pings by then.
        deadline = self._until if self.current else asked_at + RENEW
        async with asyncio.timeout_at(deadline):
            granted = await self._store.lease_shards(
                self._node, now + timedelta(seconds=LEASE), now, take_over=self._take_over
            )
        self._take_over = False
        self._until = asked_at + LEASE
        self._granted = dict(granted)
        kept = {shard: epoch for shard, epoch in self._watched.items() if granted.get(shard) == epoch}
        lost = self._watched.keys() - kept.keys()
        self._watched = kept
        if lost:
            await holder.lost(lost)
        self._changed.set()

    async def _give_up_when_over(self, holder: LeaseHolder) -> None:
        if self.current:
            return
        self._granted = {}
        if self._watched:
            log.warning("leases ran out: all watches stop")
            self._watched = {}
            await holder.ran_out()
