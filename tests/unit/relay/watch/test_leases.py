"""Test when shards are ours: granted, watched, lost, run out, shared with other processes, and released."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from relay.watch.leases import (
    AT_ONCE,
    ATTEMPT,
    CALM,
    DRAIN,
    GOODBYE,
    LAST,
    LEASE,
    MARGIN,
    RENEW,
    RETRY,
    SETTLED,
    STEADY,
    Guard,
    Lease,
    Leases,
)
from tests.fakes.shards import MemoryShards, SlowShards

pytestmark = pytest.mark.looptime

SOON = 10 * CALM


def clock() -> float:
    return asyncio.get_running_loop().time()


class Kernel:
    """Notes when a process would be killed."""

    def __init__(self) -> None:
        self.at: float | None = None

    def set(self, seconds: float) -> None:
        self.at = clock() + seconds

    def off(self) -> None:
        self.at = None


class Process:
    """A watch process: it watches the shards that it gains, and notes what it must stop."""

    def __init__(self, store: SlowShards, name: str, guard: Guard | None = None, *, take_over: bool = False) -> None:
        self.leases = Leases(store, store.wakeups, name, guard, take_over=take_over)
        self.store = store
        self.name = name
        self.stopped: list[tuple[float, set[int] | None]] = []
        """Loop time, and the shards lost; None: all."""
        self.given: list[tuple[float, int]] = []
        self.busy = False
        self.stopping = 0.0
        self.starting = 0.0
        """How long it takes to read the mailboxes of gained shards and to start their watches."""
        self.holds: set[int] = set()
        """The shards whose Pings it holds."""

    async def lost(self, shards: Collection[int]) -> None:
        self.stopped.append((clock(), set(shards)))
        self.holds -= set(shards)

    async def ran_out(self) -> None:
        self.stopped.append((clock(), None))
        self.holds.clear()

    async def give(self, shard: int) -> None:
        await asyncio.sleep(self.stopping)
        self.holds.discard(shard)
        self.leases.gave(shard)
        self.given.append((clock(), shard))

    async def watch(self) -> None:
        while True:
            gained = await self.leases.gained()
            await asyncio.sleep(self.starting)
            self.leases.watch(gained)
            self.holds |= {shard for shard in gained if self.leases.of_shard(shard) is not None}
            self.leases.started()

    @asynccontextmanager
    async def runs(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        tasks = {loop.create_task(self.leases.keep(self)), loop.create_task(self.watch())}
        yield
        for task in tasks:
            assert not task.done(), task
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def kept(
    store: SlowShards | None = None, guard: Guard | None = None, *, take_over: bool = False
) -> AsyncIterator[Process]:
    process = Process(store or SlowShards(count=2), "node", guard, take_over=take_over)
    task = asyncio.get_running_loop().create_task(process.leases.keep(process))
    yield process
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})


async def test_a_granted_shard_is_watched_once_its_mailboxes_were_read() -> None:
    async with kept() as process:
        leases = process.leases
        assert await leases.gained() == {0: 1, 1: 1}
        assert (leases.current, leases.watched, leases.of_shard(1)) == (True, {}, None)

        leases.watch({1: 1, 0: 1})

        assert leases.watched == {0: 1, 1: 1}
        assert (leases.of_shard(1), leases.of_shard(5)) == (Lease(1, 1), None)


async def test_the_lease_is_renewed_before_it_runs_out() -> None:
    async with kept() as process:
        await asyncio.sleep(2 * LEASE)

        beats = process.store.beats
        assert process.leases.current
        assert max(after - before for before, after in pairwise(beats)) <= RENEW + 2 * CALM


async def test_only_the_first_request_takes_over() -> None:
    store = SlowShards(count=2)
    await store.join("dead", LEASE, take_over=False)
    await store.take("dead", [0, 1])
    async with kept(store, take_over=True) as process:
        assert await process.leases.gained() == {0: 2, 1: 2}
        await store.join("another", LEASE, take_over=False)
        await asyncio.sleep(2 * RENEW)
        assert "another" in store.until


async def test_a_renewal_that_grants_nothing_new_reports_no_gain() -> None:
    store = SlowShards(count=4)
    await store.join("other", 3600, take_over=False)
    await store.take("other", [2, 3])
    async with kept(store) as process:
        leases = process.leases
        leases.watch(await leases.gained())
        gained = asyncio.get_running_loop().create_task(leases.gained())
        await asyncio.sleep(1.5 * RENEW)
        assert not gained.done()

        await store.leave("other")

        assert await gained == {2: 2, 3: 2}


async def test_a_shard_that_was_lost_while_it_was_read_is_not_watched() -> None:
    async with kept() as process:
        gained = await process.leases.gained()
        process.store.owners[0] = "another"
        await asyncio.sleep(1.5 * RENEW)
        process.leases.watch(gained)

        assert process.leases.watched == {1: 1}


async def test_the_watches_of_a_lost_shard_stop_and_only_they() -> None:
    async with kept() as process:
        process.leases.watch(await process.leases.gained())
        process.store.owners[0] = "another"
        await asyncio.sleep(1.5 * RENEW)

        assert [shards for _, shards in process.stopped] == [{0}]
        assert process.leases.watched == {1: 1}


async def test_a_shard_that_another_process_had_meanwhile_is_lost_and_gained_again() -> None:
    async with kept() as process:
        process.leases.watch(await process.leases.gained())
        process.store.epochs[0] = 9
        await asyncio.sleep(1.5 * RENEW)

        assert [shards for _, shards in process.stopped] == [{0}]
        assert await process.leases.gained() == {0: 9}


@pytest.mark.parametrize(("takes", "ends_late"), [(0.0, 0.0), (2 * LEASE, 0.0), (2 * LEASE, 2.0)])
async def test_all_watches_stop_before_the_lease_ends_when_no_renewal_came_in_time(
    takes: float, ends_late: float
) -> None:
    kernel = Kernel()
    async with kept(guard=kernel) as process:
        leases, store = process.leases, process.store
        leases.watch(await leases.gained())
        began = clock()
        store.away, store.takes, store.ends_late = True, takes, ends_late
        await asyncio.sleep(LEASE - MARGIN - 1.0)
        assert (leases.current, process.stopped) == (True, [])
        assert kernel.at is not None
        assert kernel.at == pytest.approx(began + LEASE - LAST, abs=SOON)
        await asyncio.sleep(2.0 + RETRY)

        ((moment, all_of_them),) = process.stopped
        assert all_of_them is None
        assert began + LEASE - MARGIN - SOON <= moment <= began + LEASE - MARGIN + SOON
        assert (leases.current, leases.watched, leases.of_shard(1)) == (False, {}, None)
        assert [kernel.at] == [None]

        store.away, store.takes = False, 0.0
        assert set(await leases.gained()) == {0, 1}
        assert leases.current


async def test_a_process_that_was_taken_for_dead_stops_and_comes_back_under_another_name() -> None:
    async with kept() as process:
        process.leases.watch(await process.leases.gained())
        store = process.store
        store.until.clear()
        await store.bury()
        await asyncio.sleep(2 * RENEW)

        assert [shards for _, shards in process.stopped] == [None]
        assert (set(store.until), store.of("node.2")) == ({"node.2"}, {0, 1})


async def test_the_kernel_guards_only_a_process_that_has_something_to_stop() -> None:
    kernel, store = Kernel(), SlowShards(count=0)
    async with kept(store, kernel) as process:
        await asyncio.sleep(2 * RENEW)
        assert (process.leases.current, kernel.at) == (True, None)


# --- several processes


async def settled(*processes: Process, within: float) -> float:
    """Wait until the processes hold all shards in fair shares; return how long that took."""
    began = clock()
    count = len(processes[0].store.owners)
    while True:
        held = sorted(len(process.holds) for process in processes)
        if sum(held) == count and held[-1] - held[0] <= 1:
            return clock() - began
        assert clock() - began < within, held
        everywhere = [shard for process in processes for shard in process.holds]
        assert len(everywhere) == len(set(everywhere)), "a shard is held twice"
        await asyncio.sleep(0.005)


def processes(*names: str, shards: int = 32) -> list[Process]:
    shared = MemoryShards(count=shards)
    return [Process(SlowShards(shared), name) for name in names]


async def test_one_that_joins_gets_its_share_within_seconds_and_no_shard_is_held_twice() -> None:
    a, b, c = processes("a", "b", "c")
    async with a.runs(), b.runs():
        await settled(a, b, within=RENEW)
        async with c.runs():
            assert await settled(a, b, c, within=RENEW) < 1.0

        assert len(a.given) + len(b.given) == 10


async def test_a_shard_is_given_away_after_its_watches_have_stopped_and_few_at_a_time() -> None:
    a, b = processes("a", "b")
    a.stopping = 0.1
    async with a.runs():
        await settled(a, within=RENEW)
        async with b.runs():
            while not b.holds:
                assert len(a.holds) + len(a.store.of("b")) >= 32 - 4 - 1
                await asyncio.sleep(0.01)
            await settled(a, b, within=RENEW)
        # One after another: none waits without its Ping for the others.
        moments = [moment for moment, _ in a.given]
        assert min(later - earlier for earlier, later in pairwise(moments)) >= 0.099


async def test_the_shards_of_one_that_dies_are_taken_when_its_lease_ends() -> None:
    a, b, c = processes("a", "b", "c")
    async with b.runs(), c.runs():
        async with a.runs():
            await settled(a, b, c, within=2 * RENEW)
            await asyncio.sleep(STEADY)
        died = clock()
        a.holds.clear()
        await settled(b, c, within=LEASE + SOON)

        assert a.store.beats[-1] + LEASE <= clock() <= a.store.beats[-1] + LEASE + SOON
        assert clock() - died <= LEASE + SOON


async def test_one_that_stops_hands_over_all_it_has_and_is_gone() -> None:
    a, b, c = processes("a", "b", "c")
    async with b.runs(), c.runs():
        async with a.runs():
            await settled(a, b, c, within=2 * RENEW)
            began = clock()
            await a.leases.drain()
            await settled(b, c, within=SOON)
            assert clock() - began < 1.0
        await a.leases.release()

    assert "a" not in a.store.until
    assert a.stopped == []


async def test_the_last_one_has_nobody_to_hand_over_to_and_stops_at_once() -> None:
    (a,) = processes("a")
    async with a.runs():
        await settled(a, within=RENEW)
        began = clock()
        await a.leases.drain()
        assert clock() - began <= SOON
        assert len(a.holds) == 32
        await a.leases.release()
    assert a.store.of("a") == set()


async def test_stopping_takes_a_bounded_time_however_slowly_others_take() -> None:
    a, b = processes("a", "b")
    async with a.runs():
        await settled(a, within=RENEW)
        b.busy = True
        async with b.runs():
            began = clock()
            await a.leases.drain()

            assert clock() - began == pytest.approx(DRAIN, abs=SOON)
            # What nobody wants yet is held until the end; only the first ones wait for a taker.
            assert len(a.holds) >= 32 - 4 - 1
            await a.leases.release()
            a.holds.clear()
            b.busy = False
            await settled(b, within=RENEW + SOON)


async def test_shards_are_given_away_no_faster_than_their_watches_start_elsewhere() -> None:
    a, b = processes("a", "b")
    b.starting = 0.5
    async with a.runs():
        await settled(a, within=RENEW)
        async with b.runs():
            missing = 0
            while len(b.holds) < 16:
                await asyncio.sleep(0.01)
                missing = max(missing, 32 - len(a.holds | b.holds))
            assert missing <= 2 * AT_ONCE
            await settled(a, b, within=RENEW)


async def test_one_whose_mailboxes_wait_for_their_turn_takes_the_shards_of_the_dead_all_the_same() -> None:
    a, b = processes("a", "b")
    async with b.runs():
        async with a.runs():
            await settled(a, b, within=2 * RENEW)
            await asyncio.sleep(STEADY)
        a.holds.clear()
        b.busy = True
        await settled(b, within=LEASE + SOON)


async def test_a_shard_whose_release_is_uncertain_is_not_watched_again() -> None:
    a, b = processes("a", "b")
    async with a.runs():
        await settled(a, within=RENEW)
        async with b.runs():
            while not a.given:  # noqa: ASYNC110 -- this time costs nothing
                await asyncio.sleep(0.001)
            a.store.away = True
            shard = a.given[0][1]
            await asyncio.sleep(ATTEMPT)
            assert shard not in a.leases.watched
            a.store.away = False
            await settled(a, b, within=RENEW)
            assert shard in b.holds


async def test_after_an_outage_the_first_that_is_back_leaves_the_others_time() -> None:
    a, b = processes("a", "b")
    async with a.runs(), b.runs():
        await settled(a, b, within=2 * RENEW)
        a.store.away = b.store.away = True
        await asyncio.sleep(2 * LEASE)
        before = a.holds | b.holds, set(a.store.of("a"))
        assert before[0] == set()
        a.store.away = False
        await asyncio.sleep(STEADY - 1.0)
        b.store.away = False
        await settled(a, b, within=RENEW)

        assert a.store.of("a") == before[1]
        assert set(a.store.until) == {"a", "b"}


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
async def test_a_jump_of_the_databases_clock_makes_nobody_look_dead(seconds: float) -> None:
    a, b = processes("a", "b")
    async with a.runs(), b.runs():
        await settled(a, b, within=2 * RENEW)
        b.store.takes = 1.0  # so that they do not renew at the same moment
        await asyncio.sleep(2 * STEADY)
        before = a.store.of("a"), dict(a.store.epochs)

        a.store.jumps.append(seconds)
        await asyncio.sleep(2 * LEASE)

        assert (a.store.of("a"), a.store.epochs) == before
        assert a.stopped == b.stopped == []


async def test_what_is_unfair_shows_after_a_while() -> None:
    a, b = processes("a", "b")
    async with a.runs():
        assert a.leases.unfair is None
        await settled(a, within=RENEW)
        b.busy = True
        async with b.runs():
            await asyncio.sleep(SETTLED - RENEW)
            assert a.leases.unfair is None
            await asyncio.sleep(3 * RENEW)
            found = a.leases.unfair
            assert found is not None
            assert found.fewest == ("b", 0)
            b.busy = False
            await asyncio.sleep(2 * RENEW)
            assert a.leases.unfair is None


# --- the end


async def test_leases_are_released_so_that_others_need_not_wait() -> None:
    async with kept() as process:
        await process.leases.gained()
        await process.leases.release()

        assert process.store.left == ["node"]


async def test_a_process_that_never_joined_has_nothing_to_release() -> None:
    store = SlowShards()
    await Process(store, "node").leases.release()

    assert store.left == []


@pytest.mark.parametrize(("away", "takes"), [(True, 0.0), (False, 60.0)])
async def test_a_database_that_cannot_record_the_release_does_not_keep_the_relay_from_stopping(
    away: bool, takes: float
) -> None:
    async with kept() as process:
        await process.leases.gained()
        process.store.away, process.store.takes = away, takes
        began = clock()
        await process.leases.release()

        assert process.store.left == []
        assert clock() - began <= GOODBYE
