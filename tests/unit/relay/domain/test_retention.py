from datetime import timedelta

import pytest

from relay.domain.retention import UNPROVED, Retention


@pytest.mark.parametrize(
    ("days", "proved", "kept"),
    [
        (30, True, timedelta(days=30)),
        (30, False, UNPROVED),
        (0.5, True, timedelta(days=0.5)),
        (0.5, False, timedelta(days=0.5)),
    ],
)
def test_strangers_leave_a_tombstone_for_a_day_at_most(days: float, proved: bool, kept: timedelta) -> None:
    assert Retention(timedelta(days=days)).of_tombstone(proved=proved) == kept


@pytest.mark.parametrize(
    ("retention", "seconds"),
    [
        (Retention(), 600.0),
        (Retention(token_gone=timedelta(seconds=90)), 45.0),
        (Retention(token_gone=None, refused=None, untouched=timedelta(seconds=10)), 5.0),
        (Retention(timedelta(seconds=1)), 1.0),
    ],
)
def test_what_is_kept_is_looked_at_in_good_time(retention: Retention, seconds: float) -> None:
    assert retention.period == seconds
