from random import Random

from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.backoff import CEILING, at_least, delay, least


def test_doubles_from_five_seconds() -> None:
    class Middle(Random):
        def uniform(self, a: float, b: float) -> float:
            return (a + b) / 2

    assert [delay(n, Middle()) for n in (1, 2, 3, 4)] == [5.0, 10.0, 20.0, 40.0]


@given(st.integers(min_value=1, max_value=10_000), st.integers())
def test_stays_within_its_spread_and_ceiling(failures: int, seed: int) -> None:
    assert 3.5 <= delay(failures, Random(seed)) <= CEILING * 1.3


@given(st.floats(min_value=1, max_value=3600), st.integers())
def test_a_time_the_server_named_is_never_cut_short(seconds: float, seed: int) -> None:
    assert seconds <= at_least(seconds, Random(seed)) <= seconds * 1.1


@given(st.integers(min_value=1, max_value=100), st.integers())
def test_knows_the_shortest_wait(failures: int, seed: int) -> None:
    assert least(failures) <= delay(failures, Random(seed))
    assert least(1) == 3.5
