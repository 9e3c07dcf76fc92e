from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from relay.domain.model import Mark
from relay.domain.pacing import Pacing

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_by_default_everything_leaves_at_once() -> None:
    assert Pacing().wait(Mark.EMAIL, NOW, NOW) == 0.0
    assert Pacing().next_due(Mark.EMAIL, NOW) == NOW


@pytest.mark.parametrize(
    ("ago", "seconds"), [(0.0, 2.0), (0.5, 1.5), (2.0, 0.0), (60.0, 0.0), (-0.5, 2.0), (-2.0, 2.0), (-2.1, 0.0)]
)
def test_a_class_pushed_just_now_waits_for_its_interval(ago: float, seconds: float) -> None:
    assert Pacing(coalesce=2.0).wait(Mark.EMAIL, NOW - ago * SECOND, NOW) == pytest.approx(seconds)


def test_a_class_never_pushed_does_not_wait() -> None:
    assert Pacing(coalesce=2.0).wait(Mark.EMAIL, None, NOW) == 0.0


@pytest.mark.parametrize("mark", [Mark.ATTENTION, Mark.TEST])
def test_notices_never_wait(mark: Mark) -> None:
    pacing = Pacing(coalesce=2.0, jitter=60.0)

    assert pacing.wait(mark, NOW, NOW) == 0.0
    assert pacing.next_due(mark, NOW) == NOW


def test_jitter_spreads_evenly_over_its_window() -> None:
    pacing = Pacing(jitter=60.0, random=Random(1))
    waits = sorted(pacing.wait(Mark.EMAIL, None, NOW) for _ in range(1000))

    assert waits[0] >= 0.0
    assert waits[-1] <= 60.0
    assert [round(waits[n] / 15.0) for n in (250, 500, 750)] == [1, 2, 3]


def test_jitter_does_not_shorten_the_interval() -> None:
    pacing = Pacing(coalesce=2.0, jitter=1.0, random=Random(1))

    assert pacing.wait(Mark.EMAIL, NOW, NOW) == 2.0


def test_what_came_during_a_push_waits_for_the_interval_and_a_day_makes_it_old() -> None:
    pacing = Pacing(coalesce=2.0)

    assert pacing.next_due(Mark.EMAIL, NOW) == NOW + 2 * SECOND
    assert pacing.expires_before(NOW) == NOW - timedelta(days=1)
