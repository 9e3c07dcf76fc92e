from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.push.backoff import pause, recheck, retry, told, trial


class Fixed(Random):
    """Give always the same place in a range, 0.0 to 1.0."""

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
    assert seconds <= told(seconds, Fixed(place)) <= seconds * 1.1 + 1.0 + 1e-9


def test_rows_that_were_told_the_same_time_do_not_return_together() -> None:
    random = Random(1)

    assert len({told(60.0, random) for _ in range(100)}) == 100


def test_a_refused_token_is_looked_at_again_after_about_an_hour() -> None:
    assert recheck(1, Fixed(0.0)) == pytest.approx(2520)
    assert recheck(1, Fixed(1.0)) == pytest.approx(4680)


@pytest.mark.parametrize(("refusals", "hours"), [(1, 1), (2, 2), (5, 16), (6, 24), (99, 24)])
def test_and_more_rarely_each_time_up_to_once_a_day(refusals: int, hours: float) -> None:
    assert recheck(refusals, MIDDLE) == hours * 3600


@pytest.mark.parametrize(("failures", "seconds"), [(1, 2), (2, 4), (5, 32), (6, 60), (99, 60)])
def test_a_provider_that_is_away_is_tried_once_a_minute_in_the_end(failures: int, seconds: float) -> None:
    assert trial(failures, MIDDLE) == seconds


@pytest.mark.parametrize(("faults", "seconds"), [(1, 30), (2, 60), (4, 240), (5, 300), (99, 300)])
def test_a_channel_rests_longer_with_each_fault(faults: int, seconds: float) -> None:
    assert pause(faults) == seconds
