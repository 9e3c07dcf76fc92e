"""Test when shards are ours: granted, watched, lost, run out and released."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest

from relay.domain.errors import StoreUnavailable
from relay.watch.leases import GOODBYE, LEASE, RENEW, Lease, Leases
from tests.fakes.watches import NoWatches
from tests.unit.relay.watch.test_verification import NOW

pytestmark = pytest.mark.looptime


class Store(NoWatches):
    """Grants the shards that a test names, after as many seconds as it says."""

    def __init__(self, granted: Mapping[int, int]) -> None:
        self.granted = granted
        self.takes = 0.0
        self.away = False
        self.asked: list[tuple[str, datetime, bool]] = []
        self.released: list[str] = []

    async def lease_shards(self, node: str, until: datetime, now: datetime, take_over: bool) -> Mapping[int, int]:
        assert now == NOW
        self.asked.append((node, until, take_over))
        await asyncio.sleep(self.takes)
        if self.away:
            raise StoreUnavailable
        return self.granted

    async def release_shards(self, node: str) -> None:
        await asyncio.sleep(self.takes)
        if self.away:
            raise StoreUnavailable
        self.released.append(node)


class Holder:
    """Notes what it must stop."""

    def __init__(self) -> None:
        self.stopped: list[tuple[float, set[int] | None]] = []
        """Loop time, and the shards lost; None: all."""

    async def lost(self, shards: Collection[int]) -> None:
        self.stopped.append((asyncio.get_running_loop().time(), set(shards)))

    async def ran_out(self) -> None:
        self.stopped.append((asyncio.get_running_loop().time(), None))


@asynccontextmanager
async def kept(store: Store, holder: Holder, *, take_over: bool = False) -> AsyncIterator[Leases]:
    leases = Leases(store, lambda: NOW, "node", take_over=take_over)
    task = asyncio.get_running_loop().create_task(leases.keep(holder))
    yield leases
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})


async def test_a_granted_shard_is_watched_once_its_mailboxes_were_read() -> None:
    async with kept(Store({3: 7, 4: 1}), Holder()) as leases:
        assert await leases.gained() == {3: 7, 4: 1}
        assert (leases.current, leases.watched, leases.of_shard(3)) == (True, [], None)

        leases.watch({4: 1, 3: 7})

        assert leases.watched == [3, 4]
        assert (leases.of_shard(3), leases.of_shard(5)) == (Lease(3, 7), None)


async def test_leases_are_renewed_before_they_run_out_and_others_taken_over_once() -> None:
    store = Store({3: 7})
    async with kept(store, Holder(), take_over=True) as leases:
        await asyncio.sleep(2.5 * RENEW)
        assert leases.current

    until = NOW + timedelta(seconds=LEASE)
    assert store.asked == [("node", until, True), ("node", until, False), ("node", until, False)]


async def test_a_renewal_that_grants_nothing_new_reports_no_gain() -> None:
    store = Store({3: 7})
    async with kept(store, Holder()) as leases:
        leases.watch(await leases.gained())
        gained = asyncio.get_running_loop().create_task(leases.gained())
        await asyncio.sleep(1.5 * RENEW)
        assert not gained.done()

        store.granted = {3: 7, 4: 1}

        assert await gained == {4: 1}


async def test_a_shard_that_was_lost_while_it_was_read_is_not_watched() -> None:
    store = Store({3: 7, 4: 1})
    async with kept(store, Holder()) as leases:
        gained = await leases.gained()
        store.granted = {4: 1}
        await asyncio.sleep(1.5 * RENEW)
        leases.watch(gained)

        assert leases.watched == [4]


async def test_the_watches_of_a_lost_shard_stop_and_only_they() -> None:
    store, holder = Store({3: 7, 4: 1}), Holder()
    async with kept(store, holder) as leases:
        leases.watch(await leases.gained())
        store.granted = {4: 1}
        await asyncio.sleep(1.5 * RENEW)

        assert holder.stopped == [(RENEW, {3})]
        assert leases.watched == [4]


async def test_a_shard_that_another_process_had_meanwhile_is_lost_and_gained_again() -> None:
    store, holder = Store({3: 7}), Holder()
    async with kept(store, holder) as leases:
        leases.watch(await leases.gained())
        store.granted = {3: 9}
        await asyncio.sleep(1.5 * RENEW)

        assert holder.stopped == [(RENEW, {3})]
        assert await leases.gained() == {3: 9}


@pytest.mark.parametrize("takes", [0.0, 2 * LEASE])
async def test_all_watches_stop_when_no_renewal_came_in_time(takes: float) -> None:
    store, holder = Store({3: 7}), Holder()
    async with kept(store, holder) as leases:
        leases.watch(await leases.gained())
        store.away, store.takes = True, takes
        await asyncio.sleep(LEASE - 1.0)
        assert (leases.current, holder.stopped) == (True, [])
        await asyncio.sleep(2.0 + RENEW)

        assert len(holder.stopped) == 1
        assert holder.stopped[0][1] is None
        assert LEASE <= holder.stopped[0][0] <= LEASE + 0.1
        assert (leases.current, leases.watched, leases.of_shard(3)) == (False, [], None)

        store.away, store.takes = False, 0.0
        assert await leases.gained() == {3: 7}
        assert leases.current


async def test_leases_are_released_so_that_others_need_not_wait() -> None:
    store = Store({})
    await Leases(store, lambda: NOW, "node", take_over=False).release()

    assert store.released == ["node"]


@pytest.mark.parametrize(("away", "takes"), [(True, 0.0), (False, 60.0)])
async def test_a_database_that_cannot_record_the_release_does_not_keep_the_relay_from_stopping(
    away: bool, takes: float
) -> None:
    store = Store({})
    store.away, store.takes = away, takes
    await Leases(store, lambda: NOW, "node", take_over=False).release()

    assert store.released == []
    assert asyncio.get_running_loop().time() <= GOODBYE
