"""Test when a dispatcher looks again: a table of what it knows after a look, and of what is settled meanwhile."""

from datetime import datetime, timedelta

import pytest

from relay.domain.model import Environment, Lane
from relay.domain.ports.outbox import Claims
from relay.push.schedule import LONGEST_SHORT, SHORTEST, SLOW_POLL, ClaimSchedule, rest
from tests.unit.relay.push.pushes import BEGAN

SECOND = timedelta(seconds=1)
NOW = BEGAN + 10 * SECOND
TIME = 100.0
"""`loop.time()` at NOW."""
NONE: frozenset[Lane] = frozenset()
BLOCKED = frozenset({Lane(Environment.SANDBOX)})


def schedule(
    due: datetime | None = None, asked_at: float = TIME, blocked: frozenset[Lane] = NONE, *, full: bool = False
) -> ClaimSchedule:
    """Make a schedule that has asked the store."""
    asked = ClaimSchedule()
    asked.answer(due, asked_at, blocked)
    asked.full = full
    return asked


# --- after a look


@pytest.mark.parametrize(
    ("due", "next_at", "seconds"),
    [
        (None, None, SLOW_POLL),
        (NOW + 3 * SECOND, None, 3.0),
        (NOW + 3600 * SECOND, None, SLOW_POLL),
        (None, TIME + 2.0, 2.0),
        (None, TIME - 2.0, 0.0),
        (None, TIME + 3600.0, SLOW_POLL),
        (NOW + 3 * SECOND, TIME + 2.0, 2.0),
        (NOW + SECOND, TIME + 2.0, 1.0),
        (NOW, None, 2 * SHORTEST),
        (NOW - 3600 * SECOND, None, 2 * SHORTEST),
    ],
)
def test_the_next_look_is_when_the_first_mark_falls_due_or_a_lane_may_be_tried(
    due: datetime | None, next_at: float | None, seconds: float
) -> None:
    assert schedule(due).next_look(NOW, TIME, 0, next_at) == seconds


def test_a_due_mark_that_cannot_be_claimed_is_looked_for_less_and_less_often() -> None:
    under_test = schedule(NOW)

    waits = [under_test.next_look(NOW, TIME, 0, None) for _ in range(20)]

    assert waits[:5] == [2 * SHORTEST, 4 * SHORTEST, 8 * SHORTEST, 16 * SHORTEST, LONGEST_SHORT]
    assert set(waits[5:]) == {LONGEST_SHORT}


@pytest.mark.parametrize("fruit", ["a claim", "a mark that is due later", "an unfinished look"])
def test_a_look_that_was_not_in_vain_ends_the_doubling(fruit: str) -> None:
    under_test = schedule(NOW)
    for _ in range(5):
        under_test.next_look(NOW, TIME, 0, None)

    match fruit:
        case "a claim":
            assert under_test.next_look(NOW, TIME, 1, None) == SHORTEST
        case "a mark that is due later":
            assert under_test.next_look(NOW - SECOND, TIME, 0, None) == 1.0
        case _:
            under_test.learn(Claims(unfinished=True))
            assert under_test.next_look(NOW, TIME, 0, None) == 0.0
            under_test.begin_look()

    assert under_test.next_look(NOW, TIME, 0, None) == 2 * SHORTEST


def test_a_look_that_put_off_too_many_marks_is_followed_by_another_at_once() -> None:
    under_test = schedule()
    under_test.begin_look()
    under_test.learn(Claims(delayed_until=NOW + SECOND, unfinished=True))
    under_test.learn(Claims())

    assert not under_test.must_ask(NOW, TIME + 2 * SLOW_POLL, BLOCKED)
    assert under_test.next_look(NOW, TIME, 0, None) == 0.0

    under_test.begin_look()
    under_test.learn(Claims())
    assert under_test.next_look(NOW, TIME, 0, None) == 1.0, "the first of the marks put off"


def test_marks_put_off_are_known_without_asking() -> None:
    under_test = schedule(NOW + 2 * SECOND)

    for delayed_until in (NOW + 3 * SECOND, NOW + SECOND, None):
        under_test.learn(Claims(delayed_until=delayed_until))

    assert not under_test.must_ask(NOW, TIME, NONE)
    assert under_test.next_look(NOW, TIME, 0, None) == 1.0


@pytest.mark.parametrize(
    ("due", "time", "blocked", "asks"),
    [
        (None, TIME, NONE, False),
        (NOW + SECOND, TIME, NONE, False),
        (NOW, TIME, NONE, True),
        (NOW - SECOND, TIME, NONE, True),
        (None, TIME + SLOW_POLL - 0.1, NONE, False),
        (None, TIME + SLOW_POLL, NONE, True),
        (None, TIME, BLOCKED, True),
    ],
)
def test_the_store_is_asked_when_the_answer_is_past_or_old_or_of_other_lanes(
    due: datetime | None, time: float, blocked: frozenset[Lane], *, asks: bool
) -> None:
    assert schedule(due).must_ask(NOW, time, blocked) is asks


def test_the_store_is_asked_at_the_start() -> None:
    assert ClaimSchedule().must_ask(NOW, TIME, NONE)


# --- after a settlement


@pytest.mark.parametrize(
    ("full", "retries", "wakes", "blocked", "limited", "looks"),
    [
        (False, [], [0], NONE, False, False),
        (True, [], [0], NONE, False, True),
        (False, [NOW], [0], NONE, False, True),
        (False, [], [0, 1], NONE, False, True),
        (False, [], [0], BLOCKED, False, True),
        (False, [], [0], NONE, True, True),
        (False, [], [], NONE, False, False),
    ],
)
def test_settled_pushes_are_followed_by_a_look_if_they_may_let_others_go(
    full: bool,
    retries: list[datetime],
    wakes: list[int],
    blocked: frozenset[Lane],
    limited: bool,
    looks: bool,
) -> None:
    assert schedule(full=full).settle(retries, wakes, blocked, limited=limited) is looks


def test_the_first_retry_is_known_without_asking() -> None:
    under_test = schedule()

    under_test.settle([NOW + 3 * SECOND, NOW + 2 * SECOND], [0], NONE, limited=False)

    assert not under_test.must_ask(NOW, TIME, NONE)
    assert under_test.next_look(NOW, TIME, 0, None) == 2.0


def test_a_wake_up_during_a_push_may_be_of_its_own_mark_so_the_store_is_asked() -> None:
    under_test = schedule()
    claimed_at = under_test.wakes
    under_test.wake()

    assert under_test.settle([], [claimed_at], NONE, limited=False)
    assert under_test.must_ask(NOW, TIME, NONE)
    under_test.answer(None, TIME, NONE)
    assert not under_test.settle([], [under_test.wakes], NONE, limited=False)


def test_a_dispatcher_rests_after_a_look_over_the_marks_of_blocked_lanes() -> None:
    assert (rest(0.1), rest(60.0)) == (0.4, LONGEST_SHORT)
