from itertools import pairwise
from random import Random

import pytest

from eas_watcher.errors import AccessDenied, EasError, ServerBusy, Unauthorized, Unreachable
from eas_watcher.server import breaker
from eas_watcher.server.breaker import CEILING, DISTINCT, WINDOW, Closed, Gate, Open, Ramping, Tally
from tests.unit.eas_watcher.running import Middle

AWAY = Unreachable("no connection: Connection refused", reached=False)
LOST = Unreachable("connection lost", 3.0)
BUSY = ServerBusy("busy", shared=True)


def fail(state: Gate, *who: str, error: EasError = BUSY, now: float = 0.0) -> Gate:
    for name in who:
        state = breaker.failed(state, name, error, now, Middle())
    return state


@pytest.mark.parametrize(
    ("error", "concerns"),
    [
        (AWAY, True),
        (LOST, True),
        (Unreachable("connection lost", 0.1, stale=True), False),
        (BUSY, True),
        (ServerBusy("throttled", 60.0, reached=False), False),
        (Unauthorized("no"), False),
        (AccessDenied("no", "http-403"), False),
    ],
)
def test_knows_which_failures_concern_the_server(error: EasError, *, concerns: bool) -> None:
    assert breaker.concerns_server(error) is concerns


def test_a_connection_that_nobody_takes_closes_at_once() -> None:
    assert fail(Open(), "ann", error=AWAY, now=100.0) == Closed(str(AWAY), 105.0, 1)


@pytest.mark.parametrize("error", [BUSY, LOST])
def test_a_mailbox_that_fails_again_and_again_closes_nothing(error: EasError) -> None:
    state = fail(Open(), *["ann"] * 50, error=error)

    assert isinstance(state, Open)


def test_several_mailboxes_that_fail_close_it() -> None:
    names = [f"m{number}" for number in range(DISTINCT)]

    assert isinstance(fail(Open(), *names[:-1]), Open)
    assert isinstance(fail(Open(), *names), Closed)


def test_failures_long_ago_do_not_count() -> None:
    state = fail(Open(), "ann", "ben")

    assert isinstance(fail(state, "cleo", now=WINDOW + 1), Open)
    assert isinstance(fail(state, "cleo", now=WINDOW - 1), Closed)


def test_as_long_as_more_are_answered_than_fail_it_stays_open() -> None:
    state: Gate = fail(Open(), "ann")
    for _ in range(4):
        state = breaker.answered(state)

    state = fail(state, "ben", "cleo", "dora")
    assert isinstance(state, Open)
    assert isinstance(fail(state, "emil"), Closed)


def test_answers_without_any_trouble_change_nothing() -> None:
    state = Open()

    assert breaker.answered(state) is state


def test_closes_for_the_longest_time_that_the_server_told() -> None:
    state = fail(Open(), "ann", error=ServerBusy("busy", 100.0, shared=True))
    state = fail(state, "ben", error=ServerBusy("busy", 600.0, shared=True))
    state = fail(state, "cleo")

    assert state == Closed("busy", 630.0, 1, told=630.0)


def test_lets_one_probe_through_when_the_time_has_come() -> None:
    closed = Closed("x", 10.0, 1)

    assert breaker.admit(closed, 9.9, 20.0, Middle()) == (closed, False)
    probing, admitted = breaker.admit(closed, 10.0, 20.0, Middle())
    assert (probing, admitted) == (Closed("x", 10.0, 1, probing=True), True)
    assert breaker.admit(probing, 99.0, 20.0, Middle()) == (probing, False)
    assert (breaker.due(closed), breaker.due(probing)) == (10.0, None)


def test_probes_less_and_less_often_but_at_least_once_a_minute() -> None:
    state: Gate = Closed("x", 0.0, 1, probing=True)
    waits = []
    for _ in range(6):
        assert isinstance(state, Closed)
        state = breaker.probe_failed(state, AWAY, 0.0, Middle())
        assert isinstance(state, Closed)
        waits.append(state.until)

    assert waits == [10.0, 20.0, 40.0, CEILING, CEILING, CEILING]


