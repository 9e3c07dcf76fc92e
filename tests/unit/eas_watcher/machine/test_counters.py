from collections.abc import Callable
from dataclasses import asdict
from inspect import getdoc
from typing import Any

import pytest

from eas_watcher.machine import counters
from eas_watcher.machine.counters import CONFIRM_AFTER, HOUR, MOST_REFUSALS, PROVISIONS, UNLISTED, Counters, HourlyCount

Sign = Callable[[Counters], Counters]

BUSY = Counters(
    refusals=2,
    doubt_left=300.0,
    failures=5,
    remedies=3,
    requests=40,
    fast_pings=4,
    silent_for=8000.0,
    polled_for=3600.0,
    unlisted_for=7200.0,
    redirects=2,
    provisions=HourlyCount(3, 100.0),
    restarts=HourlyCount(2, 200.0),
)
"""The counters of a watch, none of them at its start."""
WELL = {"failures": 0, "remedies": 0}
MINUTE_LATER = {"unlisted_for": 7260.0, "provisions": HourlyCount(3, 160.0), "restarts": HourlyCount(2, 260.0)}
SYNC = {"redirects": 0, "refusals": 0, "doubt_left": 0.0}
SIGNS: list[tuple[str, Sign, dict[str, Any]]] = [
    ("requested", lambda c: c.requested(), {"requests": 41}),
    ("waited", lambda c: c.waited(60.0), MINUTE_LATER | {"requests": 0}),
    (
        "polled",
        lambda c: c.polled(60.0),
        MINUTE_LATER | {"requests": 0, "polled_for": 3660.0, "silent_for": 8060.0, "fast_pings": 0, "failures": 0},
    ),
    ("hierarchy_polled", lambda c: c.hierarchy_polled(), {"polled_for": 0.0}),
    ("listed", lambda c: c.listed(), {"unlisted_for": 0.0}),
    ("left_out", lambda c: c.left_out(600.0), {"unlisted_for": UNLISTED - 600.0}),
    ("ping_answered", lambda c: c.ping_answered(60.0, at_once=False), MINUTE_LATER | {"requests": 0}),
    ("ping_answered at once", lambda c: c.ping_answered(60.0, at_once=True), MINUTE_LATER),
    (
        "ping_expired after a while",
        lambda c: c.ping_expired(60.0, fast=False),
        WELL | {"silent_for": 8060.0, "fast_pings": 0},
    ),
    ("ping_expired too fast", lambda c: c.ping_expired(60.0, fast=True), {"fast_pings": 5}),
    ("ping_changed after a while", lambda c: c.ping_changed(fast=False), WELL | {"fast_pings": 0}),
    ("ping_changed too fast", lambda c: c.ping_changed(fast=True), {"fast_pings": 5}),
    ("ping_cut after a while", lambda c: c.ping_cut(60.0, held=True), MINUTE_LATER | WELL),
    ("ping_cut soon", lambda c: c.ping_cut(60.0, held=False), MINUTE_LATER),
    ("ping_failed after a while", lambda c: c.ping_failed(), WELL),
    ("sync_answered", lambda c: c.sync_answered(), SYNC),
    ("sync_answered, news", lambda c: c.sync_answered(news=True), SYNC | WELL | {"silent_for": 0.0, "fast_pings": 0}),
    ("sync_answered, activity", lambda c: c.sync_answered(activity=True), SYNC | {"silent_for": 0.0, "fast_pings": 0}),
    ("sync_answered, inferred", lambda c: c.sync_answered(inferred=True), SYNC | {"silent_for": 0.0}),
    ("failed", lambda c: c.failed(), {"failures": 6}),
    ("remedied", lambda c: c.remedied(), {"remedies": 4}),
    ("restarted", lambda c: c.restarted(), {"restarts": HourlyCount(3)}),
    ("provisioned", lambda c: c.provisioned(), {"provisions": HourlyCount(4, 100.0)}),
    ("provisions_used_up", lambda c: c.provisions_used_up(), {"provisions": HourlyCount(PROVISIONS - 1, -HOUR)}),
    ("asked_early", lambda c: c.asked_early(60.0), {"doubt_left": 60.0}),
    ("refused", lambda c: c.asked_early(0.0).refused(), {"refusals": 3, "doubt_left": 0.0}),
    ("refused when asked early", lambda c: c.refused(), {"doubt_left": 0.0}),
    ("redirected", lambda c: c.redirected(), {"redirects": 3}),
    ("returned", lambda c: c.returned(), {"redirects": 0}),
]


@pytest.mark.parametrize(("sign", "changes"), [pytest.param(*row[1:], id=row[0]) for row in SIGNS])
def test_each_sign_changes_these_counters_and_no_others(sign: Sign, changes: dict[str, Any]) -> None:
    before, after = asdict(BUSY), asdict(sign(BUSY))
    expected = {name: asdict(value) if isinstance(value, HourlyCount) else value for name, value in changes.items()}

    assert {name: value for name, value in after.items() if value != before[name]} == expected


def test_every_sign_has_a_row_here_and_in_the_table_of_the_module() -> None:
    signs = {name for name, value in vars(Counters).items() if callable(value) and not name.startswith("_")}
    rows = {line.split()[0] for line in (getdoc(counters) or "").splitlines() if line.startswith("    ")}

    assert {name.split()[0].rstrip(",") for name, _, _ in SIGNS} == signs
    assert signs <= rows


def test_counts_for_an_hour_from_the_first_time_on() -> None:
    twice = HourlyCount().again().later(1000.0).again()

    assert twice == HourlyCount(2, 1000.0)
    assert twice.later(HOUR - 1001.0).times == 2
    assert twice.later(HOUR - 1000.0) == HourlyCount()


def test_a_prolonged_count_lasts_an_hour_from_the_last_time_on() -> None:
    twice = HourlyCount().prolonged().later(1000.0).prolonged()

    assert twice.later(HOUR - 1.0).times == 2
    assert twice.later(HOUR) == HourlyCount()


def test_time_before_the_first_time_does_not_count() -> None:
    assert HourlyCount().later(2 * HOUR).again() == HourlyCount(1, 0.0)


def test_with_the_policy_keys_used_up_one_more_is_left_after_the_hour_and_then_one_an_hour() -> None:
    counted = Counters().provisions_used_up().waited(HOUR)

    assert counted.provisions == HourlyCount(PROVISIONS - 1, 0.0)
    assert counted.provisioned().provisions.times == PROVISIONS
    assert counted.waited(HOUR).provisions == HourlyCount()


def test_a_refused_credential_is_confirmed_twice_with_long_waits() -> None:
    assert CONFIRM_AFTER == (60.0, 900.0)
    assert MOST_REFUSALS == 3


def test_policy_keys_that_were_asked_for_are_forgotten_an_hour_later() -> None:
    once = Counters().provisioned()

    assert once.waited(HOUR - 1.0).provisions.times == 1
    assert once.waited(HOUR).provisions == HourlyCount()
    assert Counters().waited(HOUR) == Counters(unlisted_for=HOUR)


def test_signs_that_clear_nothing_leave_the_counters_as_they_are() -> None:
    counters = Counters(requests=2)

    assert counters.ping_changed(fast=False) is counters
    assert counters.sync_answered(news=True) is counters
