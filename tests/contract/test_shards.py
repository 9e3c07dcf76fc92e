"""Test how watch processes share the shards in the database: they join, renew, take, release, leave and are removed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from relay.domain.model import Role
from relay.domain.ports.shards import Division, ShardStore
from relay.domain.sealing_keys import KeyHolder
from relay.store.engine import Database
from relay.store.key_holders import SqlKeyHolderStore
from relay.store.shards import SqlShardStore
from relay.store.tables import node, shard
from tests.transactions import transaction

LEASE = 10.0
Check = Callable[[ShardStore], Awaitable[None]]
AN_HOUR_OFF = datetime.now(UTC) - timedelta(hours=1)  # noqa: TID251 -- a wrong clock


class Clock:
    """The clock of an embedded database; on PostgreSQL nothing may depend on it."""

    def __init__(self) -> None:
        self.moment = AN_HOUR_OFF

    def __call__(self) -> datetime:
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shards(engine: Database, clock: Clock) -> SqlShardStore:
    return SqlShardStore(engine, "1.0", clock)


async def seen(shards: ShardStore, name: str) -> Division:
    division = await shards.beat(name, LEASE, leaving=False)
    assert division is not None
    return division


async def end_lease(engine: Database, name: str) -> None:
    """Let the lease of a process have ended."""
    ended = AN_HOUR_OFF
    async with transaction(engine) as connection:
        await connection.execute(sa.update(node).where(node.c.id == name).values(alive_until=ended))


async def test_a_process_takes_free_shards_under_raised_epochs(shards: ShardStore) -> None:
    await shards.join("a", LEASE, take_over=False)

    assert await shards.take("a", range(3)) == {0: 1, 1: 1, 2: 1}

    division = await seen(shards, "a")
    assert [number for number, owner in division.owners.items() if owner == "a"] == [0, 1, 2]
    assert (len(division.owners), division.epochs[0], division.epochs[3]) == (256, 1, 0)


async def test_nobody_takes_what_another_one_has(shards: ShardStore) -> None:
    for name in ("a", "b"):
        await shards.join(name, LEASE, take_over=False)
    await shards.take("a", [1, 2])

    assert await shards.take("b", [2, 3]) == {3: 1}
    await shards.release("b", [1])
    assert (await seen(shards, "a")).owners[1] == "a"


async def test_a_released_shard_is_free_at_once_under_a_new_epoch(shards: ShardStore) -> None:
    for name in ("a", "b"):
        await shards.join(name, LEASE, take_over=False)
    await shards.take("a", [1, 2])

    await shards.release("a", [1])

    assert await shards.take("b", [1, 2]) == {1: 2}


async def test_a_renewal_tells_who_lives_and_who_leaves(shards: ShardStore) -> None:
    await shards.join("a", LEASE, take_over=False)
    await shards.join("b", LEASE, take_over=False)
    await shards.beat("b", LEASE, leaving=True)

    first, second = (await seen(shards, "a")).seats

    assert (first.node, first.leaving, second.node, second.leaving) == ("a", False, "b", True)
    assert first.left == pytest.approx(LEASE)
    assert LEASE - 2 < second.left <= LEASE


async def test_the_hosts_clock_does_not_matter_on_postgresql(postgres_engine: Database) -> None:
    for name, ahead in (("a", -3600), ("b", 3600)):
        moment = datetime.now(UTC) + timedelta(seconds=ahead)  # noqa: TID251 -- a wrong clock
        shards = SqlShardStore(postgres_engine, "1.0", lambda moment=moment: moment)
        await shards.join(name, LEASE, take_over=False)
        await shards.bury()
        seats = (await seen(shards, name)).seats
        assert all(LEASE - 3 < seat.left <= LEASE for seat in seats)
    assert [seat.node for seat in seats] == ["a", "b"]


async def test_the_shards_of_the_dead_become_free_and_the_dead_do_not_return(
    engine: Database, shards: SqlShardStore
) -> None:
    for name in ("a", "b"):
        await shards.join(name, LEASE, take_over=False)
    await shards.take("a", range(200))
    assert await shards.bury() == 0
    await end_lease(engine, "a")
    assert (await seen(shards, "b")).orphaned

    assert await shards.bury() == 200

    assert await shards.take("b", [5]) == {5: 2}
    assert await shards.beat("a", LEASE, leaving=False) is None
    assert await shards.take("a", [6]) == {}


async def test_a_lease_that_ended_unnoticed_goes_on(engine: Database, shards: ShardStore) -> None:
    await shards.join("a", LEASE, take_over=False)
    await shards.take("a", [1])
    await end_lease(engine, "a")
    assert await shards.take("a", [2]) == {}

    assert (await seen(shards, "a")).owners[1] == "a"
    assert await shards.bury() == 0


async def test_shards_of_a_version_that_leases_each_are_left_alone_until_that_lease_ends(
    engine: Database, shards: SqlShardStore
) -> None:
    await shards.join("a", LEASE, take_over=False)
    now = datetime.now(UTC)  # noqa: TID251 -- PostgreSQL's clock; the other one is an hour behind
    async with transaction(engine) as connection:
        old = sa.update(shard).values(owner="old")
        await connection.execute(old.where(shard.c.number == 1).values(lease_until=now + timedelta(hours=1)))
        await connection.execute(old.where(shard.c.number == 2).values(lease_until=now - timedelta(hours=2)))

    assert await shards.bury() == 1
    assert await shards.take("a", [1, 2]) == {2: 1}


async def test_a_process_that_leaves_frees_all_at_once(shards: ShardStore) -> None:
    for name in ("a", "b"):
        await shards.join(name, LEASE, take_over=False)
    await shards.take("a", range(4))

    await shards.leave("a")

    assert [seat.node for seat in (await seen(shards, "b")).seats] == ["b"]
    assert len(await shards.take("b", range(4))) == 4


async def test_a_take_over_removes_all_others(shards: ShardStore) -> None:
    await shards.join("a", LEASE, take_over=False)
    await shards.take("a", range(4))

    await shards.join("b", LEASE, take_over=True)

    assert await shards.beat("a", LEASE, leaving=False) is None
    assert await shards.take("b", range(4)) == dict.fromkeys(range(4), 2)


async def test_a_take_over_removes_the_keys_of_all_others(shards: ShardStore, engine: Database) -> None:
    holders = SqlKeyHolderStore(engine)
    mine = KeyHolder("b", Role.ALL, frozenset({"key"}), "key")
    for each in (replace(mine, node="a"), mine):
        await holders.note(each, AN_HOUR_OFF)

    await shards.join("b", LEASE, take_over=True)

    assert [each.node for each in await holders.holders(AN_HOUR_OFF)] == ["b"]


async def test_processes_that_want_the_same_shards_share_them_without_waiting(
    postgres_engine: Database, clock: Clock
) -> None:
    stores = {
        name: SqlShardStore(each, "1.0", clock) for name, each in (("a", postgres_engine), ("b", postgres_engine))
    }
    for name, store in stores.items():
        await store.join(name, LEASE, take_over=False)

    taken = await asyncio.gather(*(store.take(name, range(256)) for name, store in stores.items()))

    assert not taken[0].keys() & taken[1].keys()
    assert len(taken[0]) + len(taken[1]) == 256


async def test_a_shard_in_which_a_commit_is_under_way_is_not_taken_and_keeps_nobody_waiting(
    postgres_engine: Database, clock: Clock
) -> None:
    shards = SqlShardStore(postgres_engine, "1.0", clock)
    for name in ("a", "b"):
        await shards.join(name, LEASE, take_over=False)
    await shards.take("a", [6, 7])
    await end_lease(postgres_engine, "a")
    async with transaction(postgres_engine) as connection:
        await connection.execute(sa.text("SELECT epoch FROM shard WHERE number = 7 FOR SHARE"))
        assert await shards.bury() == 1
        assert await shards.take("b", [6, 7]) == {6: 2}
    assert await shards.bury() == 1
    assert await shards.take("b", [6, 7]) == {7: 2}


async def test_a_process_that_stands_still_in_a_renewal_is_not_removed_and_keeps_nobody_waiting(
    postgres_engine: Database, clock: Clock
) -> None:
    shards = SqlShardStore(postgres_engine, "1.0", clock)
    for name in ("a", "b"):
        await shards.join(name, LEASE, take_over=False)
    await shards.take("a", [7])
    await end_lease(postgres_engine, "a")
    async with transaction(postgres_engine) as connection:
        await connection.execute(sa.text("UPDATE node SET leaving = true WHERE id = 'a'"))
        async with asyncio.timeout(4):  # the transaction ends when it stands still for 5
            assert await shards.bury() == 0
            assert (await seen(shards, "b")).orphaned
