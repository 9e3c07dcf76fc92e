from collections import Counter

import pytest

from relay.console.history import BOUNDS, DAY, HOUR, MERGED, PERIOD, History, Totals, merge, per_minute, quantile
from relay.domain.outcome import OutcomeKind
from tests.fakes.ops import HandClock

SENT = ("apns", OutcomeKind.DELIVERED)
REFUSED = ("apns", OutcomeKind.REFUSED)


class Counters:
    """Counters that a test sets."""

    def __init__(self) -> None:
        self.held, self.changes, self.pushes = 0, 0, Counter[tuple[str, OutcomeKind]]()

    def __call__(self) -> Totals:
        return Totals(self.held, self.changes, dict(self.pushes))


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def history(counters: Counters, clock: HandClock) -> History:
    counters.changes = 1000  # what happened before the console began is in no period
    return History(counters, clock)


def test_a_point_has_what_happened_in_its_period(history: History, counters: Counters, clock: HandClock) -> None:
    counters.held, counters.changes = 5, 1003
    counters.pushes.update({SENT: 2, REFUSED: 1})
    history.accepted(1.0)
    history.accepted(0.002)
    history.sample()
    counters.pushes[SENT] += 1
    history.sample()

    first, second = history.hour
    assert (first.at, first.held, first.changes) == (clock(), 5, 3)
    assert first.sent(OutcomeKind.DELIVERED) == 2
    assert first.sent(OutcomeKind.DELIVERED, OutcomeKind.REFUSED, provider="apns") == 3
    assert first.sent(OutcomeKind.DELIVERED, provider="fcm") == 0
    assert sum(first.latencies.values()) == 2
    assert (second.changes, second.pushes, second.latencies) == (0, {SENT: 1}, {})


def test_the_rings_are_bounded_and_the_day_has_merged_points(history: History, counters: Counters) -> None:
    for _ in range(MERGED * (DAY + 2)):
        counters.changes += 1
        history.sample()

    assert (len(history.hour), len(history.day)) == (HOUR, DAY)
    assert {(point.changes, point.seconds) for point in history.day} == {(MERGED, MERGED * PERIOD)}


def test_points_are_merged(history: History, counters: Counters) -> None:
    for held in (3, 4):
        counters.held = held
        counters.pushes[SENT] += 1
        history.accepted(0.0)
        history.sample()

    merged = merge(list(history.hour))

    assert (merged.held, merged.sent(OutcomeKind.DELIVERED), sum(merged.latencies.values())) == (4, 2, 2)
    assert per_minute(merged.sent(OutcomeKind.DELIVERED), [merged]) == 2 * 60 / (2 * PERIOD)
    assert per_minute(0, []) is None


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.3, 1.0, 7000.0, 100_000.0])
def test_a_latency_is_kept_within_a_fifth(history: History, seconds: float) -> None:
    history.accepted(seconds)
    history.sample()

    [point] = history.hour
    found = quantile(point.latencies, 0.5)
    assert found is not None
    wanted = min(max(seconds, BOUNDS[0]), BOUNDS[-1])
    assert wanted <= found * (1 + 1e-9)
    assert found <= wanted * 1.4143


def test_quantiles_part_the_pushes() -> None:
    latencies = {3: 90, 10: 9, 20: 1}

    assert quantile(latencies, 0.5) == BOUNDS[3]
    assert quantile(latencies, 0.95) == BOUNDS[10]
    assert quantile(latencies, 1.0) == BOUNDS[20]
    assert quantile({}, 0.5) is None
