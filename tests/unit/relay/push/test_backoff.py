from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.push.backoff import at_least, recheck, retry


class Fixed(Random):
    """Return always the same place in a range, 0.0 to 1.0."""

    def __init__(self, place: float) -> None:
        super().__init__()
        self._place = place

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self._place


MIDDLE = Fixed(0.5)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (10_000, 300)])
def test_the_wait_doubles_up_to_five_minutes(failures: int, seconds: float) -> None:
    assert retry(failures, MIDDLE) == seconds


@given(st.integers(1, 100), st.floats(0, 1))
def test_waits_spread_by_thirty_percent(failures: int, place: float) -> None:
    middle = retry(failures, MIDDLE)

    assert 0.7 * middle - 1e-9 <= retry(failures, Fixed(place)) <= 1.3 * middle + 1e-9


@given(st.floats(0, 3600), st.floats(0, 1))
def test_a_time_the_provider_named_is_never_cut_short(seconds: float, place: float) -> None:
    assert seconds <= at_least(seconds, Fixed(place)) <= seconds * 1.1 + 1.0 + 1e-9


def test_pushes_whose_provider_named_the_same_time_do_not_return_together() -> None:
    random = Random(1)

    assert len({at_least(60.0, random) for _ in range(100)}) == 100


def test_a_refused_token_is_tried_again_after_about_an_hour() -> None:
    assert recheck(1, Fixed(0.0)) == pytest.approx(2520)
    assert recheck(1, Fixed(1.0)) == pytest.approx(4680)


@pytest.mark.parametrize(("refusals", "hours"), [(1, 1), (2, 2), (5, 16), (6, 24), (99, 24)])
def test_a_refused_token_is_tried_less_often_each_time_and_at_last_once_a_day(refusals: int, hours: float) -> None:
    assert recheck(refusals, MIDDLE) == hours * 3600
