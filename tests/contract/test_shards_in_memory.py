"""The ShardStore in memory, on which leases are tested, passes what the databases pass."""

import pytest

from tests.contract import test_shards
from tests.fakes.shards import MemoryShards

TESTS = [
    test_shards.test_a_process_takes_free_shards_under_raised_epochs,
    test_shards.test_nobody_takes_what_another_one_has,
    test_shards.test_a_released_shard_is_free_at_once_under_a_new_epoch,
    test_shards.test_a_renewal_tells_who_lives_and_who_leaves,
    test_shards.test_a_process_that_leaves_frees_all_at_once,
    test_shards.test_a_take_over_removes_all_others,
]


@pytest.mark.parametrize("check", TESTS, ids=lambda check: check.__name__)
async def test_the_store_in_memory_is_like_the_databases(check: test_shards.Check) -> None:
    await check(MemoryShards())
