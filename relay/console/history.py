"""What this process did in the last hour and the last day, for the plots: two rings in memory, filled by one timer."""

import asyncio
import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from relay.domain.clock import Clock
from relay.domain.outcome import OutcomeKind

PERIOD: Final = 15.0  # seconds of one point of the last hour
HOUR: Final = 240  # points
MERGED: Final = 24  # points of the hour that make one point of the day, which are six minutes
DAY: Final = 240  # points
RECENT: Final = 20  # points of the hour that rates are taken from, which are five minutes
BOUNDS: Final = tuple(0.001 * math.sqrt(2) ** step for step in range(47))
"""Upper bounds in seconds of the classes in which latencies are counted: 1 ms to more than two hours, half a power of
two apart, so that a quantile is wrong by less than a fifth."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What counters say at one moment."""

    held: int = 0
    """Pings that mail servers hold."""
    changes: int = 0
    """New items since the start."""
    pushes: Mapping[tuple[str, OutcomeKind], int] = field(default_factory=dict)
    """Pushes since the start, by provider and outcome."""


@dataclass(frozen=True, slots=True)
class Point:
    """What happened in one period."""

    at: datetime
    """The end of the period."""
    seconds: float
    held: int
    changes: int
    pushes: Mapping[tuple[str, OutcomeKind], int]
    latencies: Mapping[int, int]
    """How many pushes took so long from the change until they were accepted, by the number of the bound."""

    def sent(self, *kinds: OutcomeKind, provider: str | None = None) -> int:
        """Return how many pushes ended as one of some outcomes."""
        return sum(
            count
            for (name, kind), count in self.pushes.items()
            if kind in kinds and (provider is None or name == provider)
        )


class History:
    """The last hour in points of PERIOD seconds, and the last day in points of MERGED times that."""

    def __init__(self, read: Callable[[], Totals], clock: Clock) -> None:
        """Begin with what the counters say now."""
        self._read = read
        self._clock = clock
        self._before = read()
        self._latencies: Counter[int] = Counter()
        self._merging: list[Point] = []
        self.hour: deque[Point] = deque(maxlen=HOUR)
        self.day: deque[Point] = deque(maxlen=DAY)

    def accepted(self, seconds: float) -> None:
        """Note that a push was accepted so many seconds after its first change."""
        self._latencies[min(bisect_left(BOUNDS, seconds), len(BOUNDS) - 1)] += 1

    def sample(self) -> None:
        """End a period: add its point."""
        now, before = self._read(), self._before
        pushes = {key: count - before.pushes.get(key, 0) for key, count in now.pushes.items()}
        latencies = dict(self._latencies)
        point = Point(
            self._clock(),
            PERIOD,
            now.held,
            now.changes - before.changes,
            {key: count for key, count in pushes.items() if count},
            latencies,
        )
        self._before = now
        self._latencies.clear()
        self.hour.append(point)
        self._merging.append(point)
        if len(self._merging) >= MERGED:
            self.day.append(merge(self._merging))
            self._merging = []

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            self.sample()


def merge(points: Sequence[Point]) -> Point:
    """Return one point for several that follow one another."""
    pushes: Counter[tuple[str, OutcomeKind]] = Counter()
    latencies: Counter[int] = Counter()
    for point in points:
        pushes.update(point.pushes)
        latencies.update(point.latencies)
    last = points[-1]
    seconds = sum(point.seconds for point in points)
    return Point(last.at, seconds, last.held, sum(point.changes for point in points), pushes, latencies)


def per_minute(count: float, points: Iterable[Point]) -> float | None:
    """Return the rate of what was counted over some points; None: there is none."""
    seconds = sum(point.seconds for point in points)
    return None if not seconds else count * 60 / seconds


def quantile(latencies: Mapping[int, int], share: float) -> float | None:
    """Return the seconds within which a share of the pushes was accepted; None: there was no push."""
    wanted = share * sum(latencies.values())
    if not wanted:
        return None
    reached = 0
    for number in sorted(latencies):
        reached += latencies[number]
        if reached >= wanted:
            return BOUNDS[number]
    raise AssertionError("the classes have fewer pushes than their sum")
