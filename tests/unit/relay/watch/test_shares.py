"""Test that shards are shared fairly, with few moves, and never twice."""

from collections import Counter
from collections.abc import Mapping
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from relay.domain.ports.shards import Division, Seat
from relay.watch.shares import Share, Unfair, quotas, share, unfair

MANY = 12
NODES = ("a", "b", "c", "d", "e")


def division(owners: Mapping[int, str | None], *seats: Seat) -> Division:
    return Division(seats, owners, dict.fromkeys(owners, 1))


def owned(**shards: int) -> dict[int, str | None]:
    """Return owners by how many shards each has; those of `free` have none."""
    names = [None if name == "free" else name for name, count in shards.items() for _ in range(count)]
    return dict(enumerate(names))


A, B, C = Seat("a", 9.0), Seat("b", 9.0), Seat("c", 9.0)


def test_the_first_process_takes_all_shards() -> None:
    assert share("a", division(owned(free=4), A)) == Share(take=(0, 1, 2, 3))


def test_two_that_start_at_once_take_different_halves() -> None:
    free = division(owned(free=5), A, B)

    assert share("a", free) == Share(take=(0, 1, 2))
    assert share("b", free) == Share(take=(3, 4))


def test_one_that_joins_gets_what_the_others_have_above_their_shares() -> None:
    joined = division(owned(a=5, b=4), A, B, C)

    assert share("a", joined) == Share(give=(3, 4))
    assert share("b", joined) == Share(give=(8,))
    assert share("c", joined) == Share()


def test_one_that_leaves_gives_everything_and_takes_nothing() -> None:
    left = division(owned(a=2, free=2), Seat("a", 9.0, leaving=True), B)

    assert share("a", left) == Share(give=(0, 1))
    assert share("b", left) == Share(take=(2, 3))


def test_the_last_that_leaves_has_nobody_to_give_to() -> None:
    assert share("a", division(owned(a=2), Seat("a", 9.0, leaving=True))) == Share()
    assert share("a", division(owned(a=2), Seat("a", 9.0, leaving=True), Seat("b", 0.0))) == Share()


def test_the_dead_have_no_share_but_keep_their_shards_until_they_are_free() -> None:
    dead = division(owned(a=2, b=2), A, Seat("b", -1.0))

    assert quotas(dead.seats, dead.owners) == {"a": 4}
    assert share("a", dead) == Share()
    assert dead.orphaned
    assert unfair(dead) == Unfair(2, None, ("a", 2))


def test_nothing_moves_where_shares_differ_by_one_only() -> None:
    for owners in (owned(a=3, b=2), owned(b=3, a=2)):
        fair = division(owners, A, B)
        assert [share(node, fair) for node in "ab"] == [Share(), Share()]
        assert not unfair(fair)
        assert not fair.orphaned


def test_what_is_unfair_names_who_has_too_many_and_who_too_few() -> None:
    assert unfair(division(owned(a=5, b=1, free=3), A, B, C)) == Unfair(3, ("a", 5), ("c", 0))


def test_shards_of_a_process_that_is_not_registered_are_unowned() -> None:
    assert unfair(division(owned(a=1, old=1), A)).unowned == 1


def settle(owners: dict[int, str | None], seats: list[Seat], random: Random) -> None:
    """Let processes act in any order, each on facts that may be old; then let all look again until nothing changes."""
    facts = {seat.node: dict(owners) for seat in seats}
    for seat in random.choices(seats, k=30):
        decided = share(seat.node, division(facts[seat.node], *seats))
        act(owners, seat.node, decided)
        if random.random() < 0.7:
            facts[seat.node] = dict(owners)
    for _ in range(MANY):
        for seat in seats:
            act(owners, seat.node, share(seat.node, division(owners, *seats)))


def act(owners: dict[int, str | None], node: str, decided: Share) -> None:
    """Change the shards as the database does: only what is free is taken, only what is one's own is given away."""
    for shard in decided.take:
        owners[shard] = owners[shard] or node
    for shard in decided.give[:1]:
        owners[shard] = None if owners[shard] == node else owners[shard]


@given(
    st.lists(st.sampled_from([None, *NODES[:3]]), min_size=MANY, max_size=MANY),
    st.lists(st.booleans(), min_size=1, max_size=5),
    st.integers(),
)
def test_shares_become_fair_from_any_state_in_any_order(
    names: list[str | None], leaving: list[bool], seed: int
) -> None:
    seats = [Seat(node, 9.0, gone) for node, gone in zip(NODES, leaving, strict=False)]
    living = {seat.node for seat in seats}
    owners = {shard: name if name in living else None for shard, name in enumerate(names)}

    settle(owners, seats, Random(seed))

    staying = [seat.node for seat in seats if seat.stays]
    counts = Counter(owners.values())
    if staying:
        assert set(counts) <= set(staying)
        assert max(counts[node] for node in staying) - min(counts[node] for node in staying) <= 1
        assert all(share(node, division(owners, *seats)) == Share() for node in staying)
        assert not unfair(division(owners, *seats))


@given(st.lists(st.sampled_from(NODES[:3]), min_size=MANY, max_size=MANY), st.integers(1, 5))
def test_no_shard_moves_that_need_not(names: list[str], count: int) -> None:
    seats = [Seat(node, 9.0) for node in NODES[:count]]
    living = {seat.node for seat in seats}
    owners: dict[int, str | None] = {shard: name if name in living else None for shard, name in enumerate(names)}
    before, counts = dict(owners), Counter(owners.values())
    each, more = divmod(MANY, count)
    most = sorted((counts[seat.node] for seat in seats), reverse=True)
    needed = sum(max(0, have - (each + (place < more))) for place, have in enumerate(most))

    given_away = sum(len(share(seat.node, division(owners, *seats)).give) for seat in seats)

    assert given_away == needed
    assert owners == before


@given(st.lists(st.sampled_from([None, *NODES]), min_size=MANY, max_size=MANY), st.integers(1, 5))
def test_those_that_decide_at_once_never_want_the_same_shard(names: list[str | None], count: int) -> None:
    seats = [Seat(node, 9.0) for node in NODES[:count]]
    wanted = [shard for seat in seats for shard in share(seat.node, division(dict(enumerate(names)), *seats)).take]

    assert len(wanted) == len(set(wanted))
