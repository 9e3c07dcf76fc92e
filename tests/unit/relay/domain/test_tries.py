"""Test how many credentials of one account may be shown in a lock-out window."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.domain.tries import (
    SOON,
    Budget,
    Load,
    Tries,
    TryLimits,
    Wait,
    account_key,
    servers_alike,
    share,
    share_directories,
)

NOW = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
LIMITS = TryLimits(timedelta(minutes=30), 100)
MINUTE = timedelta(minutes=1)


def test_strangers_have_two_tries_and_the_owner_one_more() -> None:
    used = [Tries(spent, NOW) for spent in range(4)]

    assert [tries.wait(LIMITS, NOW, owner=False) is None for tries in used] == [True, True, False, False]
    assert [tries.wait(LIMITS, NOW, owner=True) is None for tries in used] == [True, True, True, False]


def test_a_directory_forgets_when_no_try_came_for_a_window() -> None:
    used = Tries(3, NOW)

    assert used.wait(LIMITS, NOW + 29 * MINUTE, owner=True) == Wait(60.0)
    assert used.wait(LIMITS, NOW + 30 * MINUTE, owner=True) is None
    assert used.present(LIMITS, NOW + 30 * MINUTE) == Tries()


def test_a_try_counts_for_a_window_and_for_three_when_each_came_at_the_end_of_the_one_before() -> None:
    assert LIMITS.since(NOW) == NOW - 30 * MINUTE
    assert LIMITS.stale(NOW) == NOW - 90 * MINUTE


def test_a_try_of_a_wrong_clock_does_not_block_an_account_for_years() -> None:
    assert Tries(3, NOW + timedelta(days=900)).wait(LIMITS, NOW, owner=False) is None
    assert Tries(3, NOW + MINUTE).wait(LIMITS, NOW, owner=False) == Wait(1800.0)


def test_candidates_that_wait_count_for_strangers_and_not_for_the_owner() -> None:
    load = Load(Tries(1, NOW), waiting=1)

    assert load.wait(LIMITS, NOW, owner=False) == 1800.0
    assert Load(waiting=2).wait(LIMITS, NOW, owner=False) == SOON
    assert load.wait(LIMITS, NOW, owner=True) is None
    assert Load(Tries(1, NOW)).wait(LIMITS, NOW, owner=False) is None


def test_a_quarter_of_the_budget_is_kept_for_owners() -> None:
    assert share(LIMITS) == 75
    assert Budget(74, 0, NOW).wait(LIMITS, NOW, owner=False) is None
    assert Budget(75, 0, NOW - MINUTE).wait(LIMITS, NOW, owner=False) == Wait(29 * 60.0, of_server=True)
    assert Budget(75, 24, NOW).wait(LIMITS, NOW, owner=True) is None
    assert Budget(75, 25, NOW).wait(LIMITS, NOW, owner=True) == Wait(1800.0, of_server=True)
    assert share(TryLimits(refusals=4)) == 3


def test_servers_of_one_directory_bear_what_the_strictest_of_them_does() -> None:
    short, long, other = TryLimits(15 * MINUTE, 50, "company"), TryLimits(60 * MINUTE, 100, "company"), TryLimits()

    strictest = TryLimits(60 * MINUTE, 50, "company")
    assert share_directories({"a": short, "b": long, "c": other}) == {"a": strictest, "b": strictest, "c": other}
    assert [limits.place("a") for limits in (short, other)] == ["company", "a"]


SPELLINGS = [
    f"{prefix}{name}{suffix}"
    for prefix, name, suffix in product(
        ("", "EXAMPLE\\", "example/", "example.com\\", "\u200b"),
        ("ann", "Ann", "ANN", "\u00e1nn", "a\u0301nn", "\uff41nn", "ann\u00ad", "an\u200dn"),
        ("", "@example.com", "@EXAMPLE.COM", "@mail.example.org", "+phone@example.com", " "),
    )
]


def test_every_spelling_of_a_user_is_one_account() -> None:
    assert {user: account_key(user) for user in SPELLINGS} == dict.fromkeys(SPELLINGS, "ann")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\u0141ukasz", "lukasz"),
        ("s\u00f8ren", "soren"),
        ("stra\u00dfe", "STRASSE"),
        ("\u00c6gir", "aegir"),
        ("\u30a2\u30f3", "\u3042\u3093"),
        ("Ann Lee/Example", "ann lee"),
        ("ann\u3164", "ann"),
    ],
)
def test_letters_that_windows_compares_as_one_are_one(left: str, right: str) -> None:
    assert account_key(left) == account_key(right)


@pytest.mark.parametrize("user", ["ben", "an", "annn", "a nn", "ann.lee"])
def test_other_users_are_other_accounts(user: str) -> None:
    assert account_key(user) != "ann"


@pytest.mark.parametrize("user", ["@example.com", "+49123456", "EXAMPLE\\", "/", "\\"])
def test_odd_users_have_an_account_too(user: str) -> None:
    assert account_key(user)


@given(st.text(min_size=1, max_size=40))
def test_the_key_of_a_key_is_itself_or_shorter(user: str) -> None:
    key = account_key(user)
    assert len(account_key(key)) <= len(key)


def test_servers_are_alike_that_have_one_directory() -> None:
    limits = {"a": TryLimits(directory="company"), "b": TryLimits(directory="company"), "c": TryLimits()}

    assert servers_alike(limits, "a") == {"a", "b"}
    assert servers_alike(limits, "c") == {"c"}
    assert servers_alike(limits, "removed") == {"removed"}
