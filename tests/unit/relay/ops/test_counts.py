import asyncio

import pytest

from eas_watcher.machine.memory import WatchState
from relay.ops.counts import PERIOD, Counts, CountsCache
from tests.fakes.ops import NOON, HandClock, OpsCounts


async def test_counts_are_kept_with_the_moment_they_were_read() -> None:
    cache = CountsCache(OpsCounts({(WatchState.WATCHING, None): 3}), HandClock())

    await cache.refresh()

    assert cache.reachable
    assert cache.newest == Counts({(WatchState.WATCHING, None): 3}, {}, {}, [], {}, NOON)


async def test_nothing_is_known_before_the_database_has_answered() -> None:
    cache = CountsCache(OpsCounts(away=True), HandClock())

    await cache.refresh()

    assert not cache.reachable
    assert cache.newest is None


async def test_old_counts_stay_while_the_database_is_away() -> None:
    store, clock = OpsCounts({(WatchState.WATCHING, None): 3}), HandClock()
    cache = CountsCache(store, clock)
    await cache.refresh()
    clock.forward(60)
    store.away = True

    await cache.refresh()

    assert not cache.reachable
    assert cache.newest is not None
    assert cache.newest.read_at == NOON


@pytest.mark.looptime
async def test_a_database_that_hangs_counts_as_away() -> None:
    cache = CountsCache(OpsCounts(hanging=True), HandClock())
    cache.reachable = True

    await cache.refresh()

    assert not cache.reachable


@pytest.mark.looptime
async def test_it_is_refreshed_in_the_background_until_cancelled() -> None:
    store = OpsCounts()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(CountsCache(store, HandClock()).run())
        await asyncio.sleep(PERIOD * 2.5)
        task.cancel()

    assert store.asked == 3
