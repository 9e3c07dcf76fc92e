"""Test what a division of the shards says of itself."""

import pytest

from relay.domain.ports.shards import Division, Seat

ALIVE, DEAD = Seat("alive", 1.0), Seat("dead", 0.0)


@pytest.mark.parametrize(("left", "leaving", "stays"), [(1.0, False, True), (0.0, False, False), (1.0, True, False)])
def test_shares_are_for_those_that_live_and_stay(left: float, leaving: bool, stays: bool) -> None:
    assert Seat("a", left, leaving).stays is stays


@pytest.mark.parametrize(("owner", "orphaned"), [("alive", False), (None, False), ("dead", True), ("unknown", True)])
def test_a_shard_is_orphaned_when_its_owner_is_not_alive(owner: str | None, orphaned: bool) -> None:
    assert Division((ALIVE, DEAD), {0: "alive", 1: owner}, {0: 1, 1: 1}).orphaned is orphaned