def test_a_probe_is_told_to_wait_too() -> None:
    state = breaker.probe_failed(Closed("x", 0.0, 1, probing=True), ServerBusy("y", 200.0, shared=True), 0.0, Middle())

    assert state == Closed("y", 210.0, 2, told=210.0)


def test_a_longer_wait_told_while_it_is_closed_holds_it_shut() -> None:
    state = fail(Closed("x", 5.0, 1), "ann", error=ServerBusy("busy", 600.0, shared=True), now=1.0)
    assert state == Closed("x", 631.0, 1, told=631.0)

    assert fail(state, "ben", error=ServerBusy("busy", 60.0, shared=True), now=2.0) is state


def test_whatever_comes_of_a_probe_shortens_no_wait_that_was_told_meanwhile() -> None:
    busy = ServerBusy("busy", 600.0, shared=True)
    state = fail(Closed("x", 0.0, 1, probing=True), "ann", error=busy, now=1.0)
    assert isinstance(state, Closed)

    assert breaker.due(breaker.probe_lost(state, 2.0)) == 631.0
    assert breaker.due(breaker.probe_answered(state, 2.0)) == 631.0
    assert breaker.probe_answered(state, 631.0) == Ramping(631.0, 1)
    shorter = ServerBusy("y", 10.0, shared=True)
    for error in (AWAY, shorter):
        assert (breaker.due(breaker.probe_failed(state, error, 1.0, Middle())) or 0.0) >= 631.0


def test_a_probe_given_up_makes_room_for_the_next_at_once() -> None:
    state = breaker.probe_lost(Closed("x", 10.0, 1, probing=True), 12.0)

    assert breaker.admit(state, 12.0, 20.0, Middle())[1]


def test_what_others_learn_while_it_is_closed_changes_nothing() -> None:
    closed = Closed("x", 10.0, 3)

    assert fail(closed, "ann", error=AWAY) is closed
    assert breaker.answered(closed) is closed


def test_returns_at_the_rate_and_not_faster() -> None:
    state: Gate = breaker.probe_answered(Closed("x", 0.0, 1, probing=True), 50.0)
    random, moments, now = Random(1), [], 50.0
    while now < 60.0:
        state, admitted = breaker.admit(state, now, 20.0, random)
        if admitted:
            moments.append(now)
        now = breaker.due(state) or 0.0

    assert 190 <= len(moments) <= 211
    assert len({round(after - before, 4) for before, after in pairwise(moments)}) > 100


def test_a_loop_that_was_busy_lets_no_crowd_through() -> None:
    state: Gate = Ramping(0.0)
    admitted = 0
    while True:
        state, passes = breaker.admit(state, 30.0, 20.0, Middle())
        if not passes:
            break
        admitted += 1

    assert admitted <= 3


def test_a_server_that_fails_again_while_they_return_is_asked_less_often() -> None:
    assert fail(Ramping(0.0, tries=2), "ann", error=AWAY) == Closed(str(AWAY), 20.0, 3)


def test_is_open_when_all_have_returned() -> None:
    tally = Tally(1.0, frozenset({"ann"}))

    assert breaker.emptied(Ramping(9.0, 2, tally), 0.0) == Open(tally)
    assert breaker.emptied(Closed("x", 0.0, 1), 9.0) == Closed("x", 0.0, 1)


def test_a_start_is_complete_when_the_next_could_have_passed() -> None:
    tally = Tally(1.0, frozenset({"ann"}))
    state = breaker.arrived(Open(tally), 9.0)

    assert state == Ramping(9.0, tally=tally, starting=True)
    assert breaker.emptied(state, 8.9) == state
    assert breaker.emptied(state, 9.0) == Open(tally)


@pytest.mark.parametrize("state", [Closed("", 5.0, 1), Ramping(5.0)])
def test_who_comes_first_while_others_wait_waits_too(state: Gate) -> None:
    assert breaker.arrived(state, 1.0) == state
    assert breaker.admit(Open(), 0.0, 20.0, Middle()) == (Open(), True)
    assert breaker.due(Open()) is None
