from hypothesis import given
from hypothesis import strategies as st

from relay.push.fcm.budget import HOUR, SWEEP, HighPriorityBudget


def spend_all(budget: HighPriorityBudget, token: str, now: float) -> int:
    count = 0
    while budget.allows(token, now):
        budget.spend(token, now)
        count += 1
        assert count <= 10_000
    return count


def test_a_whole_budget_may_be_spent_at_once() -> None:
    for per_hour in 1, 3, 7, 20, 1000:
        assert spend_all(HighPriorityBudget(per_hour), "a", 12345.678) == per_hour


def test_the_budget_comes_back_evenly() -> None:
    budget = HighPriorityBudget(20)
    spend_all(budget, "a", 0.0)

    assert not budget.allows("a", 80.0)
    assert spend_all(budget, "a", 181.0) == 1
    assert spend_all(budget, "a", 181.0 + 3 * 180.0) == 3
    assert spend_all(budget, "a", 10_000.0) == 20


def test_phones_have_budgets_of_their_own() -> None:
    budget = HighPriorityBudget(2)
    spend_all(budget, "a", 0.0)

    assert spend_all(budget, "b", 0.0) == 2


def test_asking_spends_nothing() -> None:
    budget = HighPriorityBudget(1)

    assert all(budget.allows("a", 0.0) for _ in range(10))
    assert len(budget) == 0


def test_phones_with_a_whole_budget_are_forgotten() -> None:
    budget = HighPriorityBudget(20)
    for number in range(1000):
        budget.spend(f"token-{number}", 0.0)
    assert len(budget) == 1000

    budget.spend("another", SWEEP)

    assert len(budget) == 1


@given(st.integers(1, 100), st.lists(st.floats(0.0, HOUR), max_size=300))
def test_no_hour_has_more_than_twice_the_budget_and_quiet_restores_it(per_hour: int, moments: list[float]) -> None:
    budget = HighPriorityBudget(per_hour)
    count = 0
    for moment in sorted(moments):
        if budget.allows("a", moment):
            budget.spend("a", moment)
            count += 1

    assert count <= 2 * per_hour
    assert spend_all(budget, "a", 3 * HOUR) == per_hour
