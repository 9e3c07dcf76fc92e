"""The lease of this process, and the shards of mailboxes that it may watch under it, each under an epoch.

The database knows all watch processes, by its own clock: the clocks of hosts do not matter. A process renews its lease
every `RENEW` seconds for `LEASE` seconds, which it counts from before it asked, so its lease never ends later than the
database thinks. With each renewal it learns how the shards are divided, takes and gives away (`shares.py`). A shard is
given away once its watches have stopped; so no mailbox has two Pings, and is without one only while its own shard is
handed over. A process that could not renew in time stops all its watches `MARGIN` seconds before its lease ends; if it
stands still, the kernel kills it (`Guard`). Nothing it still commits counts, because every commit is checked against
the shard's epoch, which rises when a shard changes its owner.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import count
from typing import Final, NamedTuple, Protocol

from relay.domain.errors import StoreUnavailable
from relay.domain.ports.shards import Division, ShardStore
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.watch.shares import Unfair, share, unfair

log = logging.getLogger(__name__)

LEASE: Final = 12.0  # seconds that a process is alive for the others without renewal
RENEW: Final = 3.0  # seconds between renewals
MARGIN: Final = 3.0  # seconds before the lease's end in which all watches stop; some 30,000 take about two
LAST: Final = 0.25  # seconds before the lease's end when the kernel ends a process that stands still
ATTEMPT: Final = 3.0  # seconds that a renewal may take before it is tried on another connection
RETRY: Final = 0.5  # seconds after a renewal that failed
STEADY: Final = 4.0  # seconds of renewals before others are removed: after an outage they need as long to come back
JUMP: Final = 5.0  # seconds between two renewals by which the database's clock may go wrong; after more, it was put on
CALM: Final = 0.03  # seconds after a wake-up, in which more of them become one look
AT_ONCE: Final = 4  # shards on their way to each other process at once: its watches start before more stop
DRAIN: Final = 60.0  # seconds that a stopping process hands over, at the pace of others; the rest is released at once
GOODBYE: Final = 5.0  # seconds that a stopping relay waits for the database to record the release
SETTLED: Final = 60.0  # seconds after which shares should be fair


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

    async def give(self, shard: int) -> None:
        """Stop all watches of a shard and call `gave`; return when none holds a request."""

    @property
    def busy(self) -> bool:
        """True while mailboxes of shards just taken are started, or many wait for their turn to start."""


class Guard(Protocol):
    """Ends this process if it stands still."""

    def set(self, seconds: float) -> None:
        """End this process after some seconds."""

    def off(self) -> None:
        """Let this process live."""


class NoGuard:
    """For a process that shares with no other one: if it stands still, nobody takes its shards."""

    def set(self, seconds: float) -> None:
        """Do nothing."""

    def off(self) -> None:
        """Do nothing."""


class Leases:
    """The shards of one process: granted by the store, then watched once their mailboxes were read."""

    def __init__(
        self, store: ShardStore, wakeups: Wakeups, node: str, guard: Guard | None = None, *, take_over: bool
    ) -> None:
        """Start without leases; `take_over` applies to the first request, as ShardStore.join says."""
        self._store = store
        self._woken = wakeups.waiter(Topic.SHARDS)
        self._wakeups = wakeups
        self._guard = guard or NoGuard()
        self._names = _names(node)
        self._node: str | None = None
        """The name under which this process is registered; None: it is not."""
        self._take_over = take_over
        self._leaving = False
        self._granted: dict[int, int] = {}
        """Shard -> epoch, as the store said last."""
        self._watched: dict[int, int] = {}
        """Those of the granted shards whose mailboxes were read."""
        self._until = float("-inf")
        self._steady: float | None = None
        """Since when renewals succeed and the database's clock goes evenly, by the loop's clock."""
        self._ahead: float | None = None
        """How far the database's clock was ahead of the loop's at the last renewal."""
        self._changed = asyncio.Event()
        self._looked = asyncio.Event()
        """Set when the division was read again; `drain` waits for it, and `_wanted` is the same for `_give_away`."""
        self._wanted = asyncio.Event()
        self._surplus: list[int] = []
        """Shards above the fair share."""
        self._receivers = 0
        """How many other processes can have shards."""
        self._on_their_way: set[int] = set()
        """Shards that this process released, and that no other one had taken when it looked last."""
        self._giving: set[int] = set()
        self._gave: dict[int, float] = {}
        """Shard -> when this process had released it: an answer to an older question may still call it ours."""
        self._late: set[asyncio.Task[Division | None]] = set()
        """Renewals that were given up, and have not ended yet."""
        self._fair_at = 0.0
        self.division: Division | None = None
        """How the shards were divided at the last renewal."""

    @property
    def current(self) -> bool:
        """True while this process may watch its shards."""
        return asyncio.get_running_loop().time() < self._until - MARGIN

    @property
    def watched(self) -> Mapping[int, int]:
        """The shards whose mailboxes this process watches, with their epochs."""
        return dict(self._watched)

    @property
    def unfair(self) -> Unfair | None:
        """What has been wrong with the division of the shards for `SETTLED` seconds; None: nothing."""
        if self.division is None or asyncio.get_running_loop().time() - self._fair_at < SETTLED:
            return None
        return unfair(self.division) or None

    def of_shard(self, shard: int) -> Lease | None:
        """Return the lease under which a shard's mailboxes are watched; None: they are not watched here."""
        epoch = self._watched.get(shard)
        return None if epoch is None else Lease(shard, epoch)

    async def keep(self, holder: LeaseHolder) -> None:
        """Renew the lease, take and give away shards until cancelled; stop what runs under those that are lost."""
        self._fair_at = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._give_away(holder), name="shards given away")
            while True:
                await self._give_up_when_over(holder)
                try:
                    pause = await self._renew(holder)
                except (StoreUnavailable, TimeoutError) as error:
                    detail = str(error) or "no answer in time"
                    level = logging.WARNING if self._steady is not None or self._node is None else logging.DEBUG
                    log.log(level, "leases not renewed: the database is away", extra={"detail": detail})
                    self._steady, pause = None, RETRY
                    await self._give_up_when_over(holder)
                if self._granted:
                    pause = min(pause, self._until - MARGIN - asyncio.get_running_loop().time())
                await self._woken.wait(max(0.0, pause))
                await asyncio.sleep(CALM)

    async def gained(self) -> Mapping[int, int]:
        """Wait for granted shards that are not watched yet; return their epochs."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            gained = {shard: epoch for shard, epoch in self._granted.items() if self._watched.get(shard) != epoch}
            if gained:
                return gained

    def still(self, gained: Mapping[int, int]) -> Mapping[int, int]:
        """Return those of some gained shards that are still granted under their epochs."""
        return {shard: epoch for shard, epoch in gained.items() if self._granted.get(shard) == epoch}

    def watch(self, gained: Mapping[int, int]) -> None:
        """Count shards as watched: their mailboxes were read; leave out those lost while they were read."""
        self._watched |= self.still(gained)

    def started(self) -> None:
        """Look for more shards: the mailboxes of those that were taken are started."""
        self._wakeups.wake(Topic.SHARDS)

    def gave(self, shard: int) -> None:
        """Count a shard as watched no more."""
        self._watched.pop(shard, None)

    async def drain(self) -> None:
        """Hand over all shards to other processes, one after another; return when that is done, or takes too long."""
        self._leaving = True
        self._wakeups.wake(Topic.SHARDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                while self.current and (self._granted or self._giving):
                    self._looked.clear()
                    await self._looked.wait()
                    if not self._receivers:
                        return
        if self._granted:
            log.warning("shards left are released at once", extra={"shards": len(self._granted)})

    async def release(self) -> None:
        """Give up all leases, so that other processes can take the shards at once; no watch may run any more."""
        self._guard.off()
        if self._node is None:
            return
        try:
            async with asyncio.timeout(GOODBYE):
                await self._store.leave(self._node)
        except (StoreUnavailable, TimeoutError):
            log.warning("leases left to run out: the database is away")

    async def _renew(self, holder: LeaseHolder) -> float:
        """Renew the lease, take shards, choose which to give away; return when to look again, in seconds."""
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        # An answer after the lease's end is useless: another process may hold the Pings by then.
        deadline = min(asked_at + ATTEMPT, self._until - MARGIN) if self.current else asked_at + ATTEMPT
        division = await self._ask(deadline)
        if division is None:
            log.warning("this process was taken for dead: all watches stop")
            self._node, self._until = None, float("-inf")
            await self._give_up_when_over(holder)
            return 0.0
        self._until = asked_at + LEASE
        jumped = self._jumped(division.now - asked_at)
        if self._steady is None or jumped:
            self._steady = asked_at
        await self._note(division, asked_at, holder)
        self._set_guard()
        if self._node is None:
            raise AssertionError("a beat gives the node its name")
        async with asyncio.timeout(ATTEMPT):
            return await self._come_to_a_fair_share(self._node, asked_at, holder)

    def _jumped(self, ahead: float) -> bool:
        """Return True if the database's clock was put on or back since the last renewal.

        Then the leases of processes that live may seem to have ended, until they renew them.
        """
        before, self._ahead = self._ahead, ahead
        return before is not None and abs(ahead - before) > JUMP

    async def _ask(self, deadline: float) -> Division | None:
        """Return what `_beat` returns; raise TimeoutError at the deadline.

        A question that is cancelled ends by itself: to close a connection that does not answer takes two seconds more,
        and the watches must stop before.
        """
        loop = asyncio.get_running_loop()
        asking = loop.create_task(self._beat(), name="renewal")
        try:
            await asyncio.wait({asking}, timeout=deadline - loop.time())
        finally:
            if not asking.done():
                asking.cancel()
                self._late.add(asking)
                asking.add_done_callback(self._forget)
        if not asking.done():
            raise TimeoutError
        return asking.result()

    async def _beat(self) -> Division | None:
        if self._node is None:
            name = next(self._names)
            await self._store.join(name, LEASE, take_over=self._take_over)
            self._node, self._take_over = name, False
        return await self._store.beat(self._node, LEASE, leaving=self._leaving)

    def _forget(self, late: asyncio.Task[Division | None]) -> None:
        self._late.discard(late)
        if not late.cancelled():
            late.exception()  # it came too late to be of interest

    async def _note(self, division: Division, asked_at: float, holder: LeaseHolder) -> None:
        """Note which shards are ours; stop the watches of those that are not."""
        ours: dict[int, int] = {}
        owners = dict(division.owners)
        for shard, owner in division.owners.items():
            if owner == self._node and (shard in self._giving or self._gave.get(shard, asked_at - 1) >= asked_at):
                owners[shard] = None
            elif owner == self._node:
                ours[shard] = division.epochs[shard]
        self.division = Division(division.seats, owners, division.epochs)
        self._gave = {shard: moment for shard, moment in self._gave.items() if moment >= asked_at}
        self._on_their_way = {shard for shard in self._on_their_way if owners.get(shard) is None}
        self._granted = ours
        kept = {n: epoch for n, epoch in self._watched.items() if ours.get(n) == epoch or n in self._giving}
        lost = self._watched.keys() - kept.keys()
        self._watched = kept
        if lost:
            await holder.lost(lost)
        self._changed.set()

    async def _come_to_a_fair_share(self, node: str, asked_at: float, holder: LeaseHolder) -> float:
        """Take shards, and choose which to give away; return when to look again, in seconds."""
        clock, division = asyncio.get_running_loop().time, self.division
        if division is None:
            raise AssertionError("a beat brings the division")
        if not unfair(division):
            self._fair_at = clock()
        steady = self._steady is not None and asked_at - self._steady >= STEADY
        if division.orphaned and steady and await self._store.bury():
            return 0.0
        wanted = share(node, division)
        self._receivers = sum(seat.stays for seat in division.seats if seat.node != node)
        self._surplus = list(wanted.give)
        self._wanted.set()
        self._looked.set()
        pause = RETRY if division.orphaned else RENEW
        others = [seat for seat in division.seats if seat.node != node and seat.left > 0]
        if wanted.take and handed_over(division) and (holder.busy or self._granted.keys() - self._watched.keys()):
            return RETRY  # who has them holds their Pings; here they would only wait
        if wanted.take:
            taken = await self._store.take(node, wanted.take)
            self._granted |= taken
            self._set_guard()
            self._changed.set()
            if len(taken) < len(wanted.take):
                pause = RETRY
        # At the end of another one's lease, its shards are free.
        return max(0.0, min([pause, *(seat.left + CALM - (clock() - asked_at) for seat in others)]))

    async def _give_away(self, holder: LeaseHolder) -> None:
        """Give away what is above the fair share, as fast as other processes take it."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._surplus and len(self._on_their_way) < AT_ONCE * self._receivers:
                shard = self._surplus.pop(0)
                if self._node is not None and shard in self._granted:
                    await self._give(shard, self._node, holder)

    async def _give(self, shard: int, node: str, holder: LeaseHolder) -> None:
        """Stop what runs under a shard, then release it."""
        self._giving.add(shard)
        del self._granted[shard]
        await holder.give(shard)
        while True:
            # Until the answer is known: a shard that might be released is never watched again.
            try:
                async with asyncio.timeout(ATTEMPT):
                    await self._store.release(node, [shard])
            except (StoreUnavailable, TimeoutError):
                await asyncio.sleep(RETRY)
            else:
                break
        self._gave[shard] = asyncio.get_running_loop().time()
        self._on_their_way.add(shard)
        self._giving.discard(shard)
        self._looked.set()

    async def _give_up_when_over(self, holder: LeaseHolder) -> None:
        if self.current:
            return
        had = self._watched or self._granted
        self._granted = {}
        if self._watched:
            log.warning("leases ran out: all watches stop")
            self._watched = {}
            await holder.ran_out()
        if had:
            self._guard.off()

    def _set_guard(self) -> None:
        """Let the kernel end this process before its lease ends, if it has anything to stop."""
        if self._granted or self._watched:
            self._guard.set(self._until - LAST - asyncio.get_running_loop().time())
        else:
            self._guard.off()


def handed_over(division: Division) -> bool:
    """Return True if some process gives its shards away, and so holds their Pings until they are wanted."""
    return any(seat.leaving for seat in division.seats) or unfair(division).most is not None


def _names(node: str) -> Iterator[str]:
    """Return names of a process in the database, each for one registration."""
    yield node
    for number in count(2):
        yield f"{node}.{number}"
