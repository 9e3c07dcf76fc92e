"""Which shards a watch process takes and which it gives away, so that all have their fair share; no I/O.

Every process decides for itself, from what the database says of all. From the same facts they come to the same shares:
the shards divided by the processes that stay, where those with the most shards get one more if it does not come out
even, so that none moves without need. A process only takes shards that are free, and only as many as its share has
room for. So decisions from older facts can be late, but never give a shard two owners.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from relay.domain.ports.shards import Division, Seat


@dataclass(frozen=True, slots=True)
class Share:
    """What one process does to come to its fair share."""

    take: tuple[int, ...] = ()
    """Free shards to take."""
    give: tuple[int, ...] = ()
    """Shards to give away, one after another; there is somebody who can have them."""


def quotas(seats: Sequence[Seat], owners: Mapping[int, str | None]) -> dict[str, int]:
    """Return how many shards each process that stays should have; they are in the order in which they take."""
    counts = Counter(owners.values())
    staying = sorted((seat.node for seat in seats if seat.stays), key=lambda node: (-counts[node], node))
    if not staying:
        return {}
    each, more = divmod(len(owners), len(staying))
    return {node: each + (place < more) for place, node in enumerate(staying)}


def share(node: str, division: Division) -> Share:
    """Return what a process does next."""
    counts = Counter(division.owners.values())
    mine = sorted(shard for shard, owner in division.owners.items() if owner == node)
    wanted = quotas(division.seats, division.owners)
    if node not in wanted:
        return Share(give=tuple(mine) if wanted else ())
    if len(mine) > wanted[node]:
        return Share(give=tuple(mine[wanted[node] :]))
    free = sorted(shard for shard, owner in division.owners.items() if owner is None)
    # Each process has a place of its own among the free shards, so that two that decide at once do not want the same.
    before = takewhile(lambda other: other != node, wanted)
    begin = sum(max(0, wanted[other] - counts[other]) for other in before)
    return Share(take=tuple(free[begin : begin + wanted[node] - len(mine)]))


@dataclass(frozen=True, slots=True)
class Unfair:
    """What is wrong with a division that should be fair by now."""

    unowned: int
    """Shards that no living process has."""
    most: tuple[str, int] | None
    """The process with the most shards above its share, and how many it has; None: no process has too many."""
    fewest: tuple[str, int] | None
    """The process with the fewest shards below its share; None: no process has too few."""

    def __bool__(self) -> bool:
        """Return True if something is wrong."""
        return bool(self.unowned or self.most or self.fewest)


def unfair(division: Division) -> Unfair:
    """Return what differs from fair shares."""
    counts = Counter(division.owners.values())
    alive = {seat.node for seat in division.seats if seat.left > 0}
    unowned = sum(number for owner, number in counts.items() if owner not in alive)
    wanted = quotas(division.seats, division.owners)
    over = [(counts[node], node) for node, quota in wanted.items() if counts[node] > quota]
    under = [(counts[node], node) for node, quota in wanted.items() if counts[node] < quota]
    return Unfair(
        unowned,
        (max(over)[1], max(over)[0]) if over else None,
        (min(under)[1], min(under)[0]) if under else None,
    )
