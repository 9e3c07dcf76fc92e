import pytest

from eas_watcher.http2.budget import (
    BURST,
    DEAR,
    DISCARDED,
    OCTETS,
    PER_REQUEST,
    PER_SECOND,
    Flooded,
    FrameBudget,
)
from eas_watcher.http2.frames import DATA, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE
from eas_watcher.http2.violations import ErrorCode

UNKNOWN = 0xBB


def spend_all(budget: FrameBudget, kind: int = PING, length: int = 8) -> int:
    """Return how many frames a budget allows."""
    for number in range(100_000):
        try:
            budget.spend(kind, length)
        except Flooded:
            return number
    raise AssertionError("without end")


@pytest.mark.parametrize(
    ("kind", "length", "frames"),
    [
        (PING, 8, int(BURST)),
        (UNKNOWN, 0, int(BURST)),
        (DATA, OCTETS - 1, int(BURST)),
        (SETTINGS, 6, int(BURST / (1 + DEAR))),
        (GOAWAY, 8, int(BURST / (1 + DEAR))),
        (HEADERS, 16_384, int(BURST / (1 + 16_384 // OCTETS))),
    ],
)
def test_a_flood_ends_with_the_budget(kind: int, length: int, frames: int) -> None:
    assert spend_all(FrameBudget(0.0), kind, length) == frames


@pytest.mark.parametrize(("kind", "name"), [(PING, "PING"), (UNKNOWN, "frames of kind 187")])
def test_a_flood_is_told_by_the_kind_of_its_frames(kind: int, name: str) -> None:
    budget = FrameBudget(0.0)
    spend_all(budget)

    with pytest.raises(Flooded, match=f"^{name}$") as flooded:
        budget.spend(kind, 0)
    assert flooded.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_a_body_in_pieces_of_some_size_costs_nothing() -> None:
    budget = FrameBudget(0.0)
    for _ in range(2000):
        budget.spend(DATA, OCTETS)

    assert spend_all(budget) == BURST


def test_data_that_no_request_waits_for_is_a_flood() -> None:
    budget = FrameBudget(0.0)
    for _ in range(int(BURST) // 5):
        budget.discard(4 * DISCARDED)

    with pytest.raises(Flooded, match="DATA"):
        budget.discard(4 * DISCARDED)


def test_requests_and_time_refill_it() -> None:
    budget = FrameBudget(0.0)
    for _ in range(3):
        budget.asked()
    assert spend_all(budget) == BURST + 3 * PER_REQUEST

    budget.refill(10.0, 0)
    assert spend_all(budget) == 10 * PER_SECOND - 1, "what was overdrawn is paid back"
    budget.refill(10_000.0, 0)
    assert spend_all(budget) == BURST


def test_requests_that_were_answered_leave_nothing_for_a_flood() -> None:
    budget = FrameBudget(0.0)
    for _ in range(100_000):
        budget.asked()
    budget.refill(1.0, 2)

    assert spend_all(budget) == BURST + 2 * PER_REQUEST


def test_the_answers_to_a_thousand_requests_fit() -> None:
    budget = FrameBudget(0.0)
    for _ in range(1000):
        budget.asked()
    budget.refill(0.1, 1000)

    for _ in range(1000):
        for kind, length in ((HEADERS, 90), (DATA, 90), (WINDOW_UPDATE, 4), (WINDOW_UPDATE, 4)):
            budget.spend(kind, length)
