from datetime import UTC, datetime, timedelta

import pytest

from relay.registration.errors import TooManyRefusals
from relay.registration.lockout import LIMIT, SOON, WINDOW, Lockout

ANN, BEN = ("head-office", "ann"), ("head-office", "ben")
BEGAN = datetime(2026, 11, 23, 8, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def refuse(lockout: Lockout, times: int, account: tuple[str, str] = ANN) -> None:
    for number in range(times):
        lockout.refused(lockout.begin(account, BEGAN + number * MINUTE), BEGAN + number * MINUTE)


def test_some_refusals_are_allowed_and_then_the_oldest_must_leave_the_window() -> None:
    lockout = Lockout()
    refuse(lockout, LIMIT)

    with pytest.raises(TooManyRefusals) as refusal:
        lockout.begin(ANN, BEGAN + 5 * MINUTE)

    assert refusal.value.retry_after == 10 * 60
    lockout.begin(ANN, BEGAN + WINDOW)
    with pytest.raises(TooManyRefusals):
        lockout.begin(ANN, BEGAN + WINDOW)


def test_accounts_do_not_disturb_each_other() -> None:
    lockout = Lockout()
    refuse(lockout, LIMIT)

    lockout.begin(BEN, BEGAN)


def test_an_accepted_try_drops_the_refused_ones() -> None:
    lockout = Lockout()
    refuse(lockout, LIMIT - 1)
    lockout.accepted(lockout.begin(ANN, BEGAN + 2 * MINUTE))

    refuse(lockout, LIMIT)


def test_an_accepted_try_keeps_those_in_progress() -> None:
    lockout = Lockout()
    tries = [lockout.begin(ANN, BEGAN) for _ in range(LIMIT)]
    lockout.accepted(tries[0])
    lockout.begin(ANN, BEGAN)

    with pytest.raises(TooManyRefusals):
        lockout.begin(ANN, BEGAN)


def test_tries_in_progress_fill_the_limit_for_a_short_time() -> None:
    lockout = Lockout()
    for _ in range(LIMIT):
        lockout.begin(ANN, BEGAN)

    with pytest.raises(TooManyRefusals) as refusal:
        lockout.begin(ANN, BEGAN)

    assert refusal.value.retry_after == SOON


def test_undecided_tries_count_like_refused_ones() -> None:
    lockout = Lockout()
    for _ in range(LIMIT):
        lockout.undecided(lockout.begin(ANN, BEGAN))

    with pytest.raises(TooManyRefusals) as refusal:
        lockout.begin(ANN, BEGAN)
    assert refusal.value.retry_after == WINDOW.total_seconds()


def test_a_try_that_ended_stays_as_it_ended() -> None:
    lockout = Lockout()
    begun = lockout.begin(ANN, BEGAN)
    lockout.accepted(begun)
    lockout.undecided(begun)

    for _ in range(LIMIT):
        lockout.begin(ANN, BEGAN)


def test_memory_is_bounded_and_drops_the_address_that_asked_longest_ago() -> None:
    lockout = Lockout(capacity=2)
    refuse(lockout, LIMIT)
    refuse(lockout, LIMIT, BEN)
    lockout.begin(("head-office", "zoe"), BEGAN)

    lockout.begin(ANN, BEGAN + 3 * MINUTE)
    assert len(lockout._tries) == 2
